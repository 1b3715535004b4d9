"""A flow as data: the ``trigger_flow/v1`` config, written from a blueprint.

The config is the whole topology: operators with their ids, keys, signals and options, and references to handlers by
name (see :mod:`flowdeck.definition.refs`). It holds no code, no resources, no flow data, and no path of the machine.
A sub flow's config stands inside its operator (``options.sub_flow_config``); the arms of a match are operators of kind
``match_case``. Source: the compatible API's flow config. :mod:`flowdeck.definition.config_load` reads it back.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from flowdeck.definition.annotation import Annotation
from flowdeck.definition.blueprint import CONFIG_VERSION, Blueprint
from flowdeck.definition.handlers import same_handler, where
from flowdeck.definition.operators import Case, Operator
from flowdeck.definition.refs import EXPORTABLE, handler_ref, label
from flowdeck.definition.retry import Retry
from flowdeck.errors import ConfigError

__all__ = ["GROUPS", "ExportableFlow", "case_route", "describe_blueprint"]

GROUPS: Final = {
    "batch_fanout": "batch",
    "batch_collect": "batch",
    "for_each_split": "for_each",
    "for_each_collect": "for_each",
    "match_route": "match",
    "match_collect": "match",
    "collect_branch": "collect",
}
"""The kind of group an operator opens or closes."""
_DEFAULT_RETRY: Final = Retry()
_MAX_VALUE_DEPTH: Final = 32


@runtime_checkable
class ExportableFlow(Protocol):
    """A child flow that can be written into its parent's config."""

    @property
    def blueprint(self) -> Blueprint: ...

    def config_meta(self) -> dict[str, Any]:
        """Return what of the flow belongs into ``meta``."""

    def get_contract_metadata(self) -> dict[str, Any]:
        """Return the contract, as schemas."""


