"""Execution: one run as a waterfall, and the events and values of the step under the cursor."""

from __future__ import annotations

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content

from flowdeck_devtools.core.facts import copy_event, copy_run, event_sections, node_sections
from flowdeck_devtools.core.failure import first_failure
from flowdeck_devtools.core.flowgraph import definition_of
from flowdeck_devtools.core.links import links_of
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.opened import OpenedRun
from flowdeck_devtools.core.opening import Link, open_link
from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.status import glyph
from flowdeck_devtools.core.text import clean, clock_time, count, duration, short_id
from flowdeck_devtools.core.views import (
    VIEWS,
    Page,
    graph_page,
    links_page,
    raw_page,
    state_page,
    stream_page,
    why_page,
)
from flowdeck_devtools.tui.screens.base import DeckScreen, scoped
from flowdeck_devtools.tui.screens.viewing import ViewDialog
from flowdeck_devtools.tui.theme import STATUS_ROLES
from flowdeck_devtools.tui.widgets.bars import HeadLine
from flowdeck_devtools.tui.widgets.lineview import LineView
from flowdeck_devtools.tui.widgets.pages import PageView
from flowdeck_devtools.tui.widgets.tail import EventLines
from flowdeck_devtools.tui.widgets.waterfall import Waterfall

__all__ = ["ExecutionScreen"]


