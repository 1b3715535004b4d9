"""What each kind of recorded input does in a replica.

For the fields of a core's inputs see :mod:`flowdeck.execution.recording`, for those of the other records
:mod:`flowdeck.execution.log_records`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any, Final

from flowdeck.execution.core import Core
from flowdeck.execution.dotted_keys import append, assign, delete
from flowdeck.execution.interventions_ledger import Ledger
from flowdeck.execution.recording import lengthen
from flowdeck.execution.replica_run import Frame, Run
from flowdeck.execution.state import Task
from flowdeck.execution.values import decode

if TYPE_CHECKING:
    from flowdeck.execution.replica import Replica

__all__ = ["HANDLERS"]


# -- one function for each code; see RecordedCore for what the fields are --------------------------------------------


def _task(run: Run, rec: int) -> Task:
    return run.core.tasks[rec]


def _tagged(task: Task, tag: str, digest: str | None) -> None:
    if digest is not None and task.tags is not None and tag in task.tags:
        task.tags["#" + tag] = digest


def _signal(r: Replica, run: Run, name: str, value: Any, source: str, kind: str) -> None:
    run.core.started = True
    run.core.signal(name, decode(value), source, kind)


def _emit(
    r: Replica, run: Run, rec: int, tag: str, name: str, value: Any, awaited: bool, kind: str, found: Any
) -> None:
    task = _task(run, rec)
    try:
        run.core.emit(task, tag, name, decode(value), awaited, kind)
    finally:
        _tagged(task, tag, found)


def _mark(r: Replica, run: Run, rec: int, tag: str, found: str) -> None:
    task = _task(run, rec)
    run.core.mark(task, tag)
    _tagged(task, tag, found)


def _done(r: Replica, run: Run, rec: int, value: Any, interrupt: str | None) -> None:
    task = _task(run, rec)
    task.interrupt = lengthen(interrupt, run.core.execution_id)
    run.core.done(task, decode(value))


def _park(r: Replica, run: Run, rec: int, interrupt: str | None) -> None:
    task = _task(run, rec)
    task.interrupt = interrupt
    run.core.park(task)


def _retry(r: Replica, run: Run, rec: int, due_us: int) -> None:
    task = _task(run, rec)
    number = next(n for n, each in r.runs.items() if each is run)
    r.due[number, task.num] = due_us
    run.core.retry(task, due_us)


def _again(r: Replica, run: Run, rec: int) -> None:
    task = _task(run, rec)
    number = next(n for n, each in r.runs.items() if each is run)
    r.due.pop((number, task.num), None)
    run.core.again(task)


def _pause(r: Replica, run: Run, rec: int, tag: str, now_us: int, options: Any, found: str) -> None:
    task = _task(run, rec) if rec else None
    if options is None:  # a re-run found the one it had opened
        assert task is not None and task.tags is not None
        task.interrupt = task.tags[tag][1]
        return

    _, new = run.core.pause(task, tag, now_us, **{**_PAUSE, **decode(options)})
    if task is not None and new:
        _tagged(task, tag, found)


_PAUSE: Final = {"payload": None, "resume_to": None, "resume_event": None, "interrupt_id": None}


def _view(r: Replica, run: Run, rec: int, tag: str, outcome: Any) -> None:
    task = _task(run, rec)
    if task.tags is None:
        task.tags = {}

    task.tags[tag] = outcome


def _answered_by_emit(r: Replica, run: Run, interrupt_id: str, value: Any, now_us: int) -> None:
    run.core.answered_by_emit(run.core.interrupts[interrupt_id], decode(value), now_us)


def _sub_flow(
    r: Replica,
    run: Run,
    num: int,
    frame_id: str,
    child_id: str,
    context: dict[str, Any],
    definition: str,
    flow_data: Any,
    flags: list[Any],
    created_us: int,
) -> None:
    core = Core(r._plan(definition), child_id, flags[0])
    core.skip_exceptions = flags[1]
    core.started = True
    child = Run(core, child_id, context, created_us, definition)
    child.flow_data = decode(flow_data)
    r.child_count += 1
    r.runs[r.child_count] = child
    run.frames[num] = Frame(frame_id, num, child)


def _project(r: Replica, run: Run, rec: int, frame_id: str, local: str) -> None:
    task = _task(run, rec)
    frame = next(f for f in run.frames.values() if f.id == frame_id)
    root = run.core.project(task, frame_id, frame.child.core.interrupts[local])
    frame.roots[root.id] = local
    frame.waited = True


def _child_closed(r: Replica, run: Run, root_id: str) -> None:
    root = run.core.interrupts[root_id]
    frame = next(f for f in run.frames.values() if f.id == root.frame)
    run.core.child_closed(root_id, frame.child.core.interrupts[root.local or ""])


def _dropped(r: Replica, run: Run, num: int, frame_id: str, record: Any) -> None:
    frame = run.frames.pop(num)
    r.forget_child(frame)
    if record is not None:
        run.past_frames.append({"frame_id": frame_id, "record": record})


def _lifecycle(
    r: Replica,
    run: Run,
    state: str,
    reason: str | None,
    closed_us: int | None,
    cancelled: bool,
    version: int,
    intent: Any,
) -> None:
    run.lifecycle, run.close_reason, run.closed_us, run.cancelled = state, reason, closed_us, cancelled
    run.core.version = version
    if run is r.root:
        r.intent = intent


def _flow_data(r: Replica, run: Run, kind: str, key: str, value: Any) -> None:
    if kind == "f":
        assign(run.flow_data, key, decode(value))
    elif kind == "g":
        append(run.flow_data, key, decode(value))
    else:
        delete(run.flow_data, key)


def _item(r: Replica, run: Run, item: Any) -> None:
    run.core.streamed += 1
    r.stream.append(("item", decode(item)))


def _interrupt_item(r: Replica, run: Run, action: str, interrupt_id: str) -> None:
    run.core.streamed += 1
    full = lengthen(interrupt_id, run.core.execution_id) or ""
    r.stream.append(("interrupt", action, copy(run.core.interrupts[full])))


def _row(r: Replica, run: Run, row: int, kind: str, target: Any, actor: Any, outcome: str, detail: Any) -> None:
    r.rows[row] = (outcome, detail)


def _settings(r: Replica, run: Run, auto_close: bool, timeout: float | None) -> None:
    run.settings = (auto_close, timeout)


def _steered(r: Replica, run: Run, dumped: list[Any], version: int) -> None:
    core = run.core
    core.version = version
    if core.ledger is None:
        core.ledger = Ledger.load(dumped)
    else:
        core.ledger.learn(dumped)


def _begun(r: Replica, run: Run, started_us: int) -> None:
    run.core.started, run.started_us = True, started_us


HANDLERS: Final[dict[str, Callable[..., Any]]] = {
    "B": _begun,
    "S": _signal,
    "e": _emit,
    "m": _mark,
    "s": lambda r, run, key, value: run.core.set_state(key, decode(value)),
    "a": lambda r, run, key, value: run.core.append_state(key, decode(value)),
    "d": lambda r, run, key: run.core.del_state(key),
    "t": lambda r, run, rec, tag, value: run.core.remember(_task(run, rec), tag, decode(value)),
    "D": _done,
    "k": _park,
    "P": lambda r, run, rec: run.core.passed(_task(run, rec)),
    "R": lambda r, run, rec, hits: run.core.routed(_task(run, rec), hits),
    "M": lambda r, run, rec, items: run.core.materialised(_task(run, rec), decode(items)),
    "r": _retry,
    "g": _again,
    "F": lambda r, run, rec, kind, text: run.core.failed(_task(run, rec), kind, text),
    "x": lambda r, run, rec: run.core.stopped(_task(run, rec)),
    "N": lambda r, run, kind, text: run.core.refuse(kind, text),
    "c": lambda r, run, limit: run.core.set_concurrency(limit),
    "V": lambda r, run: run.core.restart(),
    "p": _pause,
    "Q": lambda r, run, rec, tag, now, payload, schema: run.core.ask_rerun(
        _task(run, rec), tag, now, decode(payload), schema
    ),
    "A": lambda r, run, name, value, now, actor, status: run.core.answer(name, decode(value), now, actor, status),
    "b": _answered_by_emit,
    "E": lambda r, run, name, now: run.core.expire(name, now),
    "C": lambda r, run, name, now, reason: run.core.cancel_interrupt(name, now, reason),
    "y": lambda r, run, name, entry: run.core.keep_early(name, decode(entry)),
    "z": lambda r, run, name: run.core.take_early(name),
    "j": _project,
    "h": _child_closed,
    "X": lambda r, run, group, spare=0: run.core.cancel_group(group, spare),
    "Y": lambda r, run, spare=(): run.core.cancel_all(spare),
    "L": lambda r, run, rec, group, tag="": run.core.lend(_task(run, rec), group, tag),
    "o": _sub_flow,
    "q": _dropped,
    "l": _lifecycle,
    "f": _flow_data,
    "u": _item,
    "U": _interrupt_item,
    "w": _row,
    "n": _settings,
    "i": _steered,
    "v": _view,
}
