"""From what a store holds back to an execution that goes on: replay, check against the definition, load.

A definition may have changed since. Handler bodies may change at will, they are not replayed. What the run stands in
must still be there under the same names: the operators of its tasks, of half-full joins and gates, and listeners for
the events its open interrupts resume to. If not, ``@flow.migrate`` may mend the saved state; else the run is *blocked*,
with the missing names.
"""

from __future__ import annotations

from typing import Any, Final

from flowdeck.definition.plan import BATCH, Plan
from flowdeck.definition.skeleton import dump_plan, load_plan, plan_digest
from flowdeck.durable.store import Claim
from flowdeck.errors import SnapshotError
from flowdeck.events.lineage import RunContext
from flowdeck.execution.adoption import adopt, adoptable
from flowdeck.execution.gate import GatedStream
from flowdeck.execution.replica import Replica, replay
from flowdeck.execution.services import Services
from flowdeck.execution.snapshot import load_state
from flowdeck.execution.state import Interrupt
from flowdeck.execution.streaming import InterruptItem
from flowdeck.execution.values import decode
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

__all__ = ["BlockedVersion", "incompatibilities", "rename_operators", "restore"]


class BlockedVersion(SnapshotError):
    """The definition has changed so that a run cannot go on in it. ``missing`` names what is not there any more."""

    def __init__(self, execution_id: str, flow_name: str, missing: list[str]) -> None:
        self.missing = missing
        super().__init__(
            f"execution {execution_id} is blocked: flow {flow_name!r} has changed and lacks {', '.join(missing)}. "
            "Bring them back under the same names, or register a migration with @flow.migrate."
        )


def restore(flow: TriggerFlow, claim: Claim, services: Services, resources: dict[str, Any]) -> TriggerFlowExecution:
    """Return the claimed execution, ready to go on with its first ``_bind``.

    Raises:
        BlockedVersion: the definition does not fit the run any more.
        MissingResource: a runtime resource was not given.
        SnapshotError: what is stored is damaged or of a newer format.
    """
    replica = replay(claim.header, claim.plans, claim.definition, claim.snapshot, claim.batches)
    changed = _changed(flow, replica)
    state = None
    if changed or not adoptable(replica):
        state = replica.dump(claim.token - 1, claim.resource_keys)

    if changed and state is not None:
        state = _fitting(flow, claim, state)

    header = replica.header
    auto_close, timeout = replica.root.settings
    execution = flow.create_execution(
        execution_id=claim.execution_id,
        run_context=RunContext.create(**(replica.root.run if state is None else state["run_context"])),
        runtime_resources=resources,
        auto_close=auto_close,
        auto_close_timeout=timeout,
        resume_handle_exposed=True,
        skip_exceptions=header["skip_exceptions"],
        services=services,
    )
    try:
        if state is None:
            adopt(execution, replica, claim.token, claim.resource_keys)
        else:
            load_state(execution, state, "utf-8", trusted=True)
    except BaseException:
        flow.remove_execution(execution)
        raise

    execution._restored = True
    execution._deadline_us = header.get("deadline_us")
    execution._last_active_us = replica.last_us or execution._last_active_us
    execution._origin = _origin(claim, header)
    _attach(execution, claim, replica, changed)
    return execution


def _origin(claim: Claim, header: dict[str, Any]) -> dict[str, Any]:
    if claim.forked_from is None:
        return {}

    origin: dict[str, Any] = {"forked_from": claim.forked_from, "forked_at": claim.forked_at}
    fork = header["fork"]
    if fork is not None and fork["actor"] is not None:
        origin["actor"] = fork["actor"]

    if fork is not None and claim.seq == 0:  # nobody has run it yet
        origin["initial_value"] = decode(fork["initial_value"])

    return origin


def _attach(execution: TriggerFlowExecution, claim: Claim, replica: Replica, changed: bool) -> None:
    log = execution._log
    assert log is not None
    log.take_over(claim.token, claim.seq, replica, changed, claim.resource_keys)
    numbers = {run.core.execution_id: number for number, run in replica.runs.items() if number}
    _enrol(execution, log, numbers)
    intent = replica.intent
    if intent is not None and intent[0] == "cancel":
        execution._cancelled, execution._cancel_reason = True, intent[1]

    stream = execution._stream
    assert isinstance(stream, GatedStream)
    stream.refill(
        [
            each[1] if each[0] == "item" else InterruptItem(execution.id, each[1], each[2], None)
            for each in replica.stream
        ]
    )


