"""A row of numbers, each with a small picture of how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from flowdeck_devtools.core.text import fit, sparkline
from flowdeck_devtools.tui.theme import Palette

__all__ = ["Tile", "Tiles"]


@dataclass(frozen=True, slots=True)
class Tile:
    """One number: its name, what it is in words, how it went, and the role it is drawn in."""

    name: str
    value: str
    history: tuple[float, ...] = ()
    role: str = "strong"


class Tiles(Widget):
    """Tiles of equal width, three lines each: name, number, picture."""

    DEFAULT_CSS = "Tiles { height: 3; width: 1fr; background: $surface; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._tiles: list[Tile] = []

    def show(self, tiles: list[Tile]) -> None:
        """Show these tiles, if they are others than before."""
        if tiles != self._tiles:
            self._tiles = tiles
            self.refresh()

    def render_line(self, y: int) -> Strip:
        palette: Palette = self.app.palette  # type: ignore[attr-defined]
        look, width = palette.plain, self.size.width
        room = max(1, width // max(1, len(self._tiles)))
        segments = []
        for tile in self._tiles:
            inner = max(1, room - 2)
            if y == 0:
                text, role = tile.name, "dim"
            elif y == 1:
                text, role = tile.value, tile.role
            else:
                text, role = sparkline(shrunk(tile.history, min(inner, 24))), "running"
            segments.append(Segment(" " + fit(text, inner) + " ", look[role]))
        return Strip(segments).adjust_cell_length(width, look["text"])


def shrunk(values: Sequence[float], width: int) -> list[int]:
    """At most ``width`` values: neighbours are added up; scaled so that whole numbers keep their shape."""
    if not values or width < 1:
        return []
    step = max(1, -(-len(values) // width))
    sums = [sum(values[at : at + step]) for at in range(0, len(values), step)]
    top = max(sums)
    return [round(one * 1_000 / top) if top > 0 else 0 for one in sums]
