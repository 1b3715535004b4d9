"""Saving an execution to JSON and taking it up again, in this process or another.

A snapshot holds everything the core owns: state, tasks, barriers, await-groups, interrupts and what each unfinished
handler has committed. Not in it: resources (only their names), the definition (only its fingerprint), stream items.
``format`` is an integer; a reader takes N and N-1 and refuses newer ones. ``sha256`` covers all the rest.
"""

from __future__ import annotations

import gc
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowdeck.errors import MissingResource, SnapshotError, UnencodableValue
from flowdeck.events.lineage import RunContext
from flowdeck.execution.interventions_ledger import Ledger
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
_MANY: Final = 500
_CONTAINERS: Final = frozenset({dict, list})


# -- the core --------------------------------------------------------------------------------------------------------


@contextmanager
def _uncollected(records: int) -> Iterator[None]:
    """Let the garbage collector rest while thousands of small objects come to be: none of them is garbage yet."""
    pausing = records > _MANY and gc.isenabled()
    if pausing:
        gc.disable()

    try:
        yield
    finally:
        if pausing:
            gc.enable()


def dump_core(core: Core) -> dict[str, Any]:
    """Return the core's state as JSON-safe data.

    Raises:
        UnencodableValue: a signal's value cannot be stored; names the operator.
    """
    dumped: dict[str, Any] = {
        "counters": [getattr(core, name) for name in _COUNTERS],
        "flags": [core.started, core.skip_exceptions, core.concurrency],
        "ops": [op.key for op in core.ops],
        "tasks": _encode_rows(
            [_dump_task(core, task) for task in core.tasks.values()],
            lambda row: f"value at {core.ops[row[2]].key}",
        ),
        "blocks": [_dump_block(block) for block in core.blocks.values()],
    }
    more: dict[str, Any] = {
        "error": core.error,
        "joins": [_dump_join(core, join) for join in core.joins.values()],
        "groups": [list(_astuple(group)) for group in core.groups.values()],
        "gates": [[g.op, g.place, encode(g.values, core.ops[g.op].key)] for g in core.gates.values()],
        "interrupts": _encode_rows(
            [_dump_interrupt(core, interrupt) for interrupt in core.interrupts.values()],
            lambda row: f"interrupt {_lengthen(row[0], core.execution_id)}",
        ),
        "early": encode(core.early),
    }
    dumped.update((key, value) for key, value in more.items() if value)  # a parked run fits into a kilobyte
    if core.running or core.queue:
        dumped["places"] = [core.running, *core.queue]

    if core.ledger is not None:
        dumped["interventions"] = core.ledger.dump()
    elif core.plan.points:
        dumped["interventions"] = None  # disabled, though the flow has points

    return dumped


def _dump_task(core: Core, task: Task) -> list[Any]:
    fields = list(_astuple(task))
    home = core.execution_id
    if task.interrupt is not None:
        fields[-2] = _shorten(task.interrupt, home)

    if task.tags is not None:
        fields[-1] = {
            tag: ["int", _shorten(outcome[1], home)] if outcome[0] == "int" else outcome
            for tag, outcome in task.tags.items()
        }

    return fields


def _dump_interrupt(core: Core, interrupt: Interrupt) -> list[Any]:
    fields = list(_astuple(interrupt))
    fields[0] = _shorten(interrupt.id, core.execution_id)
    if interrupt.execution == core.execution_id:
        fields[9] = None

    task = core.tasks.get(interrupt.task)
    if task is not None and fields[6] == core.ops[task.op].id:
        fields[6] = None
        if interrupt.signal == _signal_of(task):
            fields[10] = None

    while fields[-1] is None:
        del fields[-1]

    return fields


def _encode_rows(rows: list[list[Any]], where: Callable[[list[Any]], str]) -> list[Any]:
    """Encode records all at once when they are plain JSON, else one by one, so that an error names its place."""
    try:
        return encode(rows)  # type: ignore[no-any-return]
    except UnencodableValue:
        return [[encode(field, where(row)) for field in row] for row in rows]


def _signal_of(task: Task) -> list[Any]:
    return [f"s{task.sig}", task.event, task.type, task.value, task.source]


def _shorten(interrupt_id: str, home: str) -> str:
    """Leave out the execution's id in front of those it gave: they make up half of a small snapshot."""
    if interrupt_id.startswith(home + "-"):
        return interrupt_id[len(home) :]

    return "=" + interrupt_id if interrupt_id[:1] in ("-", "=") else interrupt_id


