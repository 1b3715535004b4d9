"""Guarded connections to ``state.db``: opened when needed, used by one thread at a time, never open across a fork.

SQLite keeps locks per process in memory. A forked child inherits that memory but not the locks, so with any connection
open at that moment even a *new* connection of the child believes that it holds locks which it does not. Therefore
every connection is closed right before ``os.fork`` and opened again where it is needed next, in parent and child.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flowdeck.durable.statedb import StoreBusy, explain, file_id

__all__ = ["Handle"]

FORK_SECONDS: Final = 2.0
"""How long a fork waits for statements that are running."""


class Handle:
    """One connection. Opened anew after a fork, after an error and when the file was replaced by another.

    Args:
        path: The file.
        opener: Opens a connection; may create the file.
    """

    def __init__(self, path: Path, opener: Callable[[], sqlite3.Connection]) -> None:
        self.generation = 0
        """Rises with every connection that is opened."""
        self._path = path
        self._opener = opener
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._unusable = False
        _handles.add(self)

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; after an error of SQLite other than a lock it is opened anew the next time.

        Raises:
            StoreError: For whatever the opener or SQLite reports, inside the block too.
        """
        with self._lock:
            if self._unusable:
                raise StoreBusy(
                    f"{self._path} was in use when this process was forked, so it cannot be used here. Fork before "
                    "flows run, or start the child with the spawn method."
                )

            try:
                yield self._current()
            except sqlite3.Error as error:
                told = explain(error, self._path)
                if not isinstance(told, StoreBusy):
                    self._drop()
                raise told from error

    def close(self) -> None:
        """Close the connection if it is open."""
        with self._lock:
            self._drop()

    def _current(self) -> sqlite3.Connection:
        # A deleted file can be written to without an error, and nobody would ever see it.
        if self._connection is not None and file_id(self._path) != self._file:
            self._drop()

        if self._connection is None:
            self._connection = self._opener()
            self._file = file_id(self._path)
            self.generation += 1

        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # -- around a fork: all handles are locked and closed while it happens ---------------------------------------

    def _before_fork(self, deadline: float) -> bool:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False

        self._drop()
        return True

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork_in_child(self, quiet: bool) -> None:
        self._lock = threading.Lock()
        # Nothing may touch the inherited connection, not even to close it: it is left in the dead thread's hands.
        self._unusable = not quiet


_handles: weakref.WeakSet[Handle] = weakref.WeakSet()
_held: list[Handle] = []
_quiet = True


def _before_fork() -> None:
    global _quiet
    deadline = time.monotonic() + FORK_SECONDS
    _quiet = True
    for handle in list(_handles):
        if handle._before_fork(deadline):
            _held.append(handle)
        else:
            _quiet = False


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._after_fork_in_parent()


def _after_fork_in_child() -> None:
    _held.clear()
    for handle in list(_handles):
        handle._after_fork_in_child(_quiet)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
