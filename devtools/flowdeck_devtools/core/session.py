"""Everything one DevTools window looks at: the store's live end, its inbox, its history, and opened runs.

Screens read from here and own no data. Order of calls: ``start`` -> threads follow the store -> a screen reads what it
shows on each tick -> ``stop``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowdeck_devtools.core.asking import Question
from flowdeck_devtools.core.clock import Clock, SystemClock
from flowdeck_devtools.core.history import History
from flowdeck_devtools.core.inbox import Inbox, login_name
from flowdeck_devtools.core.live import LiveStore
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.opened import OpenedRun

__all__ = ["Draft", "Session"]

KEPT_RUNS = 4
"""Opened runs kept in memory, so that going back to one shows it at once."""


@dataclass(slots=True)
class Draft:
    """What was typed into an answer form, by field name; ``as_json`` when it is one text of JSON."""

    typed: dict[str, Any] = field(default_factory=dict)
    as_json: bool = False


class Session:
    """The data side of one DevTools process."""

    def __init__(
        self,
        store: Path,
        *,
        clock: Clock | None = None,
        live: LiveStore | None = None,
        inbox: Inbox | None = None,
        history: History | None = None,
        actor: str | None = None,
    ) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self.live = live or LiveStore(store, clock=self.clock)
        self.inbox = inbox or Inbox(store, clock=self.clock)
        self.history = history or History(store)
        self.actor = actor or login_name()
        self.drafts: dict[str, Draft] = {}
        """Answers not sent yet, by interrupt id: they survive leaving the form and the screen."""
        self.questions: list[Question] = []
        """What screens ask by SQL; stopped with the window."""
        self.acted = 0
        """Acts done from this window; the ledger is read anew when it rises."""
        self._opened: OrderedDict[str, OpenedRun] = OrderedDict()
        self._named = -1

    def start(self) -> None:
        self.live.start()
        self.inbox.start()
        self.history.start()

    def stop(self) -> None:
        for question in self.questions:
            question.stop()
        for part in (self.history, self.inbox, self.live):
            part.stop()

    def tick(self) -> None:
        """Bring facts of one source into the other; called by the user interface ten times a second."""
        if self.inbox.version != self._named:
            self._named = self.inbox.version
            self.live.index.name_executions(self.inbox.flows)
        if self.live.caught_up.is_set() and not self.live.missing and not self.live.from_start:
            self.history.want_runs()
        runs = self.history.take_runs()
        if runs:
            self.live.index.merge(runs)

    def open_run(self, root_run_id: str) -> OpenedRun:
        """The run as a tree, from what is held of it; the rest follows as it is read."""
        run = self._opened.get(root_run_id)
        if run is None:
            run = self._opened[root_run_id] = OpenedRun(root_run_id, self.live, self.history)
            while len(self._opened) > KEPT_RUNS:
                _, old = self._opened.popitem(last=False)
                old.close()
        self._opened.move_to_end(root_run_id)
        return run

    def run(self, root_run_id: str) -> RunRow | None:
        return self.live.index.rows.get(root_run_id)

    def find_run(self, text: str) -> RunRow | None:
        """A run by its id, its execution's id, or an unambiguous end of either."""
        exact = self.live.index.rows.get(text)
        if exact is not None:
            return exact
        found = [
            row
            for row in self.live.index.newest()
            if row.execution_id == text or row.run_id.endswith(text) or (row.execution_id or "").endswith(text)
        ]
        return found[0] if len(found) == 1 or (found and found[0].execution_id == text) else None

    def run_of_execution(self, execution_id: str | None) -> RunRow | None:
        if execution_id is None:
            return None
        return next((row for row in self.live.index.newest() if row.execution_id == execution_id), None)
