"""Plots by lines of braille, with an axis: one widget for SQL results and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from flowdeck_devtools.core.braille import axis_label, line_plot
from flowdeck_devtools.core.text import cells, fit
from flowdeck_devtools.tui.theme import Palette

__all__ = ["LinePlot", "Series"]

_AXIS = 8
_ROLES = ("running", "ok", "waiting", "violet", "failed")


@dataclass(frozen=True, slots=True)
class Series:
    """One line: evenly spaced values, ``None`` where there is none."""

    name: str
    values: Sequence[float | None]
    role: str = ""
    told: bool = False
    """Its name is in the legend also when it is the only line."""


class LinePlot(Widget, can_focus=True):
    """A plot with its scale on the left, the ends of its axis below, and a legend on top when a line needs its name.

    Lines of several series share the scale; where two cross, the later one is drawn.
    """

    DEFAULT_CSS = "LinePlot { height: 1fr; width: 1fr; background: $surface; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._series: list[Series] = []
        self._ends = ("", "")
        self._drawn: tuple[int, int] = (-1, -1)
        self._rows: list[list[Segment]] = []

    def show(self, series: Sequence[Series], ends: tuple[str, str] = ("", "")) -> None:
        """Show these lines; ``ends`` are written below the first and the last point."""
        if (list(series), ends) != (self._series, self._ends):
            self._series, self._ends = list(series), ends
            self._drawn = (-1, -1)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        if self._drawn != (width, height):
            self._rows = self._made(width, height)
            self._drawn = (width, height)
        look = self._palette.plain
        segments = self._rows[y] if y < len(self._rows) else []
        return Strip(segments).adjust_cell_length(width, look["text"])

    @property
    def _palette(self) -> Palette:
        palette: Palette = self.app.palette  # type: ignore[attr-defined]
        return palette

    def redraw(self) -> None:
        """Draw anew, with other colours."""
        self._drawn = (-1, -1)
        self.refresh()

    def _made(self, width: int, height: int) -> list[list[Segment]]:
        look = self._palette.plain
        series = [one for one in self._series if any(value is not None for value in one.values)]
        if not series or height < 3 or width < _AXIS + 4:
            return [[Segment(fit("  nothing to draw", width), look["dim"])]]

        lines: list[list[Segment]] = []
        if len(series) > 1 or series[0].told:
            lines.append(self._legend(series, width))
        seen = [value for one in series for value in one.values if value is not None]
        low, high = min(0.0, *seen), max(seen)
        room, rows = width - _AXIS - 1, height - len(lines) - 1
        layers = [line_plot(one.values, room, rows, low=low, high=high) for one in series]
        for row in range(rows):
            label = axis_label(high) if row == 0 else axis_label(low) if row == rows - 1 else ""
            if row == rows // 2 and rows >= 6:
                label = axis_label((low + high) / 2)
            line = [Segment(fit(label, _AXIS - 2, align="right") + " ┤", look["dim"])]
            line += self._cells([layer[row] for layer in layers], series)
            lines.append(line)
        left, right = self._ends
        gap = max(1, room - cells(left) - cells(right))
        lines.append([Segment(" " * _AXIS + left + " " * gap + right, look["faint"])])
        return lines

    def _legend(self, series: list[Series], width: int) -> list[Segment]:
        look, line = self._palette.plain, []
        for place, one in enumerate(series):
            line.append(Segment(f" ━ {fit(one.name, min(24, cells(one.name)))} ", look[self._role(one, place)]))
        return line

    def _cells(self, layers: list[str], series: list[Series]) -> list[Segment]:
        """One row of several layers: each cell is the last layer's that drew something there."""
        look = self._palette.plain
        found: list[Segment] = []
        for at in range(len(layers[0])):
            place = next((one for one in reversed(range(len(layers))) if layers[one][at] != " "), -1)
            role = self._role(series[place], place) if place >= 0 else "text"
            found.append(Segment(layers[place][at] if place >= 0 else " ", look[role]))
        return found

    @staticmethod
    def _role(series: Series, place: int) -> str:
        return series.role or _ROLES[place % len(_ROLES)]
