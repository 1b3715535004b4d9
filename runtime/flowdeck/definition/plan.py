"""The compiled form of a flow: operators by index, edges as tuples of indices. Immutable once made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from flowdeck.definition.blueprint import Blueprint
from flowdeck.definition.operators import Case, Operator, Trigger
from flowdeck.definition.retry import Retry
from flowdeck.errors import DefinitionError
from flowdeck.events.record import Fragment

__all__ = [
    "BATCH",
    "CHUNK",
    "COLLECT",
    "FOR_EACH",
    "GATE",
    "JOIN",
    "MATCH_END",
    "POINT",
    "ROUTE",
    "SUB_FLOW",
    "Plan",
    "PlanOp",
    "compile_plan",
]

# Small integers, because the core compares them once a step. Everything up to SUB_FLOW runs user code.
CHUNK: Final = 0
ROUTE: Final = 1
SUB_FLOW: Final = 2
POINT: Final = 3
FOR_EACH: Final = 4
BATCH: Final = 5
JOIN: Final = 6
"""``end_for_each`` and the end of a batch."""
MATCH_END: Final = 7
GATE: Final = 8
COLLECT: Final = 9

LAST_RUNNABLE: Final = POINT

_KINDS = {
    "chunk": CHUNK,
    "match_route": ROUTE,
    "sub_flow": SUB_FLOW,
    "intervention_point": POINT,
    "for_each_split": FOR_EACH,
    "batch_fanout": BATCH,
    "for_each_collect": JOIN,
    "batch_collect": JOIN,
    "match_collect": MATCH_END,
    "signal_gate": GATE,
    "collect_branch": COLLECT,
}


class PlanOp:
    """One operator, ready to run."""

    __slots__ = (
        "case_events",
        "case_next",
        "cases",
        "concurrency",
        "else_next",
        "emits",
        "end",
        "fragment",
        "group",
        "group_ids",
        "handler",
        "hits_all",
        "id",
        "index",
        "is_async",
        "key",
        "kind",
        "members",
        "mode",
        "name",
        "next",
        "operator_kind",
        "options",
        "replay_safe",
        "retry",
        "run_meta",
        "segment",
        "sub_flow",
        "timeout",
        "triggers",
    )

    def __init__(self, index: int, op: Operator, flow_name: str) -> None:
        self.index = index
        self.id = op.id
        self.key = op.key
        self.name = op.name
        self.kind = _KINDS[op.kind]
        self.operator_kind = op.kind
        self.segment = encode_segment(op.key)
        self.emits = op.emits
        self.handler: Callable[..., Any] = op.handler or _no_handler
        self.is_async = inspect.iscoroutinefunction(op.handler)
        self.retry: Retry | None = op.retry
        self.timeout = op.timeout
        self.replay_safe = op.replay_safe
        self.concurrency = op.concurrency
        self.mode = op.mode
        self.hits_all = op.mode == "hit_all"
        self.cases: tuple[Case, ...] = tuple(op.cases)
        self.case_events = tuple(case.emits for case in op.cases)
        self.options = dict(op.options)
        self.sub_flow = op.sub_flow
        self.next: tuple[int, ...] = ()
        """Operators started by its completion."""
        self.case_next: tuple[tuple[int, ...], ...] = ()
        self.else_next: tuple[int, ...] | None = None
        self.group = -1
        """Index of the operator that opens its block (for the ends of blocks)."""
        self.end: int = -1
        """Index of the operator that closes its block, or -1 when nobody closes it."""
        self.members: tuple[int, ...] = ()
        self.group_ids = (op.group_id, op.parent_group_id)
        self.triggers = tuple(op.listens)
        first = op.listens[0] if op.listens else Trigger.event("")
        static = {
            "chunk_id": op.id,
            "chunk_name": op.name,
            "operator_kind": op.kind,
        }
        self.run_meta = Fragment({"flow_name": flow_name, **static})
        self.fragment = Fragment({**static, "trigger_event": first.name, "trigger_type": first.type})


class Plan:
    """A compiled flow."""

    __slots__ = (
        "by_key",
        "by_trigger",
        "events",
        "fingerprint",
        "flow_keys",
        "flow_name",
        "gates",
        "limited",
        "ops",
        "points",
        "state_keys",
    )

    def __init__(self, blueprint: Blueprint) -> None:
        self.flow_name = blueprint.name
        self.fingerprint = blueprint.fingerprint()
        operators = list(blueprint.operators.values())
        self.ops: tuple[PlanOp, ...] = tuple(PlanOp(i, op, blueprint.name) for i, op in enumerate(operators))
        self.by_key = {op.key: op for op in self.ops}
        by_trigger: dict[Trigger, list[int]] = {}
        for index, op in enumerate(operators):
            for trigger in op.listens:
                by_trigger.setdefault(trigger, []).append(index)

        self.by_trigger = {trigger: tuple(found) for trigger, found in by_trigger.items()}
        self.events = {t.name: found for t, found in self.by_trigger.items() if t.type == "event"}
        self.state_keys = {t.name: found for t, found in self.by_trigger.items() if t.type == "runtime_data"}
        self.flow_keys = {t.name: found for t, found in self.by_trigger.items() if t.type == "flow_data"}
        self.gates = tuple(op.index for op in self.ops if op.kind in (GATE, COLLECT))
        self.limited = any(op.concurrency for op in self.ops)
        """Whether some block of it has a ``concurrency``."""
        self.points = tuple(op.name for op in self.ops if op.kind == POINT)
        self._link(operators)
        self._check_cycles()

    def listeners(self, kind: str, name: str) -> tuple[int, ...]:
        """Return the operators that a signal of this trigger type and name starts."""
        if kind == "event":
            return self.events.get(name, ())

        return (self.state_keys if kind == "runtime_data" else self.flow_keys).get(name, ())

    def _link(self, operators: list[Operator]) -> None:
        index_of = {op.id: op.index for op in self.ops}
        for source, op in zip(operators, self.ops, strict=True):
            op.next = self.events.get(op.emits, ())
            op.case_next = tuple(self.events.get(case.emits, ()) for case in source.cases)
            if source.else_emits is not None:
                op.else_next = self.events.get(source.else_emits, ())

            op.members = tuple(index_of[member] for member in source.members)
            if op.kind in (JOIN, MATCH_END):
                op.group = index_of[source.group_id or ""]
                self.ops[op.group].end = op.index

    def _check_cycles(self) -> None:
        """Refuse a cycle in which nothing runs: a value in it would go round for ever inside the core."""
        done: set[int] = set()
        for start in self.ops:
            path: list[int] = []
            stack = [iter((start.index,))]
            while stack:
                index = next(stack[-1], -1)
                if index < 0:
                    stack.pop()
                    if path:
                        done.add(path.pop())
                elif index in path:
                    keys = " -> ".join(self.ops[i].key for i in (*path[path.index(index) :], index))
                    raise DefinitionError(f"flow {self.flow_name!r}: {keys} is a cycle without a chunk in it")
                elif index not in done and self.ops[index].kind > LAST_RUNNABLE:
                    path.append(index)
                    stack.append(iter(self._passes_to(self.ops[index])))

    def _passes_to(self, op: PlanOp) -> tuple[int, ...]:
        """Return what a value can reach from ``op`` with no user code in between."""
        if op.kind == BATCH:
            return op.members

        return (*op.next, op.end) if op.kind == FOR_EACH and op.end >= 0 else op.next


def compile_plan(blueprint: Blueprint) -> Plan:
    """Compile ``blueprint`` as it stands; later declarations do not reach the plan."""
    return Plan(blueprint)


def encode_segment(name: str) -> str:
    """Percent-encode what has a meaning in a scope: ``/ [ ] # %`` and control characters."""
    if name.isidentifier():
        return name

    return "".join(f"%{ord(c):02X}" if c in "/[]#%" or c < " " else c for c in name)


def _no_handler(data: object) -> object:
    raise RuntimeError("this operator runs no code of the user's")
