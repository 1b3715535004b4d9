"""Rows of any query: columns by their names and types, moved sideways where they do not fit."""

from __future__ import annotations

from typing import Any

from flowdeck_devtools.core.asking import Answer
from flowdeck_devtools.core.columns import Column, Placed, lay_out
from flowdeck_devtools.core.sqlbook import badge, cell_text
from flowdeck_devtools.core.text import cells
from flowdeck_devtools.tui.widgets.vtable import Cell, VirtualTable

__all__ = ["ResultTable"]

MEASURED_ROWS = 200
MOST_CELLS = 48
_ROLES = {"##": "number", "#.#": "number", "t": "dim", "b": "word", "{}": "string", "s": "text"}

Row = tuple[int, tuple[Any, ...]]
"""Place in the answer, and the values."""


class ResultTable(VirtualTable[Row]):
    """The rows of an :class:`Answer`; ``left`` is the first column shown."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__((), self._text, lambda row: str(row[0]), id=id)
        self.follow = False
        self.left = 0
        self._all: list[Column] = []
        self._kinds: dict[str, str] = {}

    def show_answer(self, answer: Answer) -> None:
        """Show the rows of an answer from its first row and column."""
        kinds = [badge(kind) for kind in answer.types]
        self._kinds = {str(place): kind for place, kind in enumerate(kinds)}
        self._all = []
        for place, (name, kind) in enumerate(zip(answer.columns, kinds, strict=True)):
            title = f"{name} {kind}"
            wide = max([cells(cell_text(row[place])) for row in answer.rows[:MEASURED_ROWS]], default=0)
            width = max(cells(title), min(wide, MOST_CELLS), 3)
            align = "right" if kind in ("##", "#.#") else "left"
            self._all.append(Column(str(place), title, width, align=align))  # type: ignore[arg-type]
        self.left = self.cursor = self.offset_row = 0
        self._at_key = None
        self._columns = self._all
        self._placed = (-1, [])
        self.show(list(enumerate(answer.rows)))

    def sideways(self, step: int) -> None:
        """Show the columns from another one on."""
        self.left = max(0, min(self.left + step, len(self._all) - 1))
        self._placed = (-1, [])
        self.repaint()

    def placed(self, width: int) -> list[Placed]:
        known, placed = self._placed
        if known != width:
            room = width
            fitting: list[Column] = []
            for column in self._all[self.left :]:
                if fitting and column.width > room:
                    break
                fitting.append(column)
                room -= column.width + 1
            placed = lay_out(fitting, width) if fitting else []
            self._placed = (width, placed)
        return placed

    def _text(self, row: Row, column: str) -> Cell:
        value = row[1][int(column)]
        return cell_text(value), "faint" if value is None else _ROLES.get(self._kinds[column], "text")
