"""Saving an execution to JSON and taking it up again, in this process or another.

A snapshot holds everything the core owns: state, tasks, barriers, await-groups, interrupts and what each unfinished
handler has committed. Not in it: resources (only their names), the definition (only its fingerprint), stream items.
``format`` is an integer; a reader takes N and N-1 and refuses newer ones. ``sha256`` covers all the rest.
"""

from __future__ import annotations

import hashlib
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowdeck.errors import MissingResource, SnapshotError, UnencodableValue
from flowdeck.events.lineage import RunContext
from flowdeck.execution.state import Block, Gate, Group, Interrupt, Join, Task
from flowdeck.execution.values import decode, encode

if TYPE_CHECKING:
    from flowdeck.execution.core import Core
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["FORMAT", "dump_core", "load_core", "load_state", "save_state"]

FORMAT: Final = 1
_COUNTERS: Final = (
    "seq",
    "sub",
    "records",
    "numbers",
    "signals",
    "group_count",
    "block_count",
    "interrupt_count",
    "streamed",
    "version",
)
_encoder = msgspec.json.Encoder(order="deterministic")
_astuple = msgspec.structs.astuple
_SCALAR = (str, int, type(None), bool)


# -- the core --------------------------------------------------------------------------------------------------------


def dump_core(core: Core) -> dict[str, Any]:
    """Return the core's state as JSON-safe data.

    Raises:
        UnencodableValue: a signal's value cannot be stored; names the operator.
    """
    return {
        "counters": [getattr(core, name) for name in _COUNTERS],
        "flags": [core.started, core.skip_exceptions, core.concurrency],
        "error": core.error,
        "ops": [op.key for op in core.ops],
        "tasks": [_dump_task(core, task) for task in core.tasks.values()],
        "blocks": [_dump_block(block) for block in core.blocks.values()],
        "joins": [_dump_join(core, join) for join in core.joins.values()],
        "groups": [list(_astuple(group)) for group in core.groups.values()],
        "gates": [[g.op, g.place, encode(g.values, core.ops[g.op].key)] for g in core.gates.values()],
        "interrupts": [encode(list(_astuple(i)), f"interrupt {i.id}") for i in core.interrupts.values()],
        "early": encode(core.early),
    }


def _dump_task(core: Core, task: Task) -> list[Any]:
    fields = list(_astuple(task))
    if type(task.value) not in _SCALAR or isinstance(task.value, str):
        fields[3] = encode(task.value, f"value at {core.ops[task.op].key}")

    if task.tags is not None:
        fields[-1] = encode(task.tags)

    return fields


def _dump_block(block: Block) -> list[Any]:
    fields = list(_astuple(block))
    fields[-1] = [n for pair in block.counts.items() for n in pair]
    return fields


def _dump_join(core: Core, join: Join) -> list[Any]:
    fields = list(_astuple(join))
    where = f"value at {core.ops[join.op].key}"
    fields[7] = [[index, encode(value, where)] for index, value in join.results.items()]
    fields[12] = None if join.items is None else encode(join.items, where)
    return fields


def load_core(core: Core, state: dict[str, Any]) -> None:
    """Fill a fresh core from :func:`dump_core`'s data.

    Raises:
        SnapshotError: operators the state refers to are gone from the definition; lists them.
    """
    remap = _remap_ops(core, state)
    for name, value in zip(_COUNTERS, state["counters"], strict=True):
        setattr(core, name, value)

    core.started, core.skip_exceptions, core.concurrency = state["flags"]
    core.error = state["error"]
    core.tasks, core.blocks, core.joins, core.groups, core.gates = {}, {}, {}, {}, {}
    for fields in state["tasks"]:
        task = Task(*fields)
        task.op = remap[task.op]
        task.value = decode(task.value)
        task.tags = decode(task.tags)
        core.tasks[task.rec] = task

    for fields in state["blocks"]:
        block = Block(*fields)
        counts = fields[-1]
        pairs = zip(counts[::2], counts[1::2], strict=True)
        block.counts = {remap[op]: n for op, n in pairs if op in remap}
        core.blocks[block.id] = block

    for fields in state["joins"]:
        join = Join(*fields)
        join.op = remap[join.op]
        join.results = {index: decode(value) for index, value in fields[7]}
        join.items = decode(join.items)
        core.joins[join.id] = join

    for fields in state["groups"]:
        core.groups[fields[0]] = Group(*fields)

    for op, place, values in state["gates"]:
        core.gates[remap[op], place] = Gate(remap[op], place, decode(values))

    core.interrupts = {}
    for encoded in state["interrupts"]:
        interrupt = Interrupt(*decode(encoded))
        core.interrupts[interrupt.id] = interrupt

    core.early = decode(state["early"])
    core.queue = deque()


def _remap_ops(core: Core, state: dict[str, Any]) -> dict[int, int]:
    keys: list[str] = state["ops"]
    remap = {i: core.plan.by_key[key].index for i, key in enumerate(keys) if key in core.plan.by_key}
    used = {task[2] for task in state["tasks"]} | {join[1] for join in state["joins"]}
    used |= {gate[0] for gate in state["gates"]}
    missing = sorted(keys[i] for i in used if i not in remap)
    if missing:
        raise SnapshotError(
            f"the definition of flow {core.plan.flow_name!r} has lost operators the saved run stands in: "
            f"{', '.join(missing)}. Bring them back under the same names, or migrate the state."
        )

    return remap


# -- the execution ---------------------------------------------------------------------------------------------------