def _lengthen(short: str, home: str) -> str:
    return home + short if short[:1] == "-" else short.removeprefix("=")


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
    core.error = state.get("error")
    home = core.execution_id
    core.tasks, core.blocks, core.joins, core.groups, core.gates = {}, {}, {}, {}, {}
    for fields in state["tasks"]:
        task = Task(*fields)
        task.op = remap[task.op]
        if task.value.__class__ in _CONTAINERS:
            task.value = decode(task.value)

        if task.interrupt is not None:
            task.interrupt = _lengthen(task.interrupt, home)

        if task.tags is not None:
            task.tags = decode(task.tags)
            for outcome in task.tags.values():
                if outcome[0] == "int":
                    outcome[1] = _lengthen(outcome[1], home)

        core.tasks[task.rec] = task

    for fields in state["blocks"]:
        block = Block(*fields)
        counts = fields[-1]
        pairs = zip(counts[::2], counts[1::2], strict=True)
        block.counts = {remap[op]: n for op, n in pairs if op in remap}
        core.blocks[block.id] = block

    for fields in state.get("joins", ()):
        join = Join(*fields)
        join.op = remap[join.op]
        join.results = {index: decode(value) for index, value in fields[7]}
        join.items = decode(join.items)
        core.joins[join.id] = join

    for fields in state.get("groups", ()):
        core.groups[fields[0]] = Group(*fields)

    for op, place, values in state.get("gates", ()):
        core.gates[remap[op], place] = Gate(remap[op], place, decode(values))

    core.interrupts, core.open = {}, {}
    for encoded in state.get("interrupts", ()):
        interrupt = Interrupt(*[decode(v) if v.__class__ in _CONTAINERS else v for v in encoded])
        interrupt.id = _lengthen(interrupt.id, home)
        interrupt.execution = interrupt.execution or home
        asker = core.tasks.get(interrupt.task)
        if asker is not None and interrupt.op is None:
            interrupt.op = core.ops[asker.op].id
            if interrupt.signal is None:
                interrupt.signal = _signal_of(asker)

        core.interrupts[interrupt.id] = interrupt
        if interrupt.status == "waiting":
            core.open[interrupt.id] = interrupt

    core.early = decode(state.get("early", {}))
    if "interventions" in state:  # else the mode the execution was created with stays
        saved = state["interventions"]
        core.ledger = None if saved is None else Ledger.load(saved)

    core.running, *queue = state.get("places", [0])
    if queue:
        core.queue = deque(queue)


def _lost_ops(core: Core, state: dict[str, Any]) -> list[str]:
    """Return the operators the run stands in and the definition does not have."""
    keys: list[str] = state["ops"]
    used = {task[2] for task in state["tasks"]} | {join[1] for join in state.get("joins", ())}
    used |= {gate[0] for gate in state.get("gates", ())}
    return sorted(key for key in {keys[i] for i in used} if key not in core.plan.by_key)


def _remap_ops(core: Core, state: dict[str, Any]) -> dict[int, int]:
    keys: list[str] = state["ops"]
    remap = {i: core.plan.by_key[key].index for i, key in enumerate(keys) if key in core.plan.by_key}
    missing = _lost_ops(core, state)
    if missing:
        raise SnapshotError(
            f"the definition of flow {core.plan.flow_name!r} has lost operators the saved run stands in: "
            f"{', '.join(missing)}. Bring them back under the same names, or register a migration with @flow.migrate."
        )

    return remap


# -- the execution ---------------------------------------------------------------------------------------------------


def save_state(execution: TriggerFlowExecution, path: Any, encoding: str, require_idle: bool) -> dict[str, Any]:
    """Build the snapshot of an execution; see :meth:`TriggerFlowExecution.save`."""
    if require_idle and not execution.is_idle():
        raise RuntimeError(f"execution {execution.id} is not idle; wait for it, or save without require_idle")

    core = execution._core
    try:
        with _uncollected(len(core.tasks)):
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
        "state_version": core.version,
        "run_context": _dump_run(execution.run_context),
        "runtime_data": data,
        "resource_keys": sorted(execution._resources),
        "core": body,
    }
    if state["run_context"].get("execution_id") == execution.id:
        del state["run_context"]["execution_id"]

    if execution._closed_us is not None or execution._close_reason is not None:
        state["closed_at"], state["close_reason"] = execution._closed_us, execution._close_reason

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


