"""What is open now: executions, their interrupts and the inbox, in the store's ``state.db``; and durable executions.

A process that runs flows opens a :class:`StateControl` with :func:`open_control`; any other process reads and
answers through a :class:`ControlClient`. ``runtime.use_store(...)`` makes executions durable: every input is committed
to an execution store, and a :class:`Host` takes up what was left behind.
"""

from __future__ import annotations

from flowdeck.durable.client import (
    AmbiguousExecution,
    AmbiguousInterrupt,
    AnswerResult,
    ControlClient,
    DurableInfo,
    ExecutionRow,
    InboxEntry,
    InterruptRow,
)
from flowdeck.durable.control import StateControl, open_control
from flowdeck.durable.engine import DbosEngine, Durable
from flowdeck.durable.memory import MemoryStore, Shelf
from flowdeck.durable.sqlite import SqliteStore
from flowdeck.durable.statedb import StoreBusy
from flowdeck.durable.store import ExecutionStore, Retention

__all__ = [
    "AmbiguousExecution",
    "AmbiguousInterrupt",
    "AnswerResult",
    "ControlClient",
    "DbosEngine",
    "Durable",
    "DurableInfo",
    "ExecutionRow",
    "ExecutionStore",
    "InboxEntry",
    "InterruptRow",
    "MemoryStore",
    "Retention",
    "Shelf",
    "SqliteStore",
    "StateControl",
    "StoreBusy",
    "open_control",
]
