"""What is open now: executions, their interrupts and the inbox, in the store's ``state.db``.

A process that runs flows opens a :class:`StateControl` with :func:`open_control`; any other process reads and
answers through a :class:`ControlClient`.
"""

from __future__ import annotations

from flowdeck.durable.client import (
    AmbiguousInterrupt,
    AnswerResult,
    ControlClient,
    ExecutionRow,
    InboxEntry,
    InterruptRow,
)
from flowdeck.durable.control import StateControl, open_control
from flowdeck.durable.statedb import StoreBusy

__all__ = [
    "AmbiguousInterrupt",
    "AnswerResult",
    "ControlClient",
    "ExecutionRow",
    "InboxEntry",
    "InterruptRow",
    "StateControl",
    "StoreBusy",
    "open_control",
]
