"""What is asked of an execution environment, and the handle that is given for it. Source: behaviour §7.4.

Both are plain dicts, as the compatible API has them. A requirement::

    {"requirement_id": "python:…", "kind": "python", "scope": "action_call", "owner_id": "Flowdeck",
     "resource_key": "python", "config": {}, "policy": {}, "reuse_key": "…", "approval_required": False,
     "health_check": True, "meta": {}}

Scopes say how long it lives: ``action_call``, ``execution``, ``request``, ``session``, ``agent`` or ``global``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from flowdeck.environments.policy import checked_policy
from flowdeck.errors import ActionDefinitionError

__all__ = ["SCOPES", "Handle", "Requirement", "new_handle", "normalise", "reuse_key_of"]

Requirement = dict[str, Any]
Handle = dict[str, Any]

SCOPES: Final = ("global", "agent", "session", "request", "execution", "action_call")


def normalise(given: Mapping[str, Any], *, scope: str | None = None, owner_id: str | None = None) -> Requirement:
    """Return a complete requirement.

    Raises:
        ActionDefinitionError: no kind, an unknown scope, or a part (of the policy, too) of the wrong type.
    """
    if not isinstance(given, Mapping):
        raise ActionDefinitionError(f"an environment requirement is a dict with a kind, got {given!r}")

    kind = given.get("kind")
    if not isinstance(kind, str) or not kind:
        raise ActionDefinitionError(f"an environment requirement needs a kind, such as 'python' or 'shell': {given!r}")

    where = f"environment {given.get('requirement_id') or kind!r}"
    wanted = scope or given.get("scope") or "action_call"
    if wanted not in SCOPES:
        raise ActionDefinitionError(f"{where}: scope={wanted!r}: expected one of {', '.join(SCOPES)}")

    for name in ("config", "policy", "meta"):
        if not isinstance(given.get(name) or {}, Mapping):
            raise ActionDefinitionError(f"{where}: {name}={given[name]!r}: expected a dict")

    policy = checked_policy(given.get("policy") or {}, where)
    made: Requirement = {
        "requirement_id": given.get("requirement_id") or f"{kind}:{uuid4().hex}",
        "kind": kind,
        "scope": wanted,
        "owner_id": owner_id or given.get("owner_id") or "Flowdeck",
        "resource_key": given.get("resource_key") or kind,
        "config": dict(given.get("config") or {}),
        "policy": policy,
        "reuse_key": given.get("reuse_key") or "",
        "approval_required": bool(given.get("approval_required")),
        "health_check": given.get("health_check", True),
        "meta": dict(given.get("meta") or {}),
    }
    made["reuse_key"] = made["reuse_key"] or reuse_key_of(made)
    return made


def reuse_key_of(requirement: Mapping[str, Any]) -> str:
    """Return the key under which one handle serves several ensures: kind, scope, owner, resource key and config."""
    parts = {name: requirement[name] for name in ("kind", "scope", "owner_id", "resource_key", "config")}
    return json.dumps(parts, sort_keys=True, default=repr, ensure_ascii=False)


def new_handle(requirement: Mapping[str, Any], given: Mapping[str, Any], policy: Mapping[str, Any]) -> Handle:
    """Complete what a provider returned."""
    return {
        "handle_id": given.get("handle_id") or f"{requirement['kind']}:{uuid4().hex}",
        "requirement_id": requirement["requirement_id"],
        "kind": requirement["kind"],
        "scope": requirement["scope"],
        "owner_id": requirement["owner_id"],
        "resource_key": requirement["resource_key"],
        "status": "ready",
        "resource": given.get("resource"),
        "policy": dict(policy),
        "ref_count": 1,
        "meta": {**(given.get("meta") or {}), "reuse_key": requirement["reuse_key"]},
    }
