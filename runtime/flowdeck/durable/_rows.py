"""The rows of ``state.db`` as another process sees them. ``msgspec.to_builtins(row)`` gives plain data for JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from flowdeck.errors import ExecutionError, InterruptError

__all__ = [
    "AmbiguousExecution",
    "AmbiguousInterrupt",
    "AnswerResult",
    "DurableInfo",
    "ExecutionRow",
    "InboxEntry",
    "InterruptRow",
]


class ExecutionRow(msgspec.Struct, frozen=True):
    """One execution. Times are microseconds since the Unix epoch."""

    id: str
    writer: str
    """The owner. While :meth:`ControlClient.owner_alive` is false and the status is not terminal, nobody runs it."""
    status: str
    """As last registered: created, running, waiting, completed, failed, cancelled."""
    flow_name: str
    entrypoint: str | None
    definition: str | None
    run_id: str | None
    root_run_id: str | None
    parent_execution_id: str | None
    task_id: str | None
    tenant_id: str | None
    user_id: str | None
    started_us: int
    updated_us: int
    finished_us: int | None
    open_interrupts: int


class InterruptRow(msgspec.Struct, frozen=True):
    """One interrupt. Times are microseconds since the Unix epoch."""

    id: str
    execution_id: str
    flow_name: str
    writer: str
    """The owner of its execution."""
    status: str
    """waiting, resumed, cancelled or expired."""
    answered: bool
    """Somebody's answer was accepted; while the status is still waiting, the owner has not applied it yet."""
    type: str
    payload: Any
    schema: Any
    """JSON Schema of the answer, or ``None`` when any value will do."""
    assignees: list[str]
    opened_us: int
    expires_us: int | None
    closed_us: int | None
    response: Any
    actor: str | None
    """Who answered."""
    record: dict[str, Any]
    """The whole record, as the execution published it."""


class InboxEntry(msgspec.Struct, frozen=True):
    """One row of the inbox, with what became of it. Times are microseconds since the Unix epoch."""

    id: int
    execution_id: str
    kind: str
    target: str | None
    payload: Any
    dedup_key: str
    actor: str | None
    created_us: int
    outcome: str | None
    """``None`` until the owner has taken it."""
    detail: str | None
    acked_us: int | None


class AnswerResult(msgspec.Struct, frozen=True):
    """What became of an answer or another request."""

    row_id: int | None
    """The inbox row: the new one, or of a duplicate the first one; ``None`` when nothing was written."""
    outcome: str | None
    """``None``: accepted, the owner has not taken it yet. Else applied, duplicate, conflict, expired, early, unknown
    or rejected."""
    detail: str | None = None
    """Why, for a person."""

    @property
    def accepted(self) -> bool:
        """Whether the request stands: accepted, applied, kept for later, or the repetition of one that was."""
        return self.outcome in (None, "applied", "early", "duplicate")


class DurableInfo(msgspec.Struct, frozen=True):
    """What the store holds of a durable execution."""

    seq: int
    """Inputs committed."""
    token: int
    """The fencing token: how often it was claimed, and its epoch."""
    parked: bool
    """Nothing runs: it waits for somebody, or for its time."""
    finished: bool
    wake_us: int | None
    """When it has something to do by itself."""
    blocked: str | None
    """Why nobody could take it up."""
    resource_keys: list[str]
    """Runtime resources whoever takes it up has to bring."""
    forked_from: str | None
    forked_at: int | None
    bytes: int
    """What its inputs and snapshots take."""


class AmbiguousExecution(ExecutionError, ValueError):
    """A shortened execution id fits several."""

    def __init__(self, wanted: str, candidates: list[str]) -> None:
        self.candidates = candidates
        super().__init__(f"{wanted!r} fits several executions: {', '.join(candidates)}. Give more of the id.")


class AmbiguousInterrupt(InterruptError):
    """A shortened interrupt id fits several. ``candidates`` holds some of them as ``execution/interrupt``."""

    def __init__(self, wanted: str, candidates: list[str]) -> None:
        self.candidates = candidates
        super().__init__(
            f"{wanted!r} fits several interrupts: {', '.join(candidates)}. Give more of the id, or the form "
            "execution/interrupt."
        )
