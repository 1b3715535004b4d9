"""Evals: sessions on top, the cases of the chosen one beside those of its base, and what one case came to."""

from __future__ import annotations

import json
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content

from flowdeck_devtools.core.columns import Column
from flowdeck_devtools.core.evalboard import (
    ROUNDS_SQL,
    SESSIONS_SQL,
    Case,
    Comparison,
    EvalSession,
    Round,
    compare,
    sessions_of,
)
from flowdeck_devtools.core.facts import Section, store_name
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.text import clean, count, day_time, duration, short_id
from flowdeck_devtools.tui.screens.base import DeckScreen, scoped
from flowdeck_devtools.tui.widgets.bars import HeadLine
from flowdeck_devtools.tui.widgets.jsonview import JsonView
from flowdeck_devtools.tui.widgets.lineview import LineView
from flowdeck_devtools.tui.widgets.vtable import Cell, VirtualTable

__all__ = ["EvalsScreen"]

REFRESH_SECONDS = 2.0
SLOW_FACTOR = 20
_SESSION_COLUMNS = (
    Column("mark", "", 1),
    Column("verdict", "VERDICT", 10),
    Column("suite", "SUITE", 14, flex=2, most=40),
    Column("session", "SESSION", 8, priority=2),
    Column("started", "STARTED", 8, priority=1),
    Column("cases", "CASES", 6, align="right"),
    Column("rate", "PASSED", 7, align="right"),
    Column("wall", "TIME", 7, align="right", priority=3),
    Column("git", "GIT", 8, priority=4),
)
_CASE_COLUMNS = (
    Column("change", "", 10),
    Column("case", "CASE", 16, flex=2, most=48),
    Column("base", "BASE", 5, align="right"),
    Column("candidate", "NOW", 5, align="right"),
    Column("delta", "Δ", 5, align="right"),
    Column("checks", "WHAT FAILED", 14, flex=3),
)
_VERDICTS = {"pass": "ok", "passed": "ok", "fail": "failed", "failed": "failed"}
_CHANGES = {
    "regressed": ("▼ worse", "failed"),
    "improved": ("▲ better", "ok"),
    "new": ("+ new", "running"),
    "gone": ("– gone", "waiting"),
    "changed": ("~ changed", "waiting"),
    "same": ("", "dim"),
}


