"""Several stores in one window: their tails, inboxes and histories, each behind the face of one.

Runs, events and questions of all of them stand side by side; whatever is done to one goes to the store it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowdeck_devtools.core.apart import Places
from flowdeck_devtools.core.clock import Clock
from flowdeck_devtools.core.history import History, RunsPage
from flowdeck_devtools.core.inbox import AnswerReport, Inbox, InterruptRow
from flowdeck_devtools.core.live import Batch, Tail
from flowdeck_devtools.core.past import Wanted

__all__ = ["SeveralHistories", "SeveralInboxes", "SeveralTails"]


class SeveralTails:
    """The tails of several stores, polled one after another; remembers which writer belongs to which store."""

    def __init__(self, tails: Mapping[Path, Tail], origin: dict[str, Path]) -> None:
        self._tails = dict(tails)
        self._origin = origin

    def poll(self) -> Sequence[Batch]:
        found: list[Batch] = []
        for store, tail in self._tails.items():
            for batch in tail.poll():
                self._origin[batch.writer] = store
                found.append(batch)
        return found


class SeveralInboxes(Inbox):
    """Everything that waits, whichever store it waits in."""

    def __init__(self, stores: Sequence[Path], clock: Clock) -> None:
        super().__init__(stores[0], clock=clock)
        self._parts = [Inbox(store, clock=clock) for store in stores]

    def start(self) -> None:
        for part in self._parts:
            part.came = self._gather
            part.start()

    def stop(self, timeout: float = 2.0) -> None:
        for part in self._parts:
            part.stop(timeout)

    def stir(self) -> None:
        for part in self._parts:
            part.stir()

    def refresh(self) -> None:
        for part in self._parts:
            part.refresh()

    def look(self) -> None:
        for part in self._parts:
            part.look()
        self._gather()

    def answer(self, row: InterruptRow, value: Any, actor: str) -> AnswerReport:
        part = next((one for one in self._parts if any(known.key == row.key for known in one.rows)), self._parts[0])
        return part.answer(row, value, actor)

    def _gather(self) -> None:
        if not all(part.loaded.is_set() for part in self._parts):
            return
        rows = [row for part in self._parts for row in part.rows]
        rows.sort(key=lambda row: (row.status != "waiting", row.answered, not row.owned))
        flows = {key: name for part in self._parts for key, name in part.flows.items()}
        self._listed(tuple(rows), flows, next((part.problem for part in self._parts if part.problem), None))


class SeveralHistories(History):
    """The pasts of several stores; a page is complete when each has given its own."""

    def __init__(self, stores: Sequence[Path], *, apart: bool = False) -> None:
        places = Places()
        self._parts = [History(store, apart=apart, places=places) for store in stores]
        self.origin: dict[str, Path] = {}
        """Which store a run of the past came from."""
        self._pages: list[RunsPage] = []
        self._asked: list[History] = []
        super().__init__(stores[0])

    @property
    def problem(self) -> str | None:
        """Why one of them could not be read."""
        return next((part.problem for part in self._parts if part.problem), None)

    @problem.setter
    def problem(self, words: str | None) -> None:
        pass  # each part has its own

    @property
    def busy(self) -> bool:
        return bool(self._asked)

    def stop(self) -> None:
        for part in self._parts:
            part.stop()

    def want_runs(self, filter_text: str = "", before_us: int | None = None) -> bool:
        if self._asked:
            return False
        self._asked = [part for part in self._parts if part.want_runs(filter_text, before_us)]
        return bool(self._asked)

    def take_runs(self) -> RunsPage | None:
        for part in list(self._asked):
            page = part.take_runs()
            if page is not None:
                self.origin.update((row.run_id, part.store) for row in page.rows)
                self._pages.append(page)
                self._asked.remove(part)
        if self._asked or not self._pages:
            return None
        pages, self._pages = self._pages, []
        rows = [row for page in pages for row in page.rows]
        return RunsPage(pages[0].filter_text, rows, all(page.last for page in pages))

    def read_run(
        self,
        root_run_id: str,
        take: Callable[[list[tuple[str, bytes]]], None],
        wanted: Wanted | None = None,
    ) -> str | None:
        known, taken = self.origin.get(root_run_id), 0
        problem: str | None = None

        def count(lines: list[tuple[str, bytes]]) -> None:
            nonlocal taken
            taken += len(lines)
            take(lines)

        for part in sorted(self._parts, key=lambda one: one.store != known):
            problem = part.read_run(root_run_id, count, wanted)
            if taken or (wanted is not None and wanted.is_given_up):
                break
        return problem

    def definition(self, fingerprint: str) -> Mapping[str, Any] | None:
        return next((found for part in self._parts if (found := part.definition(fingerprint)) is not None), None)

    def error_groups(self, limit: int = 100) -> list[dict[str, Any]]:
        groups = [group for part in self._parts for group in part.error_groups(limit)]
        groups.sort(key=lambda group: str(group["last_at"]), reverse=True)
        return groups[:limit]
