"""What a running action may know about its call."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowdeck.events.lineage import RunContext

if TYPE_CHECKING:
    from flowdeck.execution.data import TriggerFlowRuntimeData

__all__ = ["ActionContext", "current_action"]


@dataclass(frozen=True, slots=True)
class ActionContext:
    """One call of an action. A function gets it through a parameter annotated with this class::

    @actions.action_func
    async def refund(order: str, context: ActionContext) -> dict:
        await bank.refund(order, idempotency_key=context.idempotency_key)
    """

    action_id: str
    action_call_id: str
    idempotency_key: str
    """Constant over attempts and recoveries of this call: hand it to whatever must not happen twice."""
    attempt: int = 1
    """Which try this is, from 1."""
    run: RunContext | None = None
    """The lineage of the call; what the action runs becomes its child."""
    data: TriggerFlowRuntimeData | None = None
    """The chunk the call runs in; ``None`` outside a flow."""
    environments: Mapping[str, Any] = field(default_factory=dict)
    """The resources of the action's execution environments by their key."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    approval: Mapping[str, Any] | None = None
    """The decision that allowed the call, when one was needed."""


current_call: ContextVar[ActionContext | None] = ContextVar("flowdeck_action", default=None)


def current_action() -> ActionContext | None:
    """Return the call the present code works for, ``None`` outside an action."""
    return current_call.get()
