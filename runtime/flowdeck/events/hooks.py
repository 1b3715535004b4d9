"""Hooks: user callbacks that receive observation events.

Two ways in. A user's own ``await async_emit(...)`` *awaits* its matching hooks. Events the runtime itself emits are
*offered*: put into a bounded queue and delivered behind the emitter's back. A queue is called a lane; there is one per
hook and event loop, so a callback runs on the loop that emitted the event, and on the Event Center's own thread for
events from plain threads. Within one hook and lane, order is kept.

Order of calls for an offered event::

    EventType.emit -> Hook.offer -> Lane.put ......> Lane._run (task) -> Hook.call -> the user's callback

Rules: an event emitted by a hook's own callback is not delivered to that hook again; awaited emits inside a hook are
offered instead, so hooks can never wait for each other; an exception stays inside the hook, is counted and becomes a
``runtime.hook_failed`` event.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

from flowdeck.events.aliases import matcher
from flowdeck.events.lanes import Lane, Marker, running_loop
from flowdeck.events.record import EventRecord

if TYPE_CHECKING:
    from flowdeck.events.center import EventCenter
    from flowdeck.events.model import ObservationEvent

__all__ = ["Hook", "HookCallback", "inside_hook"]

HookCallback = Callable[["ObservationEvent"], Awaitable[Any] | Any]
SYNC_WAIT_S: Final = 5.0
"""How long a synchronous emit waits for an async hook on the Event Center's thread, and one hook for another."""

_active: contextvars.ContextVar[tuple[Hook, ...]] = contextvars.ContextVar("flowdeck_active_hooks", default=())


def inside_hook() -> bool:
    """Return whether the present code was called by a hook."""
    return bool(_active.get())


