"""Lanes: the bounded queues behind hooks, one per hook and event loop, and the thread for events from plain threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from flowdeck.events.record import EventRecord

__all__ = ["HookThread", "Lane", "Marker", "running_loop"]

Marker = concurrent.futures.Future[None]

SLICE: Final = 64
"""Events a lane delivers before it lets its loop breathe."""
LAST_WORDS_S: Final = 2.0
"""How long a lane whose loop shuts down may go on delivering what it holds."""
running_loop: Final[Callable[[], asyncio.AbstractEventLoop | None]] = asyncio._get_running_loop
"""The running loop or ``None``; `get_running_loop` raises instead, which costs ten times as much."""


class Receiver(Protocol):
    """What a lane delivers to: a hook."""

    async def call(self, record: EventRecord) -> None: ...

    def rescue(self, lane: Lane) -> None: ...


class HookThread:
    """A daemon thread with an event loop, for events that come from plain threads. Started at first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the thread's running loop."""
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run_loop, args=(self._loop,), name="flowdeck-hooks", daemon=True).start()

            return self._loop

    def stop(self) -> None:
        """End the thread once its present callback returns."""
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._loop.stop)

            self._loop = None

    def reset_after_fork(self) -> None:
        """Forget the parent's thread and its lock."""
        self._lock = threading.Lock()
        self._loop = None


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()

        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()


class Lane:
    """The queue of one hook on one loop."""

    def __init__(self, hook: Receiver, loop: asyncio.AbstractEventLoop) -> None:
        self.hook = hook
        self.loop = loop
        self.queue: deque[EventRecord | Marker] = deque()
        self.task: asyncio.Task[None] | None = None
        self.current: EventRecord | None = None
        """What is being delivered."""
        self.scheduled = False
        self._skipping = False

    def put(self, item: EventRecord | Marker) -> None:
        self.queue.append(item)
        if not self.scheduled:
            self.scheduled = True
            self.wake()

    def wake(self) -> None:
        if running_loop() is self.loop:
            self._start()
            return

        try:
            self.loop.call_soon_threadsafe(self._start)
        except RuntimeError:  # the loop was closed: what is here moves to the Event Center's thread
            self.hook.rescue(self)

    def cancel_current(self) -> bool:
        """Cancel the delivery under way; the ones behind it follow. Return whether there was one."""
        task = self.task
        if task is None or task.done() or self.current is None:
            return False

        self._skipping = True
        if running_loop() is self.loop:
            task.cancel()
        else:
            self.loop.call_soon_threadsafe(task.cancel)

        return True

    def _start(self) -> None:
        # An empty context: a hook must not inherit the variables of whichever step emitted first.
        self.task = self.loop.create_task(self._run(), context=contextvars.Context())

    async def _run(self) -> None:
        while True:
            try:
                await self._deliver()
            except asyncio.CancelledError:
                if self._skipping:  # only what was being delivered
                    self._skipping = False
                    self._uncancel()
                    continue

                await self._last_words()
                raise

            self.scheduled = False
            if not self.queue:
                return

            self.scheduled = True

    def _uncancel(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()

    async def _last_words(self) -> None:
        """The loop is shutting down. What it emitted is delivered before it is gone."""
        deadline = time.monotonic() + LAST_WORDS_S
        try:
            await asyncio.wait_for(self._deliver(), LAST_WORDS_S)
        except (TimeoutError, asyncio.CancelledError):
            pass

        self.scheduled = False
        if self.queue and time.monotonic() >= deadline:
            self.hook.rescue(self)

    async def _deliver(self) -> None:
        count = 0
        while self.queue:
            item = self.queue.popleft()
            if isinstance(item, concurrent.futures.Future):
                if not item.done():
                    item.set_result(None)
            else:
                self.current = item
                try:
                    await self.hook.call(item)
                finally:
                    self.current = None

            count += 1
            if count % SLICE == 0:
                await asyncio.sleep(0)
