"""What the commands that query a store share: opening it, and asking so that Ctrl-C always works."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import Stopped
from flowdeck_devtools.core.resumable import resumable_executions

if TYPE_CHECKING:
    from flowdeck_sinks.store import Reader

__all__ = ["Interruptible", "look_again", "open_reader"]

T = TypeVar("T")
_LOOK_S = 0.1
_STOPS_WITHIN_S = 1.0
_STOPPED = "the query was stopped"


def open_reader(root: Path) -> Reader:
    """Return a reader of the store that knows which of its open runs somebody can resume.

    Raises:
        StoreError: The store or its ``state.db`` cannot be read, or DuckDB is missing.
    """
    from flowdeck_sinks.store import Reader

    return Reader(root, resumable=resumable_executions(root))


def look_again(reader: Reader) -> None:
    """Ask ``state.db`` anew which runs can be resumed, for a reader that stays open."""
    reader.connection.set_resumable(resumable_executions(reader.layout.root))


class Interruptible:
    """Calls that Ctrl-C can end.

    DuckDB looks for signals only now and then, and not at all while it builds a large join; so it works in a thread,
    and this one waits for Ctrl-C and passes it on.
    """

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt

    def call(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, or raise what it raises.

        Raises:
            Stopped: Ctrl-C came first.
        """
        done: Future[T] = Future()
        threading.Thread(target=_finish, args=(done, work), daemon=True).start()
        try:
            while not done.done():
                # In short waits, as the signal may be given to the other thread. Not by Thread.join: interrupted, it
                # takes the thread for ended in the older Python versions.
                wait([done], _LOOK_S)
        except KeyboardInterrupt:
            self._stop(done)
            raise Stopped(_STOPPED) from None

        return done.result()

    def _stop(self, done: Future[T]) -> None:
        deadline = time.monotonic() + _STOPS_WITHIN_S
        while not done.done() and time.monotonic() < deadline:
            # DuckDB refuses the interrupt of a call that is only beginning, and forgets it when none has begun.
            with suppress(Exception):
                self._interrupt()

            wait([done], _LOOK_S)

        if not done.done():
            # Closing the connection under a running query would crash, and a reader has nothing to clean up.
            _output.note(_STOPPED)
            os._exit(130)

    def rows(self, batches: Iterator[list[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of all batches, each batch fetched so that Ctrl-C can end it."""
        while batch := self.call(lambda: next(batches, None)):
            yield from batch


def _finish(done: Future[T], work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)
