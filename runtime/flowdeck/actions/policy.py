"""What a call is allowed: policies from several places merged, and whether a person must say yes first.

Later wins: the settings ``action.policy.global`` and ``action.policy.agent``, the action's own ``default_policy``, the
call's ``policy_override``. Source: behaviour §7.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flowdeck.actions.spec import ActionSpec
from flowdeck.environments.policy import checked_policy

__all__ = ["APPROVAL_SCHEMA", "approval_needed", "approval_of", "merged_policy", "planned_override"]

APPROVAL_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean", "description": "Whether the action may run."},
        "reason": {"type": "string", "description": "Why, or why not."},
    },
    "required": ["approved"],
}
"""What an answer to an ``approval`` interrupt of an action looks like."""

Policy = dict[str, Any]


_STRICTER: Final = (
    ("approval_mode", "always"), ("network_mode", "disabled"), ("read_only", True), ("allow_create", False),
    ("allow_update", False), ("allow_delete", False),
)  # fmt: skip


def planned_override(override: Mapping[str, Any]) -> Policy:
    """Return what a planner may change of a policy: it can ask for less than it has, or to be approved, never more."""
    return {key: value for key, value in _STRICTER if key in override and override[key] == value}


def merged_policy(settings: Mapping[str, Any], spec: ActionSpec, override: Mapping[str, Any] | None) -> Policy:
    """Return the policy of one call.

    Raises:
        ActionDefinitionError: a key has a value that cannot be meant.
    """
    merged: Policy = {}
    for layer in (
        settings.get("action.policy.global"), settings.get("action.policy.agent"), spec.default_policy, override
    ):  # fmt: skip
        if isinstance(layer, Mapping):
            merged.update(layer)

    return checked_policy(merged, f"action {spec.action_id!r}") if merged else merged


def approval_needed(spec: ActionSpec, policy: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a person is asked before the call, or ``None`` when it may simply run."""
    mode = policy.get("approval_mode", "auto")
    if not spec.approval_required and mode != "always":
        return None

    reason = str(
        policy.get("approval_reason") or f"action {spec.action_id!r} ({spec.side_effect_level}) needs approval"
    )
    return {
        "required": True,
        "reason": reason,
        "approval_mode": mode,
        "suggested_policy": {"approval_mode": "auto"},
        "message": f"{reason}; answer its interrupt, or call it again with approval={{'approved': True}}",
    }


def approval_of(answer: Any) -> dict[str, Any]:
    """Read a decision: ``True``, ``False`` or a mapping with ``approved``. Anything else does not allow."""
    if isinstance(answer, Mapping):
        return {**answer, "approved": answer.get("approved") is True}

    return {"approved": answer is True}
