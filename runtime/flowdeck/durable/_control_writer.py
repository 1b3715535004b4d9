"""The control plane's writer thread: everything that has gathered is one transaction, tried until the file takes it."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from flowdeck.durable._batch import Batch, Change
from flowdeck.durable._commits import write_commits
from flowdeck.durable._handle import Handle
from flowdeck.durable._signal import Signal
from flowdeck.durable._watcher import Watcher
from flowdeck.durable._work import transaction
from flowdeck.durable.statedb import StoreBusy
from flowdeck.errors import ExecutionFenced
from flowdeck.execution.mailbox import together
from flowdeck.execution.store import Commit, Done
from flowdeck.layout import StoreError

__all__ = ["GROUP_SECONDS", "RETRY_SECONDS", "ControlWriter", "Question", "Submitted"]

GROUP_SECONDS: Final = 0.005
"""How long the writer lets changes gather before it commits them. Commits of durable executions do not wait."""

RETRY_SECONDS: Final = (0.01, 2.0)
"""First and longest pause between attempts."""


_log = logging.getLogger("flowdeck.durable")


class Question(NamedTuple):
    """Something to be done inside the next transaction. It must check before it writes."""

    ask: Callable[[sqlite3.Connection], Any]
    told: Callable[[Any, BaseException | None], None]


class Submitted(NamedTuple):
    """A durable commit on its way to the file."""

    commit: Commit
    changes: list[Change]
    done: Done


class ControlWriter:
    """The part of :class:`~flowdeck.durable.control.StateControl` that runs in its thread."""

    _queue: deque[Change | Submitted | Question | threading.Event]
    _handle: Handle
    _watcher: Watcher
    _wake: Signal
    _hurry: Signal
    _parked: bool
    _closed: bool
    _merged: int
    _counts: dict[str, int]
    _reported: set[str]
    _database_errors: ClassVar[tuple[type[BaseException], ...]] = (sqlite3.Error,)
    """What the database says; it ends the transaction."""
    _passing_errors: ClassVar[tuple[type[BaseException], ...]] = (sqlite3.Error,)
    """Those that may be gone at the next attempt."""

    if TYPE_CHECKING:  # supplied by the control

        def _problem(self, kind: str, message: str) -> None: ...
        def _lost(self, error: Exception) -> None: ...

    def _transaction(self, connection: Any, changes: Iterable[Change]) -> AbstractContextManager[None]:
        """Begin, and commit or roll back. ``changes`` are to be written in it."""
        return transaction(connection)

    def _write_commits(self, connection: Any, commits: Sequence[Commit]) -> dict[int, Exception]:
        return write_commits(connection, commits)

    def _run(self) -> None:
        batch = Batch()
        commits: list[Submitted | Question] = []
        waiting: list[threading.Event] = []
        pause = RETRY_SECONDS[0]
        while self._gather(batch, commits, waiting):
            try:
                if commits:
                    with self._handle.use() as connection:
                        self._commit_all(connection, batch, commits)
                elif len(batch):
                    with self._handle.use() as connection:
                        self._write(connection, batch)
            except StoreError as error:
                self._failed(error)
                if self._closed:
                    self._counts["dropped"] += len(batch) + len(commits)
                    for item in commits:
                        _refuse(item, error)

                    break

                self._hurry.wait(pause)
                pause = min(pause * 2, RETRY_SECONDS[1])
                continue
            except Exception as error:  # a defect; without this thread everybody would wait for ever, so say it
                _log.exception("the writer of state.db could not handle %d commit(s)", len(commits))
                for item in commits:
                    _refuse(item, StoreError(f"{type(error).__name__} while writing: {error}"))

            pause = RETRY_SECONDS[0]
            self._committed(batch, waiting)
            batch, commits, waiting = Batch(), [], []

        self._handle.close()

    def _write(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Commit the batch. A change that SQLite cannot take at all is left out, so that it does not stop the rest.

        Raises:
            sqlite3.Error: The file does not take anything now; nothing was written.
        """
        try:
            self._fenced(batch.write(connection))
        except Exception as error:
            # What the file's state causes is worth another try. A value that is no text or number for SQLite is not.
            if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
                raise

            for change in batch.changes():
                single = Batch()
                single.add(change)
                try:
                    self._fenced(single.write(connection))
                except sqlite3.OperationalError:
                    raise
                except Exception as reason:
                    self._lost(reason)

    def _commit_all(self, connection: sqlite3.Connection, batch: Batch, commits: list[Submitted | Question]) -> None:
        """Write commits and batch. What SQLite cannot take at all is refused alone, and does not stop the rest."""
        try:
            self._commit(connection, batch, commits)
        except self._passing_errors:
            raise
        except Exception as error:
            if len(commits) == 1:
                _refuse(commits[0], error)
                return

            for item in commits:
                self._commit_all(connection, Batch(), [item])

    def _commit(self, connection: sqlite3.Connection, batch: Batch, items: list[Submitted | Question]) -> None:
        """Write commits with the changes they carry, and the batch beside them, in one transaction.

        Raises:
            sqlite3.Error: nothing was written; all of it is tried again.
        """
        attached = Batch()
        commits = [item for item in items if isinstance(item, Submitted)]
        questions = [item for item in items if isinstance(item, Question)]
        changes = chain(batch.changes(), *(submitted.changes for submitted in commits))
        with self._transaction(connection, changes):
            answers = [self._answer(question, connection) for question in questions]
            refused = self._write_commits(connection, [submitted.commit for submitted in commits])
            for place, submitted in enumerate(commits):
                if place not in refused:
                    for change in submitted.changes:
                        attached.add(change)

            fenced = attached.write_into(connection)
            if len(batch):
                fenced += batch.write_into(connection)

        self._fenced(fenced + sum(isinstance(error, ExecutionFenced) for error in refused.values()))
        self._counts["durable"] += len(commits)
        still_open = attached.still_open()
        if still_open and not self._closed:
            self._watcher.watch(still_open)

        # What is committed stays so, whatever those who are told of it make of that.
        with together():
            for place, submitted in enumerate(commits):
                _tell(submitted.done, refused.get(place))

            for question, answer in zip(questions, answers, strict=True):
                _tell(question.told, *answer)

        if not len(batch):
            self._counts["commits"] += 1
            self._reported -= {"busy", "unwritable", "full_queue"}

    def _answer(self, question: Question, connection: Any) -> tuple[Any, BaseException | None]:
        try:
            return question.ask(connection), None
        except self._database_errors:
            raise
        except Exception as error:
            return None, error

    def _gather(self, batch: Batch, commits: list[Submitted | Question], waiting: list[threading.Event]) -> bool:
        """Move what has been said into the batch, waiting for it if there is nothing; False when it is time to end."""
        queue = self._queue
        if not queue and not len(batch) and not commits and not waiting:
            self._parked = True
            # A caller that appended before it saw the flag does not wake us, so look once more.
            if not queue and not self._closed:
                self._wake.wait()

            self._parked = False
            self._wake.clear()
            self._hurry.wait(GROUP_SECONDS)

        self._hurry.clear()
        # Bounded by what is there now: callers may append as fast as this loop takes.
        for _ in range(len(queue)):
            item = queue.popleft()
            if isinstance(item, Submitted | Question):
                commits.append(item)
            elif isinstance(item, threading.Event):
                waiting.append(item)
            else:
                batch.add(item)

        self._merged = len(batch)
        return bool(len(batch) or commits or waiting or not self._closed)

    def _committed(self, batch: Batch, waiting: list[threading.Event]) -> None:
        self._merged = 0
        if len(batch):
            self._counts["written"] += len(batch)
            self._counts["commits"] += 1
            self._reported -= {"busy", "unwritable", "full_queue"}
            still_open = batch.still_open()
            if still_open and not self._closed:
                self._watcher.watch(still_open)

        for event in waiting:
            event.set()

    def _failed(self, error: StoreError) -> None:
        self._counts["retries"] += 1
        kind = "busy" if isinstance(error, StoreBusy) else "unwritable"
        self._problem(kind, f"{error} Runs go on; what they register is kept and tried again.")

    def _fenced(self, count: int) -> None:
        if count:
            self._counts["fenced"] += count
            self._problem(
                "fenced", f"another process took over {count} execution(s) of this one; its record of them is kept"
            )


def _refuse(item: Submitted | Question, error: BaseException) -> None:
    if isinstance(item, Submitted):
        _tell(item.done, error)
    else:
        _tell(item.told, None, error)


def _tell(whom: Callable[..., None], *what: Any) -> None:
    try:
        whom(*what)
    except Exception:
        _log.exception("whoever waited for a commit could not be told")
