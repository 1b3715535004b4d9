"""Who answers when no person is there: a rule the operator chose beforehand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .metadata import AuditError

__all__ = ["Policy"]


@dataclass(frozen=True)
class Policy:
    """Approve everything, nothing, or the distributions on a list."""

    name: str
    approved: frozenset[str] | None
    """Normalised names, also with ``==version``; ``None`` approves all."""

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read ``all``, ``none``, or the path of a list: a JSON array of names, or one name a line.

        Raises:
            AuditError: the file is missing, unreadable, or holds something else.
        """
        if text in ("all", "none"):
            return cls(text, None if text == "all" else frozenset())

        path = Path(text)
        try:
            content = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise AuditError(f"--approve {text}: give all, none, or a file that lists the approved names") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise AuditError(f"--approve {text} cannot be read: {reason}") from None

        return cls(path.name, frozenset(map(_normal, _names(content, text))))

    def answer(self, payload: Mapping[str, Any]) -> dict[str, str]:
        """Return the answer to one licence review."""
        name, version = str(payload.get("name")), str(payload.get("version"))
        listed = self.approved is None or not self.approved.isdisjoint({_normal(name), _normal(f"{name}=={version}")})
        return {"decision": "approve" if listed else "reject", "note": f"by policy {self.name}"}


def _names(content: str, source: str) -> list[str]:
    if content.lstrip().startswith("["):
        try:
            names = json.loads(content)
        except ValueError as error:
            raise AuditError(f"--approve {source}: it is no valid JSON ({error})") from None

        if not all(isinstance(name, str) for name in names):
            raise AuditError(f"--approve {source}: the JSON array must hold names only")

        return list(names)

    lines = (line.split("#")[0].strip() for line in content.splitlines())
    return [line for line in lines if line]


def _normal(name: str) -> str:
    bare, equals, version = name.partition("==")
    return re.sub(r"[-_.]+", "-", bare.strip()).lower() + equals + version.strip()
