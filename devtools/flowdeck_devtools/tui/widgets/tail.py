"""The live tail: lines of the ring, decoded only while they can be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.segment import Segment

from flowdeck_devtools.core.describe import describe
from flowdeck_devtools.core.text import clean, clock_time, fit, short_id
from flowdeck_devtools.core.window import RingWindow
from flowdeck_devtools.core.wire import Event, decode
from flowdeck_devtools.tui.theme import LEVEL_ROLES, Look
from flowdeck_devtools.tui.widgets.lineview import LineView

__all__ = ["EventLines", "Tail", "event_row"]

_CACHED = 512
_LEVELS = {"WARNING": "WARN", "CRITICAL": "CRIT"}


def event_row(event: Event, width: int, look: Look) -> list[Segment]:
    """An event as one row: time, run, level, type, place, words. Columns go as the width shrinks."""
    level_role = LEVEL_ROLES.get(event.level, "dim")
    loud = level_role if level_role in ("failed", "waiting") else ""
    kind_width = 30 if width >= 100 else 22 if width >= 64 else 18
    when = " " + clock_time(event.time_us, millis=width >= 56) + " "
    segments = [Segment(when, look["dim"])]
    used = len(when)
    if width >= 90:
        run = event.run
        root = (run.root_run_id or run.run_id or "") if run else ""
        segments.append(Segment(fit(short_id(clean(root), 6), 6) + " ", look["faint"]))
        used += 7
    if width >= 56:
        segments.append(Segment(fit(_LEVELS.get(event.level, clean(event.level)), 5) + " ", look[level_role]))
        used += 6
    segments.append(Segment(fit(_short_kind(event.event_type), kind_width) + " ", look[loud or "key"]))
    used += kind_width + 1
    if width >= 120:
        scope = event.meta.get("scope")
        place = fit(clean(scope) if isinstance(scope, str) else "", 20, keep_end=True)
        segments.append(Segment(place + " ", look["dim"]))
        used += 21
    room = width - used
    if room > 0:
        words = fit(describe(event, limit=max(room * 2, 80)), room)
        segments.append(Segment(words, look["failed" if loud == "failed" else "text"]))
    return segments


def _short_kind(event_type: str) -> str:
    """Every event of a flow begins with ``triggerflow.``; the rest is what tells them apart."""
    return clean(event_type.removeprefix("triggerflow."), limit=80)


class Tail(LineView):
    """The newest lines at the bottom. Following until one moves up; paused on request."""

    def __init__(self, window: RingWindow, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.window = window
        self.following = True
        self._at = -1
        """Ring position under the cursor, so that the cursor stays on its line as the ring moves."""
        self._rows: dict[tuple[int, int, int], list[Segment]] = {}
        self.bright: Callable[[bytes], bool] | None = None
        """With it, every line is shown, and those that do not pass are dim."""

    def count(self) -> int:
        return len(self.window)

    def tick(self) -> None:
        """Show what has come. Called on each tick while visible."""
        self.window.advance()
        total = self.count()
        if self.following:
            self.cursor = max(0, total - 1)
            self.offset_row = max(0, total - self.page)
        elif self._at >= 0:
            index = self.window.index_of(self._at)
            self.offset_row += index - self.cursor
            self.cursor = index
        before = self._at
        self._remember()
        self.repaint()
        if self._at != before and not self.following:
            self.moved()  # while following the cursor moves with every tick: who inspects an event stops following

    def _remember(self) -> None:
        self._clamp()
        self._at = self.window.position(self.cursor) if self.count() else -1

    def current_line(self) -> bytes | None:
        """The journal line under the cursor."""
        return self.window.line(self.cursor)

    def draw(self, index: int, width: int, look: Look) -> list[Segment]:
        key = (self.window.position(index), width, id(look))
        row = self._rows.get(key)
        if row is None:
            line = self.window.line(index)
            if line is None:
                return []
            row = event_row(decode(line), width, look)
            if self.bright is not None and not self.bright(line):
                row = [Segment(segment.text, look["faint"]) for segment in row]
            if len(self._rows) >= _CACHED:
                self._rows.clear()
            self._rows[key] = row
        return row

    def next_bright(self, step: int) -> bool:
        """Go to the next (1) or previous (-1) line that passes. False when there is none."""
        if self.bright is None:
            self.action_row(step)
            return True
        index = self.cursor + step
        while 0 <= index < self.count():
            line = self.window.line(index)
            if line is not None and self.bright(line):
                self.following = False
                self.move_to(index)
                return True
            index += step
        return False

    def forget_rows(self) -> None:
        """Draw rows anew: colours or the zone of time changed."""
        self._rows.clear()
        self.refresh()

    def follow(self, following: bool) -> None:
        self.following = following
        if following:
            self.window.pause(False)
        self.tick()

    def moved(self) -> None:
        self._at = self.window.position(self.cursor) if self.count() else -1
        super().moved()

    def action_row(self, step: int) -> None:
        self.following = self.following and step > 0
        super().action_row(step)

    def action_page(self, pages: float) -> None:
        self.following = self.following and pages > 0
        super().action_page(pages)

    def action_first(self) -> None:
        self.following = False
        super().action_first()

    def action_last(self) -> None:
        if self.window.paused:
            super().action_last()
        else:
            self.follow(True)

    def scroll_rows(self, rows: int) -> None:
        self.following = False
        super().scroll_rows(rows)
        self._remember()
        if rows > 0 and self.offset_row >= self.count() - self.page and not self.window.paused:
            self.following = True

    def clicked_row(self, index: int, x: int) -> None:
        self.following = False
        self._at = self.window.position(index)


class EventLines(LineView):
    """The events of one node: a fixed list of lines that may grow at its end."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: Sequence[bytes] = []
        self._dropped = 0

    def show(self, lines: Sequence[bytes], *, same: bool) -> None:
        """Show these lines; ``same`` means the list of before has only grown."""
        self._lines = lines
        if not same:
            self.cursor = self.offset_row = 0
        self.repaint()

    def count(self) -> int:
        return len(self._lines)

    def current_line(self) -> bytes | None:
        return self._lines[self.cursor] if 0 <= self.cursor < len(self._lines) else None

    def draw(self, index: int, width: int, look: Look) -> list[Segment]:
        return event_row(decode(self._lines[index]), width, look)
