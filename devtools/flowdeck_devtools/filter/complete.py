"""What could stand where a filter is being typed: fields, then values seen in the data, the most frequent first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flowdeck_devtools.core.wire import decode
from flowdeck_devtools.filter.fields import FIELDS, NUMERIC, FilterError, field_of
from flowdeck_devtools.filter.predicate import event_field

__all__ = ["LINES_LOOKED_AT", "Completion", "complete", "counted_fields", "counted_lines"]

LINES_LOOKED_AT = 10_000
SAMPLE_EVERY = 4
MOST = 8
_STOPS = ' \t("'
_STARTS = {"level": ("debug", "info", "warning", "error", "critical"), "last": ("15m", "1h", "24h"), "ts": ("-15m",)}

Counts = Callable[[str], "Counter[str]"]
"""How often each value of a field was seen."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A text that could stand instead of what was typed from ``start`` on, and a word about it."""

    text: str
    note: str
    start: int


def complete(text: str, cursor: int, counts: Counts) -> list[Completion]:
    """The completions at a column: of a field's name, or of a value after ``field:``."""
    start = cursor
    while start > 0 and text[start - 1] not in _STOPS:
        start -= 1
    typed = text[start:cursor]
    if typed.startswith("-") and len(typed) > 1:
        start, typed = start + 1, typed[1:]
    name, colon, value = typed.partition(":")
    if not colon:
        low = typed.lower()
        found = [Completion(f"{field}:", meaning, start) for field, meaning in FIELDS.items() if field.startswith(low)]
        return found[:MOST] if typed else []
    try:
        field = field_of(name, 0)
    except FilterError:
        return []
    begun = value.rpartition(",")[2]
    return _values(field, begun, cursor - len(begun), counts)


def _values(field: str, begun: str, start: int, counts: Counts) -> list[Completion]:
    fixed = _STARTS.get(field)
    if fixed is not None:
        return [Completion(one, "", start) for one in fixed if one.startswith(begun.lower())]
    if field in NUMERIC:
        return []
    low = begun.lower().strip('"*')
    seen = [(value, number) for value, number in counts(field).most_common(500) if low in value.lower()]
    # What begins with it is what is meant; what only holds it comes after.
    seen.sort(key=lambda entry: not entry[0].lower().startswith(low))
    return [Completion(_quoted(value), f"{number:,}×", start) for value, number in seen[:MOST]]


def _quoted(value: str) -> str:
    return f'"{value}"' if any(char.isspace() or char in ',()"' for char in value) and '"' not in value else value


def counted_lines(lines: Sequence[bytes]) -> Counts:
    """Values seen in the newest lines, of many every fourth: 10 ms for the first field, 2 for each further one."""
    events: list[Any] = []
    known: dict[str, Counter[str]] = {}

    def counts(field: str) -> Counter[str]:
        if field not in known:
            if not events:
                step = SAMPLE_EVERY if len(lines) >= LINES_LOOKED_AT else 1
                events.extend(decode(line) for line in lines[-LINES_LOOKED_AT::step])
            known[field] = _count(event_field(event, field) for event in events)
        return known[field]

    return counts


def counted_fields(rows: Iterable[Any]) -> Counts:
    """Values seen in the fields of runs."""
    held = list(rows)

    def counts(field: str) -> Counter[str]:
        return _count(row.get(field) for row in held)

    return counts


def _count(values: Iterable[Any]) -> Counter[str]:
    found: Counter[str] = Counter()
    for value in values:
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str) and one and len(one) <= 120 and one.isprintable():
                found[one] += 1
    return found
