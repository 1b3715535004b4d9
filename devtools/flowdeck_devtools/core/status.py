"""Status, read from the event catalogue's state machine and from nowhere else (DESIGN §5.3).

An event's *name* is never interpreted: a type the catalogue does not know leads nowhere, and whatever it belongs to
keeps the status it had. Order is by ``(epoch, seq)``, so a late or repeated event cannot bring a finished run back.
"""

from __future__ import annotations

from functools import lru_cache

from flowdeck.events.catalogue import CATALOGUE, TERMINAL, TRANSITIONS

__all__ = ["ENDED", "GLYPHS", "ORDER", "StatusTracker", "glyph", "moved", "transition"]

ENDED = TERMINAL
"""Statuses nothing follows within one epoch."""

ORDER = ("waiting", "running", "created", "blocked_version", "lost", "failed", "cancelled", "completed", "unknown")
"""Statuses by how much they ask for a person's eye."""

GLYPHS = {
    "created": "○",
    "running": "●",
    "waiting": "!",
    "completed": "✓",
    "failed": "✗",
    "cancelled": "⊘",
    "blocked_version": "▲",
    "lost": "?",
    "retried": "↻",
    "propagated": "✗",
    "unknown": "·",
}
"""One plain, one-cell glyph per status; colour and word always stand beside it."""


def glyph(status: str) -> str:
    return GLYPHS.get(status, "·")


@lru_cache(maxsize=4096)
def transition(event_type: str) -> str | None:
    """The status an event leads its run to, or ``None`` when it leads nowhere or is not in the catalogue."""
    spec = CATALOGUE.get(event_type)
    return spec.transition if spec is not None else None


class StatusTracker:
    """The status of one run as its events arrive, in any order and any number of times."""

    __slots__ = ("at", "status")

    def __init__(self, status: str = "unknown") -> None:
        self.status = status
        self.at = (-1, -1)

    def apply(self, event_type: str, epoch: int, seq: int) -> bool:
        """Take one event. True when the status changed."""
        target = transition(event_type)
        if target is None or (epoch, seq) < self.at:
            return False
        if epoch <= self.at[0] and self.status in TRANSITIONS and target not in TRANSITIONS[self.status]:
            return False  # the machine forbids it; a new epoch begins anew

        self.at = (epoch, seq)
        changed = target != self.status
        self.status = target
        return changed


_EPOCH_BITS = 40


def moved(status: str, at: int, event_type: str, epoch: int, seq: int) -> tuple[str, int]:
    """The same as a function, for what exists by the hundred thousand: the status after an event, and its place.

    ``at`` packs epoch and number of the last event that moved it, -1 before the first.
    """
    target = transition(event_type)
    here = (epoch << _EPOCH_BITS) + seq
    if target is None or here < at:
        return status, at
    if at >= 0 and epoch <= at >> _EPOCH_BITS and status in TRANSITIONS and target not in TRANSITIONS[status]:
        return status, at
    return target, here
