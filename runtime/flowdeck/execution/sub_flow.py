"""A flow as a step of another: the child execution, its bindings, and how its interrupts reach the parent.

The way of a sub flow: the operator's task runs -> ``capture`` makes the child's input -> the child starts, isolated
(own state, a copy of its flow data, own resources), its stream items go straight on to the parent's stream, and each
interrupt it raises is *projected* into the parent under the id ``<frame id>:<child interrupt id>`` -> it finishes:
``write_back``, the chain goes on; or only interrupts are left in it: the operator parks, and an answer wakes it again.

The child's id is ``<parent id>.<task number>``, the frame's ``<parent id>:<operator id>:<task number>``: derived from
state, so the same after a load. Source: the compatible API's sub flows; the design's §3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowdeck.definition.bindings import Binding, SubFlow
from flowdeck.errors import BindingError, ExecutionError, HandlerFailed, MissingResource
from flowdeck.events.lineage import RunContext, current_run
from flowdeck.execution.data import TriggerFlowRuntimeData
from flowdeck.execution.dotted_keys import assign, lookup
from flowdeck.execution.state import Interrupt, Task
from flowdeck.execution.values import copy_loosely, copy_value

if TYPE_CHECKING:
    from flowdeck.definition.plan import PlanOp
    from flowdeck.execution.driver import Driver
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["SubFlowFrame", "SubFlowLink", "bound_resources", "run_sub_flow"]

MAX_DEPTH: Final = 100
"""How deep sub flows may stand in each other; a flow that runs itself without an end would fill the memory."""

_MISSING: Final = object()


class SubFlowLink(NamedTuple):
    """What a child knows of its parent."""

    parent: TriggerFlowExecution
    frame: SubFlowFrame

    def root_id(self, child_interrupt_id: str) -> str:
        """Return the id of a child's interrupt in the outermost execution, the only one that can be answered."""
        link: SubFlowLink | None = self
        found = child_interrupt_id
        while link is not None:
            found = f"{link.frame.id}:{found}"
            link = link.parent._link

        return found


class SubFlowFrame:
    """One activation of a sub-flow operator."""

    __slots__ = ("answers", "child", "id", "op", "roots", "scope", "settled", "status", "task", "waited")

    def __init__(self, frame_id: str, task: Task, op: PlanOp, child: TriggerFlowExecution, scope: str) -> None:
        self.id = frame_id
        self.scope = scope
        self.task = task
        self.op = op
        self.child = child
        self.status = "running"
        """``running`` or ``waiting``; then ``completed`` or ``cancelled``."""
        self.waited = False
        self.roots: dict[str, str] = {}
        """Projected interrupts: the parent's id to the child's."""
        self.answers: dict[str, asyncio.Future[None]] = {}
        """What each answer that was handed on resumed in the child, by the parent's id."""
        self.settled: list[asyncio.Future[None]] = []
        """Callers that wait until the operator has parked or ended."""

    def describe(self, parent: TriggerFlowExecution) -> dict[str, Any]:
        """Return the public record of the frame, with the child's saved state while it waits."""
        task = self.task
        done = self.status == "completed"
        return {
            "frame_id": self.id,
            "status": self.status,
            "parent_execution_id": parent.id,
            "parent_operator_id": self.op.id,
            "child_execution_id": self.child.id,
            "child_flow_name": self.child._plan.flow_name,
            "parent_signal": {
                "id": f"s{task.sig}",
                "trigger_event": task.event,
                "trigger_type": task.type,
                "source": task.source,
            },
            "parent_value": None if done else copy_loosely(task.value),
            "scope": self.scope,
            "projected_interrupts": dict(self.roots),
            "projected_root_interrupt_ids": list(self.roots),
            "resource_bindings": resource_bindings(_spec(self.op)),
            "resource_keys": sorted(self.child._resources),
            "child_saved_state": self.child.save() if self.status == "waiting" else None,
            "result": copy_value(self.child._snapshot) if done else None,
        }

    def release(self) -> None:
        """Wake whoever waits for the operator to settle."""
        waiting, self.settled = self.settled, []
        for each in waiting:
            if not each.done():
                each.set_result(None)


def _spec(op: PlanOp) -> SubFlow:
    assert op.sub_flow is not None
    return op.sub_flow


# -- running -----------------------------------------------------------------------------------------------------------