class EvalsScreen(DeckScreen):
    """What was evaluated, and what changed."""

    place: ClassVar[str] = "evals"
    BINDINGS: ClassVar[list[BindingType]] = scoped("evals")
    AUTO_FOCUS = "#sessions"

    def __init__(self) -> None:
        super().__init__()
        self._seen = (-1, -1)
        self._moved = -1
        self._asked_at = -1e9
        self._base: dict[str, str] = {}
        self._pair: tuple[str | None, str] | None = None
        self._comparison: Comparison | None = None
        self._worse_only = False

    def body(self) -> ComposeResult:
        self.sessions_asked = self.session.question()
        self.rounds_asked = self.session.question(100_000)
        columns: tuple[Column, ...] = _SESSION_COLUMNS
        if len(self.session.stores) > 1:
            columns = (*columns[:2], Column("store", "STORE", 10, most=18, flex=1, priority=1), *columns[2:])
        self.headline = HeadLine(id="headline")
        self.sessions = VirtualTable[EvalSession](columns, self._session_cell, lambda one: one.id, id="sessions")
        self.cases = VirtualTable[Case](_CASE_COLUMNS, self._case_cell, lambda one: one.id, id="cases")
        self.viewer = JsonView(id="case")
        yield self.headline
        with Vertical(id="sessions-pane", classes="pane"):
            yield self.sessions
        with Vertical(id="cases-pane", classes="pane"):
            yield self.cases
        with Vertical(id="case-pane", classes="pane quiet"):
            yield self.viewer

    def on_mount(self) -> None:
        self.sessions.follow = self.cases.follow = False
        self.query_one("#sessions-pane").border_title = "sessions"
        self.query_one("#cases-pane").border_title = "cases"
        self.query_one("#case-pane").border_title = "case"
        self.sessions.empty = [("Reading evaluations …", "dim")]
        self.cases.empty = [("", "dim")]

    # -- keeping up --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        now, asked = self.session.clock.monotonic(), self.sessions_asked
        pause = max(REFRESH_SECONDS, asked.answer.seconds * SLOW_FACTOR if asked.answer is not None else 0.0)
        moved = self.session.live.ring.end
        if not asked.running and moved != self._moved and now - self._asked_at >= pause:
            self._moved, self._asked_at = moved, now
            asked.ask(SESSIONS_SQL)
            self._pair = None
        versions = (asked.version, self.rounds_asked.version)
        if versions != self._seen:
            self._seen = versions
            self._show()

    def _show(self) -> None:
        answer = self.sessions_asked.answer
        if answer is not None and answer.problem is None:
            self.sessions.empty = [
                ("Nothing was evaluated yet", "strong"),
                ("evals run SUITE.yaml writes its results into the store", "dim"),
                ("x on a run keeps it as a case", "dim"),
            ]
            self.sessions.show(sessions_of(answer.rows, answer.origins))
        self._compare()
        rounds = self.rounds_asked.answer
        if rounds is not None and rounds.problem is None and rounds.label == self._pair and self._pair is not None:
            self._comparison = compare(rounds.rows, *self._pair)
        self._show_cases()

    def _compare(self) -> None:
        chosen = self.sessions.current
        if chosen is None:
            return
        pair = (self._base_of(chosen), chosen.id)
        if pair != self._pair:
            self._pair = pair
            self.rounds_asked.ask(ROUNDS_SQL, [pair[0] or "", pair[1]], label=pair)

    def _base_of(self, chosen: EvalSession) -> str | None:
        """What was set as the base of its suite; else the session of that suite that came before."""
        base = self._base.get(chosen.suite)
        if base is not None and base != chosen.id:
            return base
        older = [one for one in self.sessions.rows if one.suite == chosen.suite]
        at = next((place for place, one in enumerate(older) if one.id == chosen.id), len(older))
        return older[at + 1].id if at + 1 < len(older) else None

    def _show_cases(self) -> None:
        shown = self._comparison
        cases = list(shown.cases) if shown is not None else []
        if self._worse_only:
            cases = [case for case in cases if case.change == "regressed" or (case.candidate_rate or 0.0) < 1.0]
            self.cases.empty = [("no case fails or got worse", "ok")]
        self.cases.show(cases)
        self._headline()
        self._show_case()

    def _headline(self) -> None:
        left: list[tuple[str, str]] = [(" Evals ", "strong")]
        answers = [q.answer for q in (self.sessions_asked, self.rounds_asked) if q.answer is not None]
        told = (one.problem or one.unanswered for one in answers)
        problem = next((words for words in told if words not in (None, "stopped")), None)
        shown, pair = self._comparison, self._pair
        if problem:
            left.append((f"  ✗ {problem}", "failed"))
        elif shown is not None and pair is not None and pair[0] is not None:
            left.append((f"  {short_id(pair[1])} against {short_id(pair[0])}", "text"))
            if shown.mean is not None:
                role = "failed" if shown.mean < 0 else "ok" if shown.mean > 0 else "dim"
                left.append((f"  Δ {shown.mean:+.3f}", role))
            left.append((f"  ▼ {shown.count('regressed')}", "failed" if shown.count("regressed") else "dim"))
            left.append((f"  ▲ {shown.count('improved')}", "ok" if shown.count("improved") else "dim"))
            if shown.low is not None and shown.high is not None:
                left.append((f"  95 % [{shown.low:+.3f}, {shown.high:+.3f}]", "dim"))
            left.append((f"  n={shown.n}", "dim"))
            if shown.p is not None:
                left.append((f"  p={shown.p:.2g}", "failed" if shown.p < 0.05 else "dim"))
            if shown.n:
                left.append(
                    (f"  sees ≥{shown.sees:.1%}" if shown.sees is not None else "  too few to see a drop", "dim")
                )
        self.headline.show(left, [("failing or worse only " if self._worse_only else "", "waiting")])

    # -- cells -------------------------------------------------------------------------------------------------

    def _session_cell(self, row: EvalSession, column: str) -> Cell:
        match column:
            case "mark":
                return ("b", "accent") if self._pair is not None and row.id == self._pair[0] else ("", "dim")
            case "verdict":
                return row.status, _VERDICTS.get(row.verdict, "waiting")
            case "store":
                return store_name(row.store or self.session.store), "violet"
            case "suite":
                return row.suite, "text"
            case "session":
                return short_id(clean(row.id)), "dim"
            case "started":
                return day_time(row.started_us, self.session.clock.now_us()), "dim"
            case "cases":
                return count(row.cases), "dim"
            case "rate":
                return (f"{row.passed / row.rounds:.0%}" if row.rounds else "–"), "number"
            case "wall":
                return (duration(row.wall_ms * 1e3) if row.wall_ms is not None else "–"), "dim"
        return row.git_sha[:8], "dim"

    def _case_cell(self, row: Case, column: str) -> Cell:
        match column:
            case "change":
                return _CHANGES[row.change] if self._pair is not None and self._pair[0] else ("", "dim")
            case "case":
                return clean(row.id), "text"
            case "base":
                return _percent(row.base_rate), "dim"
            case "candidate":
                rate = row.candidate_rate
                return _percent(rate), "dim" if rate is None else "ok" if rate == 1.0 else "failed"
            case "delta":
                delta = row.delta
                return (f"{delta:+.0%}", "failed" if delta < 0 else "ok") if delta else ("", "dim")
        bad = [one for one in row.candidate if not one.good]
        found = [name for one in bad for name in (one.failed_checks or ([one.error] if one.error else []))]
        states = {one.state for one in row.candidate} - {"passed", "failed"}
        if any(one.control for one in bad):
            states.add("passed and must fail")
        return clean(", ".join([*sorted(states), *dict.fromkeys(found)])), "dim"

    # -- one case ----------------------------------------------------------------------------------------------

    @on(LineView.Highlighted, "#sessions")
    def _session_moved(self) -> None:
        self._compare()

    @on(LineView.Highlighted, "#cases")
    def _case_moved(self) -> None:
        self._show_case()

    @on(LineView.Activated, "#sessions")
    def _session_chosen(self) -> None:
        self.cases.focus()

    @on(LineView.Activated, "#cases")
    def _case_chosen(self) -> None:
        self.action_open_run("candidate")

    def _show_case(self) -> None:
        case = self.cases.current
        if case is None:
            self.viewer.clear()
            return
        self.query_one("#case-pane").border_title = Content(clean(case.id, limit=80))
        sections: list[Section] = []
        if changes := case.changes():
            sections.append(("base → now", changes, "title"))
        for name, rounds in (("now", case.candidate), ("base", case.base)):
            for one in rounds:
                sections += _round_sections(name, one)
        self.viewer.show((self._pair, case.id), sections)

    # -- actions -----------------------------------------------------------------------------------------------

    def _run_of(self, side: str) -> str | None:
        case = self.cases.current
        rounds = () if case is None else case.candidate if side == "candidate" else case.base
        # The round that failed tells most.
        ranked = sorted(rounds, key=lambda one: (one.good, one.number))
        return ranked[0].run_id if ranked else None

    def subject(self) -> RunRow | None:
        run_id = self._run_of("candidate")
        return self.session.find_run(run_id) if run_id else None

    def action_open_run(self, side: str) -> None:
        run_id = self._run_of(side)
        if run_id is None:
            self.notify("this case left no run", severity="warning", timeout=3)
            return
        row = self.session.find_run(run_id)
        self.deck.open_run(row.run_id if row is not None else run_id)

    def action_set_base(self) -> None:
        chosen = self.sessions.current
        if chosen is not None:
            self._base[chosen.suite] = chosen.id
            self.notify(f"base of {chosen.suite}: {short_id(chosen.id)}", timeout=3, markup=False)
            self._compare()
            self.sessions.repaint()

    def action_worse_only(self) -> None:
        self._worse_only = not self._worse_only
        self._show_cases()

    def action_next_pane(self) -> None:
        self.focus_next()

    def back(self) -> bool:
        if self.focused is not None and self.focused is not self.sessions:
            self.sessions.focus()
            return True
        return False

    def copy_choices(self) -> list[tuple[str, str]]:
        chosen, case = self.sessions.current, self.cases.current
        choices: list[tuple[str, str]] = []
        if case is not None:
            records = [one.record for one in (*case.candidate, *case.base)]
            choices.append(("rounds of the case as JSON", json.dumps(records, ensure_ascii=False, indent=2)))
            choices.append(("case id", case.id))
        if chosen is not None:
            choices.append(("session id", chosen.id))
            quoted = chosen.id.replace("'", "''")
            choices.append(("SQL for its checks", f"select * from eval_checks where session_id = '{quoted}'"))
        return choices

    def zone_changed(self) -> None:
        self._seen = (-1, -1)


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.0%}"


def _round_sections(name: str, one: Round) -> list[Section]:
    lasted = f"  {duration(one.wall_ms * 1e3)}" if one.wall_ms is not None else ""
    role = "ok" if one.good else "failed" if one.state in ("passed", "failed") else "waiting"
    state = f"{one.state}, as it must" if one.control and one.good else one.state
    sections: list[Section] = [(f"{name}, round {one.number}: {state}{lasted}", None, role)]
    if one.error:
        sections.append((one.error, None, "failed"))
    if one.verdicts:
        sections.append(("", one.verdicts, "title"))
    if one.record.get("output") is not None:
        sections.append(("output", one.record["output"], "title"))
    return sections
