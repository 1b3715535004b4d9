"""SQL asked beside the window: one question at a time, the newest wins, any can be stopped.

Of several stores each is asked in turn, and their rows stand one below the other. DuckDB is loaded by the first
question, in its thread. Nothing here writes: a reader refuses all but queries.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdeck.layout import StoreError
from flowdeck_devtools.core.resumable import resumable_executions
from flowdeck_devtools.core.text import clean

if TYPE_CHECKING:
    from flowdeck_sinks.store import Reader

__all__ = ["ROWS_LIMIT", "Answer", "Question"]

ROWS_LIMIT = 10_000
AGAIN_SECONDS = 0.05
STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question."""

    sql: str
    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    seconds: float = 0.0
    problem: str | None = None
    cut: bool = False
    """There were more rows than were fetched."""
    label: object = None
    """What the asker gave, to tell answers apart."""
    origins: tuple[Path, ...] = ()
    """The store each row came from, where several were asked."""
    unanswered: str | None = None
    """What kept one of several stores from answering; the rows are those of the others."""


@dataclass
class Question:
    """Asks a store by SQL, each question in a thread of its own. Read ``answer`` when ``version`` has risen.

    Args:
        store: The store's directory. One that does not exist yet is a problem in the answer, not an error.
        limit: Most rows fetched, of each store.
        also: Further stores that are asked the same.
    """

    store: Path
    limit: int = ROWS_LIMIT
    also: tuple[Path, ...] = ()
    answer: Answer | None = None
    version: int = 0
    running: bool = False
    begun: float = 0.0
    """When the running question was asked, on the monotonic clock."""
    _serial: int = 0
    _reader: Reader | None = None
    """The one that is being asked."""
    _readers: dict[Path, Reader] = field(default_factory=dict)
    _one: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)
    _stopped: bool = False

    def ask(self, sql: str, parameters: Sequence[Any] = (), *, label: object = None, only: Path | None = None) -> None:
        """Ask all stores, or ``only`` one; whatever is still running is stopped and its answer dropped."""
        if self._stopped:
            return
        self.cancel()
        self._serial += 1
        self.running, self.begun = True, time.monotonic()
        self._ended.clear()
        stores = (self.store, *self.also) if only is None else (only,)
        asked = (self._serial, sql, tuple(parameters), label, stores)
        threading.Thread(target=self._run, args=asked, name="flowdeck-question", daemon=True).start()

    def cancel(self) -> bool:
        """Stop the running question. False when none was running."""
        was, reader = self.running, self._reader
        if was and reader is not None:
            reader.interrupt()
        return was

    def rest(self) -> None:
        """Give back what the last question holds (of a large store 150 MB), unless one is running."""
        if not self.running and self._one.acquire(blocking=False):
            try:
                for reader in self._readers.values():
                    reader.close()
                self._readers.clear()
                self._reader = None
            finally:
                self._one.release()

    def stop(self) -> None:
        """The window closes: nothing is asked any more, and what runs is stopped. Takes a second at most."""
        self._stopped = True
        deadline = time.monotonic() + STOP_SECONDS
        while self.cancel() and time.monotonic() < deadline:
            self._ended.wait(AGAIN_SECONDS)

    def _run(self, serial: int, sql: str, parameters: tuple[Any, ...], label: object, stores: tuple[Path, ...]) -> None:
        while not self._one.acquire(timeout=AGAIN_SECONDS):
            # An interrupt that came before the query had begun was lost: say it again until it is heard.
            if serial == self._serial and self._reader is not None:
                self._reader.interrupt()
        try:
            if serial != self._serial or self._stopped:
                self._ended.set()
                self.running = self.running and serial != self._serial
                return
            begun = time.monotonic()
            try:
                answer = replace(self._asked(stores, sql, parameters), seconds=time.monotonic() - begun, label=label)
            except Exception as error:  # a wrong query, a store that is gone: words for the person
                answer = Answer(sql, problem=_words(error), seconds=time.monotonic() - begun, label=label)
            if serial == self._serial:
                self.answer, self.running = answer, False
                self.version += 1
                self._ended.set()
        finally:
            self._one.release()

    def _asked(self, stores: tuple[Path, ...], sql: str, parameters: tuple[Any, ...]) -> Answer:
        """The answers of some stores as one. A query that is wrong is wrong for the first of them already."""
        if len(stores) == 1:
            return self._fetched(stores[0], sql, parameters)
        answers: list[tuple[Path, Answer]] = []
        failed: list[Exception] = []
        for store in stores:
            try:
                answer = self._fetched(store, sql, parameters)
            except (StoreError, OSError) as error:  # it is gone, or cannot be read: the others can
                failed.append(error)
                continue
            if answers and answer.columns != answers[0][1].columns:
                failed.append(StoreError(f"{store} answers with other columns"))
                continue
            answers.append((store, answer))
        if not answers:
            raise failed[0]
        return replace(
            answers[0][1],
            rows=tuple(row for _, answer in answers for row in answer.rows),
            cut=any(answer.cut for _, answer in answers),
            origins=tuple(store for store, answer in answers for _ in answer.rows),
            unanswered="  ".join(map(_words, failed)) or None,
        )

    def _fetched(self, store: Path, sql: str, parameters: tuple[Any, ...]) -> Answer:
        reader = self._readers.get(store)
        if reader is None:
            from flowdeck_sinks.store import Reader

            reader = self._readers[store] = Reader(store)
        self._reader = reader
        with suppress(StoreError):
            reader.connection.set_resumable(resumable_executions(store))
        result = reader.query(sql, list(parameters) or None)
        rows: list[tuple[Any, ...]] = []
        for batch in result.batches():
            rows += batch
            if len(rows) > self.limit:
                break
        cut = len(rows) > self.limit
        return Answer(sql, tuple(result.columns), tuple(result.types), tuple(rows[: self.limit]), cut=cut)


def _words(error: BaseException) -> str:
    """An error of DuckDB in a line or two: its own text names the place."""
    if type(error).__name__ == "InterruptException":
        return "stopped"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return clean("  ".join(lines[:4]) or type(error).__name__, limit=600)
