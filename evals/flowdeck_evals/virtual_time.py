"""Virtual time that moves by itself: when nothing else can happen, it jumps to the next thing that is due.

One pump serves every clock of an event loop. It waits until the loop has nothing ready and no clock is *busy* (a call
that really goes out), then moves each clock that has sleepers to its next due time. So a case with ``delay: 5m`` costs
no time, and what happens does not depend on the machine's speed. Only work behind ports counts as busy: what a flow
does in threads of its own, outside ``data.call``, may be overtaken.

A fork plays its prefix on such a clock and then *goes live*: from there a second takes a second.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

from flowdeck.execution.ports import VirtualClock

__all__ = ["JumpingClock"]

_BLIND_TURNS: Final = 512
"""Turns an event loop is given that does not show what it has ready."""


class JumpingClock(VirtualClock):
    """A virtual clock that jumps when everything is idle; use it on one event loop."""

    def __init__(self, start_us: int = 1_700_000_000_000_000) -> None:
        super().__init__(start_us)
        self._busy = 0
        self._live_ns: int | None = None
        """Since when it has been live, on the machine's clock."""

    def time_us(self) -> int:
        live = 0 if self._live_ns is None else (time.monotonic_ns() - self._live_ns) // 1000
        return super().time_us() + live

    def monotonic_ns(self) -> int:
        return self.time_us() * 1000

    def go_live(self) -> None:
        """Jump no more: who sleeps, and whoever will, sleeps in real time. Time itself goes on from where it is."""
        if self._live_ns is None:
            self._live_ns = time.monotonic_ns()
            sleeping, self._sleepers = self._sleepers, []
            for due_us, _, future in sleeping:
                _wake_after((due_us - self._now_us) / 1e6, future)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Time stands still inside the block: something real is going on."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                _Pump.of_loop().wake(self)

    def _sleeper(self, seconds: float) -> asyncio.Future[None]:
        if self._live_ns is not None:
            return _wake_after(seconds, asyncio.get_running_loop().create_future())

        future = super()._sleeper(seconds)
        _Pump.of_loop().wake(self)
        return future

    @property
    def can_jump(self) -> bool:
        """Whether somebody sleeps and nothing real is going on."""
        return not self._busy and self.next_due_us is not None

    def jump(self, due_us: int) -> None:
        """Move to ``due_us`` and wake the first sleeper that is due then."""
        _, _, future = heapq.heappop(self._sleepers)
        self._now_us = max(self._now_us, due_us)
        future.set_result(None)


def _wake_after(seconds: float, future: asyncio.Future[None]) -> asyncio.Future[None]:
    timer = future.get_loop().call_later(seconds, lambda: None if future.done() else future.set_result(None))
    future.add_done_callback(lambda _: timer.cancel())
    return future


class _Pump:
    """Moves the clocks of one event loop."""

    _pumps: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, _Pump]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._clocks: set[JumpingClock] = set()
        self._task: asyncio.Task[None] | None = None
        self._ready: Any = getattr(loop, "_ready", None)

    @classmethod
    def of_loop(cls) -> _Pump:
        loop = asyncio.get_running_loop()
        pump = cls._pumps.get(loop)
        if pump is None:
            pump = cls._pumps[loop] = cls(loop)

        return pump

    def wake(self, clock: JumpingClock) -> None:
        self._clocks.add(clock)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="virtual time")

    async def _run(self) -> None:
        while self._clocks:
            await self._quiet()
            self._clocks = {clock for clock in self._clocks if clock.can_jump}
            for clock in list(self._clocks):
                due = clock.next_due_us
                if due is not None and clock.can_jump:
                    clock.jump(due)

    async def _quiet(self) -> None:
        """Return when the loop has nothing else to do right now."""
        await asyncio.sleep(0)
        if self._ready is None:
            for _ in range(_BLIND_TURNS):
                await asyncio.sleep(0)
        else:
            await self._turns()

    async def _turns(self) -> None:
        """Let the loop turn until we are alone in it; nothing tells when that is."""
        more = True
        while more:
            await asyncio.sleep(0)
            more = bool(self._ready)
