"""The runtime stream: product events a run puts out while it works, replayable by late readers."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from typing import Any

from flowdeck.execution.ports import Clock

__all__ = ["Deferred", "RuntimeStream"]


class Deferred:
    """An item that is built when the first reader comes to it; most runs pause without anybody reading along."""

    __slots__ = ()

    def build(self) -> Any:
        """Return the item."""
        raise NotImplementedError


class RuntimeStream:
    """An append-only list with readers. Every reader sees every item, from the first, at its own pace.

    Items live as long as the execution object. ``limit`` bounds them: beyond it the oldest are let go, and a reader
    that was behind them gets one ``{"type": "stream", "action": "gap", "missed": n}`` item in their place.
    """

    __slots__ = ("_base", "_items", "_waiters", "closed", "limit", "resting")

    def __init__(self, limit: int = 100_000) -> None:
        self._items: Any = ()
        self._base = 0
        self._waiters: Any = ()
        self.closed = False
        self.resting = False
        """The run waits for somebody, and every item that led there is out."""
        self.limit = limit

    def __len__(self) -> int:
        return self._base + len(self._items)

    def put(self, item: Any) -> None:
        """Append ``item`` and wake the readers. Items after :meth:`close` are kept but nobody is shown them."""
        if self.closed:
            return

        self.resting = False
        if not self._items:
            self._items = [item]
        else:
            self._items.append(item)

        if len(self._items) > self.limit:
            half = self.limit // 2  # one big cut now and then, not one shift an item
            del self._items[:half]
            self._base += half

        if self._waiters:
            self._wake()

    def rest(self) -> None:
        """The run waits for somebody now. Readers that look at :attr:`resting` are woken."""
        if not self.resting:
            self.resting = True
            if self._waiters:
                self._wake()

    def close(self) -> bool:
        """End the stream: readers stop after the last item. Returns whether it was open."""
        was_open = not self.closed
        self.closed = True
        if self._waiters:
            self._wake()

        return was_open

    def end(self) -> None:
        """End the stream at once, whatever is still held back."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, ()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    @property
    def first(self) -> int:
        """Number of the oldest item that is still held."""
        return self._base

    def since(self, position: int, limit: int) -> list[Any]:
        """Return at most ``limit`` items from number ``position`` on, which is not before :attr:`first`."""
        start = position - self._base
        items = list(self._items[start : start + limit])
        for index, item in enumerate(items):
            if isinstance(item, Deferred):
                items[index] = self._items[start + index] = item.build()

        return items

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done at the next item, rest or end; :meth:`forget` it when nobody waits any more."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._waiters:
            self._waiters = []

        self._waiters.append(waiter)
        return waiter

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """Wake ``waiter`` no more."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    async def read(self, timeout: float | None, clock: Clock) -> AsyncIterator[Any]:
        """Yield every item until the stream ends, or until none came for ``timeout`` seconds (with a warning)."""
        position = 0
        while True:
            if position < self._base:
                yield {"type": "stream", "action": "gap", "missed": self._base - position}
                position = self._base

            while position < len(self):
                place = position - self._base
                position += 1
                item = self._items[place]
                if isinstance(item, Deferred):
                    item = self._items[place] = item.build()

                yield item
                if position < self._base:
                    break

            if position < len(self) or position < self._base:
                continue

            if self.closed:
                return

            changed = self.changed()
            try:
                async with clock.timeout(timeout):
                    await changed
            except TimeoutError:
                warnings.warn(f"the runtime stream had no item for {timeout} s", UserWarning, stacklevel=2)
                return
