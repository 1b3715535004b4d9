"""Taking turns: whoever works on a key is alone with it, over threads and event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class Turns:
    """One turn at a time for each key; keys do not wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: dict[str, Future[None]] = {}

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Wait until nobody else works on ``key``, in any thread or loop."""
        mine: Future[None] = Future()
        while True:
            with self._lock:
                other = self._busy.setdefault(key, mine)

            if other is mine:
                break

            await asyncio.shield(asyncio.wrap_future(other))

        try:
            yield
        finally:
            with self._lock:
                del self._busy[key]

            mine.set_result(None)
