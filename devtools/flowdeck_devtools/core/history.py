"""Past runs and events, asked of the store in a thread of its own, always bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowdeck.layout import Layout
from flowdeck_devtools.core.apart import ApartReader, Places
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.past import LINE_COLUMNS, PastReader, Wanted, line_of
from flowdeck_devtools.core.resumable import resumable_executions

__all__ = ["LINE_COLUMNS", "History", "RunsPage", "line_of", "published"]

RUNS_LIMIT = 500
LINES_LIMIT = 400_000


@dataclass(frozen=True, slots=True)
class RunsPage:
    """Runs of the past that a filter lets through; ``last`` when nothing older is left."""

    filter_text: str
    rows: list[RunRow]
    last: bool


class History:
    """Answers what was there: which runs, what belongs to one of them, which faults.

    Args:
        store: The store's directory.
        apart: Ask in a child process, as a window does that is to stay small.
        places: Where such a child finds a place; shared by the stores of one window.
    """

    def __init__(self, store: Path, *, apart: bool = False, places: Places | None = None) -> None:
        self.store = store
        self.problem: str | None = None
        self._reader = ApartReader(store, places) if apart else PastReader(store)
        self._page: RunsPage | None = None
        self._busy = False

    def start(self) -> None:
        """Nothing to start: threads begin with the first question."""

    def stop(self) -> None:
        self._reader.stop()

    def want_runs(self, filter_text: str = "", before_us: int | None = None) -> bool:
        """Ask for a page of runs, the newest first: those a filter lets through, that began before a moment.

        ``take_runs`` gives them when they are there. False while another page is being read.
        """
        if self._busy:
            return False
        self._busy = True
        arguments = (filter_text, before_us)
        threading.Thread(target=self._load_runs, args=arguments, name="flowdeck-history", daemon=True).start()
        return True

    @property
    def busy(self) -> bool:
        """A page of runs is being read."""
        return self._busy

    def take_runs(self) -> RunsPage | None:
        """The page asked for, once; ``None`` while there is none."""
        page, self._page = self._page, None
        return page

    def run_lines(self, root_run_id: str) -> tuple[list[tuple[str, bytes]], str | None]:
        """The journal lines of one run as ``(writer, line)``, oldest first, and what went wrong. Blocks."""
        lines: list[tuple[str, bytes]] = []
        problem = self.read_run(root_run_id, lines.extend)
        return lines, problem

    def read_run(
        self,
        root_run_id: str,
        take: Callable[[list[tuple[str, bytes]]], None],
        wanted: Wanted | None = None,
    ) -> str | None:
        """Hand over the journal lines of one run, oldest first and few at a time; what went wrong, if anything. Blocks
        until all were handed over or ``wanted`` is given up.

        All of them at once, as records, were 1.5 kB a line.
        """
        number = 0
        wanted = wanted or Wanted()
        try:
            with closing(self._reader.lines(root_run_id, LINES_LIMIT, wanted)) as parts:
                for lines in parts:
                    if wanted.is_given_up:
                        return None
                    take(lines)
                    number += len(lines)
        except Exception as error:  # any failure of the store is words for the person, not a crash
            if wanted.is_given_up:
                return None
            self.problem = str(error).partition("\n")[0]
            return self.problem
        return f"only the first {LINES_LIMIT:,} events are shown" if number >= LINES_LIMIT else None

    def definition(self, fingerprint: str) -> Mapping[str, Any] | None:
        """A flow's definition by its fingerprint, the newest declaration of it. Blocks.

        Raises:
            Exception: whatever the store says.
        """
        (definition,) = self._reader.definition(fingerprint)
        return definition

    def error_groups(self, limit: int = 100) -> list[dict[str, Any]]:
        """The kinds of faults over all runs, the latest first. Blocks.

        Raises:
            Exception: whatever the store says.
        """
        (groups,) = self._reader.error_groups(limit)
        return groups

    def _load_runs(self, filter_text: str, before_us: int | None) -> None:
        try:
            resumable = resumable_executions(self.store)
            (rows,) = self._reader.runs(filter_text, before_us, RUNS_LIMIT, resumable)
            self._page = RunsPage(filter_text, rows, len(rows) < RUNS_LIMIT)
            self.problem = None
        except Exception as error:
            self.problem = str(error).partition("\n")[0]
            self._page = RunsPage(filter_text, [], True)
        finally:
            self._busy = False


def published(store: Path) -> bool:
    """Whether anything of the history has left the journal for the published files."""
    layout = Layout(store)
    return any(next(folder.glob("*.parquet"), None) is not None for folder in (layout.parts, layout.days))
