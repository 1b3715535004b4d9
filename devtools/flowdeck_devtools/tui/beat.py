"""The beat: what calls the tick ten times a second while something happens, and hardly ever while nothing does.

A Textual timer is a message per beat (0.26 % of a core at 10 Hz); this is a bare callback of the event loop. After some
quiet seconds the beat slows down, and the threads that follow the store wake it, so a new event is drawn as fast as
ever while an idle window costs next to nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["Beat"]

QUIET_AFTER_SECONDS = 2.0
QUIET_SECONDS = 0.5
"""Between beats while nothing happens: ages and durations still move on."""


class Beat:
    """Calls ``tick`` every ``seconds`` from the running event loop, until stopped.

    Args:
        tick: What to call. What it raises goes to ``failed``, and the beat ends.
        seconds: Between beats while something happens.
        failed: Takes an error of the tick.
    """

    def __init__(self, tick: Callable[[], None], seconds: float, failed: Callable[[Exception], None]) -> None:
        self._tick, self._seconds, self._failed = tick, seconds, failed
        self._loop = asyncio.get_running_loop()
        self._awake_until = 0.0
        self._handle: asyncio.Handle | None = None
        self._slow = False
        self._stopped = False
        self.beats = 0
        self.stir()

    def start(self) -> None:
        self._next()

    def stop(self) -> None:
        self._stopped = True
        if self._handle is not None:
            self._handle.cancel()

    def stir(self) -> None:
        """Something happens: beat fast for a while. Only from the loop's own thread."""
        self._awake_until = time.monotonic() + QUIET_AFTER_SECONDS
        if self._slow and not self._stopped:
            if self._handle is not None:
                self._handle.cancel()
            self._slow = False
            self._handle = self._loop.call_soon(self._run)

    def wake(self) -> None:
        """The same from any thread; free while the beat is fast."""
        if self._slow and not self._stopped:
            try:
                self._loop.call_soon_threadsafe(self.stir)
            except RuntimeError:
                pass  # the loop closed meanwhile

    def _next(self) -> None:
        self._slow = time.monotonic() > self._awake_until
        self._handle = self._loop.call_later(QUIET_SECONDS if self._slow else self._seconds, self._run)

    def _run(self) -> None:
        if self._stopped:
            return
        self.beats += 1
        try:
            self._tick()
        except Exception as error:
            self.stop()
            self._failed(error)
            return
        self._next()
