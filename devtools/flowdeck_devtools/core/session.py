"""Everything one DevTools window looks at: the store's live end, its inbox, its history, and opened runs.

Screens read from here and own no data. Order of calls: ``start`` -> threads follow the store -> a screen reads what it
shows on each tick -> ``stop``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowdeck_devtools.core.asking import ROWS_LIMIT, Question
from flowdeck_devtools.core.clock import Clock, SystemClock
from flowdeck_devtools.core.history import History, published
from flowdeck_devtools.core.inbox import Inbox
from flowdeck_devtools.core.live import LiveStore
from flowdeck_devtools.core.login import login_name
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.opened import OpenedRun
from flowdeck_devtools.core.text import names_id

__all__ = ["KEPT_RUNS", "Draft", "Session"]

MERGED_RUNS = 1_500
"""Runs of the past that join the live ones; further ones are kept beside them."""
OLDER_RUNS = 10_000
"""Runs of the past held at most; what lies beyond, a filter finds."""
KEPT_RUNS = 4
"""Opened runs kept in memory, so that going back to one shows it at once."""


@dataclass(slots=True)
class Draft:
    """What was typed into an answer form, by field name; ``as_json`` when it is one text of JSON."""

    typed: dict[str, Any] = field(default_factory=dict)
    as_json: bool = False


class Session:
    """The data side of one DevTools process.

    Args:
        store: The store; of several the first.
        clock: Time source.
        live: Follows the journal; by default of ``store`` and ``also``.
        inbox: What waits for an answer; by default of all stores.
        history: What was there; by default of all stores.
        actor: Who answers; the login name by default.
        also: Further stores.
        apart: Ask for history in a child process, which keeps this one small.
    """

    def __init__(
        self,
        store: Path,
        *,
        clock: Clock | None = None,
        live: LiveStore | None = None,
        inbox: Inbox | None = None,
        history: History | None = None,
        actor: str | None = None,
        also: Sequence[Path] = (),
        apart: bool = False,
    ) -> None:
        self.store = store
        """The store; of several the first."""
        self.stores = (store, *also)
        self.clock = clock or SystemClock()
        self.live = live or LiveStore(store, clock=self.clock, also=also)
        if also:
            from flowdeck_devtools.core.several import SeveralHistories, SeveralInboxes

            inbox = inbox or SeveralInboxes(self.stores, self.clock)
            history = history or SeveralHistories(self.stores, apart=apart)
        self.inbox = inbox or Inbox(store, clock=self.clock)
        self.history = history or History(store, apart=apart)
        self.actor = actor or login_name()
        self.drafts: dict[str, Draft] = {}
        """Answers not sent yet, by interrupt id: they survive leaving the form and the screen."""
        self.questions: list[Question] = []
        """What screens ask by SQL; stopped with the window."""
        self.acted = 0
        """Acts done from this window; the ledger is read anew when it rises."""
        self._opened: OrderedDict[str, OpenedRun] = OrderedDict()
        self._named = -1
        self._seen: tuple[object, ...] = ()
        self._painted = False
        self._past: bool | None = None
        """Whether there is history beside the journal that was read; not known at first."""
        self._older: dict[str, RunRow] = {}
        self.older_version = 0
        """Rises when runs of the past came in."""
        self._exhausted: set[str] = set()
        self._runs: tuple[tuple[int, int], list[RunRow]] = ((-1, -1), [])

    def start(self, wake: Callable[[], None] | None = None) -> None:
        """Follow the store. ``wake`` is called, from any thread, when something came.

        The inbox waits for ``painted``: what it needs takes a fifth of the time to the first picture.
        """
        if wake is not None:
            self.inbox.came = wake

            def came() -> None:
                self.inbox.stir()
                wake()

            self.live.came = came
        self.live.start()
        self.history.start()

    def painted(self) -> None:
        """The first picture stands: read what it did not need."""
        self._painted = True
        self.inbox.start()

    def stop(self) -> None:
        for question in self.questions:
            question.stop()
        for part in (self.history, self.inbox, self.live):
            part.stop()

    def tick(self) -> bool:
        """Bring facts of one source into the other; called by the user interface on each beat.

        True while something happens that a person waits to see.
        """
        if self.inbox.version != self._named:
            self._named = self.inbox.version
            self.live.index.name_executions(self.inbox.flows)
        self._look_back()
        seen = (self.live.total, self.inbox.version, self.older_version, self.history.busy)
        stirs = seen != self._seen or any(run.loading for run in self._opened.values())
        self._seen = seen
        return stirs or any(question.running for question in self.questions)

    def _look_back(self) -> None:
        """Ask for the newest runs of the past once, and take in every page that was asked for."""
        live = self.live
        if self._past is None and self._painted and live.caught_up.is_set() and not live.missing:
            self._past = not live.from_start or any(map(published, self.stores))
            if self._past:
                self.history.want_runs()
        page = self.history.take_runs()
        if page is None:
            return
        index = live.index
        index.merge(row for row in page.rows if row.run_id in index.rows or len(index.rows) < MERGED_RUNS)
        for row in page.rows:
            if row.run_id not in index.rows and len(self._older) < OLDER_RUNS:
                self._older[row.run_id] = row
        if page.last or len(self._older) >= OLDER_RUNS:
            self._exhausted.add(page.filter_text)
        self.older_version += 1

    def want_older(self, filter_text: str, before_us: int | None) -> bool:
        """Read on in the past, where that filter has not been read to its end. True when it is being read now."""
        if filter_text in self._exhausted or not self._past:
            return False
        return self.history.want_runs(filter_text, before_us)

    def runs(self) -> list[RunRow]:
        """Every run that is known here, the newest first. The list is shared: do not change it."""
        index = self.live.index
        state = (index.structure, self.older_version)
        if self._runs[0] != state:
            rows = index.newest()
            if self._older:
                rows = [*rows, *(row for row in self._older.values() if row.run_id not in index.rows)]
                rows.sort(key=lambda row: (row.started_us or row.last_us, row.run_id), reverse=True)
            self._runs = (state, rows)
        return self._runs[1]

    def open_run(self, root_run_id: str, *, again: bool = True) -> OpenedRun:
        """The run as a tree, from what is held of it; the rest follows as it is read.

        ``again`` reads anew one of which something was left out: for somebody who opens it, not for every tick.
        """
        run = self._opened.get(root_run_id)
        if run is not None and run.left_out and again:
            run.close()
            run = None
        if run is None:
            run = self._opened[root_run_id] = OpenedRun(root_run_id, self.live, self.history, self.run)
            while len(self._opened) > KEPT_RUNS:
                _, old = self._opened.popitem(last=False)
                old.close()
        self._opened.move_to_end(root_run_id)
        return run

    def run(self, root_run_id: str) -> RunRow | None:
        return self.live.index.rows.get(root_run_id) or self._older.get(root_run_id)

    def question(self, limit: int = ROWS_LIMIT) -> Question:
        """Something that asks every store by SQL; stopped with the window."""
        asking = Question(self.store, limit, self.stores[1:])
        self.questions.append(asking)
        return asking

    def store_of(self, row: RunRow | None) -> Path:
        """The store a run is in."""
        if row is None or len(self.stores) == 1:
            return self.store
        past: dict[str, Path] = getattr(self.history, "origin", {})
        return self.live.origin.get(row.writer) or past.get(row.run_id) or self.store

    def find_run(self, text: str) -> RunRow | None:
        """A run by its id, its execution's id, or an unambiguous end of either."""
        exact = self.run(text)
        if exact is not None:
            return exact
        found = [
            row
            for row in self.runs()
            if row.execution_id == text or names_id(text, row.run_id) or names_id(text, row.execution_id)
        ]
        return found[0] if len(found) == 1 or (found and found[0].execution_id == text) else None

    def run_of_execution(self, execution_id: str | None) -> RunRow | None:
        if execution_id is None:
            return None
        return next((row for row in self.runs() if row.execution_id == execution_id), None)