class Hook:
    """One registered callback. Made by :meth:`EventCenter.register_hook`."""

    def __init__(
        self,
        center: EventCenter,
        name: str,
        callback: HookCallback,
        event_types: str | list[str] | tuple[str, ...] | None,
        *,
        dispatch: str,
        queue_limit: int,
    ) -> None:
        self.center = center
        self.name = name
        self.callback = callback
        self.is_async = iscoroutinefunction(callback) or iscoroutinefunction(type(callback).__call__)
        self.event_types = event_types
        self.matches = matcher(event_types)
        self.dispatch = dispatch
        self.queue_limit = queue_limit
        self.patience: float | None = None
        """Seconds a flush without a timeout waits, before it cancels what the hook is doing; ``None``: for ever."""
        self.delivered = 0
        self.failures = 0
        self.dropped = 0
        self._reported_dropped = 0
        self._lanes: dict[asyncio.AbstractEventLoop, Lane] = {}
        self._lock = threading.Lock()

    # -- in ------------------------------------------------------------------------------------------------------

    def offer(self, record: EventRecord) -> None:
        """Queue one record; it is delivered soon. A full queue drops it and counts."""
        if self._is_inside():
            return

        lane = self._lane()
        if len(lane.queue) >= self.queue_limit:
            self._drop()
            return

        lane.put(record)

    def _is_inside(self) -> bool:
        """Whether the present code was called by this hook: its own events are not delivered to it."""
        return self in _active.get()

    async def deliver(self, record: EventRecord) -> None:
        """Deliver one record and wait for the callback; after what is queued on this loop, so order is kept."""
        loop = running_loop()
        assert loop is not None
        lane = self._lanes.get(loop)
        if lane is not None and lane.scheduled:
            await self._settle(lane)

        await self.call(record)

    def deliver_sync(self, record: EventRecord) -> None:
        """Deliver one record from synchronous code.

        A plain callback has run when this returns, unless earlier events wait before it on the running loop. An async
        callback runs on the Event Center's thread, waited for at most 5 s; inside a running loop it is queued instead.
        """
        loop = running_loop()
        lane = self._lane()
        if not lane.scheduled and not self.is_async:
            result = self._enter(record)
            if isawaitable(result):
                self._adopt(result, lane, record, wait=loop is None)

            return

        self.offer(record)
        if loop is None:
            self._wait(self._mark(lane), SYNC_WAIT_S)

    # -- out -----------------------------------------------------------------------------------------------------

    async def call(self, record: EventRecord) -> None:
        """Run the callback. Its exception is counted and reported, never raised."""
        result = self._enter(record)
        if not isawaitable(result):
            return

        token = _active.set((*_active.get(), self))
        try:
            await result
        except asyncio.CancelledError as problem:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise

            self._failed(record, problem)  # the callback cancelled itself: that is its own affair
        except Exception as problem:
            self._failed(record, problem)
        finally:
            _active.reset(token)

    def _enter(self, record: EventRecord) -> Any:
        """Call the callback; return what it returned, ``None`` when it raised."""
        token = _active.set((*_active.get(), self))
        try:
            result = self.callback(record.to_event())
            self.delivered += 1
            return result
        except Exception as problem:
            self._failed(record, problem)
            return None
        finally:
            _active.reset(token)

    def _adopt(self, awaitable: Any, lane: Lane, record: EventRecord, *, wait: bool) -> None:
        """Run what a plain callback unexpectedly returned for awaiting."""

        async def finish() -> None:
            try:
                await awaitable
            except Exception as problem:
                self._failed(record, problem)

        if wait:
            self._wait(asyncio.run_coroutine_threadsafe(finish(), lane.loop), SYNC_WAIT_S)
        else:
            lane.task = lane.loop.create_task(finish())

    def _failed(self, record: EventRecord, problem: BaseException) -> None:
        self.failures += 1
        self.center.hook_failed(self, record, problem)

    def _drop(self) -> None:
        self.dropped += 1
        # Told in powers of two: a hook that is hopelessly behind must not be flooded with news about it.
        if self.dropped >= 2 * self._reported_dropped:
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        news = self.dropped - self._reported_dropped
        if news:
            self._reported_dropped = self.dropped
            self.center.report(
                "sink.dropped",
                {"sink": f"hook:{self.name}", "count": news, "bytes": 0, "reason": "hook queue full"},
                skip=self,
            )

    # -- lanes ---------------------------------------------------------------------------------------------------

    def _lane(self) -> Lane:
        return self._lane_on(running_loop() or self.center.hook_thread.loop())

    def _lane_on(self, loop: asyncio.AbstractEventLoop) -> Lane:
        lane = self._lanes.get(loop)
        if lane is None:
            self._rescue_closed()
            with self._lock:
                lane = self._lanes.setdefault(loop, Lane(self, loop))

        return lane

    def _rescue_closed(self) -> None:
        """Forget lanes of closed loops; what they still hold moves to the Event Center's thread."""
        with self._lock:
            closed = [lane for lane in self._lanes.values() if lane.loop.is_closed()]
            for lane in closed:
                del self._lanes[lane.loop]

        for lane in closed:
            self.rescue(lane)

    def lanes(self) -> list[Lane]:
        """Return the lanes that hold something."""
        with self._lock:
            lanes = list(self._lanes.values())

        return [lane for lane in lanes if lane.queue or lane.scheduled]

    def queued(self) -> int:
        """Return how many events wait."""
        return sum(len(lane.queue) for lane in self.lanes())

    def rescue(self, lane: Lane) -> None:
        """Move what a closed loop left behind to the Event Center's thread."""
        lane.scheduled = False
        if not lane.queue:
            return

        loop = self.center.hook_thread.loop()
        with self._lock:
            heir = self._lanes.setdefault(loop, Lane(self, loop))

        while lane.queue:
            heir.put(lane.queue.popleft())

    def _mark(self, lane: Lane) -> Marker:
        marker: Marker = concurrent.futures.Future()
        lane.put(marker)
        return marker

    async def _settle(self, lane: Lane, timeout: float | None = None) -> bool:
        marker = self._mark(lane)
        try:
            await asyncio.wait_for(asyncio.wrap_future(marker), timeout)
        except TimeoutError:
            return False

        return True

    @staticmethod
    def _wait(future: concurrent.futures.Future[None], timeout: float) -> bool:
        try:
            future.result(timeout)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            return False

        return True

    async def async_flush(self, timeout: float | None = None) -> bool:
        """Wait until everything offered so far is delivered. Return whether it is.

        A hook cannot wait for itself, and not for ever for another one, which may be waiting for it.
        """
        self._rescue_closed()
        self._tell_dropped()
        if self._is_inside():
            return False

        if timeout is None and inside_hook():
            timeout = SYNC_WAIT_S

        patient = timeout is None
        timeout = self.patience if patient else timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        settled = True
        for lane in self.lanes():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not await self._settle(lane, left):
                settled = False
                if patient or self.patience is not None:
                    self._give_up(lane, left or 0.0)

        return settled

    def _give_up(self, lane: Lane, waited: float) -> None:
        """Cancel the callback a lane hangs in; what is queued behind it is delivered."""
        record = lane.current
        if record is not None and lane.cancel_current():
            self._failed(record, TimeoutError(f"the callback was cancelled after {waited:.2f} s"))

    def flush(self, timeout: float) -> bool:
        """Synchronous twin of :meth:`async_flush`. What waits on the loop this thread runs can only be delivered to a
        plain callback, at once; an async callback's queue there makes the answer ``False``."""
        deadline = time.monotonic() + timeout
        here = running_loop()
        settled = True
        self._rescue_closed()
        self._tell_dropped()
        for lane in self.lanes():
            if lane.loop is not here:
                settled = self._wait(self._mark(lane), max(0.0, deadline - time.monotonic())) and settled
            elif self.is_async:
                settled = False
            else:
                while lane.queue:
                    item = lane.queue.popleft()
                    if isinstance(item, concurrent.futures.Future):
                        item.set_result(None)
                    else:
                        self._enter(item)

        return settled

    def statistics(self) -> dict[str, int]:
        """Return counters of this hook."""
        return {
            "delivered": self.delivered,
            "queued": self.queued(),
            "dropped": self.dropped,
            "failures": self.failures,
        }

    def reset_after_fork(self) -> None:
        """Forget lanes whose loops live in the parent process."""
        self._lock = threading.Lock()
        self._lanes = {}