def load_state(
    execution: TriggerFlowExecution,
    state: Any,
    encoding: str,
    *,
    resources_needed: bool = True,
    trusted: bool = False,
) -> None:
    """Fill a fresh execution from a snapshot; see :meth:`TriggerFlowExecution.load`.

    ``trusted``: it was made in this process, from an input log that has its own checks.
    """
    saved = _read(state, encoding)
    if not trusted:
        _check(saved)
        saved = _migrated(execution, saved)

    missing = [key for key in saved["resource_keys"] if key not in execution._resources]
    if missing and resources_needed:
        raise MissingResource(
            f"execution {saved['execution_id']} needs runtime resource(s) {', '.join(map(repr, missing))}; "
            "pass them as runtime_resources= to create_execution() or load()"
        )

    core = execution._core
    core.execution_id = saved["execution_id"]
    with _uncollected(len(saved["core"]["tasks"])):
        try:
            load_core(core, saved["core"])
        except SnapshotError:
            raise
        except (LookupError, TypeError, ValueError) as exc:
            raise SnapshotError(
                f"the saved state of {saved['execution_id']} does not hold together ({type(exc).__name__}: {exc}); "
                "was it changed by hand, or by a migration?"
            ) from exc

    core.data = decode(saved["runtime_data"])
    execution._flow_data.restore(decode(saved.get("flow_data", {})))
    execution._load_frames(saved.get("sub_flow_frames", []))
    execution._epoch = saved["epoch"] + 1
    execution._lifecycle = saved["lifecycle_state"]
    execution._created_us = saved["created_at"]
    execution._started_us = saved["started_at"]
    execution._closed_us = saved.get("closed_at")
    execution._close_reason = saved.get("close_reason")
    execution._cancelled = saved["status"] == "cancelled"
    lineage = {"execution_id": saved["execution_id"], **saved["run_context"]}
    execution.run_context = execution._driver.run = _load_run(lineage)
    if execution._lifecycle == "closed":
        execution._snapshot = core.snapshot_data()
        execution._driver.closed = True


def _migrated(execution: TriggerFlowExecution, saved: dict[str, Any]) -> dict[str, Any]:
    """Let the flow's migrations bring up a state that stands in operators the definition does not have any more."""
    flow, core = execution._definition, execution._core
    for migration in flow.migrations if flow is not None else ():
        if not _lost_ops(core, saved["core"]):
            break

        saved = migration(saved)
        if not isinstance(saved, dict):
            name = getattr(migration, "__name__", repr(migration))
            raise SnapshotError(f"migration {name!r} must return a dict, the state; it returned {type(saved).__name__}")

    return saved


def _check(saved: dict[str, Any]) -> None:
    found = saved.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
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
        # YAML reads an unescaped NEL, inside a text too, as the end of a line.
        readable = b"\xc2\x85" not in _encoder.encode(state)
        text = _yaml().safe_dump(state, allow_unicode=readable, sort_keys=False)
    else:
        # In the order they came: sorted, the user's own dicts would come back in another order.
        text = msgspec.json.format(msgspec.json.encode(state), indent=1).decode()

    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding=encoding)
    partial.replace(path)  # a crash leaves the old state or the new one, never half of it


def _read(state: Any, encoding: str) -> dict[str, Any]:
    source = ""
    if isinstance(state, Path) or (isinstance(state, str) and "\n" not in state and len(state) < 4096):
        path = Path(state)
        if isinstance(state, Path) or path.suffix in (".json", ".yaml", ".yml") or _is_file(path):
            state, source = path.read_text(encoding=encoding), f"{path}: "

    if isinstance(state, str):
        text = state
        try:
            state = msgspec.json.decode(state)
        except msgspec.DecodeError:
            try:
                state = _yaml().safe_load(state)
            except Exception as exc:
                raise SnapshotError(f"{source}the saved state is neither JSON nor YAML: {exc}") from exc

        if not isinstance(state, dict):
            named = source or f"{text[:80]!r} is no file here; "
            raise SnapshotError(f"{named}a saved execution is expected, a path to one, or its JSON or YAML text")

    if not isinstance(state, dict):
        raise TypeError(f"load() takes a dict, a path, or JSON or YAML text; got {type(state).__name__}")

    return state


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text, far too long for a name
        return False


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as exc:
        raise SnapshotError("YAML needs the package pyyaml: pip install 'flowdeck[devtools]'") from exc

    return yaml


def _dump_run(run: RunContext) -> dict[str, Any]:
    names = ("run_id", "run_kind", "root_run_id", "parent_run_id", "agent_id", "agent_name", "session_id",
             "response_id", "execution_id")  # fmt: skip
    ids = {name: value for name in names if (value := getattr(run, name)) is not None}
    if ids["root_run_id"] == ids["run_id"]:
        del ids["root_run_id"]

    return {**ids, "meta": dict(run.meta)}


def _load_run(saved: dict[str, Any]) -> RunContext:
    return RunContext.create(**saved)
