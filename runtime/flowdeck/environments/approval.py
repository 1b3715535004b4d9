"""Whether an execution environment may be made: its policy, a decision made elsewhere, or a handler that is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import isawaitable
from typing import Any

from flowdeck.environments.policy import checked_policy
from flowdeck.environments.requirement import Requirement
from flowdeck.errors import ExecutionEnvironmentApprovalDenied, ExecutionEnvironmentApprovalRequired

__all__ = ["DecisionHandler", "approved_policy", "needs_approval"]

DecisionHandler = Callable[[Requirement, Mapping[str, Any]], Any]


def needs_approval(requirement: Requirement) -> bool:
    """Whether somebody has to allow it."""
    return bool(requirement["approval_required"]) or requirement["policy"].get("approval_mode", "auto") == "always"


async def approved_policy(
    requirement: Requirement, decision: Mapping[str, Any] | None, decide: DecisionHandler | None
) -> dict[str, Any]:
    """Return the policy to work under, with the decision's changes.

    Args:
        decision: one that was made elsewhere; ``decide`` is asked when there is none.

    Raises:
        ExecutionEnvironmentApprovalRequired: there is no decision and nobody to ask.
        ExecutionEnvironmentApprovalDenied: the answer was no, or its policy never gives one.
    """
    policy: dict[str, Any] = requirement["policy"]
    about = {"requirement_id": requirement["requirement_id"], "kind": requirement["kind"], "policy": dict(policy)}
    name = f"execution environment {requirement['requirement_id']!r} ({requirement['kind']})"
    answer: Any = decision
    if answer is None:
        if policy.get("approval_mode") == "never":
            raise ExecutionEnvironmentApprovalDenied(
                f"{name} needs approval and its policy never gives one (approval_mode 'never')", payload=about
            )

        if decide is None:
            raise ExecutionEnvironmentApprovalRequired(
                f"{name} needs approval; answer it, or set_decision_handler()", payload=about
            )

        answer = decide(requirement, policy)
        if isawaitable(answer):
            answer = await answer

    verdict: Mapping[str, Any] = answer if isinstance(answer, Mapping) else {"approved": answer is True}
    if verdict.get("approved") is not True:
        why = verdict.get("reason") or "the decision was no"
        raise ExecutionEnvironmentApprovalDenied(f"{name} was not allowed: {why}", payload=about)

    override: Mapping[str, Any] = verdict.get("policy_override") or {}
    return checked_policy({**policy, **override}, name)
