"""The shapes of what the framework itself puts on a runtime stream, for type checkers and published schemas.

A reader ignores items whose type it does not know. Source: the compatible API's published schema types.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic refuses the standard library's before Python 3.12

__all__ = [
    "TriggerFlowInterrupt",
    "TriggerFlowInterruptEvent",
    "TriggerFlowIntervention",
    "TriggerFlowInterventionEvent",
    "TriggerFlowSystemStreamEvent",
]


class TriggerFlowInterrupt(TypedDict, total=False):
    """The record of an interrupt, as the stream carries it. Times in seconds since the Unix epoch."""

    id: str
    type: str
    payload: Any
    status: Literal["waiting", "resumed", "expired", "cancelled"]
    resume_to: Any
    resume_event: str | None
    source_execution_id: str
    source_flow_name: str
    source_operator_id: str | None
    source_signal: dict[str, Any]
    continuation_event: str | None
    scope: str
    created_at: float
    resumed_at: float | None
    resume_value: Any
    schema: Any
    expires_at: float | None
    on_expire: Any
    assignees: list[str] | None


class TriggerFlowInterruptEvent(TypedDict):
    """A stream item that tells of an interrupt."""

    type: Literal["interrupt"]
    action: Literal["pause", "resume", "project", "expire"]
    execution_id: str
    interrupt: TriggerFlowInterrupt
    signal: NotRequired[dict[str, Any]]
    value: NotRequired[Any]


class TriggerFlowIntervention(TypedDict):
    """One item of the ledger of interventions. Times in seconds since the Unix epoch."""

    id: str
    version: int
    status: Literal["pending", "inserted", "rejected", "expired"]
    payload: Any
    target: str | None
    author: str | None
    note: str | None
    metadata: dict[str, Any]
    created_at: float
    inserted_at: float | None
    insertion: dict[str, Any] | None
    rejected_at: float | None
    reject_reason: str | None
    rejected_by: str | None
    expired_at: float | None
    consumers: dict[str, dict[str, Any]]


class TriggerFlowInterventionEvent(TypedDict):
    """A stream item that tells of an intervention."""

    type: Literal["intervention"]
    action: Literal["append", "insert", "expire", "consume", "reject"]
    execution_id: str
    intervention: TriggerFlowIntervention


TriggerFlowSystemStreamEvent = TriggerFlowInterruptEvent | TriggerFlowInterventionEvent
"""What the framework itself puts on a runtime stream."""