def _enrol(execution: TriggerFlowExecution, log: Any, numbers: dict[str, int]) -> None:
    for frame in execution._frames.values():
        log.enrol(frame.child, numbers[frame.child.id])
        _enrol(frame.child, log, numbers)


def _changed(flow: TriggerFlow, replica: Replica) -> bool:
    """Whether the flow, or that of a sub flow under way, is not the one the inputs were written under."""
    if plan_digest(dump_plan(flow.plan)) != replica.root.definition:
        return True

    return any(_child_changed(flow.plan, frame, run.core) for run in [replica.root] for frame in run.frames.values())


def _child_changed(plan: Plan, frame: Any, parent: Any) -> bool:
    task = next((t for t in parent.tasks.values() if t.num == frame.num), None)
    sub_flow = plan.ops[task.op].sub_flow if task is not None else None
    if sub_flow is None or plan_digest(dump_plan(sub_flow.flow.plan)) != frame.child.definition:
        return True

    inner = sub_flow.flow.plan
    return any(_child_changed(inner, each, frame.child.core) for each in frame.child.frames.values())


def _fitting(flow: TriggerFlow, claim: Claim, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state, migrated if need be.

    Raises:
        BlockedVersion: it does not fit, and no migration helps.
    """
    old = load_plan(claim.plans[claim.definition])
    missing = incompatibilities(state, old, flow.plan)
    for migration in flow.migrations if missing else ():
        state = migration(state)
        missing = incompatibilities(state, old, flow.plan)

    if missing:
        raise BlockedVersion(claim.execution_id, flow.name, missing)

    return state


def incompatibilities(state: dict[str, Any], old: Plan, new: Plan) -> list[str]:
    """Return what a saved run stands in and the new definition does not have; empty when the run can go on."""
    core = state["core"]
    keys: list[str] = core["ops"]
    found: dict[str, None] = {}
    for index in [task[2] for task in core["tasks"]]:
        _same_kind(keys[index], old, new, found)

    for join in core.get("joins", ()):
        opener = _same_kind(keys[join[1]], old, new, found)
        before = old.by_key.get(keys[join[1]])
        if opener is None or before is None:
            continue

        if before.kind == BATCH and _members(before, old) != _members(opener, new):
            found[f"the members of batch {opener.key!r} as they were"] = None

        if (before.end >= 0) != (opener.end >= 0):
            found[f"the end of block {opener.key!r} as it was"] = None

    for index, _, _ in core.get("gates", ()):
        gate, before = _same_kind(keys[index], old, new, found), old.by_key.get(keys[index])
        if gate is not None and before is not None and {t.id for t in gate.triggers} != {t.id for t in before.triggers}:
            found[f"the triggers of gate {gate.key!r} as they were"] = None

    for fields in core.get("interrupts", ()):
        target, status = fields[_RESUME_TO], fields[_STATUS]
        if status == "waiting" and isinstance(target, dict) and "event" in target:
            event = target["event"]
            if old.events.get(event) and not new.events.get(event):
                found[f"a listener for event {event!r}"] = None

    return list(found)


_RESUME_TO: Final = Interrupt.__struct_fields__.index("resume_to")
_STATUS: Final = Interrupt.__struct_fields__.index("status")


def _same_kind(key: str, old: Plan, new: Plan, found: dict[str, None]) -> Any:
    op = new.by_key.get(key)
    if op is None:
        found[f"operator {key!r}"] = None
        return None

    before = old.by_key.get(key)
    if before is not None and before.kind != op.kind:
        found[f"operator {key!r} as {before.operator_kind}"] = None

    return op


def _members(op: Any, plan: Plan) -> list[str]:
    return [plan.ops[index].key for index in op.members]


def rename_operators(state: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return a saved state whose operators have new names: what most migrations need."""
    core = {**state["core"], "ops": [names.get(key, key) for key in state["core"]["ops"]]}
    return {**state, "core": core}
