"""The base of every list: a widget that draws only the lines one can see.

Not ``DataTable`` and not ``RichLog``: those pay per row or per event (35 % and 50 % of a core at 1,000 events/s), this
pays per frame (2.7 % at any rate). A subclass says how many rows there are and draws one row as segments; the base
keeps the offset, the cursor, paging, the mouse, the scroll mark and the empty state. It never asks for layout: the
offset is its own, so growing by a million rows costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from flowdeck_devtools.core.text import cells, fit
from flowdeck_devtools.tui.actions import bindings_for
from flowdeck_devtools.tui.theme import Look, Palette

if TYPE_CHECKING:
    from flowdeck_devtools.tui.app import DevToolsApp

__all__ = ["LineView"]

WHEEL_ROWS = 3


class _Frame(NamedTuple):
    """What all lines of one repaint share."""

    width: int
    total: int
    scrolls: bool
    thumb: range
    """Rows of the view in which the scroll mark is drawn."""
    plain: Look
    cursor: Look


class LineView(Widget, can_focus=True):
    """Rows under an optional header, with a cursor. Subclass it."""

    DEFAULT_CSS = """
    LineView { height: 1fr; width: 1fr; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_for("list")]

    header_height: int = 0

    class Highlighted(Message):
        """The cursor stands on another row."""

        def __init__(self, view: LineView, index: int) -> None:
            super().__init__()
            self.view = view
            self.index = index

        @property
        def control(self) -> LineView:
            return self.view

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, LineView.Highlighted) and message.view is self.view

    class Activated(Message):
        """A row was chosen with enter or a double click."""

        def __init__(self, view: LineView, index: int) -> None:
            super().__init__()
            self.view = view
            self.index = index

        @property
        def control(self) -> LineView:
            return self.view

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.offset_row = 0
        self.cursor = 0
        self.show_cursor = True
        self.blurred_cursor = True
        """The cursor can be seen while another pane has the focus."""
        self.empty: list[tuple[str, str]] = []
        """What stands in the middle when there are no rows: lines as ``(text, role)``."""
        self._frame = _Frame(0, 0, False, range(0), {}, {})
        self.frames = 0
        """Full repaints asked for; the performance test reads it."""

    # -- to be given by a subclass -----------------------------------------------------------------------------

    def count(self) -> int:
        """Number of rows."""
        raise NotImplementedError

    def draw(self, index: int, width: int, look: Look) -> list[Segment]:
        """One row as segments of at most ``width`` cells, drawn with the styles of ``look``."""
        raise NotImplementedError

    def draw_header(self, line: int, width: int, look: Look) -> list[Segment]:
        """One line of the header."""
        return []

    # -- drawing -----------------------------------------------------------------------------------------------

    @property
    def palette(self) -> Palette:
        app: DevToolsApp = self.app  # type: ignore[assignment]
        return app.palette

    @property
    def page(self) -> int:
        """Rows that fit."""
        return max(1, self.size.height - self.header_height)

    def repaint(self) -> None:
        """Draw everything again; call it when data changed."""
        self.frames += 1
        self._clamp()
        self.refresh()

    def render_lines(self, crop: Region) -> list[Strip]:
        # Asking a widget for its size, app or focus costs 5 to 12 µs each: once per frame, not once per line.
        size, total = self.size, self.count()
        page = max(1, size.height - self.header_height)
        thumb = range(0)
        if total > page:
            length = max(1, page * page // total)
            top = (page - length) * self.offset_row // (total - page)
            thumb = range(top, top + length)
        look = self.palette.plain
        if self.show_cursor:
            look = self.palette.cursor if self.has_focus else self.palette.blurred if self.blurred_cursor else look
        self._frame = _Frame(size.width, total, total > page, thumb, self.palette.plain, look)
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        frame = self._frame
        width, look = frame.width, frame.plain
        row = y - self.header_height
        if row < 0:
            return self._strip(self.draw_header(y, width - 1, look), look)
        if frame.total == 0:
            return self._empty_line(row, width)

        index = self.offset_row + row
        if index >= frame.total:
            return Strip.blank(width, look["text"])
        if index == self.cursor:
            look = frame.cursor
        mark = " " if not frame.scrolls else "▐" if row in frame.thumb else "│"
        return self._strip(self.draw(index, width - 1, look), look, mark)

    def _strip(self, segments: list[Segment], look: Look, mark: str = " ") -> Strip:
        frame = self._frame
        gap = frame.width - 1 - sum(cells(segment.text) for segment in segments)
        line = [*segments, Segment(" " * gap, look["text"])] if gap > 0 else list(segments)
        line.append(Segment(mark, frame.plain["faint" if mark == "▐" else "line"]))
        if gap >= 0:
            return Strip(line, frame.width)
        return Strip(line).adjust_cell_length(frame.width, look["text"])

    def _empty_line(self, row: int, width: int) -> Strip:
        look = self._frame.plain
        at = row - max(0, (self.page - len(self.empty)) // 3)
        if not 0 <= at < len(self.empty):
            return Strip.blank(width, look["text"])
        text, role = self.empty[at]
        room = min(cells(text), width - 2)
        left = (width - room) // 2
        words = Segment(fit(text, room), look.get(role, look["dim"]))
        return self._strip([Segment(" " * left, look["text"]), words], look)

    # -- moving ------------------------------------------------------------------------------------------------

    def _clamp(self) -> None:
        total = self.count()
        self.cursor = max(0, min(self.cursor, total - 1))
        self.offset_row = max(0, min(self.offset_row, total - self.page))

    def _line_region(self, index: int) -> Region:
        """Where a row is drawn, in the coordinates ``refresh`` takes."""
        return Region(0, index - self.offset_row + self.header_height, self.size.width, 1)

    def move_to(self, index: int, *, notify: bool = True) -> None:
        """Put the cursor on a row and scroll it into view."""
        before, shown = self.cursor, self.offset_row
        self.cursor = max(0, min(index, self.count() - 1))
        if self.cursor < self.offset_row:
            self.offset_row = self.cursor
        elif self.cursor >= self.offset_row + self.page:
            self.offset_row = self.cursor - self.page + 1
        self._clamp()
        if shown != self.offset_row:
            self.refresh()
        elif before != self.cursor:
            self.refresh(self._line_region(before), self._line_region(self.cursor))
        if notify and before != self.cursor:
            self.moved()

    def moved(self) -> None:
        """Tell the screen that the cursor moved."""
        self.post_message(self.Highlighted(self, self.cursor))

    def scroll_rows(self, rows: int) -> None:
        """Scroll; the cursor follows only as far as it must to stay visible."""
        self.offset_row += rows
        self._clamp()
        before = self.cursor
        self.cursor = max(self.offset_row, min(self.cursor, self.offset_row + self.page - 1))
        self._clamp()
        self.refresh()
        if before != self.cursor:
            self.moved()

    def action_row(self, step: int) -> None:
        self.move_to(self.cursor + step)

    def action_page(self, pages: float) -> None:
        self.move_to(self.cursor + int(pages * self.page))

    def action_first(self) -> None:
        self.move_to(0)

    def action_last(self) -> None:
        self.move_to(self.count() - 1)

    def action_activate(self) -> None:
        if self.count():
            self.post_message(self.Activated(self, self.cursor))

    # -- mouse and focus ---------------------------------------------------------------------------------------

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.scroll_rows(WHEEL_ROWS)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.scroll_rows(-WHEEL_ROWS)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y < self.header_height:
            self.clicked_header(offset.x, offset.y)
            return
        index = self.offset_row + offset.y - self.header_height
        if index < self.count():
            self.move_to(index)
            self.clicked_row(index, offset.x)
            if event.chain == 2:
                self.action_activate()

    def clicked_header(self, x: int, y: int) -> None:
        """A click on the header; nothing by default."""

    def clicked_row(self, index: int, x: int) -> None:
        """A click on a row; the cursor is there already."""

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self) -> None:
        # Rows may have been asked for before there was a size.
        self._clamp()
        self.move_to(self.cursor, notify=False)
        self.refresh()
