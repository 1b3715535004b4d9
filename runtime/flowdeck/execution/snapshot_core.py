"""A core as JSON-safe data, and back: one short list for each record it owns.

The records of a run with hundreds of tasks are one JSON text instead, as long as every user's value in them is JSON as
it is: then nothing of it becomes Python objects on the way out, and structs come straight back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowdeck.errors import SnapshotError, UnencodableValue
from flowdeck.execution.interventions_ledger import Ledger
from flowdeck.execution.state import PARKED, Block, Gate, Group, Interrupt, Join, Task
from flowdeck.execution.values import KEPT, decode, encode, is_plain

if TYPE_CHECKING:
    from flowdeck.execution.core import Core

__all__ = ["MANY", "dump_core", "load_core", "lost_ops", "unpack"]

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
_astuple = msgspec.structs.astuple
MANY: Final = 500
"""From so many tasks on, records are packed into one text."""
_CONTAINERS: Final = frozenset({dict, list})
_value_of: Final = attrgetter("value")
_tags_of: Final = attrgetter("tags")
_ASKED: Final = tuple(map(attrgetter, ("payload", "response", "schema", "on_expire")))
"""Where an interrupt has users' values."""
_json_encode: Final = msgspec.json.Encoder().encode
_packed_decoder: Final = msgspec.json.Decoder(tuple[list[Task], list[Block], list[Interrupt]])


def dump_core(core: Core, pack: bool = False) -> dict[str, Any]:
    """Return the core's state as JSON-safe data.

    Args:
        pack: let the records of a core that has :data:`MANY` be one JSON text, if they can.

    Raises:
        UnencodableValue: a signal's value cannot be stored; names the operator.
    """
    dumped: dict[str, Any] = {
        "counters": [getattr(core, name) for name in _COUNTERS],
        "flags": [core.started, core.skip_exceptions, core.concurrency],
        "ops": [op.key for op in core.ops],
    }
    packed = _pack(core) if pack and len(core.tasks) >= MANY else None
    if packed is not None:
        dumped["packed"] = packed
    else:
        dumped["tasks"] = _encode_rows(
            [_dump_task(core, task) for task in core.tasks.values()],
            lambda row: f"value at {core.ops[row[2]].key}",
        )
        dumped["blocks"] = [_dump_block(block) for block in core.blocks.values()]

    more: dict[str, Any] = {
        "error": core.error,
        "joins": [_dump_join(core, join) for join in core.joins.values()],
        "groups": [list(_astuple(group)) for group in core.groups.values()],
        "gates": [[g.op, g.place, encode(g.values, core.ops[g.op].key)] for g in core.gates.values()],
        "interrupts": packed is None
        and _encode_rows(
            [_dump_interrupt(core, interrupt) for interrupt in core.interrupts.values()],
            lambda row: f"interrupt {_lengthen(row[0], core.execution_id)}",
        ),
        "early": encode(core.early),
    }
    dumped.update((key, value) for key, value in more.items() if value)  # a parked run fits into a kilobyte
    if core.running or core.queue:
        dumped["places"] = [core.running, *core.queue]

    if core.guests:
        dumped["guests"] = [[group, rec] for group, rec in core.guests.items()]

    if core.ledger is not None:
        dumped["interventions"] = core.ledger.dump()
    elif core.plan.points:
        dumped["interventions"] = None  # disabled, though the flow has points

    return dumped


# -- many records ------------------------------------------------------------------------------------------------------


def _pack(core: Core) -> str | None:
    """Return tasks, blocks and interrupts as one JSON text, or ``None`` when a user's value in them needs a tag.

    A run with thousands of parked branches is saved in a tenth of the time: no record becomes Python objects.
    """
    users = [value for value in map(_value_of, core.tasks.values()) if value.__class__ not in KEPT]
    if not core.plain:
        users += _kept_for_users(core)

    try:
        if not users or is_plain(users):
            records = (list(core.tasks.values()), list(core.blocks.values()), list(core.interrupts.values()))
            return _json_encode(records).decode()
    except (TypeError, ValueError, OverflowError):
        pass  # a text that is no Unicode needs a tag as well

    return None


