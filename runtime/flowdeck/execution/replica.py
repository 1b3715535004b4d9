"""A run made again from its input log: header or snapshot, then every committed input in order.

The core is deterministic, so the same inputs give the same state. No handler runs, no clock is read and no definition
is imported: the plan is the skeleton the inputs were written under. What comes out has the shape of
``execution.save()``, so it goes into a fresh execution by the way every saved state does, with its checks of a changed
definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any, Final

from flowdeck.definition.plan import Plan
from flowdeck.definition.skeleton import load_plan
from flowdeck.errors import SnapshotError
from flowdeck.execution.core import Core
from flowdeck.execution.interventions_ledger import Ledger
from flowdeck.execution.snapshot import FORMAT, dump_core, load_core
from flowdeck.execution.state import PARKED, Task
from flowdeck.execution.values import append, assign, decode, delete, encode

__all__ = ["Replica", "replay"]

Plans = Mapping[str, bytes]
"""Skeletons by digest."""


class _Run:
    """One execution in the replica: the root, or the child of a sub flow."""

    def __init__(self, core: Core, execution_id: str, run: Mapping[str, Any], created_us: int, definition: str) -> None:
        self.core = core
        core.execution_id = execution_id
        self.definition = definition
        self.run = run
        self.lifecycle = "open"
        self.close_reason: str | None = None
        self.created_us = created_us
        self.started_us: int | None = None
        self.closed_us: int | None = None
        self.cancelled = False
        self.settings: tuple[Any, Any] = (False, None)
        self.flow_data: dict[str, Any] = {}
        self.frames: dict[int, _Frame] = {}
        self.past_frames: list[dict[str, Any]] = []

    @property
    def status(self) -> str:
        core = self.core
        if core.error is not None:
            return "failed"

        if self.cancelled:
            return "cancelled"

        if self.lifecycle == "closed":
            return "completed"

        if not core.started:
            return "created"

        return "running" if core.active or not core.open_interrupts else "waiting"

    def dump(self, epoch: int, resource_keys: Iterable[str] = ()) -> dict[str, Any]:
        """Return the run in the shape of ``execution.save()``, without its checksum."""
        core = self.core
        state: dict[str, Any] = {
            "format": FORMAT,
            "execution_id": core.execution_id,
            "flow": {"name": core.plan.flow_name, "fingerprint": core.plan.fingerprint},
            "epoch": epoch,
            "status": self.status,
            "lifecycle_state": self.lifecycle,
            "auto_close": self.settings[0],
            "auto_close_timeout": self.settings[1],
            "created_at": self.created_us,
            "started_at": self.started_us,
            "state_version": core.version,
            "run_context": dict(self.run),
            "runtime_data": encode(core.data),
            "resource_keys": sorted(resource_keys),
            "core": dump_core(core),
        }
        if self.closed_us is not None or self.close_reason is not None:
            state["closed_at"], state["close_reason"] = self.closed_us, self.close_reason

        if self.flow_data:
            state["flow_data"] = encode(self.flow_data)

        if self.frames or self.past_frames:
            state["sub_flow_frames"] = [*(f.dump(self, epoch) for f in self.frames.values()), *self.past_frames]

        return state


class _Frame:
    """One activation of a sub-flow operator."""

    def __init__(self, frame_id: str, num: int, child: _Run) -> None:
        self.id = frame_id
        self.num = num
        self.child = child
        self.roots: dict[str, str] = {}
        self.waited = False

    def dump(self, parent: _Run, epoch: int) -> dict[str, Any]:
        task = next((t for t in parent.core.tasks.values() if t.num == self.num), None)
        return {
            "frame_id": self.id,
            "task": self.num,
            "status": "waiting" if task is not None and task.status == PARKED else "running",
            "waited": self.waited,
            "projected_interrupts": dict(self.roots),
            "child_saved_state": self.child.dump(epoch),
        }


class Replica:
    """The state of an execution and of its sub flows after some of its inputs.

    Args:
        header: what the execution began with.
        plans: skeletons by digest.
        definition: the digest of the root's plan.

    Raises:
        SnapshotError: the header or a skeleton is damaged, missing or of a newer format.
    """

    def __init__(self, header: Mapping[str, Any], plans: Plans, definition: str) -> None:
        if header.get("format", 0) > 1:
            raise SnapshotError(
                f"the execution was stored in format {header['format']}; this version reads up to 1. Upgrade flowdeck."
            )

        self._plans = plans
        self.header = header
        core = Core(self._plan(definition), header["execution_id"], header["concurrency"])
        core.skip_exceptions = header["skip_exceptions"]
        if header["interventions"] is not None:
            core.ledger = Ledger(*header["interventions"])

        self.root = _Run(core, header["execution_id"], header["run_context"], header["created_at"], definition)
        self.root.started_us = header["started_at"]
        self.root.settings = tuple(header["settings"])
        self.root.flow_data = decode(header["flow_data"])
        self.runs: dict[int, _Run] = {0: self.root}
        self.child_count = 0
        self.due: dict[tuple[int, int], int] = {}
        self.rows: dict[int, tuple[str, str | None]] = {}
        self.stream: list[Any] = []
        """Stream items in order: ``("item", value)`` or ``("interrupt", action, interrupt as it stood)``."""
        self.intent: list[Any] | None = None
        self.last_us = 0
        """When the last inputs were written."""

    # -- beginning at a snapshot ---------------------------------------------------------------------------------

    def restore(self, state: dict[str, Any], extras: dict[str, Any], definition: str) -> None:
        """Begin with a snapshot instead of the header.

        Raises:
            SnapshotError: the snapshot does not fit the skeletons it was stored with.
        """
        definitions = {entry[1]: (entry[0], entry[2]) for entry in extras["children"]}
        self.runs = {}
        self.root = self._load_run(state, 0, definition, definitions)
        self.child_count = extras["child_count"]
        self.due = {(child, num): due for child, num, due in extras["due"]}
        self.rows = {row: (outcome, detail) for row, outcome, detail in extras["rows"]}
        self.intent = extras["intent"]

    def _load_run(
        self, saved: dict[str, Any], number: int, definition: str, definitions: dict[str, tuple[int, str]]
    ) -> _Run:
        core = Core(self._plan(definition), saved["execution_id"])
        load_core(core, saved["core"])
        core.data = decode(saved["runtime_data"])
        run = _Run(core, saved["execution_id"], saved["run_context"], saved["created_at"], definition)
        run.lifecycle, run.close_reason = saved["lifecycle_state"], saved.get("close_reason")
        run.started_us, run.closed_us = saved["started_at"], saved.get("closed_at")
        run.cancelled = saved["status"] == "cancelled"
        run.settings = (saved["auto_close"], saved["auto_close_timeout"])
        run.flow_data = decode(saved.get("flow_data", {}))
        self.runs[number] = run
        for each in saved.get("sub_flow_frames", []):
            if "record" in each:
                run.past_frames.append(each)
                continue

            child_number, child_definition = definitions[each["child_saved_state"]["execution_id"]]
            child = self._load_run(each["child_saved_state"], child_number, child_definition, definitions)
            frame = _Frame(each["frame_id"], each["task"], child)
            frame.roots, frame.waited = dict(each["projected_interrupts"]), each["waited"]
            run.frames[frame.num] = frame

        return run

    def _plan(self, digest: str) -> Plan:
        skeleton = self._plans.get(digest)
        if skeleton is None:
            raise SnapshotError(f"the store has lost definition {digest}; the execution cannot be taken up")

        try:
            return load_plan(bytes(skeleton))
        except ValueError as exc:
            raise SnapshotError(str(exc)) from exc

    # -- inputs --------------------------------------------------------------------------------------------------

    def apply_all(self, written_us: int, records: Iterable[list[Any]]) -> None:
        """Apply one commit."""
        self.last_us = written_us
        for record in records:
            self.apply(record)

    def apply(self, record: list[Any]) -> None:
        """Apply one input.

        Raises:
            SnapshotError: it is not understood, or does not fit the state: the log is damaged or newer.
        """
        code, child, seq, *fields = record
        refused = code[0] == "!"  # it raised when it was made, and does again
        code = code.lstrip("!")
        run = self.runs.get(child)
        handler = _HANDLERS.get(code)
        if run is None or handler is None:
            raise SnapshotError(f"the input log has {code!r} for run {child}, which this version does not understand")

        run.core.seq = seq
        try:
            handler(self, run, *fields)
        except SnapshotError:
            raise
        except Exception as exc:
            if not refused:
                raise SnapshotError(f"input {code!r} does not fit the state: {type(exc).__name__}: {exc}") from exc
        finally:
            run.core.out.clear()

    def dump(self, epoch: int, resource_keys: Iterable[str] = ()) -> dict[str, Any]:
        """Return the state as ``execution.save()`` would."""
        return self.root.dump(epoch, resource_keys)

    def extras(self) -> dict[str, Any]:
        """Return what a snapshot keeps beside the saved state."""
        return {
            "due": [[child, num, due] for (child, num), due in self.due.items()],
            "rows": [[row, *outcome] for row, outcome in self.rows.items()],
            "children": [[n, r.core.execution_id, r.definition] for n, r in self.runs.items() if n],
            "child_count": self.child_count,
            "intent": self.intent,
        }

    def forget_child(self, frame: _Frame) -> None:
        """Let go of a child and its own children."""
        for inner in frame.child.frames.values():
            self.forget_child(inner)

        self.runs = {n: run for n, run in self.runs.items() if run is not frame.child}


def replay(
    header: Mapping[str, Any],
    plans: Plans,
    definition: str,
    snapshot: tuple[dict[str, Any], dict[str, Any]] | None,
    batches: Iterable[tuple[int, list[list[Any]]]],
) -> Replica:
    """Return the state after ``batches`` of inputs, from the header or from a snapshot.

    Raises:
        SnapshotError: something is damaged, missing or of a newer format.
    """
    replica = Replica(header, plans, definition)
    if snapshot is not None:
        replica.restore(*snapshot, definition)

    for written_us, records in batches:
        replica.apply_all(written_us, records)

    return replica


# -- one function for each code; see RecordedCore for what the fields are --------------------------------------------


def _task(run: _Run, rec: int) -> Task:
    return run.core.tasks[rec]


def _tagged(task: Task, tag: str, digest: str | None) -> None:
    if digest is not None and task.tags is not None and tag in task.tags:
        task.tags["#" + tag] = digest


def _signal(r: Replica, run: _Run, name: str, value: Any, source: str, kind: str) -> None:
    run.core.started = True
    run.core.signal(name, decode(value), source, kind)


def _emit(
    r: Replica, run: _Run, rec: int, tag: str, name: str, value: Any, awaited: bool, kind: str, found: Any
) -> None:
    task = _task(run, rec)
    try:
        run.core.emit(task, tag, name, decode(value), awaited, kind)
    finally:
        _tagged(task, tag, found)


def _mark(r: Replica, run: _Run, rec: int, tag: str, found: str) -> None:
    task = _task(run, rec)
    run.core.mark(task, tag)
    _tagged(task, tag, found)


def _done(r: Replica, run: _Run, rec: int, value: Any, interrupt: str | None) -> None:
    task = _task(run, rec)
    task.interrupt = interrupt
    run.core.done(task, decode(value))


def _park(r: Replica, run: _Run, rec: int, interrupt: str | None) -> None:
    task = _task(run, rec)
    task.interrupt = interrupt
    run.core.park(task)


def _retry(r: Replica, run: _Run, rec: int, due_us: int) -> None:
    task = _task(run, rec)
    number = next(n for n, each in r.runs.items() if each is run)
    r.due[number, task.num] = due_us
    run.core.retry(task, due_us)


def _again(r: Replica, run: _Run, rec: int) -> None:
    task = _task(run, rec)
    number = next(n for n, each in r.runs.items() if each is run)
    r.due.pop((number, task.num), None)
    run.core.again(task)


def _pause(r: Replica, run: _Run, rec: int, tag: str, now_us: int, options: Any, found: str) -> None:
    task = _task(run, rec) if rec else None
    if options is None:  # a re-run found the one it had opened
        assert task is not None and task.tags is not None
        task.interrupt = task.tags[tag][1]
        return

    _, new = run.core.pause(task, tag, now_us, **decode(options))
    if task is not None and new:
        _tagged(task, tag, found)


def _view(r: Replica, run: _Run, rec: int, tag: str, outcome: Any) -> None:
    task = _task(run, rec)
    if task.tags is None:
        task.tags = {}

    task.tags[tag] = outcome


def _answered_by_emit(r: Replica, run: _Run, interrupt_id: str, value: Any, now_us: int) -> None:
    run.core.answered_by_emit(run.core.interrupts[interrupt_id], decode(value), now_us)


def _sub_flow(
    r: Replica,
    run: _Run,
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
    child = _Run(core, child_id, context, created_us, definition)
    child.flow_data = decode(flow_data)
    r.child_count += 1
    r.runs[r.child_count] = child
    run.frames[num] = _Frame(frame_id, num, child)


def _project(r: Replica, run: _Run, rec: int, frame_id: str, local: str) -> None:
    task = _task(run, rec)
    frame = next(f for f in run.frames.values() if f.id == frame_id)
    root = run.core.project(task, frame_id, frame.child.core.interrupts[local])
    frame.roots[root.id] = local
    frame.waited = True


def _child_closed(r: Replica, run: _Run, root_id: str) -> None:
    root = run.core.interrupts[root_id]
    frame = next(f for f in run.frames.values() if f.id == root.frame)
    run.core.child_closed(root_id, frame.child.core.interrupts[root.local or ""])


def _dropped(r: Replica, run: _Run, num: int, frame_id: str, record: Any) -> None:
    frame = run.frames.pop(num)
    r.forget_child(frame)
    if record is not None:
        run.past_frames.append({"frame_id": frame_id, "record": record})


def _lifecycle(
    r: Replica,
    run: _Run,
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


def _flow_data(r: Replica, run: _Run, kind: str, key: str, value: Any) -> None:
    if kind == "f":
        assign(run.flow_data, key, decode(value))
    elif kind == "g":
        append(run.flow_data, key, decode(value))
    else:
        delete(run.flow_data, key)


def _item(r: Replica, run: _Run, item: Any) -> None:
    run.core.streamed += 1
    r.stream.append(("item", decode(item)))


def _interrupt_item(r: Replica, run: _Run, action: str, interrupt_id: str) -> None:
    run.core.streamed += 1
    r.stream.append(("interrupt", action, copy(run.core.interrupts[interrupt_id])))


def _row(r: Replica, run: _Run, row: int, kind: str, target: Any, actor: Any, outcome: str, detail: Any) -> None:
    r.rows[row] = (outcome, detail)


def _settings(r: Replica, run: _Run, auto_close: bool, timeout: float | None) -> None:
    run.settings = (auto_close, timeout)


def _steered(r: Replica, run: _Run, dumped: list[Any], version: int) -> None:
    run.core.ledger, run.core.version = Ledger.load(dumped), version


def _begun(r: Replica, run: _Run, started_us: int) -> None:
    run.core.started, run.started_us = True, started_us


_HANDLERS: Final[dict[str, Callable[..., Any]]] = {
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
