"""Patterns over events, and the index that makes them cheap.

A pattern is ``kind-glob [place-glob]``; a step adds conditions on fields, a name to capture the event under, and how
often it must come. Literal kinds cost a dictionary look-up; globs are compiled once. Source: the evals reference, §3.6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Any, Final, NamedTuple

from flowdeck_evals.comparing import comparison
from flowdeck_evals.happenings import Happening

__all__ = ["ANY", "Captured", "Pattern", "Step", "Track", "compile_pattern"]

_WILD: Final = re.compile(r"[*?\[]")
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_]\w*)\.([\w.]+)\}")
ANY: Final = (0, 1_000_000_000)
"""``times: *``."""

Captured = dict[str, Happening]


class Track:
    """The events of a round, indexed by kind and type at first use."""

    def __init__(self, events: Sequence[Happening]) -> None:
        self.events = events
        self._by_name: dict[str, list[int]] | None = None
        self._found: dict[str, list[int]] = {}

    def matching(self, pattern: Pattern) -> list[int]:
        """Return the indexes of the events that match, ascending."""
        found = self._found.get(pattern.text)
        if found is None:
            found = self._found[pattern.text] = self._search(pattern)

        return found

    def _search(self, pattern: Pattern) -> list[int]:
        if self._by_name is None:
            self._by_name = {}
            for index, event in enumerate(self.events):
                self._by_name.setdefault(event.kind, []).append(index)
                if event.type != event.kind:
                    self._by_name.setdefault(event.type, []).append(index)

        if pattern.kind_is is not None:
            candidates = self._by_name.get(pattern.kind_is, [])
        else:
            candidates = sorted({i for name, found in self._by_name.items() if pattern.kind(name) for i in found})

        if pattern.place is None:
            return list(candidates)

        events, place = self.events, pattern.place
        return [i for i in candidates if place(events[i].subject) or place(events[i].scope)]


class Pattern(NamedTuple):
    """``kind-glob [place-glob]``; the place is the event's subject or its scope."""

    text: str
    kind_is: str | None
    """The kind, when it has no wildcard."""
    kind: Callable[[str], bool]
    place: Callable[[str], bool] | None

    def matches(self, event: Happening) -> bool:
        return (self.kind(event.kind) or self.kind(event.type)) and (
            self.place is None or self.place(event.subject) or self.place(event.scope)
        )


@lru_cache(maxsize=4096)
def compile_pattern(text: str) -> Pattern:
    """Return the pattern of a text such as ``call.done tool.ledger.*``."""
    kind, _, place = text.strip().partition(" ")
    place = place.strip()
    wild = _WILD.search(kind) is not None
    return Pattern(text, None if wild else kind, _glob(kind), None if place in ("", "*") else _glob(place))


def _glob(text: str) -> Callable[[str], bool]:
    if _WILD.search(text) is None:
        return text.__eq__

    # In a scope brackets are indexes, not sets of characters.
    found = re.compile(translate(text.replace("[", "[[]"))).match
    return lambda value: found(value) is not None


class Step:
    """A pattern with conditions on fields, a name to capture under, and how often it must come."""

    __slots__ = ("_open", "_tests", "name", "pattern", "times")

    def __init__(self, given: Any) -> None:
        body: Mapping[str, Any] = {"event": given} if isinstance(given, str) else given
        text, _, inline = body["event"].partition(" as ")
        self.pattern = compile_pattern(text)
        self.name: str | None = body.get("as") or inline.strip() or None
        self.times = _times(body["times"]) if "times" in body else None
        self._tests: list[tuple[str, Callable[[Any], bool]]] = []
        self._open: list[tuple[str, Any]] = []
        for path, wanted in (body.get("where") or {}).items():
            if _REFERENCE.search(str(wanted)):
                self._open.append((path, wanted))
            else:
                self._tests.append((path, comparison(wanted)))

    def all(self, track: Track, captured: Captured | None = None) -> list[int]:
        """Return the indexes of the events that fit."""
        found = track.matching(self.pattern)
        return found if not (self._tests or self._open) else [i for i in found if self.fits(track.events[i], captured)]

    def fits(self, event: Happening, captured: Captured | None = None) -> bool:
        """Whether the fields of an event that matches the pattern are as wanted."""
        return all(test(event.field(path)) for path, test in self._tests) and all(
            comparison(_resolved(wanted, captured or {}))(event.field(path)) for path, wanted in self._open
        )

    @property
    def fields(self) -> list[str]:
        """The paths it looks at."""
        return [path for path, _ in self._tests] + [path for path, _ in self._open]

    def __str__(self) -> str:
        fields = self.fields
        return self.pattern.text + (f" where {', '.join(fields)}" if fields else "")


def _times(given: Any) -> tuple[int, int]:
    if isinstance(given, int):
        return given, given

    if given == "*":
        return ANY

    low, _, high = given.partition("..")
    return int(low), int(high or low)


def _resolved(wanted: Any, captured: Captured) -> Any:
    """Put captured values in place of ``${name.field}``; a whole reference keeps the value's type."""
    if isinstance(wanted, Mapping):
        return {key: _resolved(part, captured) for key, part in wanted.items()}

    if isinstance(wanted, list):
        return [_resolved(part, captured) for part in wanted]

    if not isinstance(wanted, str):
        return wanted

    def value(found: re.Match[str]) -> Any:
        event = captured.get(found[1])
        return None if event is None else event.field(found[2])

    whole = _REFERENCE.fullmatch(wanted)
    return value(whole) if whole else _REFERENCE.sub(lambda found: str(value(found)), wanted)
