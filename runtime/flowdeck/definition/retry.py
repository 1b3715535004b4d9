"""How often a chunk is tried again, and after how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Retry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A retry policy for one chunk: ``to(fetch, retry=Retry(attempts=3, backoff=0.5))``.

    Every attempt is a run of its own in the events, with ``meta.attempt`` counting from 1.
    """

    attempts: int = 3
    """Tries in all, the first included; at least 1."""
    backoff: float = 0.0
    """Seconds before the second attempt."""
    factor: float = 2.0
    """Each further wait is this many times the last."""
    max_backoff: float = 60.0
    """No wait is longer, in seconds."""
    jitter: float = 0.0
    """Up to this fraction of a wait is added by chance (0 to 1), so that a crowd does not retry in step."""
    on: tuple[type[BaseException], ...] = (Exception,)
    """Which errors are worth another try."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"Retry(attempts={self.attempts}): at least 1 attempt is needed")
        if self.backoff < 0 or self.max_backoff < 0 or self.factor <= 0 or not 0 <= self.jitter <= 1:
            raise ValueError("Retry: backoff and max_backoff must be >= 0, factor > 0, jitter between 0 and 1")
        if isinstance(self.on, type):
            object.__setattr__(self, "on", (self.on,))

    def delay(self, attempt: int, error: BaseException, chance: Callable[[], float]) -> float | None:
        """Return the seconds to wait after ``attempt`` failed with ``error``, or ``None`` to give up."""
        if attempt >= self.attempts or not isinstance(error, self.on):
            return None

        wait = min(self.backoff * self.factor ** (attempt - 1), self.max_backoff)
        return wait * (1 + self.jitter * chance()) if self.jitter else wait
