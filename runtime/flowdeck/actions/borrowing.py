"""The execution environments of one call: ensured before it, in the name of whoever its scope says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from flowdeck.actions.context import ActionContext
from flowdeck.actions.spec import ActionSpec
from flowdeck.environments.manager import ExecutionEnvironmentManager
from flowdeck.environments.policy import POLICY_KEYS

__all__ = ["borrow", "give_back"]


async def borrow(
    manager: ExecutionEnvironmentManager,
    spec: ActionSpec,
    context: ActionContext,
    handles: list[dict[str, Any]],
    agent: str,
) -> ActionContext:
    """Ensure what ``spec`` needs, note each handle in ``handles``, and return the context with the resources.

    The call's policy goes over that of each requirement, as far as it speaks of environments.

    Raises:
        ExecutionEnvironmentError: one cannot be had.
    """
    resources: dict[str, Any] = {}
    policy = {key: value for key, value in context.policy.items() if key in POLICY_KEYS}
    for requirement in spec.execution_environments:
        owner = _owner(requirement, context, agent)
        handle = await manager.async_ensure(requirement, owner_id=owner, approval=context.approval, policy=policy)
        handles.append(handle)
        resources[handle["resource_key"]] = handle["resource"]

    return replace(context, environments=resources)


async def give_back(manager: ExecutionEnvironmentManager, handles: Iterable[dict[str, Any]]) -> None:
    """Release all that a call has borrowed."""
    for handle in handles:
        await manager.async_release(handle, automatic=True)


def _owner(requirement: Any, context: ActionContext, agent: str) -> str | None:
    """Whose environment it is, by its scope; ``None`` leaves what the requirement says."""
    if not isinstance(requirement, Mapping) or requirement.get("owner_id"):
        return None

    run = context.run
    match requirement.get("scope", "action_call"):
        case "action_call":
            return context.action_call_id
        case "execution":
            return run.execution_id if run is not None else None
        case "session":
            return run.session_id if run is not None else None
        case "agent":
            return agent
        case _:
            return None