def save_state(execution: TriggerFlowExecution, path: Any, encoding: str, require_idle: bool) -> dict[str, Any]:
    """Build the snapshot of an execution; see :meth:`TriggerFlowExecution.save`."""
    if require_idle and not execution.is_idle():
        raise RuntimeError(f"execution {execution.id} is not idle; wait for it, or save without require_idle")

    core = execution._core
    try:
        body = dump_core(core)
        data = encode(core.data)
    except UnencodableValue as exc:
        raise UnencodableValue(f"execution {execution.id}: {exc.path}", None, str(exc)) from exc

    state = {
        "format": FORMAT,
        "execution_id": execution.id,
        "flow": {"name": execution._plan.flow_name, "fingerprint": execution._plan.fingerprint},
        "epoch": execution._epoch,
        "status": execution.get_status(),
        "lifecycle_state": execution._lifecycle,
        "auto_close": execution.auto_close,
        "auto_close_timeout": execution.auto_close_timeout,
        "created_at": execution._created_us,
        "started_at": execution._started_us,
        "closed_at": execution._closed_us,
        "close_reason": execution._close_reason,
        "state_version": core.version,
        "run_context": _dump_run(execution.run_context),
        "runtime_data": data,
        "resource_keys": sorted(execution._resources),
        "core": body,
    }
    flow_data = execution._flow_data.get()
    if flow_data:
        state["flow_data"] = encode(flow_data, "flow_data")

    frames = execution._save_frames()
    if frames:
        state["sub_flow_frames"] = frames

    state["sha256"] = _digest(state)
    if path is not None:
        _write(state, Path(path), encoding)

    return state


def load_state(execution: TriggerFlowExecution, state: Any, encoding: str, *, resources_needed: bool = True) -> None:
    """Fill a fresh execution from a snapshot; see :meth:`TriggerFlowExecution.load`."""
    saved = _read(state, encoding)
    _check(saved)
    missing = [key for key in saved["resource_keys"] if key not in execution._resources]
    if missing and resources_needed:
        raise MissingResource(
            f"execution {saved['execution_id']} needs runtime resource(s) {', '.join(map(repr, missing))}; "
            "pass them as runtime_resources= to create_execution() or load()"
        )

    core = execution._core
    load_core(core, saved["core"])
    core.execution_id = saved["execution_id"]
    core.data = decode(saved["runtime_data"])
    execution._flow_data.restore(decode(saved.get("flow_data", {})))
    execution._load_frames(saved.get("sub_flow_frames", []))
    execution._epoch = saved["epoch"] + 1
    execution._lifecycle = saved["lifecycle_state"]
    execution._created_us = saved["created_at"]
    execution._started_us = saved["started_at"]
    execution._closed_us = saved["closed_at"]
    execution._close_reason = saved["close_reason"]
    execution._cancelled = saved["status"] == "cancelled"
    execution.run_context = execution._driver.run = _load_run(saved["run_context"])
    if execution._lifecycle == "closed":
        execution._snapshot = core.snapshot_data()
        execution._driver.closed = True


def _check(saved: dict[str, Any]) -> None:
    found = saved.get("format")
    if not isinstance(found, int):
        raise SnapshotError("this is no saved execution: it has no 'format'")

    if found > FORMAT:
        raise SnapshotError(
            f"the state was saved in format {found}; this version reads up to {FORMAT}. Upgrade flowdeck."
        )

    needed = ("execution_id", "flow", "epoch", "lifecycle_state", "run_context", "runtime_data", "core", "sha256")
    missing = [key for key in needed if key not in saved]
    if missing:
        raise SnapshotError(f"the saved state is incomplete: {', '.join(missing)} missing")

    if _digest({k: v for k, v in saved.items() if k != "sha256"}) != saved["sha256"]:
        raise SnapshotError("the saved state was altered: its sha256 does not match")


def _digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(_encoder.encode(state)).hexdigest()


def _write(state: dict[str, Any], path: Path, encoding: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".yaml", ".yml"):
        text = _yaml().safe_dump(state, allow_unicode=True, sort_keys=False)
    else:
        text = msgspec.json.format(_encoder.encode(state), indent=1).decode()

    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding=encoding)
    partial.replace(path)  # a crash leaves the old state or the new one, never half of it


def _read(state: Any, encoding: str) -> dict[str, Any]:
    if isinstance(state, Path) or (isinstance(state, str) and "\n" not in state and len(state) < 4096):
        path = Path(state)
        if path.suffix in (".json", ".yaml", ".yml"):
            state = path.read_text(encoding=encoding)
        elif isinstance(state, Path):
            raise SnapshotError(f"{path}: expected a .json, .yaml or .yml file")

    if isinstance(state, str):
        try:
            state = msgspec.json.decode(state)
        except msgspec.DecodeError:
            try:
                state = _yaml().safe_load(state)
            except Exception as exc:
                raise SnapshotError(f"the saved state is neither JSON nor YAML: {exc}") from exc

    if not isinstance(state, dict):
        raise TypeError(f"load() takes a dict, a path, or JSON or YAML text; got {type(state).__name__}")

    return state


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as exc:
        raise SnapshotError("YAML needs the package pyyaml: pip install 'flowdeck[devtools]'") from exc

    return yaml


def _dump_run(run: RunContext) -> dict[str, Any]:
    names = ("run_id", "run_kind", "root_run_id", "parent_run_id", "agent_id", "agent_name", "session_id",
             "response_id", "execution_id")  # fmt: skip
    return {**{name: getattr(run, name) for name in names}, "meta": dict(run.meta)}


def _load_run(saved: dict[str, Any]) -> RunContext:
    return RunContext.create(**saved)
