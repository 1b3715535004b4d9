"""Packing: as much of the chosen records as a budget of characters and tokens allows. Source: behaviour §8.2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flowdeck.errors import WorkspaceConfigurationError, WorkspaceError
from flowdeck.workspace.text import estimate_tokens

__all__ = ["Budget", "pack"]

DEFAULT_CHARS: Final = 12_000
CHARS_PER_TOKEN: Final = 4
_SHORTEST: Final = 200
_CUT: Final = "\n[truncated]"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a context may take."""

    chars: int
    tokens: int | None
    """About; a CJK character counts as one, four others as one."""
    items: int | None

    @classmethod
    def of(cls, budget: Mapping[str, Any] | None) -> Budget:
        """Read ``{"chars": …}``, ``{"tokens": …}`` (four characters each) and ``{"items": …}``.

        Raises:
            WorkspaceConfigurationError: another key, or no positive integer.
        """
        if budget is not None and not isinstance(budget, Mapping):
            raise WorkspaceConfigurationError(
                f"budget={budget!r:.200}: expected a mapping such as {{'tokens': 12_000}}"
            )

        given = dict(budget or {})
        for key, value in given.items():
            if key not in ("chars", "tokens", "items"):
                raise WorkspaceConfigurationError(f"budget has {key!r}; it takes chars, tokens and items")

            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise WorkspaceConfigurationError(f"budget[{key!r}] must be a positive integer, not {value!r}")

        tokens = given.get("tokens")
        chars = given.get("chars") or (tokens * CHARS_PER_TOKEN if tokens else DEFAULT_CHARS)
        return cls(chars, tokens, given.get("items"))


def pack(
    records: Sequence[Mapping[str, Any]],
    budget: Budget,
    excerpt: Callable[[Mapping[str, Any], int], tuple[str, bool]],
    *,
    excerpt_chars: int,
    links: Mapping[str, list[dict[str, Any]]] | None = None,
) -> dict[str, Any]:
    """Return ``items``, ``omitted`` and the counts of the diagnostics.

    Args:
        records: the best first. One that does not fit is left out, the next may still fit; the first always enters.
        excerpt: returns the first characters of a record's content, and whether there are more.
        excerpt_chars: of one record, at most.
        links: the links of records by id; items then tell theirs.
    """
    items: list[dict[str, Any]] = []
    used_chars = used_tokens = left_out = unreadable = 0
    for record in records:
        room = budget.chars - used_chars
        full = room < 1 or (budget.items is not None and len(items) >= budget.items)
        limit = min(excerpt_chars, max(_SHORTEST, room))
        # Never less than a quarter of its bytes are characters, so what cannot fit need not be read.
        if items and (full or min(limit, record["size"] // 4) > room):
            left_out += 1
            continue

        try:
            text, cut = excerpt(record, limit)
        except (WorkspaceError, OSError):
            unreadable += 1
            continue

        if cut:
            text += _CUT

        tokens = estimate_tokens(text)
        if items and (len(text) > room or (budget.tokens is not None and used_tokens + tokens > budget.tokens)):
            left_out += 1
            continue

        used_chars += len(text)
        used_tokens += tokens
        item = {
            "ref": record,
            "kind": record["kind"],
            "summary": record["summary"],
            "content": text,
            "use": "evidence",
        }
        if links is not None:
            item["links"] = links.get(record["id"], [])

        items.append(item)

    return {
        "items": items,
        "omitted": [
            {"reason": reason, "count": n} for reason, n in (("budget", left_out), ("unreadable", unreadable)) if n
        ],
        "used_chars": used_chars,
        "used_tokens": used_tokens,
    }