async def run_sub_flow(driver: Driver, task: Task, op: PlanOp) -> Task | None:
    """Run, or go on with, the sub flow of ``task``. Returns the task the branch continues with."""
    parent = driver.execution
    run = RunContext.attempt(driver.run, "chunk_execution", op.run_meta)
    current_run.set(run)
    data = TriggerFlowRuntimeData(driver, task, op, run)
    begun = driver.services.clock.monotonic_ns()
    driver._emit_started(task, op, run)
    task.interrupt = None
    frame = parent._frames.get(task.num)
    try:
        if frame is None:
            frame = _open(parent, task, op, run)

        frame.status = "running"
        value: Any = None
        parked = await _waits(parent, frame)
        if not parked:
            value = await _finish(frame, data)
    except BaseException as exc:
        if driver.gate is not None and driver.gate.leaves(task, exc):
            return None

        frame = frame or parent._frames.get(task.num)
        if frame is not None:
            await _abandon(parent, frame, exc)

        return await driver._failed(task, op, run, data, exc, begun)

    if parked:
        frame.status = "waiting"
        task.interrupt = next(root for root in frame.roots if parent._core.interrupts[root].status == "waiting")
        if driver.events.chunk_completed.sinks:
            driver._emit_completed(task, op, run, None, begun)

        driver.core.park(task)
        frame.release()
        return driver._drain(None)

    parent._drop_frame(frame)
    if driver.events.chunk_completed.sinks:
        driver._emit_completed(task, op, run, value, begun)

    following = driver._drain(driver.core.done(task, value))
    frame.release()
    return following


def _open(parent: TriggerFlowExecution, task: Task, op: PlanOp, run: RunContext) -> SubFlowFrame:
    """Create the child of an activation and start it."""
    spec = _spec(op)
    if parent._depth >= MAX_DEPTH:
        raise ExecutionError(f"sub flow {op.name!r}: sub flows stand more than {MAX_DEPTH} deep in each other")

    given = _capture(parent, task, op, spec)
    child: TriggerFlowExecution = spec.flow.create_child(
        parent=parent,
        execution_id=f"{parent.id}.{task.num}",
        run=run,
        resources=given["resources"],
        concurrency=spec.concurrency,
    )
    frame_id = f"{parent.id}:{op.id}:{task.num}"
    if parent._driver.gate is not None:
        parent._driver.gate.adopt(task, frame_id, child)

    for key, value in given["runtime_data"].items():
        child._core.set_state(key, copy_value(value, f"capture: runtime_data.{key}"))

    for key, value in given["flow_data"].items():
        child._flow_data.set(key, value)
        if child._driver.gate is not None:
            child._driver.gate.flow_data_changed("f", key, value)

    frame = SubFlowFrame(frame_id, task, op, child, parent._core.scope(task))
    parent._keep_frame(frame)
    child._link = SubFlowLink(parent, frame)
    child._launch(given["input"])
    return frame


async def _waits(parent: TriggerFlowExecution, frame: SubFlowFrame) -> bool:
    """Let the child run until it has finished (``False``) or nothing is left but interrupts (``True``)."""
    child = frame.child
    while True:
        parent._deliver_all(frame)
        await child._driver.idle()
        if child._driver.live:
            continue

        if child._core.error is not None:
            raise child._driver.failure or HandlerFailed(": ".join(map(str, child._core.error)))

        if child.is_closed() or not child._core.open:
            return False

        parent._project(frame)
        if not child._driver.live:  # an answer that had come early would have woken it
            return True


async def _finish(frame: SubFlowFrame, data: TriggerFlowRuntimeData) -> Any:
    """Close the child and hand its result over. Returns the value the chain goes on with."""
    child = frame.child
    snapshot = await child.async_close(reason="sub_flow_completed")
    if child.get_status() == "cancelled":
        raise ExecutionError(f"sub flow {frame.op.name!r} ({child.id}) was cancelled: {child._close_reason}")

    spec = _spec(frame.op)
    if spec.write_back is None:
        return snapshot.get("$final_result", snapshot)

    value = data.value
    for binding in spec.write_back:
        found = _from_result(frame.op, binding, snapshot)
        key = ".".join(binding.target)
        if binding.scope == "value":
            value = _written(frame.op, binding, value, found)
        elif binding.scope == "runtime_data":
            await data.async_set_state(key, found)
        else:
            await data.async_set_flow_data(key, found, no_warning=True)

    return value


