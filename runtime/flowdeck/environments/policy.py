"""What an environment's policy may say, checked once, and refused where nobody would enforce it.

A restriction that is ignored is worse than none: whoever wrote it relies on it. So a value of the wrong type is an
error, a text where a list belongs is a list of one, and a restriction the provider cannot enforce stops the
environment before it starts. Source: behaviour §7.4; design §5.5.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from flowdeck.errors import ActionDefinitionError, ExecutionEnvironmentRefused

__all__ = ["APPROVAL_MODES", "NETWORK_MODES", "POLICY_KEYS", "checked_policy", "refuse_unenforced", "restrictions"]

POLICY_KEYS: Final = (
    "approval_mode", "workspace_roots", "path_allowlist", "path_denylist", "allowed_cmd_prefixes", "network_mode",
    "timeout_seconds", "max_output_bytes", "read_only", "allow_create", "allow_update", "allow_delete", "auto_release",
)  # fmt: skip
"""Keys of a policy that mean the same to every provider; a provider may read more."""
APPROVAL_MODES: Final = ("auto", "always", "never")
NETWORK_MODES: Final = ("inherit", "enabled", "disabled")

_LISTS: Final = ("workspace_roots", "path_allowlist", "path_denylist", "allowed_cmd_prefixes")
_FLAGS: Final = ("read_only", "allow_create", "allow_update", "allow_delete", "auto_release")
_WHOLE: Final = ("max_output_bytes", "max_memory_bytes", "max_rows")
_MANAGERS: Final = frozenset({"approval_mode", "approval_reason", "auto_release"})
"""Keys the manager and the callers obey, whatever the provider."""


def checked_policy(policy: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a policy with every known key of its type; ``None`` counts as not given.

    Raises:
        ActionDefinitionError: a value that cannot be meant; the message begins with ``where``.
    """
    made: dict[str, Any] = {}
    for name, value in policy.items():
        if value is None:
            continue

        if name in _LISTS:
            made[name] = _texts(name, value, where)
            continue

        if name in _FLAGS:
            wanted = "" if isinstance(value, bool) else "True or False"
        elif name == "timeout_seconds":
            wanted = "" if _positive(value, int | float) else "seconds, more than 0"
        elif name in _WHOLE:
            wanted = "" if _positive(value, int) else "a whole number, more than 0"
        else:
            allowed = {"approval_mode": APPROVAL_MODES, "network_mode": NETWORK_MODES}.get(name)
            wanted = "" if allowed is None or value in allowed else ", ".join(allowed)

        if wanted:
            raise ActionDefinitionError(f"{where}: policy.{name}={value!r}: expected {wanted}")

        made[name] = value

    return made


def _positive(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and value > 0 and math.isfinite(value)


def _texts(name: str, value: Any, where: str) -> list[str]:
    given = [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise ActionDefinitionError(f"{where}: policy.{name}={value!r}: expected a list of texts")

    texts = [os.fspath(each) if isinstance(each, os.PathLike) else each for each in given]
    if not all(isinstance(each, str) and each.strip() for each in texts):
        raise ActionDefinitionError(f"{where}: policy.{name}={value!r}: expected a list of texts, none empty")

    return texts


def restrictions(policy: Mapping[str, Any]) -> list[str]:
    """Return the keys of a checked policy that forbid or limit something."""
    open_values = {"network_mode": ("inherit", "enabled"), "read_only": (False,)}
    open_values |= dict.fromkeys(("allow_create", "allow_update", "allow_delete"), (True,))
    return [name for name, value in policy.items() if name not in _MANAGERS and value not in open_values.get(name, ())]


def refuse_unenforced(provider: Any, requirement: Mapping[str, Any], policy: Mapping[str, Any]) -> None:
    """Stop an environment whose policy asks for more than its provider can do.

    A provider lists the keys it obeys as ``policy_keys``; one without the attribute answers for itself.

    Raises:
        ExecutionEnvironmentRefused: a restriction, or a key nobody knows, that the provider would ignore.
    """
    obeyed = getattr(provider, "policy_keys", None)
    if obeyed is None:
        return

    ignored = [name for name in restrictions(policy) if name not in obeyed]
    if ignored:
        told = ", ".join(f"{name}={policy[name]!r}" for name in ignored)
        raise ExecutionEnvironmentRefused(
            f"execution environment {requirement['requirement_id']!r}: kind {requirement['kind']!r} cannot enforce "
            f"policy {told}; it obeys {', '.join(sorted(obeyed))}. Leave it out, or register a provider that can",
            code="execution_environment.policy_not_enforced",
            payload={"requirement_id": requirement["requirement_id"], "kind": requirement["kind"], "keys": ignored},
        )
