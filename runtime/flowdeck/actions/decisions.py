"""What a planner decides, in one shape whatever shape it came in. Source: behaviour §7.3.

A decision is ``{"next_action": "execute" | "response", "execution_actions": [call, …], …}``; a call is
``{"action_id", "action_input", "purpose", "policy_override", "source_protocol", "todo_suggestion", "next"}``. Older
names (``action_calls``, ``tool_commands``, ``tool_name``, ``tool_kwargs`` …) are read and written beside them; anything
unknown is a response.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["CALL_LISTS", "normalise_call", "normalise_decision"]

CALL_LISTS: Final = ("execution_actions", "action_calls", "execution_commands", "tool_commands")
_EXECUTE: Final = ("execute", "action", "actions", "tool", "tools", "call")


def normalise_decision(given: Any, *, protocol: str) -> dict[str, Any]:
    """Return the decision in its full form. What cannot be read becomes a response."""
    if isinstance(given, list | tuple):
        given = {"next_action": "execute", "execution_actions": given}

    if not isinstance(given, Mapping):
        return _decision("response", [], {"response": given} if given is not None else {})

    found = next((given[name] for name in CALL_LISTS if given.get(name)), ())
    if isinstance(found, Mapping):
        found = [found]

    calls = [call for each in found if (call := normalise_call(each, protocol)) is not None] if _many(found) else []
    wanted = given.get("next_action")
    execute = bool(calls) and (wanted is None or str(wanted).lower() in _EXECUTE or given.get("use_action") is True)
    rest = {k: v for k, v in given.items() if k not in (*CALL_LISTS, "next_action", "use_action")}
    return _decision("execute" if execute else "response", calls if execute else [], rest)


def _many(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _decision(next_action: str, calls: list[dict[str, Any]], rest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "next": "",
        **rest,
        "next_action": next_action,
        "use_action": next_action == "execute",
        **dict.fromkeys(CALL_LISTS, calls),
    }


def normalise_call(given: Any, protocol: str) -> dict[str, Any] | None:
    """Return one call in its full form, ``None`` when it names no action."""
    if not isinstance(given, Mapping):
        return None

    action_id = _first(given, "action_id", "tool_name", "action_name", "name")
    if not isinstance(action_id, str) or not action_id:
        return None

    arguments = _first(given, "action_input", "tool_kwargs", "kwargs", "arguments", "args")
    override = given.get("policy_override")
    return {
        "purpose": str(given.get("purpose") or ""),
        "action_id": action_id,
        "action_input": dict(arguments) if isinstance(arguments, Mapping) else arguments,
        "policy_override": dict(override) if isinstance(override, Mapping) else {},
        "source_protocol": str(given.get("source_protocol") or protocol),
        "todo_suggestion": str(given.get("todo_suggestion") or ""),
        "next": str(given.get("next") or ""),
        "tool_name": action_id,
        "tool_kwargs": dict(arguments) if isinstance(arguments, Mapping) else arguments,
    }


def _first(given: Mapping[str, Any], *names: str) -> Any:
    return next((given[name] for name in names if given.get(name) is not None), None)