def _kept_for_users(core: Core) -> list[Any]:
    """Return the users' values in memos and interrupts that JSON may not keep."""
    outcomes = chain.from_iterable(map(dict.values, filter(None, map(_tags_of, core.tasks.values()))))
    found = [outcome for outcome in outcomes if outcome and outcome[0] == "val"]
    interrupts = core.interrupts.values()
    for values in (*(list(map(of, interrupts)) for of in _ASKED), [each.signal[3] for each in interrupts]):
        if not {*map(type, values)} <= KEPT:
            found += values

    return found


def unpack(state: dict[str, Any], home: str) -> dict[str, Any]:
    """Return a core's saved state with a list for every record, as :func:`dump_core` gives it unpacked."""
    if "packed" not in state:
        return state

    tasks, blocks, interrupts = msgspec.json.decode(state["packed"])
    for fields in tasks:
        fields[-2] = None if fields[-2] is None else _shorten(fields[-2], home)
        for outcome in (fields[-1] or {}).values():
            if outcome[0] == "int":
                outcome[1] = _shorten(outcome[1], home)

    for fields in blocks:
        fields[-1] = [int(n) for pair in fields[-1].items() for n in pair]

    for fields in interrupts:
        fields[0] = _shorten(fields[0], home)

    rows = {"tasks": tasks, "blocks": blocks, "interrupts": interrupts}
    return {**{key: value for key, value in state.items() if key != "packed"}, **rows}


def _load_packed(core: Core, text: str, remap: dict[int, int]) -> None:
    tasks, blocks, interrupts = _packed_decoder.decode(text)
    core.tasks = {task.rec: task for task in tasks}
    core.blocks = {block.id: block for block in blocks}
    core.interrupts = {interrupt.id: interrupt for interrupt in interrupts}
    core.open = _waiting(core.interrupts)
    if all(old == new for old, new in remap.items()):
        return

    for task in tasks:
        task.op = remap[task.op]

    for block in blocks:
        block.counts = {remap[op]: n for op, n in block.counts.items() if op in remap}


def _waiting(interrupts: dict[str, Interrupt]) -> dict[str, Interrupt]:
    found = {interrupt.id: interrupt for interrupt in interrupts.values() if interrupt.status == "waiting"}
    return interrupts if len(found) == len(interrupts) else found


# -- one by one --------------------------------------------------------------------------------------------------------


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
    core.interrupts, core.open = {}, {}
    if "packed" in state:
        _load_packed(core, state["packed"], remap)

    for fields in state["tasks"] if "packed" not in state else ():
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

    for fields in state["blocks"] if "packed" not in state else ():
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

    if "packed" not in state:
        core.open = _waiting(core.interrupts)

    core.plain = "packed" in state  # else nobody has looked
    core.early = decode(state.get("early", {}))
    if "interventions" in state:  # else the mode the execution was created with stays
        saved = state["interventions"]
        core.ledger = None if saved is None else Ledger.load(saved)

    core.guests = dict(state["guests"]) if "guests" in state else None
    core.away = core._lenders() if core.guests and core.plan.limited else None
    core.running, *queue = state.get("places", [0])
    if queue:
        core.queue = deque(queue)

    places = {task.lane for task in core.tasks.values()} | {task.frame for task in core.tasks.values()} | {0}
    groups = {task.group for task in core.tasks.values() if task.status != PARKED}
    if not places <= core.blocks.keys() or not groups <= core.groups.keys():
        raise SnapshotError(f"the saved state of {home} does not hold together: tasks stand in places that are missing")


def lost_ops(core: Core, state: dict[str, Any]) -> list[str]:
    """Return the operators the run stands in and the definition does not have."""
    keys: list[str] = state["ops"]
    if all(key in core.plan.by_key for key in keys):
        return []

    state = unpack(state, core.execution_id)
    used = {task[2] for task in state["tasks"]} | {join[1] for join in state.get("joins", ())}
    used |= {gate[0] for gate in state.get("gates", ())}
    return sorted(key for key in {keys[i] for i in used} if key not in core.plan.by_key)


def _remap_ops(core: Core, state: dict[str, Any]) -> dict[int, int]:
    keys: list[str] = state["ops"]
    remap = {i: core.plan.by_key[key].index for i, key in enumerate(keys) if key in core.plan.by_key}
    missing = lost_ops(core, state)
    if missing:
        raise SnapshotError(
            f"the definition of flow {core.plan.flow_name!r} has lost operators the saved run stands in: "
            f"{', '.join(missing)}. Bring them back under the same names, or register a migration with @flow.migrate."
        )

    return remap
