"""Rows as a table, as CSV or as JSON, written while they come and never held all at once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain, islice
from typing import Any

from flowdeck_devtools.cli._output import out
from flowdeck_devtools.core.text import cells, clean, fit

__all__ = ["json_value", "text_value", "write_csv", "write_json", "write_table"]

_SAMPLE = 200
"""Rows looked at to choose the column widths; later rows are cut to them."""
_MIN_COLUMN = 4
_MAX_COLUMN = 60
_GAP = "  "
_CSV_SPECIAL = re.compile(r'[",\r\n]|^\s|\s$')


def write_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    width: int | None = None,
    limit: int | None = None,
) -> int:
    """Write an aligned table and return the number of rows written.

    Args:
        width: cells to fit into; a wider table is cut, or written one value a line if that will not do.
            ``None`` bounds each column only.
        limit: most rows to write; a line then says that there are more.
    """
    source = iter(rows)
    sample = list(islice(source, _SAMPLE if limit is None else min(_SAMPLE, limit)))
    numeric = [_is_numeric(row[index] for row in sample) for index in range(len(columns))]
    texts = [[_cell(value) for value in row] for row in sample]
    heads = [clean(name) for name in columns]
    widths = _widths(heads, texts, width)
    remaining = source if limit is None else islice(source, max(0, limit - len(sample)))
    lines = chain(texts, ([_cell(value) for value in row] for row in remaining))

    if widths is None:
        written = _write_records(heads, lines, width or 80)
    else:
        written = _write_lines(heads, lines, widths, numeric)

    if limit is not None and written == limit and next(source, None) is not None:
        out(f"… more than {limit} rows: --limit 0 shows all, --format csv or json writes them for programs")

    return written


def _write_lines(
    heads: Sequence[str], lines: Iterator[list[str]], widths: Sequence[int], numeric: Sequence[bool]
) -> int:
    def line(texts: Sequence[str]) -> str:
        parts = (
            fit(text, room, align="right" if number else "left")
            for text, room, number in zip(texts, widths, numeric, strict=True)
        )
        return _GAP.join(parts).rstrip()

    out(line(heads))
    out(_GAP.join("─" * room for room in widths))
    count = 0
    for texts in lines:
        out(line(texts))
        count += 1

    return count


def _write_records(heads: Sequence[str], lines: Iterator[list[str]], width: int) -> int:
    """One value a line, for rows that have more columns than the terminal has room for."""
    name_width = min(max(map(cells, heads), default=0), max(4, width // 3))
    room = max(4, width - name_width - len(_GAP))
    count = 0
    for count, texts in enumerate(lines, 1):
        out(f"── {count} ".ljust(width, "─"))
        for head, text in zip(heads, texts, strict=True):
            out(f"{fit(head, name_width)}{_GAP}{fit(text, min(room, max(1, cells(text))))}".rstrip())

    return count


def _widths(heads: Sequence[str], texts: Sequence[Sequence[str]], width: int | None) -> list[int] | None:
    """Return the column widths, or ``None`` when ``width`` has no room for that many columns."""
    widths = [
        min(max([cells(head), *(cells(row[index]) for row in texts)]), _MAX_COLUMN) for index, head in enumerate(heads)
    ]
    if width is None:
        return widths

    room = width - len(_GAP) * (len(heads) - 1)
    if room < sum(min(one, _MIN_COLUMN) for one in widths):
        return None

    while sum(widths) > room:
        widest = widths.index(max(widths))
        widths[widest] -= 1

    return widths


def _is_numeric(values: Iterable[Any]) -> bool:
    seen = [value for value in values if value is not None]
    return bool(seen) and all(
        isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in seen
    )


def _cell(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.9g}"  # a person reads 0.074; --format json has every digit

    return "NULL" if value is None else clean(text_value(value), limit=4 * _MAX_COLUMN)


def text_value(value: Any) -> str:
    """Return a value as a person reads it; nested ones as JSON."""
    if isinstance(value, str):
        return value

    if isinstance(value, bool):
        return "true" if value else "false"

    if isinstance(value, datetime):
        return value.isoformat(" ")

    if isinstance(value, dict | list | tuple | bytes | bytearray):
        plain = json_value(value)
        return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)

    return str(value)


def write_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write RFC 4180 CSV with a header and return the number of rows.

    An absent value is an empty field, an empty text is ``""``, so that the two can be told apart.
    """
    out(",".join(map(_csv_field, columns)))
    count = 0
    for row in rows:
        out(",".join(map(_csv_field, row)))
        count += 1

    return count


def _csv_field(value: Any) -> str:
    # The csv module leaves a lone carriage return unquoted, which no reader takes back as it was.
    if value is None:
        return ""

    text = text_value(value)
    return text if text and not _CSV_SPECIAL.search(text) else '"' + text.replace('"', '""') + '"'


def write_json(columns: Sequence[str], rows: Iterable[Sequence[Any]], json_columns: Sequence[bool] = ()) -> int:
    """Write one JSON array, an object a line. Returns the number of rows.

    ``json_columns`` marks the columns whose text is JSON itself and goes in as such.
    """
    embed = json_columns or [False] * len(columns)
    count = 0
    out("[", end="")
    for count, row in enumerate(rows, 1):
        record = {
            name: _embedded(value) if is_json else json_value(value)
            for name, value, is_json in zip(columns, row, embed, strict=True)
        }
        out(("\n" if count == 1 else ",\n") + json.dumps(record, ensure_ascii=False, allow_nan=False), end="")

    out("\n]" if count else "]")
    return count


def _embedded(value: Any) -> Any:
    try:
        return json_value(json.loads(value))
    except (ValueError, TypeError, RecursionError):
        return json_value(value)


def json_value(value: Any) -> Any:
    """Return a value as JSON has it: times as ISO 8601, bytes as hex, NaN and infinities as null."""
    if value is None or isinstance(value, str | bool | int):
        return value

    if isinstance(value, float):
        return value if math.isfinite(value) else None

    if isinstance(value, datetime | date | time):
        return value.isoformat()

    if isinstance(value, timedelta):
        return value.total_seconds()

    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()

    if isinstance(value, dict):
        return {str(key): json_value(inner) for key, inner in value.items()}

    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(inner) for inner in value]

    return str(value)
