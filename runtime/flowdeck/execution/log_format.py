"""What stands at the beginning of an input log, and beside its snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowdeck.execution.snapshot import _dump_run
from flowdeck.execution.values import encode

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.input_log import InputLog

__all__ = ["HEADER_DEFAULTS", "HEADER_FORMAT", "RUN_DEFAULTS", "extras_of", "header_of", "pack", "unpack", "wake_of"]

HEADER_FORMAT: Final = 1
HEADER_DEFAULTS: Final[dict[str, Any]] = {
    "entrypoint": None,
    "concurrency": 0,
    "skip_exceptions": False,
    "handle_exposed": True,
    "deadline_us": None,
    "flow_data": {},
    "interventions": None,
    "fork": None,
}
RUN_DEFAULTS: Final[dict[str, Any]] = {"run_kind": "workflow_execution"}
_NOTHING: Final = object()

pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode


def header_of(execution: TriggerFlowExecution, settings: tuple[Any, ...]) -> bytes:
    """Return what an execution begins with, packed."""
    core = execution._core
    header = {
        "format": HEADER_FORMAT,
        "execution_id": execution.id,
        "flow": {"name": execution._plan.flow_name, "fingerprint": execution._plan.fingerprint},
        "entrypoint": execution._entrypoint,
        "created_at": execution._created_us,
        "started_at": execution._started_us,
        "run_context": _dump_run(execution.run_context),
        "settings": list(settings),
        "concurrency": core.concurrency,
        "skip_exceptions": core.skip_exceptions,
        "handle_exposed": execution._handle_exposed,
        "deadline_us": execution._deadline_us,
        "flow_data": encode(execution._flow_data.get(), "flow_data"),
        "interventions": None if core.ledger is None else [core.ledger.mode],
    }
    run = header["run_context"]
    header["run_context"] = {
        key: value for key, value in run.items() if value is not None and RUN_DEFAULTS.get(key, _NOTHING) != value
    }
    if header["run_context"].get("execution_id") == execution.id:
        del header["run_context"]["execution_id"]

    # What is as usual is left out: ten thousand parked runs have ten thousand headers.
    return pack({key: value for key, value in header.items() if HEADER_DEFAULTS.get(key, _NOTHING) != value})


def extras_of(log: InputLog) -> dict[str, Any]:
    """What a snapshot keeps beside the execution's own saved state."""
    return {
        "due": [[child, num, due] for (child, num), due in log.due.items()],
        "rows": [[row, *outcome] for row, outcome in log.rows.items()],
        "children": [[n, child.id, log.define(child._plan)] for n, child in log.children.items()],
        "child_count": log.child_count,
        "intent": log.execution._intent(),
    }


def wake_of(execution: TriggerFlowExecution) -> int | None:
    """When the parked execution has something to do by itself."""
    if execution._lifecycle == "closed":
        return None

    waiting = execution._core.open
    times = [i.expires_us for i in waiting.values() if i.expires_us is not None]
    timeout = execution.auto_close_timeout
    if not waiting and execution.auto_close and timeout is not None:
        times.append(execution._last_active_us + round(timeout * 1e6))

    if execution._deadline_us is not None:
        times.append(execution._deadline_us)

    if execution._intent() is not None:
        times.append(0)

    return min(times, default=None)
