"""A line drawn with braille dots: two columns and four rows of dots per cell. Pure text, no terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["axis_label", "line_plot"]

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def line_plot(values: Sequence[float | None], width: int, height: int, *, low: float, high: float) -> list[str]:
    """The lines of a plot, top first, each ``width`` cells wide.

    Args:
        values: One per point, evenly spaced; ``None`` is a gap.
        low: The value at the bottom.
        high: The value at the top; equal to ``low`` draws a flat line at the bottom.
    """
    columns, rows = width * 2, height * 4
    cells = [[0] * width for _ in range(height)]
    if not values or width < 1 or height < 1:
        return [" " * max(0, width)] * max(0, height)

    def level(value: float) -> int:
        part = (value - low) / (high - low) if high > low else 0.0
        return round(max(0.0, min(1.0, part)) * (rows - 1))

    previous: int | None = None
    for x in range(columns):
        value = _at(values, x, columns)
        if value is None:
            previous = None
            continue
        now = level(value)
        first, last = (now, now) if previous is None else sorted((previous, now))
        for y in range(first, last + 1):
            row = rows - 1 - y
            cells[row // 4][x // 2] |= _DOTS[x % 2][row % 4]
        previous = now
    return ["".join(chr(0x2800 + cell) if cell else " " for cell in line) for line in cells]


def _at(values: Sequence[float | None], x: int, columns: int) -> float | None:
    """The value at a dot column: the largest of those that fall on it, or one interpolated between two."""
    count = len(values)
    if count == 1:
        return values[0]
    if count > columns:
        part = [one for one in values[x * count // columns : max((x + 1) * count // columns, 1)] if one is not None]
        return max(part, default=None)
    place = x * (count - 1) / (columns - 1) if columns > 1 else 0.0
    left = int(place)
    before, after = values[left], values[min(left + 1, count - 1)]
    if before is None or after is None:
        return before if place - left < 0.5 else after
    return before + (after - before) * (place - left)


def axis_label(value: float) -> str:
    """A number short enough for an axis: ``1.2k``, ``340``, ``0.05``."""
    size = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"
