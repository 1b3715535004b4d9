"""Events: the live tail of everything, filtered and paused at will, with the event under the cursor beside it."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical

from flowdeck_devtools.core.facts import copy_event, event_sections
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.text import count, sparkline
from flowdeck_devtools.core.window import RingWindow
from flowdeck_devtools.core.wire import head
from flowdeck_devtools.filter import LinePredicate, compile_line
from flowdeck_devtools.filter.complete import LINES_LOOKED_AT, counted_lines
from flowdeck_devtools.tui.screens.base import DeckScreen, scoped
from flowdeck_devtools.tui.screens.views import ViewsMixin
from flowdeck_devtools.tui.widgets.bars import HeadLine
from flowdeck_devtools.tui.widgets.filterbar import FilterBar
from flowdeck_devtools.tui.widgets.jsonview import JsonView
from flowdeck_devtools.tui.widgets.lineview import LineView
from flowdeck_devtools.tui.widgets.tail import Tail

__all__ = ["EventsScreen"]


class EventsScreen(ViewsMixin, DeckScreen):
    """The tail."""

    place: ClassVar[str] = "events"
    BINDINGS: ClassVar[list[BindingType]] = scoped("events")
    AUTO_FOCUS = "#tail"

    def __init__(self) -> None:
        super().__init__()
        self._seen = (-1, -1, False)
        self._inspected: bytes | None = None
        self._skip = False
        self._told = (-1, False, False)
        self._predicate: LinePredicate | None = None
        self._dim = False

    def body(self) -> ComposeResult:
        self.headline = HeadLine(id="headline")
        self.bar = FilterBar('level>=warn kind:chunk.* -kind:chunk.completed "some text" …', id="filter")
        ring = self.session.live.ring
        self.bar.counts = lambda: counted_lines(ring.slice(ring.end - LINES_LOOKED_AT, ring.end)[1])
        self.tail = Tail(RingWindow(self.session.live.ring), id="tail")
        self.inspector = JsonView(id="inspect")
        self.inspect_pane = Vertical(self.inspector, id="inspect-pane", classes="pane side")
        yield self.headline
        yield self.bar
        with Horizontal(id="events-panes"):
            with Vertical(id="tail-pane", classes="pane"):
                yield self.tail
            yield self.inspect_pane

    def on_mount(self) -> None:
        self.query_one("#tail-pane").border_title = "tail"
        self.inspect_pane.border_title = "event"
        self.inspect_pane.display = False

    # -- keeping up --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        live, tail = self.session.live, self.tail
        window = tail.window
        state = (live.ring.end, live.ring.start, window.searching)
        self._skip = not self._skip and live.flooding and tail.following
        if (state != self._seen or window.searching) and not self._skip:
            self._seen = state
            tail.empty = self._empty_text()
            if not window.paused or window.searching:
                tail.tick()
        told = (self.session.clock.now_us() // 500_000, tail.following, window.paused)
        if told != self._told:
            self._told = told
            self._headline()

    def _headline(self) -> None:
        live, window = self.session.live, self.tail.window
        if window.paused:
            mode = (f" PAUSED +{count(window.pending)} ", "waiting")
        elif self.tail.following:
            mode = (" ● FOLLOW ", "ok")
        else:
            mode = (" ○ SCROLLED  f follows ", "dim")
        left = [
            mode,
            (f"  {count(round(live.rate.per_second))} ev/s ", "text"),
            (sparkline(list(live.rate.history)), "running"),
        ]
        total, shown = len(live.ring), len(window)
        if window.filtered:
            share = f"{100 * shown / total:.0f}%" if total else "–"
            left.append((f"   shown {count(shown)} ({share}){'  searching …' if window.searching else ''}", "text"))
        dropped = (f"dropped {count(live.dropped)}  ", "failed" if live.dropped else "faint")
        right = [dropped, (f"buffer {count(total)} lines {live.ring.fill * 100:.0f}% ", "faint")]
        self.headline.show(left, right)

    def _empty_text(self) -> list[tuple[str, str]]:
        window = self.tail.window
        if window.filtered:
            if window.searching:
                return [("searching …", "dim")]
            return [
                (f"0 of {count(len(self.session.live.ring))} lines match", "strong"),
                ("new ones are tested as they come; esc in the filter clears it", "dim"),
            ]
        return [("No events yet", "strong"), ("They appear here as flows run.", "dim")]

    # -- the event beside --------------------------------------------------------------------------------------

    @on(LineView.Highlighted, "#tail")
    def _highlighted(self) -> None:
        self._inspect()

    def _inspect(self) -> None:
        if not self.inspect_pane.display:
            return
        line = self.tail.current_line()
        if line is not None and line is not self._inspected:
            self._inspected = line
            self.inspector.show(line, event_sections(line))

    @on(LineView.Activated, "#tail")
    def _activated(self) -> None:
        self.action_inspect(True)

    def action_inspect(self, on: bool | None = None) -> None:
        pane = self.inspect_pane
        pane.display = not pane.display if on is None else on
        self._inspected = None
        if pane.display:
            # Reading one event and following the newest do not go together.
            self.tail.following = False
            self.call_after_refresh(self._inspect)
        else:
            self.tail.focus()

    # -- actions -----------------------------------------------------------------------------------------------

    @on(FilterBar.Changed)
    def _filtered(self, event: FilterBar.Changed) -> None:
        predicate = compile_line(event.text, self.session.clock.now_us)
        self._predicate = None if predicate.is_empty else predicate
        self._apply_filter()

    def _apply_filter(self) -> None:
        """Hide the lines that do not match, or leave them in place and dim."""
        self.tail.window.set_filter(None if self._dim else self._predicate)
        self.tail.bright = self._predicate if self._dim else None
        self.tail.forget_rows()
        self.tail.empty = self._empty_text()
        self.tail.follow(not self.tail.window.paused)

    @on(FilterBar.Left)
    def _filter_left(self) -> None:
        self.tail.focus()

    def action_filter(self) -> None:
        self.bar.edit()

    def action_dim(self) -> None:
        self._dim = not self._dim
        self._apply_filter()
        self.tail.follow(not self.tail.window.paused)
        self.notify("what does not match is dim" if self._dim else "what does not match is hidden", timeout=2)

    def action_next_match(self, step: int) -> None:
        if not self.tail.next_bright(step):
            self.notify("no further match", timeout=2)

    def action_follow(self) -> None:
        self.tail.follow(not self.tail.following or self.tail.window.paused)
        self._headline()

    def action_pause(self) -> None:
        window = self.tail.window
        window.pause(not window.paused)
        if not window.paused:
            self.tail.follow(True)
        self._headline()

    def action_open_run(self) -> None:
        line = self.tail.current_line()
        run = head(line).run if line is not None else None
        root = (run.root_run_id or run.run_id) if run is not None else None
        if root is None:
            self.notify("this event belongs to no run", severity="warning", timeout=3)
        else:
            self.deck.open_run(root)

    def action_zoom_pane(self) -> None:
        self.deck.zoom_pane()

    def back(self) -> bool:
        if self.inspect_pane.display:
            self.action_inspect(False)
            return True
        if self.bar.filter_text or self.bar.error:
            self.bar.clear()
            return True
        return False

    def subject(self) -> RunRow | None:
        line = self.tail.current_line()
        run = head(line).run if line is not None else None
        return self.session.run(run.root_run_id or run.run_id or "") if run is not None else None

    def copy_choices(self) -> list[tuple[str, str]]:
        line = self.tail.current_line()
        return copy_event(line, self.session.store_of(self.subject())) if line is not None else []

    def zone_changed(self) -> None:
        self.tail.forget_rows()
        self._inspected = None
        self._inspect()
