"""Where time falls on a line of cells: the arithmetic of the waterfall, without any widget.

A bar's end is drawn to an eighth of a cell with left-filled blocks. Of right-filled blocks the common fonts have the
half and the eighth only, so a bar's beginning is drawn to about a quarter; exchanging foreground and background would
give eighths, but leaves slivers of colour wherever a font's blocks do not fill the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Piece", "Stretch", "TimeScale", "draw", "ticks"]

Kind = Literal["bar", "line", "wait"]
_LEFT_FILLED = " ▏▎▍▌▋▊▉█"
_RIGHT_FILLED = " ▕▕▐▐▐"
"""By eighths filled; from six on the cell is full."""
_WAIT = "┄"
_LINE = "━"
FULL = " "
"""A filled cell is a space on the bar's colour: no font draws a seam through it."""


@dataclass(frozen=True, slots=True)
class TimeScale:
    """A window of time laid over ``width`` cells."""

    start_us: int
    end_us: int
    width: int

    def eighths(self, time_us: float) -> int:
        """Position of a time in eighths of a cell, cut to the window."""
        span = max(self.end_us - self.start_us, 1)
        place = (time_us - self.start_us) * self.width * 8 / span
        return max(0, min(self.width * 8, round(place)))

    def zoomed(self, factor: float, around_us: float) -> TimeScale:
        """The window made ``factor`` times narrower, keeping ``around_us`` where it is."""
        span = max(self.end_us - self.start_us, 1)
        share = (around_us - self.start_us) / span
        new_span = max(span / factor, 8)
        start = around_us - share * new_span
        return TimeScale(int(start), int(start + new_span), self.width)


class Stretch(NamedTuple):
    """A piece of a row's time: working, holding others that work, or waiting; with a style key."""

    kind: Kind
    start_us: int
    end_us: int
    style: str


class Piece(NamedTuple):
    """Cells to draw. ``reverse`` puts them on the style's colour instead of drawing in it."""

    text: str
    style: str
    reverse: bool = False


def draw(scale: TimeScale, stretches: list[Stretch]) -> list[Piece]:
    """Stretches, sorted by start, as pieces that together are exactly ``scale.width`` cells.

    A stretch inside the window gets at least an eighth of a cell. Where two meet in one cell the later one wins.
    """
    width = scale.width
    line: list[Piece] = [Piece(" ", "")] * width
    for stretch in stretches:
        if stretch.end_us < scale.start_us or stretch.start_us > scale.end_us or width <= 0:
            continue
        if stretch.kind != "bar":
            _paint_thin(line, scale, stretch, _WAIT if stretch.kind == "wait" else _LINE)
        else:
            _paint_bar(line, scale, stretch)

    return _joined(line)


def _paint_thin(line: list[Piece], scale: TimeScale, stretch: Stretch, glyph: str) -> None:
    first = min(scale.eighths(stretch.start_us) // 8, scale.width - 1)
    last = max(first + 1, -(-scale.eighths(stretch.end_us) // 8))
    for cell in range(first, min(last, scale.width)):
        line[cell] = Piece(glyph, stretch.style)


def _paint_bar(line: list[Piece], scale: TimeScale, stretch: Stretch) -> None:
    low, high = scale.eighths(stretch.start_us), scale.eighths(stretch.end_us)
    if high <= low:
        high = low + 1
    if high > scale.width * 8:
        low, high = scale.width * 8 - 1, scale.width * 8

    first, last = low // 8, (high - 1) // 8
    if first == last:
        line[first] = _one_cell(low % 8, high - first * 8, stretch.style)
        return
    line[first] = _right_filled(8 - low % 8, stretch.style)
    for cell in range(first + 1, last):
        line[cell] = Piece(FULL, stretch.style, True)
    tail = high - last * 8
    line[last] = Piece(FULL, stretch.style, True) if tail == 8 else Piece(_LEFT_FILLED[tail], stretch.style)


def _one_cell(low: int, high: int, style: str) -> Piece:
    """A stretch within one cell: fill from the nearer side, since a block cannot float in the middle."""
    size = high - low
    if size == 8:
        return Piece(FULL, style, reverse=True)
    if low and low >= 8 - high:
        return _right_filled(size, style)
    return Piece(_LEFT_FILLED[size], style)


def _right_filled(eighths: int, style: str) -> Piece:
    return Piece(FULL, style, True) if eighths >= 6 else Piece(_RIGHT_FILLED[eighths], style)


def _joined(line: list[Piece]) -> list[Piece]:
    """Neighbours of one look as one piece: fewer segments to draw."""
    pieces: list[Piece] = []
    for piece in line:
        if pieces and pieces[-1].style == piece.style and pieces[-1].reverse == piece.reverse:
            pieces[-1] = Piece(pieces[-1].text + piece.text, piece.style, piece.reverse)
        else:
            pieces.append(piece)
    return pieces


_STEPS = (1, 2, 5)


def ticks(scale: TimeScale, zero_us: int, *, apart: int = 10) -> list[tuple[int, int]]:
    """Axis marks as ``(cell, microseconds since zero_us)``, at least ``apart`` cells from each other.

    Marks fall on round numbers (1, 2 or 5 times a power of ten; whole minutes and hours above a minute).
    """
    span = max(scale.end_us - scale.start_us, 1)
    step = _round_step(span * apart / max(scale.width, 1))
    at = -(-(scale.start_us - zero_us) // step) * step
    marks: list[tuple[int, int]] = []
    while zero_us + at < scale.end_us and len(marks) < 64:
        marks.append((scale.eighths(zero_us + at) // 8, at))
        at += step
    return marks


def _round_step(least_us: float) -> int:
    for step in _clock_steps():
        if step >= least_us:
            return step
    day = 86_400_000_000
    return day * max(1, -(-int(least_us) // day))


def _clock_steps() -> list[int]:
    decimals = [mantissa * 10**power for power in range(8) for mantissa in _STEPS]
    below = [step for step in decimals if step <= 20_000_000]
    return below + [seconds * 1_000_000 for seconds in (30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200)]
