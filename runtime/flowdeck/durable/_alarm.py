"""When parked executions of an event loop have something to do by themselves."""

from __future__ import annotations

import asyncio
import heapq
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowdeck.durable.host import Host, Hosted

__all__ = ["Alarm"]


class Alarm:
    """Wakes parked executions of one loop: a heap and a single timer."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = weakref.ref(loop)  # the table of alarms must not keep loops that have ended
        self._heap: list[tuple[int, str]] = []
        self._handle: asyncio.TimerHandle | None = None

    def set(self, hosted: Hosted, wake_us: int) -> None:
        heapq.heappush(self._heap, (wake_us, hosted.id))
        if self._heap[0][0] >= wake_us:
            self._arm()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

        loop = self._loop()
        if self._heap and loop is not None:
            now = self._host.services.clock.time_us()
            self._handle = loop.call_later(max(0.0, (self._heap[0][0] - now) / 1e6), self._ring)

    def _ring(self) -> None:
        now = self._host.services.clock.time_us()
        while self._heap and self._heap[0][0] <= now:
            due, execution_id = heapq.heappop(self._heap)
            hosted = self._host._hosted.get(execution_id)
            if hosted is not None and hosted.strong is None and hosted.wake_us == due:
                self._host.revive(hosted)

        self._handle = None
        self._arm()