async def _abandon(parent: TriggerFlowExecution, frame: SubFlowFrame, exc: BaseException) -> None:
    """The operator fails or is told to stop: so is the child, and nobody is asked any more."""
    child = frame.child
    cancelled = isinstance(exc, asyncio.CancelledError)
    parent._withdraw(frame, "the sub flow was cancelled" if cancelled else "the sub flow failed")
    try:
        if not child.is_closed():
            if child._core.error is not None:
                await child.async_close(reason="failed", timeout=0, pending_interrupts="cancel")
            else:
                await child.async_cancel(reason="the parent was cancelled")
    except Exception as also:
        exc.add_note(f"closing the sub flow {child.id} failed too: {type(also).__name__}: {also}")

    parent._drop_frame(frame)
    frame.release()


# -- bindings ----------------------------------------------------------------------------------------------------------


def _capture(parent: TriggerFlowExecution, task: Task, op: PlanOp, spec: SubFlow) -> dict[str, Any]:
    """Return the child's input, state, flow data and resources."""
    given: dict[str, Any] = {"input": None, "runtime_data": {}, "flow_data": {}, "resources": {}}
    for binding in spec.capture:
        found = _captured(parent, task, op, binding)
        if not binding.target:
            given["input"] = found
        elif binding.scope == "input":
            given["input"] = {} if given["input"] is None else given["input"]
            assign(given["input"], ".".join(binding.target), found)
        else:
            given[binding.scope][".".join(binding.target)] = found

    return given


def _captured(parent: TriggerFlowExecution, task: Task, op: PlanOp, binding: Binding) -> Any:
    source: Any
    if binding.source == "value":
        source = task.value
    elif binding.source == "runtime_data":
        source = parent._core.data
    elif binding.source == "flow_data":
        source = parent._flow_data.get()
    else:
        source = parent._resources

    found = _walk(source, binding.path)
    if found is _MISSING:
        raise BindingError(f"sub flow {op.name!r}: capture: {binding}: there is nothing at the source")

    return copy_value(found) if binding.source == "runtime_data" else found


def _walk(source: Any, path: tuple[str, ...]) -> Any:
    if not path:
        return source

    return lookup(source, ".".join(path), _MISSING) if isinstance(source, Mapping) else _MISSING


def _from_result(op: PlanOp, binding: Binding, snapshot: dict[str, Any]) -> Any:
    """Return what ``result`` or ``result.x`` means: the final result is searched first, then the close snapshot."""
    final = snapshot.get("$final_result", _MISSING)
    if not binding.path:
        return snapshot if final is _MISSING else final

    found = _walk(final, binding.path) if final is not _MISSING else _MISSING
    if found is _MISSING:
        found = _walk(snapshot, binding.path)

    if found is _MISSING:
        there = ", ".join(sorted(map(str, snapshot))) or "nothing"
        raise BindingError(f"sub flow {op.name!r}: write_back: {binding}: the child's result has {there}")

    return found


def _written(op: PlanOp, binding: Binding, value: Any, found: Any) -> Any:
    """Return ``value`` with ``found`` at the binding's target; the parent's own value is not altered."""
    if not binding.target:
        return found

    changed = {} if value is None else dict(value) if isinstance(value, Mapping) else None
    if changed is None:
        raise TypeError(
            f"sub flow {op.name!r}: write_back: {binding}: the value is {type(value).__name__}, not a dict; "
            'replace it as a whole with write_back={"value": "result"}'
        )

    *path, last = binding.target
    here = changed
    for part in path:
        inner = here.get(part)
        here[part] = dict(inner) if isinstance(inner, Mapping) else {}
        here = here[part]

    here[last] = found
    return changed


def resource_bindings(spec: SubFlow) -> dict[str, str]:
    """Return the child's resource keys and the parent's they come from."""
    return {".".join(b.target): ".".join(b.path) for b in spec.capture if b.scope == "resources"}


def bound_resources(parent: TriggerFlowExecution, op: PlanOp) -> dict[str, Any]:
    """Return the child's resources after a load, from the parent's.

    Raises:
        MissingResource: the parent has not got one that the child is bound to.
    """
    found: dict[str, Any] = {}
    for key, source in resource_bindings(_spec(op)).items():
        value = lookup(parent._resources, source, _MISSING)
        if value is _MISSING:
            raise MissingResource(
                f"sub flow {op.name!r} needs runtime resource {source!r} of its parent; "
                "pass it as runtime_resources= to create_execution() or load()"
            )

        found[key] = value

    return found


def projected_id(frame: SubFlowFrame, child: Interrupt) -> str:
    """Return the parent's id of a child's interrupt."""
    return f"{frame.id}:{child.id}"
