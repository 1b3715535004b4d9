"""Adding the operators of a loaded config to a flow that has some."""

from __future__ import annotations

from typing import Any

from flowdeck.definition.blueprint import Blueprint
from flowdeck.definition.config import describe_blueprint
from flowdeck.definition.operators import Operator
from flowdeck.definition.plan import compile_plan
from flowdeck.errors import ConfigError, DefinitionError

__all__ = ["merge_blueprint"]


def merge_blueprint(target: Blueprint, added: Blueprint) -> Blueprint:
    """Return a blueprint with the operators of both; what stands in both alike is taken once.

    Raises:
        ConfigError: an id, a key or a chunk's name stands for different things.
    """
    merged = target.copy()
    ours, theirs = _essence(target), _essence(added)
    keys = {op.key: op.id for op in merged.operators.values()}
    for op in added.operators.values():
        known = merged.operators.get(op.id)
        if known is None:
            if keys.setdefault(op.key, op.id) != op.id:
                op.key = merged.unique_key(op.id, op.key)

            merged.operators[op.id] = op
        elif known.handler != op.handler or any(ours[part] != theirs.get(part) for part in ours if _of(op, ours[part])):
            raise ConfigError(f"operator id {op.id!r} is {op.kind} {op.name!r} in the config, and the flow has another")

    for name, chunk in added.chunks.items():
        if merged.chunks.setdefault(name, chunk).id != chunk.id:
            raise ConfigError(f"chunk {name!r} of the config has another id than that of the flow; rename one")

    merged._keys.update({op.key: op.id for op in merged.operators.values()})
    merged.name, merged.meta, merged.contract = added.name, {**target.meta, **added.meta}, added.contract
    try:
        compile_plan(merged)
    except DefinitionError as problem:
        raise ConfigError(f"the config does not go with what the flow has: {problem}") from None

    return merged


def _essence(blueprint: Blueprint) -> dict[str, dict[str, Any]]:
    """Return what each operator is, the arms of matches included, by id: its config without what may differ."""
    return {op["id"]: _plain(op) for op in describe_blueprint(blueprint)["operators"]}


def _plain(op: dict[str, Any]) -> dict[str, Any]:
    """Leave out the key, which may have made way for another, and how and where a handler is written."""
    plain = {name: value for name, value in op.items() if name != "key"}
    for name in ("handler_ref", "condition_ref"):
        plain[name] = plain[name] and (plain[name]["name"] or plain[name]["callable_name"])

    child = op["options"].get("sub_flow_config")
    if child is not None:
        plain["options"] = {**op["options"], "sub_flow_config": [_plain(inner) for inner in child["operators"]]}

    return plain


def _of(op: Operator, part: dict[str, Any]) -> bool:
    """Whether ``part`` is the operator itself or one of its arms."""
    return op.id in (part["id"], part["group_id"] if part["kind"] == "match_case" else None)
