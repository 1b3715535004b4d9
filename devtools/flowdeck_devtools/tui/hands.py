"""What a person can do to the run under the cursor, from any screen: one menu, a review, a report, a ledger entry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import work

from flowdeck_devtools.core.acting import Abilities, ActReport, Acts, Started, started_of
from flowdeck_devtools.core.text import clean, short_id
from flowdeck_devtools.tui.screens.asking import AskDialog, Asked
from flowdeck_devtools.tui.screens.base import DeckScreen
from flowdeck_devtools.tui.screens.dialogs import ConfirmDialog, PickDialog
from flowdeck_devtools.tui.screens.runs import RunsScreen

if TYPE_CHECKING:
    from textual.app import App

    from flowdeck_devtools.core.model import RunRow
    from flowdeck_devtools.core.session import Session

    _Base = App[None]
else:
    _Base = object

__all__ = ["ActsMixin"]


@dataclass(frozen=True, slots=True)
class _Subject:
    """The run that something is done to, and what is known of its start."""

    run_id: str
    execution_id: str | None
    name: str
    started: Started | None
    can: Abilities
    store: Path


@dataclass(frozen=True, slots=True)
class _Verb:
    """One entry of the menu."""

    id: str
    label: str
    about: str
    yes: str
    fields: tuple[Asked, ...] = ()
    lines: tuple[str, ...] = ()


_VERBS = (
    _Verb(
        "intervene",
        "Intervene",
        "add context to the run",
        "Add",
        (
            Asked("value", 'JSON, such as {"hint": "the supplier is new"}', required=True, as_json=True),
            Asked("target", "a point, operator or block; nothing: the next that takes it"),
            Asked("note", "why, for people"),
        ),
        ("It changes nothing until an operator that takes it is reached.",),
    ),
    _Verb(
        "cancel",
        "Cancel",
        "stop its handlers, give up its interrupts",
        "Cancel the run",
        (Asked("reason", "why, for the ledger"),),
        ("Its handlers are stopped and its open questions given up. This cannot be taken back.",),
    ),
    _Verb("resume", "Resume", "take it up in a process of its own", "Resume", (), ("A new process loads its flow.",)),
    _Verb(
        "fork",
        "Fork",
        "a new execution from a committed point",
        "Fork",
        (Asked("at", "after so many inputs; nothing: all of them", whole=True),),
        ("The fork is an execution of its own; resume it, or let a worker take it up.",),
    ),
    _Verb("rerun", "Run again", "the same flow with the same input", "Run", (), ("Its effects happen again.",)),
    _Verb(
        "promote",
        "Keep as eval case",
        "its tape and a case in a suite",
        "Keep",
        (Asked("folder", "where suites are; nothing: evals"),),
        ("Secrets under known names are masked; look through the tape before you share it.",),
    ),
)


class ActsMixin(_Base):
    """The part of the app that acts. Everything runs in a worker thread; the window never waits."""

    session: Session

    if TYPE_CHECKING:

        def action_go(self, place: str) -> None: ...

    def action_act(self, verb: str = "") -> None:
        """Do something to the run under the cursor: the named verb, or what is picked from a menu."""
        screen = self.screen
        row = screen.subject() if isinstance(screen, DeckScreen) else None
        if row is None:
            self.notify("there is no run under the cursor", severity="warning", timeout=3)
            return
        self._look_up(row, verb)

    def show_runs(self, filter_text: str) -> None:
        """Go to the runs that a filter lets through."""
        self.action_go("runs")

        def narrow() -> None:
            if isinstance(self.screen, RunsScreen):
                self.screen.bar.set(filter_text)

        self.call_after_refresh(narrow)

    def action_publish_store(self) -> None:
        """Publish and compact the store in a child process."""
        self.notify("publishing the store …", timeout=2)
        self._do("publish", lambda acts: acts.publish())

    @work(thread=True, name="act-look-up", group="act", exclusive=True, exit_on_error=False)
    def _look_up(self, row: RunRow, verb: str) -> None:
        """What can be done, and with what the run was started: both are read from files."""
        store = self.session.store_of(row)
        try:
            started = started_of(store, row.run_id)
        except Exception:  # no DuckDB, no such store: then it cannot be run again, and the menu says so
            started = None
        can = self._acts(store).abilities(row.execution_id, started)
        subject = _Subject(row.run_id, row.execution_id, row.name or row.kind or "run", started, can, store)
        self.call_from_thread(self._ask_verb, subject, verb)

    def _acts(self, store: Path | None = None) -> Acts:
        return Acts(store or self.session.store, self.session.actor)

    def _ask_verb(self, subject: _Subject, verb: str) -> None:
        if verb:
            self._review(subject, next(one for one in _VERBS if one.id == verb))
            return

        def picked(index: int | None) -> None:
            if index is not None and 0 <= index < len(_VERBS):
                self._review(subject, _VERBS[index])

        rows = [(one.label, _why_not(subject, one) or one.about) for one in _VERBS]
        self.push_screen(PickDialog(f"{subject.name} {short_id(subject.run_id)}", rows), picked)

    def _review(self, subject: _Subject, verb: _Verb) -> None:
        why = getattr(subject.can, verb.id)
        if why is not None:
            self.notify(clean(f"{verb.label}: {why}"), severity="warning", timeout=6, markup=False)
            return

        def answered(values: dict[str, Any] | None) -> None:
            if values is not None:
                self._do(verb.label.lower(), lambda acts: _done(acts, subject, verb.id, values), subject.store)

        lines = [f"{subject.name} {subject.execution_id or subject.run_id}", *verb.lines, f"as {self.session.actor}"]
        self.push_screen(AskDialog(f"{verb.label}?", lines, list(verb.fields), verb.yes), answered)

    def _do(self, what: str, act: Callable[[Acts], ActReport], store: Path | None = None) -> None:
        """In a thread that leaving does not wait for: a run may take days, and its process goes on without us."""

        def run() -> None:
            try:
                report = act(self._acts(store))
            except Exception as error:  # whatever a store or a child does is words for the person
                report = ActReport(False, clean(f"{type(error).__name__}: {error}", limit=300))
            if self.is_running:
                with suppress(RuntimeError):  # the window closed meanwhile
                    self.call_from_thread(self._acted, what, report, store)

        threading.Thread(target=run, name="flowdeck-act", daemon=True).start()

    def _acted(self, what: str, report: ActReport, store: Path | None = None) -> None:
        severity: Any = "information" if report.done else "warning" if report.pending else "error"
        self.notify(clean(f"{what}: {report.headline}", limit=300), severity=severity, timeout=6, markup=False)
        self.session.inbox.refresh()
        self.session.acted += 1
        if what == "fork" and report.done and report.execution_id:
            self._offer_resume(report.execution_id, store)

    def _offer_resume(self, execution_id: str, store: Path | None = None) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._do("resume", lambda acts: acts.resume(execution_id), store)

        lines = [execution_id, "Nobody runs it yet. Take it up in a process of its own, or leave it to a worker."]
        self.push_screen(ConfirmDialog("Resume the fork now?", lines, "Resume", "Later"), answered)


def _why_not(subject: _Subject, verb: _Verb) -> str | None:
    why = getattr(subject.can, verb.id)
    return None if why is None else f"– {why}"


def _done(acts: Acts, subject: _Subject, verb: str, values: dict[str, Any]) -> ActReport:
    execution = subject.execution_id or ""
    match verb:
        case "cancel":
            return acts.cancel(execution, values["reason"] or "")
        case "intervene":
            return acts.intervene(execution, values["value"], values["target"] or "", values["note"] or "")
        case "resume":
            return acts.resume(execution)
        case "fork":
            return acts.fork(execution, values["at"])
    assert subject.started is not None  # else its abilities would have said no
    if verb == "rerun":
        return acts.rerun(subject.run_id, subject.execution_id, subject.started)
    return acts.promote(subject.run_id, subject.started, Path(values["folder"] or "evals"))
