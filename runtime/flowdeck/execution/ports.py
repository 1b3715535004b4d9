"""The seam to the world that a replay can close: ports and the clock.

Everything a handler wants to be replayable goes through :meth:`Ports.call`. The default calls the function; a tape
(see the evals component) answers from a recording instead. Source: the design's §3, "Ports".
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import isawaitable
from typing import Any, NamedTuple, Protocol

from flowdeck.events.ids import new_id

__all__ = [
    "Answerer",
    "Clock",
    "PortCall",
    "Ports",
    "Question",
    "Reply",
    "SystemClock",
    "VirtualClock",
]


_TURNS = 32
"""Turns of the event loop a woken sleeper gets before virtual time moves on."""


class Clock(Protocol):
    """Time as an execution sees it. Timers, backoff, expiry and auto-close all use it."""

    def time_us(self) -> int:
        """Microseconds since the Unix epoch."""

    def monotonic_ns(self) -> int:
        """Nanoseconds on a clock that never goes back; for durations."""

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """Limit a block like :func:`asyncio.timeout`, measured by this clock; ``None`` is no limit."""


class SystemClock:
    """The machine's clocks and the running event loop's timers."""

    __slots__ = ()

    def time_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_ns(self) -> int:
        return time.perf_counter_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[asyncio.Timeout]:
        return asyncio.timeout(seconds)


class VirtualClock:
    """A clock that moves only when told, for tests and recorded replays.

    ``advance`` lets what is ready run first, then wakes sleepers in the order of their due times and lets each run
    before the next is woken.
    """

    def __init__(self, start_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = start_us
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = 0

    def time_us(self) -> int:
        return self._now_us

    def monotonic_ns(self) -> int:
        return self._now_us * 1000

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
        else:
            await self._sleeper(seconds)

    def _sleeper(self, seconds: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._now_us + round(seconds * 1e6), self._order, future))
        return future

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
        async with asyncio.timeout(None) as limit:
            if seconds is None:
                yield limit
                return

            def expire(sleeper: asyncio.Future[None]) -> None:
                if not sleeper.cancelled():
                    limit.reschedule(asyncio.get_running_loop().time())

            sleeper = self._sleeper(max(seconds, 0.0))
            sleeper.add_done_callback(expire)
            if seconds <= 0:
                sleeper.set_result(None)

            try:
                yield limit
            finally:
                sleeper.remove_done_callback(expire)
                sleeper.cancel()

    @property
    def next_due_us(self) -> int | None:
        """When the next sleeper is due, or ``None`` when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)

        return self._sleepers[0][0] if self._sleepers else None

    async def advance(self, seconds: float) -> None:
        """Move time forward by ``seconds``, waking whoever becomes due on the way."""
        target = self._now_us + round(seconds * 1e6)
        await self._run_ready()
        while (due := self.next_due_us) is not None and due <= target:
            _, _, future = heapq.heappop(self._sleepers)
            self._now_us = max(self._now_us, due)
            future.set_result(None)
            await self._run_ready()

        self._now_us = target

    async def _run_ready(self) -> None:
        """Let whatever can run now run, until it sleeps on this clock or waits for something else."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)


class PortCall(NamedTuple):
    """One call through a port. ``(scope, port, name, ordinal)`` identifies it in any replay of the run."""

    scope: str
    """The full place, through all sub flows."""
    port: str
    name: str
    args: tuple[Any, ...]
    ordinal: int


class Question(NamedTuple):
    """An open interrupt, as an :class:`Answerer` is asked about it."""

    execution_id: str
    interrupt_id: str
    """The id under which it can be answered in the outermost execution."""
    kind: str
    scope: str
    """The full place of the chunk that asks, through all sub flows."""
    payload: Any
    schema: Any
    expires_us: int | None
    """Microseconds since the Unix epoch on the execution's clock, or ``None``: it never expires."""


class Reply(NamedTuple):
    """What an :class:`Answerer` says."""

    value: Any = None
    actor: str | None = None
    after: float = 0.0
    """Seconds of the execution's clock until it is given."""
    declined: bool = False
    """Nobody will answer: it ends now, the way its ``on_expire`` says, else by cancelling its branch."""


class Answerer(Protocol):
    """Answers interrupts in the place of people. Asked after an interrupt is applied and, if durable, committed."""

    def answer(self, question: Question) -> Reply | None:
        """Return the reply, or ``None`` to leave the question open to others. May not block."""


class Ports:
    """The default ports: every call goes through to the world. A replay subclasses this and overrides every method."""

    async def call(self, call: PortCall, fn: Callable[..., Awaitable[Any] | Any]) -> Any:
        """Perform ``call`` by running ``fn(*call.args)`` and return what it returns."""
        result = fn(*call.args)
        return await result if isawaitable(result) else result

    async def stream(self, call: PortCall, fn: Callable[..., AsyncIterator[Any]]) -> AsyncIterator[Any]:
        """Perform ``call`` by iterating over ``fn(*call.args)``."""
        async for chunk in fn(*call.args):
            yield chunk

    def now_us(self, call: PortCall, clock: Clock) -> int:
        """Answer ``data.now()``: microseconds since the Unix epoch."""
        return clock.time_us()

    def seed(self, call: PortCall) -> int:
        """Answer ``data.random``: the seed of a generator of this handler's own."""
        return random.getrandbits(64)

    def new_id(self, call: PortCall) -> str:
        """Answer ``data.new_id()``: an id nobody else has."""
        return new_id()
