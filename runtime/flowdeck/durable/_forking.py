"""Forks: a committed point of one execution becomes the beginning of another."""

from __future__ import annotations

from typing import Any

import msgspec

from flowdeck.durable.store import Stored
from flowdeck.errors import ExecutionError
from flowdeck.events.ids import new_id
from flowdeck.execution.replica import replay

__all__ = ["fork_of"]

_pack = msgspec.msgpack.Encoder().encode


def fork_of(stored: Stored, beginning: Stored, new: str, actor: str | None) -> tuple[bytes, bytes]:
    """Return header and snapshot of an execution that goes on from ``stored``.

    Args:
        beginning: the same execution as it was after its first commit: with what it was started.
        actor: who forks it.

    Raises:
        ExecutionError: a sub flow is under way: its children's ids come from the parent's.
        SnapshotError: the stored state is damaged.
    """
    replica = replay(stored.header, stored.plans, stored.definition, stored.snapshot, stored.batches)
    root = replica.root
    if root.frames:
        raise ExecutionError(
            f"execution {stored.execution_id} runs a sub flow at {stored.seq}; fork it before or after that: "
            f"flowdeck executions show {stored.execution_id} --history"
        )

    replica.rows = {}
    replica.intent = None
    root.lifecycle, root.cancelled, root.close_reason, root.closed_us = "open", False, None, None
    root.core.execution_id = new
    for interrupt in root.core.interrupts.values():
        interrupt.execution = new

    run = dict(root.run)
    run.update(run_id=new_id(), execution_id=new)
    run["meta"] = {**run.get("meta", {}), "forked_from": stored.execution_id, "forked_at": stored.seq}
    root.run = run
    changed = {"execution_id": new, "run_context": run, "deadline_us": None}
    fork = {"actor": actor, "initial_value": _initial_value(beginning)}
    header: dict[str, Any] = {**replica.header, **changed, "fork": fork}
    return _pack(header), _pack([replica.dump(0, stored.resource_keys), replica.extras()])


def _initial_value(beginning: Stored) -> Any:
    """Return, encoded, with what an execution was started; a fork's header knows it of the first of its line."""
    fork = beginning.header.get("fork")
    if fork is not None:
        return fork["initial_value"]

    starts = (r for _, records in beginning.batches for r in records if r[0] == "S" and r[5] == "start")
    found = next(starts, None)
    return None if found is None else found[4]
