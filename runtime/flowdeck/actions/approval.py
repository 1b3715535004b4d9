"""Approval that resumes: a call that a person must allow becomes an interrupt, and the answered call then runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from flowdeck.actions.policy import APPROVAL_SCHEMA

if TYPE_CHECKING:
    from flowdeck.execution.data import TriggerFlowRuntimeData
    from flowdeck.execution.pausing import PauseSignal

__all__ = ["APPROVAL_TYPE", "ask_for", "resumed_approval"]

APPROVAL_TYPE: Final = "action_approval"
"""The ``type`` of an action's interrupts."""


def ask_for(data: TriggerFlowRuntimeData, record: Mapping[str, Any]) -> PauseSignal:
    """Open the interrupt that asks whether the call of ``record`` may run; the chunk must return it.

    Answer it with ``{"approved": True}`` or ``{"approved": False, "reason": "…"}``; the chunk then runs again.
    """
    payload = {
        "question": f"May {record['action_id']} run? {record['approval'].get('reason', '')}".strip(),
        "action_id": record["action_id"],
        "kwargs": record["kwargs"],
        "purpose": record["purpose"],
        "side_effect_level": record["side_effect_level"],
    }
    expires_in = record["approval"].get("expires_in")
    return data.pause_for(
        type=APPROVAL_TYPE,
        payload=payload,
        resume_to="self",
        schema=APPROVAL_SCHEMA,
        expires_in=expires_in,
        on_expire={"value": {"approved": False, "reason": "nobody answered in time"}},
        assignees=record["approval"].get("assignees"),
    )


def resumed_approval(data: TriggerFlowRuntimeData) -> dict[str, Any] | None:
    """Return the decision a chunk was resumed with, ``None`` when it runs for the first time."""
    if not data.is_resume:
        return None

    resume = data.resume
    asked = resume.interrupt or {}
    if asked.get("type") != APPROVAL_TYPE or asked.get("source_operator_id") != data._op.id:
        return None  # an answer to something else

    value = resume.value
    return {**value, "actor": asked.get("actor")} if isinstance(value, Mapping) else {"approved": value is True}
