"""Ledger: everything people did to runs, newest first. It only grows; nothing here can be edited."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical

from flowdeck_devtools.core.columns import Column
from flowdeck_devtools.core.facts import Section, store_name, store_option
from flowdeck_devtools.core.ledger import SQL, Entry, PendingRequests, merged, of_rows
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.text import clean, clock_time, count, day_time, short_id
from flowdeck_devtools.filter import compile_fields
from flowdeck_devtools.tui.screens.base import DeckScreen, scoped
from flowdeck_devtools.tui.screens.views import ViewsMixin
from flowdeck_devtools.tui.widgets.bars import HeadLine
from flowdeck_devtools.tui.widgets.filterbar import FilterBar
from flowdeck_devtools.tui.widgets.jsonview import JsonView
from flowdeck_devtools.tui.widgets.lineview import LineView
from flowdeck_devtools.tui.widgets.vtable import Cell, VirtualTable

__all__ = ["LedgerScreen"]

COLUMNS = (
    Column("time", "TIME", 8),
    Column("actor", "ACTOR", 10, flex=1, most=18),
    Column("action", "ACTION", 9),
    Column("flow", "FLOW", 10, flex=1, most=24, priority=2),
    Column("run", "RUN", 8, priority=1),
    Column("reason", "WHAT, WHY", 14, flex=3),
    Column("effect", "EFFECT", 9, flex=2, most=40),
)
STORE = Column("store", "STORE", 10, most=18, flex=1, priority=1)
REFRESH_SECONDS = 1.0
"""The history is asked again no sooner, and only when something was done."""
SLOW_FACTOR = 20
"""A store that takes long to answer is asked seldom: at most this part of the time is spent on it."""
_ROLES = {"applied": "ok", "pending": "waiting", "early": "waiting", "duplicate": "dim"}


class LedgerScreen(ViewsMixin, DeckScreen):
    """Acts on the left of time, what was sent below."""

    place: ClassVar[str] = "ledger"
    BINDINGS: ClassVar[list[BindingType]] = scoped("ledger")
    AUTO_FOCUS = "#acts"

    def __init__(self) -> None:
        super().__init__()
        self._passes: Callable[[Mapping[str, Any]], bool] | None = None
        self._state: tuple[object, ...] = ()
        self._asked_for: tuple[int, int] | None = None
        self._asked_at = 0.0
        self._entries: list[Entry] = []
        self._filters = 0
        self._shown: str | None = None

    def body(self) -> ComposeResult:
        stores = self.session.stores
        self.question = self.session.question()
        self.requests = PendingRequests(*stores)
        self.headline = HeadLine(id="headline")
        self.bar = FilterBar("actor:ana kind:cancel,answer flow:refund* last:1d …", id="filter")
        columns = COLUMNS if len(stores) == 1 else (COLUMNS[0], STORE, *COLUMNS[1:])
        self.table = VirtualTable[Entry](columns, self._cell, _key, id="acts")
        self.viewer = JsonView(id="act")
        yield self.headline
        yield self.bar
        with Vertical(id="acts-pane", classes="pane"):
            yield self.table
        with Vertical(id="act-pane", classes="pane quiet"):
            yield self.viewer

    def on_mount(self) -> None:
        self.table.follow = False
        self.query_one("#acts-pane").border_title = "ledger"
        self.query_one("#act-pane").border_title = "act"

    # -- keeping up --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        self._ask()
        state = (self.question.version, self.requests.version, self._filters, self.question.running)
        if state == self._state:
            return
        self._state = state
        answer = self.question.answer
        told = of_rows(answer.rows, answer.origins) if answer is not None and answer.problem is None else []
        self._entries = merged(told, self.requests.entries)
        passes = self._passes
        shown = self._entries if passes is None else [one for one in self._entries if passes(one.fields())]
        self.table.empty = self._empty_text()
        self.table.show(shown)
        total = count(len(self._entries))
        self.bar.note(f"{count(len(shown))} of {total}" if passes else f"{total} acts")
        self._headline()
        self._show_entry()

    def _ask(self) -> None:
        """Ask again when somebody did something: the control store changed, or this window acted."""
        now = self.session.clock.monotonic()
        wanted = (self.session.inbox.version, self.session.acted)
        answer = self.question.answer
        pause = max(REFRESH_SECONDS, answer.seconds * SLOW_FACTOR if answer is not None else 0.0)
        if self.question.running or (self._asked_for is not None and now - self._asked_at < pause):
            return
        if wanted == self._asked_for:
            return
        self._asked_for, self._asked_at = wanted, now
        self.question.ask(SQL)
        self.requests.look()

    def _headline(self) -> None:
        left: list[tuple[str, str]] = [(" Ledger ", "strong")]
        waiting = sum(1 for entry in self._entries if entry.outcome == "pending")
        if waiting:
            left.append((f"  ! {waiting} not applied yet", "waiting"))
        answer = self.question.answer
        problem = self.requests.problem or (answer.problem or answer.unanswered if answer else None)
        if problem:
            left.append((f"  ✗ {problem}", "failed"))
        self.headline.show(left, [(f"acting as {clean(self.session.actor)} ", "faint")])

    def _empty_text(self) -> list[tuple[str, str]]:
        if self._entries:
            return [(f"0 of {count(len(self._entries))} acts match", "strong"), ("esc in the filter clears it", "dim")]
        if self.question.answer is None:
            return [("Reading the ledger …", "dim")]
        return [
            ("Nobody did anything yet", "strong"),
            ("Answers, interventions, cancels, forks and re-runs appear here with who did them.", "dim"),
            ("Press x on a run to act on it.", "dim"),
        ]

    def _cell(self, entry: Entry, column: str) -> Cell:
        match column:
            case "time":
                return day_time(entry.at_us, self.session.clock.now_us()), "dim"
            case "store":
                return store_name(entry.store or self.session.store), "violet"
            case "actor":
                return entry.actor, "strong"
            case "action":
                return entry.action, "text"
            case "flow":
                return entry.flow, "dim"
            case "run":
                return short_id(clean(entry.execution_id)) if entry.execution_id else "", "dim"
            case "reason":
                return entry.reason, "text"
        return entry.effect, _ROLES.get(entry.outcome, "failed")

    # -- one act -----------------------------------------------------------------------------------------------

    @on(LineView.Highlighted, "#acts")
    def _moved(self) -> None:
        self._show_entry()

    def _show_entry(self) -> None:
        entry = self.table.current
        if entry is None:
            self.viewer.clear()
            return
        self.viewer.show((entry.key, entry.outcome), _sections(entry))

    # -- actions -----------------------------------------------------------------------------------------------

    @on(FilterBar.Changed)
    def _filtered(self, event: FilterBar.Changed) -> None:
        self._passes = compile_fields(event.text) if event.text else None
        self._filters += 1
        self.tick()

    @on(FilterBar.Left)
    def _filter_left(self) -> None:
        self.table.focus()

    @on(LineView.Activated, "#acts")
    def _activated(self) -> None:
        self.action_open_run()

    def action_filter(self) -> None:
        self.bar.edit()

    def action_refresh(self) -> None:
        self._asked_for = None

    def subject(self) -> RunRow | None:
        entry = self.table.current
        return self.session.run_of_execution(entry.execution_id or None) if entry is not None else None

    def action_open_run(self) -> None:
        row = self.subject()
        if row is None:
            self.notify("the run of this act is not in view", severity="warning", timeout=3)
        else:
            self.deck.open_run(row.run_id)

    def back(self) -> bool:
        if self.bar.filter_text or self.bar.error:
            self.bar.clear()
            self.table.focus()
            return True
        return False

    def copy_choices(self) -> list[tuple[str, str]]:
        entry = self.table.current
        if entry is None:
            return []
        record = {
            "time_us": entry.at_us, "actor": entry.actor, "action": entry.action, "execution_id": entry.execution_id,
            "target": entry.target, "outcome": entry.outcome, "detail": entry.detail, "value": entry.value,
        }  # fmt: skip
        lines = "\n".join(json.dumps({"actor": one.actor, "action": one.action, "execution_id": one.execution_id,
                                      "outcome": one.outcome, "time_us": one.at_us, "value": one.value},
                                     ensure_ascii=False) for one in self.table.rows)  # fmt: skip
        choices = [
            ("act as JSON", json.dumps(record, ensure_ascii=False, indent=2)),
            ("all shown as JSON lines", lines),
        ]
        if entry.execution_id:
            option = store_option(entry.store or self.session.store)
            choices.append(("execution id", entry.execution_id))
            choices.append(("command", f"flowdeck executions show {entry.execution_id}{option}"))
        return choices

    def zone_changed(self) -> None:
        self._state = ()


def _key(entry: Entry) -> str:
    return f"{entry.store}-{entry.key}"  # numbers in the inbox are those of one store


def _sections(entry: Entry) -> list[Section]:
    title = f"{entry.action} by {entry.actor}  {entry.effect}"
    sections: list[Section] = [
        (title, None, _ROLES.get(entry.outcome, "failed")),
        (clock_time(entry.at_us), None, "dim"),
    ]
    about = {"flow": entry.flow, "execution": entry.execution_id, "target": entry.target, "detail": entry.detail}
    sections.append(("", {name: value for name, value in about.items() if value}, "title"))
    if entry.value is not None:
        sections.append(("what was sent", entry.value, "title"))
    return sections