class ExecutionScreen(DeckScreen):
    """The run opened last."""

    place: ClassVar[str] = "execution"
    BINDINGS: ClassVar[list[BindingType]] = scoped("execution")
    AUTO_FOCUS = "#waterfall"

    def __init__(self) -> None:
        super().__init__()
        self._run: OpenedRun | None = None
        self._node: SpanNode | None = None
        self._node_state = (-1, "")
        self._pointed = False

    def body(self) -> ComposeResult:
        self.headline = HeadLine(id="headline")
        self.waterfall = Waterfall(self.session.clock, id="waterfall")
        self.events = EventLines(id="node-events")
        self.viewer = PageView(id="payload")
        self.node_pane = Vertical(self.events, id="node-pane", classes="pane side")
        yield self.headline
        with Horizontal(id="execution-panes"):
            with Vertical(id="waterfall-pane", classes="pane"):
                yield self.waterfall
            with Vertical(id="detail"):
                yield self.node_pane
                with Vertical(id="payload-pane", classes="pane side"):
                    yield self.viewer

    def on_mount(self) -> None:
        self.query_one("#waterfall-pane").border_title = "waterfall"
        self.node_pane.border_title = "events"
        self.query_one("#payload-pane").border_title = "event"
        self.waterfall.empty = [
            ("No run opened", "strong"),
            ("Choose one in 1 Runs, or press o on an event or in the inbox.", "dim"),
        ]
        self.events.empty = [("no events", "dim")]

    # -- keeping up --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        run_id = self.deck.opened_run
        if run_id is None:
            self.headline.show([(" Execution", "strong")])
            return
        if self._run is None or self._run.trace.root.key != run_id or self._run.closed:
            self._open(run_id)
        run = self._run
        assert run is not None
        run.advance()
        row = self.session.run(run_id)
        if row is not None and row.name:
            run.trace.root.title = clean(row.name)
        self.waterfall.show(run.trace)
        self.waterfall.empty = [("Reading the run …", "dim")]
        self.waterfall.tick()
        if not self._pointed and not run.loading:
            self._point_at_failure(run)
        self._headline(run)
        self._show_node()
        self._keep_page(run)

    def _open(self, run_id: str) -> None:
        self._run = self.session.open_run(run_id, again=False)
        self._node, self._node_state = None, (-1, "")
        self._pointed = False

    def _point_at_failure(self, run: OpenedRun) -> None:
        """A failed run opens with the step that failed first under the cursor."""
        self._pointed = True
        first = first_failure(run.trace) if run.trace.status == "failed" else None
        if first is not None:
            self.waterfall.select(first.node)

    def _headline(self, run: OpenedRun) -> None:
        trace = run.trace
        row = self.session.run(trace.root.key)
        status = row.status if row is not None else trace.status
        now = self.session.clock.now_us()
        name = trace.root.name
        left: list[tuple[str, str]] = [
            (" Runs › ", "dim"),
            (clean(name), "strong"),
            (f" {short_id(clean(trace.root.key))}  ", "dim"),
            (f"{glyph(status)} {status}", STATUS_ROLES.get(status, "dim")),
            (f"  {duration(trace.root.duration_us(trace.lost_us or now))}  ", "text"),
            (f"{count(trace.events)} events", "dim"),
        ]
        if run.left_out:  # in few words: at 80 columns it must not lose what to do
            words = f"{count(trace.events)} of {count(trace.events + run.left_out)} events: reopen in 1 Runs"
            left[-1] = (words, "failed")
        waiting = trace.root.below("waiting")
        if waiting:
            left.append((f"  ! {waiting} waiting", "waiting"))
        if trace.first_error is not None and status == "failed" and row is not None and row.error:
            left.append((f"  {clean(row.error)}", "failed"))
        if run.problem:
            left.append((f"  {clean(run.problem)}", "failed"))
        elif run.loading:
            left.append(("  reading …", "dim"))
        started = trace.started_us
        self.headline.show(left, [(f"{clock_time(started)} " if started else "", "faint")])

    # -- the node under the cursor -----------------------------------------------------------------------------

    def _show_node(self) -> None:
        node = self.waterfall.current
        state = (node.line_count, node.status) if node is not None else (-1, "")
        if node is self._node and state == self._node_state:
            return
        same = node is self._node
        self._node, self._node_state = node, state
        events = self.events
        if node is None:
            events.show([], same=False)
            self.viewer.clear()
            return
        held = f"events of {node.name}" + (
            f"  {count(node.lines_dropped)} older not kept" if node.lines_dropped else ""
        )
        self.node_pane.border_title = Content(clean(held, limit=120))
        events.show(node.lines, same=same)
        if not same:
            self._point_at_telling_event(node)
        self._show_event()

    def _point_at_telling_event(self, node: SpanNode) -> None:
        """Of a step's events the last tells most: its output or its error. A run shows with what it was started."""
        if node is self.waterfall.outline_root:
            places = (place for place, line in enumerate(node.lines[:20]) if b'"initial_value"' in line)
            self.events.move_to(next(places, 0), notify=False)
        elif node.role == "span" and node.lines:
            self.events.move_to(len(node.lines) - 1, notify=False)

    # -- the pages ---------------------------------------------------------------------------------------------

    def _keep_page(self, run: OpenedRun) -> None:
        """Keep the page that is shown instead of the event up to date."""
        view, trace, node = self.viewer.view, run.trace, self.waterfall.current
        if view == "event":
            return
        row = self.session.run(trace.root.key)
        execution, line, store = (
            row.execution_id if row else None,
            self.events.current_line(),
            self.session.store_of(row),
        )
        clock, history, live = self.session.clock, self.session.history, self.session.live

        def make() -> Page:
            match view:
                case "why":
                    return why_page(trace, node)
                case "graph":
                    definition, fingerprint = definition_of(trace)
                    if definition is None and fingerprint is not None:
                        definition = live.definition(fingerprint) or history.definition(fingerprint)
                    return graph_page(trace, definition, clock.now_us())
                case "state":
                    return state_page(trace, node, links_of(store, execution, trace))
                case "stream":
                    return stream_page(trace)
                case "links":
                    return links_page(links_of(store, execution, trace))
            return raw_page(line)

        about = id(node) if view in ("why", "state") else id(line) if view == "raw" else 0
        self.viewer.keep_up((view, trace.root.key, trace.version if view != "raw" else 0, about), make)

    def action_page(self, view: str) -> None:
        self.viewer.turn_to(view)
        self._title_page()

    def action_turn_page(self, step: int) -> None:
        self.viewer.turn(step)
        self._title_page()

    def _title_page(self) -> None:
        names = " ".join(f"[{name}]" if name == self.viewer.view else name for name in VIEWS)
        self.query_one("#payload-pane").border_title = Content(names if self.viewer.view != "event" else "event")
        self._show_event()
        if self._run is not None:
            self._keep_page(self._run)

    @on(LineView.Activated, "#payload")
    def _page_activated(self) -> None:
        """A line of why or of the graph leads to its step; one of the links opens what it names."""
        target, link = self.viewer.target, self.viewer.link
        if target is not None:
            self.waterfall.select(target)
        elif link is not None:
            row = self.subject()
            self._open_link(row.execution_id if row is not None else None, link)

    @work(thread=True, name="open-link", group="link", exclusive=True, exit_on_error=False)
    def _open_link(self, execution_id: str | None, link: Link) -> None:
        try:
            sections = open_link(self.session.store_of(self.subject()), execution_id, link)
        except Exception as error:  # whatever a store or a workspace says: words, not a crash
            sections = [(f"cannot be opened: {clean(str(error), limit=400)}", None, "failed")]
        self.app.call_from_thread(self.app.push_screen, ViewDialog(link[0], sections))

    def action_critical(self) -> None:
        on = self.waterfall.toggle_critical()
        self.notify("the critical path stands out" if on else "all steps alike", timeout=2)

    def _show_event(self) -> None:
        if self.viewer.view != "event":
            return
        node, line = self._node, self.events.current_line()
        view = self.viewer
        if line is not None:
            view.show(line, event_sections(line))
        elif node is not None:
            view.show((node.key, node.status), node_sections(node, self.session.clock.now_us()))

    @on(LineView.Highlighted, "#waterfall")
    def _moved(self) -> None:
        self._show_node()

    @on(LineView.Highlighted, "#node-events")
    def _event_moved(self) -> None:
        self._show_event()

    @on(LineView.Activated, "#waterfall")
    def _activated(self) -> None:
        self.events.focus()

    @on(LineView.Activated, "#node-events")
    def _event_activated(self) -> None:
        self.viewer.focus()

    # -- actions -----------------------------------------------------------------------------------------------

    def action_fold(self) -> None:
        self.waterfall.fold()

    def action_unfold(self) -> None:
        self.waterfall.unfold()

    def action_fold_all(self) -> None:
        self.waterfall.fold_all(True)

    def action_unfold_all(self) -> None:
        self.waterfall.fold_all(False)

    def action_next_issue(self, step: int) -> None:
        if not self.waterfall.next_issue(step):
            self.notify("nothing failed and nothing waits in this run", timeout=2)

    def action_zoom_time(self, factor: float) -> None:
        self.waterfall.zoom_time(factor)

    def action_follow(self) -> None:
        self.waterfall.following = not self.waterfall.following
        self.notify("following the newest step" if self.waterfall.following else "not following", timeout=2)

    def action_next_pane(self) -> None:
        self.focus_next()

    def action_zoom_pane(self) -> None:
        self.deck.zoom_pane()

    def action_answer(self) -> None:
        row = self.session.run(self._run.trace.root.key) if self._run is not None else None
        if row is None or not self.deck.open_interrupt_of(row.execution_id):
            self.notify("this run waits for nothing", timeout=2)

    def back(self) -> bool:
        if self.maximized is not None:
            self.minimize()
            return True
        if self.viewer.view != "event":
            self.action_page("event")
            return True
        if self.focused is not None and self.focused is not self.waterfall:
            self.waterfall.focus()
            return True
        return False

    def subject(self) -> RunRow | None:
        return self.session.run(self._run.trace.root.key) if self._run is not None else None

    def copy_choices(self) -> list[tuple[str, str]]:
        line = self.events.current_line()
        row = self.session.run(self._run.trace.root.key) if self._run is not None else None
        return [
            *(copy_event(line, self.session.store_of(row)) if line is not None else []),
            *(copy_run(row, self.session.store_of(row)) if row is not None else []),
        ]

    def zone_changed(self) -> None:
        self._node_state = (-1, "")