def describe_blueprint(
    blueprint: Blueprint,
    *,
    meta: Mapping[str, Any] | None = None,
    contract: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """Return a blueprint as JSON-safe data.

    Args:
        strict: everything must be something another process can read back; without it, what cannot be is described.

    Raises:
        ConfigError: with ``strict``: a handler has no name another process could find, two handlers share one, a case
            compares with something JSON has no form for, or a flow contains itself. The message names the operator.
    """
    return _Writer(strict).write(blueprint, meta or {}, contract or {})


def case_route(emits: str) -> str:
    """Return the event on which a match reaches the arm that goes on with ``emits``."""
    return f"{emits}-Route"


class _Writer:
    """One export: the flows it stands in, and which handler each name stands for."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._inside: list[Blueprint] = []
        self._named: dict[tuple[str, str], tuple[Callable[..., Any], str]] = {}

    def write(self, blueprint: Blueprint, meta: Mapping[str, Any], contract: Mapping[str, Any]) -> dict[str, Any]:
        self._inside.append(blueprint)
        operators: list[dict[str, Any]] = []
        for op in blueprint.operators.values():
            operators.append(self._operator(op, blueprint))
            if op.kind == "match_route":
                operators += self._arms(op, blueprint)

        self._inside.pop()
        return {
            "version": CONFIG_VERSION,
            "name": blueprint.name,
            "operators": operators,
            "meta": {**blueprint.meta, **meta},
            "contract": dict(contract or blueprint.contract),
        }

    def _operator(self, op: Operator, blueprint: Blueprint) -> dict[str, Any]:
        group = blueprint.operators.get(op.group_id or "")
        parent = blueprint.operators.get(op.parent_group_id or "")
        emits = [_signal(op.emits, "continuation")]
        emits += [_signal(case_route(event), "case") for event in _arm_events(op)]
        emits += [_signal(event, "declared_emit") for event in op.declared_emits]
        return {
            "id": op.id,
            "key": op.key,
            "kind": op.kind,
            "name": op.name,
            "listen_signals": [{"id": t.id, "trigger_type": t.type, "trigger_event": t.name} for t in op.listens],
            "emit_signals": emits,
            "options": self._options(op),
            "handler_ref": self._handler_ref(op, blueprint) if op.handler is not None else None,
            "condition_ref": None,
            "group_id": op.group_id,
            "group_kind": GROUPS.get(group.kind) if group else None,
            "parent_group_id": op.parent_group_id,
            "parent_group_kind": GROUPS.get(parent.kind) if parent else None,
        }

    def _arms(self, op: Operator, blueprint: Blueprint) -> list[dict[str, Any]]:
        """Return the operators that stand for the arms of a match; in the blueprint they are part of it."""
        arms = [self._arm(op, case.emits, case.id, self._condition(op, case, blueprint)) for case in op.cases]
        if op.else_emits:
            arms.append(self._arm(op, op.else_emits, "else", ({"is_else": True}, None)))

        return arms

    def _arm(
        self, op: Operator, emits: str, part: str, condition: tuple[dict[str, Any], dict[str, Any] | None]
    ) -> dict[str, Any]:
        options, ref = condition
        return {
            "id": f"{op.id}-{part}",
            "kind": "match_case",
            "name": f"case:{part}" if ref is not None or "condition_value" in options else part,
            "listen_signals": [_signal(case_route(emits))],
            "emit_signals": [_signal(emits, "continuation")],
            "options": options,
            "handler_ref": None,
            "condition_ref": ref,
            "group_id": op.id,
            "group_kind": "match",
            "parent_group_id": op.parent_group_id,
            "parent_group_kind": None,
        }

    def _condition(self, op: Operator, case: Case, blueprint: Blueprint) -> tuple[dict[str, Any], Any]:
        condition = case.condition
        if callable(condition):
            name = blueprint.conditions.name_of(condition)
            return {"case_id": case.id}, self._ref(op, condition, name, "condition", blueprint.conditions.find)

        if not _is_json(condition, _MAX_VALUE_DEPTH):
            if self._strict:
                raise ConfigError(
                    f"{op.kind} {op.name!r} ({op.id}): case({condition!r:.80}) compares with something JSON has no "
                    "form for; write a condition function and register it"
                )

            condition = {"$repr": f"{condition!r:.200}"}

        return {"case_id": case.id, "condition_value": condition}, None

    def _options(self, op: Operator) -> dict[str, Any]:
        options: dict[str, Any] = dict(op.options)
        if op.mode:
            options["mode"] = op.mode

        if op.concurrency:
            options["concurrency"] = op.concurrency

        if op.retry is not None:
            options["retry"] = self._retry(op, op.retry)

        if op.timeout is not None:
            options["timeout"] = op.timeout

        if not op.replay_safe:
            options["replay_safe"] = False

        if isinstance(op.handler, Annotation):
            options["annotation"] = op.handler.to_dict()

        if op.members:
            options["members"] = list(op.members)

        if op.sub_flow is not None:
            options["sub_flow_name"] = op.sub_flow.flow.name
            options["sub_flow_config"] = self._child(op, op.sub_flow.flow)
            if op.sub_flow.write_back is None:
                options["write_back"] = None

        return options

    def _child(self, op: Operator, flow: Any) -> dict[str, Any] | None:
        if isinstance(flow, ExportableFlow) and flow.blueprint not in self._inside:
            return self.write(flow.blueprint, flow.config_meta(), flow.get_contract_metadata())

        if self._strict:
            reason = "contains itself" if isinstance(flow, ExportableFlow) else f"is a {type(flow).__name__}"
            raise ConfigError(f"sub flow {op.name!r} ({op.id}): {flow.name!r} {reason}, which a config cannot hold")

        return None

    def _retry(self, op: Operator, retry: Retry) -> dict[str, Any]:
        out: dict[str, Any] = {"attempts": retry.attempts, "backoff": retry.backoff}
        for name in ("factor", "max_backoff", "jitter"):
            if getattr(retry, name) != getattr(_DEFAULT_RETRY, name):
                out[name] = getattr(retry, name)

        if retry.on != _DEFAULT_RETRY.on:
            out["on"] = [self._error_name(op, kind) for kind in retry.on]

        return out

    def _error_name(self, op: Operator, kind: type[BaseException]) -> str:
        if getattr(builtins, kind.__name__, None) is kind:
            return str(kind.__name__)

        if self._strict and "<" in kind.__qualname__:
            raise ConfigError(
                f"{op.kind} {op.name!r} ({op.id}): retry on={kind.__qualname__}: a class inside a function cannot be "
                "found by name; define it at the top of a module"
            )

        return f"{kind.__module__}:{kind.__qualname__}"

    def _handler_ref(self, op: Operator, blueprint: Blueprint) -> dict[str, Any] | None:
        chunk = blueprint.chunks.get(op.name)
        named = chunk is not None and chunk.named and chunk.id == op.id
        name = op.name if named else blueprint.handlers.name_of(op.handler)
        return self._ref(op, op.handler, name, "chunk", blueprint.find_handler)

    def _ref(
        self, op: Operator, handler: Any, name: str | None, kind: str, find: Callable[[str], Any]
    ) -> dict[str, Any] | None:
        ref = handler_ref(handler, name)
        if ref is None or not self._strict:
            return ref

        here = f"{op.kind} {op.name!r} ({op.id})"
        if ref["kind"] not in EXPORTABLE:
            raise ConfigError(
                f"{here}: {label(handler)} cannot be exported, because nobody could find it by name; write it as a "
                f"function with def, or name it: {_how_to_name(kind)}"
            )

        found: str = ref["name"]
        registered = find(found)
        known, place = self._named.setdefault((kind, found), (handler, here))
        for other, elsewhere in ((registered, f"the registered {kind} handler"), (known, place)):
            if other is not None and not same_handler(other, handler, named=name is not None):
                raise ConfigError(
                    f"{here}: {found!r} means {where(handler)} here, and {where(other)} in {elsewhere}; give one of "
                    f"them a name of its own: {_how_to_name(kind)}"
                )

        return ref


def _how_to_name(kind: str) -> str:
    return '("name", handler)' if kind == "chunk" else 'register_condition_handler(fn, name="name")'


def _signal(event: str, role: str | None = None) -> dict[str, Any]:
    signal = {"id": f"event:{event}", "trigger_type": "event", "trigger_event": event}
    return signal if role is None else {**signal, "role": role}


def _arm_events(op: Operator) -> list[str]:
    return [*(case.emits for case in op.cases), *([op.else_emits] if op.else_emits else [])]


def _is_json(value: Any, depth: int) -> bool:
    """Whether JSON gives exactly this value back."""
    if value is None or type(value) in (str, bool, int):
        return True

    if type(value) is float:
        return value - value == 0.0  # neither an infinity nor NaN

    if not depth:
        return False

    if type(value) is list:
        return all(_is_json(item, depth - 1) for item in value)

    return type(value) is dict and all(type(k) is str and _is_json(v, depth - 1) for k, v in value.items())
