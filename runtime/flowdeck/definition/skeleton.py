"""A plan without its code: what the core needs to replay a run whose definition has changed or cannot be imported.

The core asks a plan for kinds, edges, names and limits, never for handlers. :func:`dump_plan` writes just that as
JSON; :func:`load_plan` makes a plan of it that the core can run, and the driver cannot. An input log together with
the skeleton it was written under gives the state, whatever became of the code since.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

import msgspec

from flowdeck.definition.operators import Trigger
from flowdeck.definition.plan import Plan, PlanOp, _no_handler
from flowdeck.events.record import Fragment

__all__ = ["dump_plan", "load_plan", "plan_digest"]

_FORMAT: Final = 1
_OP_FIELDS: Final = (
    "id",
    "key",
    "name",
    "kind",
    "operator_kind",
    "segment",
    "emits",
    "replay_safe",
    "concurrency",
    "mode",
    "hits_all",
    "case_events",
    "options",
    "next",
    "case_next",
    "else_next",
    "group",
    "end",
    "members",
    "group_ids",
)
_TUPLES: Final = ("case_events", "next", "case_next", "else_next", "members", "group_ids")
_PLAIN: Final = (str, int, float, bool, type(None))
_encoder = msgspec.json.Encoder(order="deterministic")


@lru_cache(maxsize=64)  # a plan never changes once it is made
def dump_plan(plan: Plan) -> bytes:
    """Return the plan's skeleton. The same plan gives the same bytes in every process."""
    return _encoder.encode(
        {
            "format": _FORMAT,
            "flow_name": plan.flow_name,
            "fingerprint": plan.fingerprint,
            "ops": [_dump_op(op) for op in plan.ops],
            "by_trigger": [[*trigger, list(found)] for trigger, found in plan.by_trigger.items()],
            "gates": plan.gates,
            "points": plan.points,
        }
    )


@lru_cache(maxsize=64)
def plan_digest(skeleton: bytes) -> str:
    """Return the 16 hex digits under which a store keeps a skeleton."""
    return hashlib.sha256(skeleton).hexdigest()[:16]


@lru_cache(maxsize=64)
def load_plan(skeleton: bytes) -> Plan:
    """Make a plan that the core can run. Its operators have no handlers.

    Raises:
        ValueError: it is no skeleton, or of a newer format.
    """
    try:
        saved = msgspec.json.decode(skeleton)
        if saved["format"] > _FORMAT:
            raise ValueError(f"the definition was stored in format {saved['format']}; this version reads {_FORMAT}")

        return _load(saved)
    except (KeyError, TypeError, msgspec.DecodeError) as exc:
        raise ValueError(f"the stored definition is damaged: {exc!r}") from exc


def _dump_op(op: PlanOp) -> list[Any]:
    fields = {name: getattr(op, name) for name in _OP_FIELDS}
    fields["options"] = {key: value for key, value in op.options.items() if isinstance(value, _PLAIN)}
    triggers = [[t.type, t.name] for t in op.triggers]
    return [*fields.values(), triggers]


def _load(saved: dict[str, Any]) -> Plan:
    plan = Plan.__new__(Plan)
    plan.flow_name = saved["flow_name"]
    plan.fingerprint = saved["fingerprint"]
    plan.ops = tuple(_load_op(index, fields) for index, fields in enumerate(saved["ops"]))
    plan.by_key = {op.key: op for op in plan.ops}
    plan.by_trigger = {Trigger(kind, name): tuple(found) for kind, name, found in saved["by_trigger"]}
    plan.events = {t.name: found for t, found in plan.by_trigger.items() if t.type == "event"}
    plan.state_keys = {t.name: found for t, found in plan.by_trigger.items() if t.type == "runtime_data"}
    plan.flow_keys = {t.name: found for t, found in plan.by_trigger.items() if t.type == "flow_data"}
    plan.gates = tuple(saved["gates"])
    plan.limited = any(op.concurrency for op in plan.ops)
    plan.points = tuple(saved["points"])
    return plan


def _load_op(index: int, fields: list[Any]) -> PlanOp:
    op = PlanOp.__new__(PlanOp)
    op.index = index
    for name, value in zip(_OP_FIELDS, fields, strict=False):
        if name in _TUPLES and value is not None:
            value = tuple(tuple(each) if isinstance(each, list) else each for each in value)

        setattr(op, name, value)

    op.triggers = tuple(Trigger(kind, name) for kind, name in fields[-1])
    op.handler, op.is_async, op.retry, op.timeout, op.cases, op.sub_flow = _no_handler, False, None, None, (), None
    op.run_meta = op.fragment = Fragment({})
    return op
