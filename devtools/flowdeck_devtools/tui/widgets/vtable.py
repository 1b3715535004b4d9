"""A table of any length: rows come from a function, columns find their widths from the space there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from rich.segment import Segment

from flowdeck_devtools.core.columns import GAP, Column, Placed, lay_out
from flowdeck_devtools.core.text import fit
from flowdeck_devtools.tui.theme import Look
from flowdeck_devtools.tui.widgets.lineview import LineView

__all__ = ["Cell", "VirtualTable"]

Row = TypeVar("Row")
Cell = tuple[str, str]
"""Cleaned text and the role it is drawn in."""


class VirtualTable(LineView, Generic[Row]):
    """Rows of one type in columns.

    Args:
        columns: The columns, with what goes first when there is no room.
        cell: The text of one column of one row.
        key: What identifies a row. The cursor stays on the same key when rows move; with ``follow`` it stays on top.
    """

    header_height = 1

    def __init__(
        self,
        columns: Sequence[Column],
        cell: Callable[[Row, str], Cell],
        key: Callable[[Row], str],
        *,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self._columns = columns
        self._cell = cell
        self._key = key
        self._rows: Sequence[Row] = ()
        self._at_key: str | None = None
        self._placed: tuple[int, list[Placed]] = (-1, [])
        self.follow = True

    def count(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Sequence[Row]:
        return self._rows

    @property
    def current(self) -> Row | None:
        """The row under the cursor."""
        return self._rows[self.cursor] if 0 <= self.cursor < len(self._rows) else None

    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows. The cursor keeps its row; rows that come above it push nothing out of sight."""
        before = self.current
        old_key = self._at_key
        self._rows = rows
        if self.follow or old_key is None:
            self.cursor = self.offset_row = 0
        elif before is not None:
            self._keep(old_key)
        self._clamp()
        current = self.current
        self._at_key = self._key(current) if current is not None else None
        self.repaint()
        if self._at_key != old_key:
            self.moved()

    def _keep(self, key: str) -> None:
        if self.cursor < len(self._rows) and self._key(self._rows[self.cursor]) == key:
            return
        for index, row in enumerate(self._rows):
            if self._key(row) == key:
                self.offset_row += index - self.cursor
                self.cursor = index
                return

    def select(self, key: str) -> bool:
        """Put the cursor on the row with that key."""
        for index, row in enumerate(self._rows):
            if self._key(row) == key:
                self.follow = False
                self._at_key = key
                self.move_to(index)
                return True
        return False

    def moved(self) -> None:
        current = self.current
        self._at_key = self._key(current) if current is not None else None
        super().moved()

    def action_row(self, step: int) -> None:
        self.follow = False
        super().action_row(step)

    def action_page(self, pages: float) -> None:
        self.follow = False
        super().action_page(pages)

    def action_last(self) -> None:
        self.follow = False
        super().action_last()

    def clicked_row(self, index: int, x: int) -> None:
        self.follow = False

    def placed(self, width: int) -> list[Placed]:
        """The columns that fit, with their widths."""
        known, placed = self._placed
        if known != width:
            placed = lay_out(self._columns, width)
            self._placed = (width, placed)
        return placed

    def draw_header(self, line: int, width: int, look: Look) -> list[Segment]:
        segments = [Segment(" ", look["text"])]
        for column in self.placed(width - 2):
            title = fit(column.column.title, column.width, align=column.column.align)
            segments.append(Segment(title + " " * GAP, look["title"]))
        return segments

    def draw(self, index: int, width: int, look: Look) -> list[Segment]:
        row = self._rows[index]
        segments = [Segment(" ", look["text"])]
        for place in self.placed(width - 2):
            text, role = self._cell(row, place.column.id)
            shown = fit(text, place.width, align=place.column.align)
            segments.append(Segment(shown + " " * GAP, look.get(role, look["text"])))
        return segments
