"""What happened to a step each time it ran: its attempts with their outcome, and its waits for an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from flowdeck_devtools.core.spanform import exact
from flowdeck_devtools.core.status import moved

__all__ = ["Attempt", "Outcome", "Wait"]


@dataclass(slots=True)
class Wait:
    """A stretch of waiting for an answer. ``end_us`` is ``None`` while it lasts."""

    interrupt_id: str
    start_us: int
    end_us: int | None = None


class Outcome(msgspec.Struct, gc=False, frozen=True):
    """How an attempt failed. Most do not, so it is not part of every one."""

    will_retry: bool = False
    cancelled: bool = False
    """It ended because something beside it failed."""
    propagated: bool = False
    """Its error was raised elsewhere and passed through."""
    origin: str | None = None
    """The run its error was raised in, where the event says so."""
    error: Mapping[str, Any] | None = None


FINE = Outcome()


class Attempt(msgspec.Struct, gc=False):
    """One run of a step: its own run id, start, end and outcome."""

    run_id: str
    number: int = 1
    started_us: int | None = None
    ended_us: int | None = None
    reached: str = "unknown"
    """The status its events led to; ``status`` says more of one that failed."""
    moved_at: int = -1
    """Place of the last event that moved it: epoch and number in one, see :func:`moved`."""
    outcome: Outcome = FINE

    def move(self, event_type: str, epoch: int, seq: int) -> None:
        """Take one event, in any order and any number of times."""
        self.reached, at = moved(self.reached, self.moved_at, event_type, epoch, seq)
        self.moved_at = exact(at)

    @property
    def error(self) -> Mapping[str, Any] | None:
        return self.outcome.error

    @property
    def origin(self) -> str | None:
        return self.outcome.origin

    @property
    def propagated(self) -> bool:
        return self.outcome.propagated

    @property
    def status(self) -> str:
        if self.reached == "failed":
            outcome = self.outcome
            if outcome.will_retry:
                return "retried"
            if outcome.cancelled:
                return "cancelled"
            if outcome.propagated:
                return "propagated"
        return self.reached
