"""Time as DevTools sees it: one object, so a test or a replay can hold it still."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "FixedClock", "HeldClock", "ReplayClock", "SystemClock"]


class Clock(Protocol):
    """Wall time for display and monotonic time for intervals."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, the unit of every stored time."""

    def monotonic(self) -> float:
        """Seconds that never go backwards; only differences mean anything."""


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


class HeldClock:
    """Wall time stands still, as at the end of a file; intervals go on, because a person still presses keys."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return time.monotonic()


class ReplayClock:
    """Wall time of the past, ``speed`` times as fast; it can skip ahead and come to a stop."""

    def __init__(self, start_us: int, speed: float) -> None:
        self.speed = speed
        self._start_us, self._begun = start_us, time.monotonic()
        self._held: int | None = None

    def now_us(self) -> int:
        if self._held is not None:
            return self._held
        return self._start_us + int((time.monotonic() - self._begun) * self.speed * 1e6)

    def monotonic(self) -> float:
        return time.monotonic()

    def skip_to(self, time_us: int) -> None:
        """Go on from a later moment."""
        self._start_us, self._begun = max(time_us, self.now_us()), time.monotonic()

    def hold(self, time_us: int) -> None:
        """Stand still at a moment from now on."""
        self._held = time_us


class FixedClock:
    """A clock that moves only when told to."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._now_us / 1e6

    def advance(self, seconds: float) -> None:
        self._now_us += int(seconds * 1e6)
