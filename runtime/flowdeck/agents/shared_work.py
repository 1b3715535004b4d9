"""Work that is done once, for any number of readers on any event loop, in any thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

__all__ = ["SharedWork"]


class SharedWork:
    """Begun by its first reader; when the last of its readers is cancelled, it is, too.

    Attributes:
        status: ``created``, ``running``, ``completed``, ``failed`` or ``cancelled``.
        failure: what ended it, if anything went wrong.
    """

    def __init__(self) -> None:
        self.status = "created"
        self.failure: BaseException | None = None
        self._context = copy_context()
        self._task: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._waiters: list[asyncio.Future[None]] = []
        self._readers = 0

    async def _run(self) -> None:
        """Do the work: call :meth:`_wake` whenever readers have something to see, :meth:`_finish` at the end."""
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ("completed", "failed", "cancelled")

    def begin(self) -> None:
        """Begin, unless that has been done. Needs a running event loop."""
        with self._lock:
            if self._task is None:
                self.status = "running"
                loop = asyncio.get_running_loop()
                self._task = loop.create_task(self._run(), name="flowdeck-turn", context=self._context)
                self._task.add_done_callback(self._gone)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Be a reader inside the block."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    async def until(self, ready: Callable[..., bool], *args: Any) -> None:
        """Return once ``ready(*args)`` is true."""
        while not ready(*args):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            with self._lock:
                self._waiters.append(waiter)

            if ready(*args):  # it became true between the look and the entry
                self._wake()
                return

            try:
                await waiter
            except asyncio.CancelledError:
                await self._reader_cancelled()
                raise

    async def done(self) -> None:
        """Return once it has ended, however."""
        self.begin()
        with self.reading():
            await self.until(lambda: self.ended)

    async def _reader_cancelled(self) -> None:
        task = self._task
        if self._readers > 1 or task is None or task.done():
            return

        if task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])  # what it tells comes before what its caller tells

    def cancel(self) -> None:
        """Give it up; readers get :class:`asyncio.CancelledError`."""
        if self._task is not None and not self._task.done():
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def stuck_here(self) -> bool:
        """Whether waiting for the end in this thread would block the very event loop that brings it about."""
        task = self._task
        if task is None or task.done():
            return False

        try:
            return task.get_loop() is asyncio.get_running_loop()
        except RuntimeError:
            return False

    def _wake(self) -> None:
        if not self._waiters:
            return

        with self._lock:
            waiters, self._waiters = self._waiters, []

        here = asyncio.get_running_loop()
        for waiter in waiters:
            loop = waiter.get_loop()
            if loop is here:
                _settle(waiter)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(_settle, waiter)

    def _gone(self, task: asyncio.Task[None]) -> None:
        """The task has ended; one that was cancelled before its first step has not said so."""
        if self.status == "running":
            self.failure = self.failure or asyncio.CancelledError("it was cancelled before it began")
            self._finish("cancelled")

    def _finish(self, status: str) -> None:
        self.status = status
        self._wake()


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
