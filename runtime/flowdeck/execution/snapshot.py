"""Saving an execution to JSON and taking it up again, in this process or another.

A snapshot holds everything the core owns: state, tasks, barriers, await-groups, interrupts and what each unfinished
handler has committed. Not in it: resources (only their names), the definition (only its fingerprint), stream items.
``format`` is an integer; a reader takes N and N-1 and refuses newer ones. ``sha256`` covers all the rest (of packed
records their CRC-32).
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgspec

from flowdeck.errors import MissingResource, SnapshotError, UnencodableValue
from flowdeck.events.lineage import RunContext
from flowdeck.execution.snapshot_core import MANY, dump_core, load_core, lost_ops, unpack
from flowdeck.execution.snapshot_files import read_state, write_state
from flowdeck.execution.values import decode, encode

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["FORMAT", "ROWS_FORMAT", "dump_core", "load_core", "load_state", "save_state"]

FORMAT: Final = 2
"""The newest format: the records of many tasks are one text."""
ROWS_FORMAT: Final = 1
"""The format of all other states, which releases that know no packed records can read."""
_PIECE: Final = 1 << 17
_encoder = msgspec.json.Encoder(order="deterministic")
_SHAPE: Final[dict[str, Any]] = {
    "execution_id": str,
    "flow": dict,
    "epoch": int,
    "status": str,
    "lifecycle_state": str,
    "auto_close": bool,
    "auto_close_timeout": int | float | None,
    "created_at": int,
    "started_at": int | None,
    "run_context": dict,
    "runtime_data": dict,
    "resource_keys": list,
    "core": dict,
    "sha256": str,
}
_WORDS: Final = {
    "status": ("created", "running", "waiting", "completed", "failed", "cancelled"),
    "lifecycle_state": ("open", "sealed", "closed"),
}


@contextmanager
def _uncollected(records: int) -> Iterator[None]:
    """Let the garbage collector rest while thousands of small objects come to be: none of them is garbage yet.

    At the end they go to its oldest generation at once: to find that all of them live took 18 ms for 10,000 branches.
    """
    pausing = records >= MANY and gc.isenabled()
    if pausing:
        gc.disable()

    try:
        yield
    finally:
        if pausing:
            if not gc.get_freeze_count():  # else somebody keeps objects there on purpose
                gc.freeze()
                gc.unfreeze()

            gc.enable()


def save_state(execution: TriggerFlowExecution, path: Any, encoding: str, require_idle: bool) -> dict[str, Any]:
    """Build the snapshot of an execution; see :meth:`TriggerFlowExecution.save`."""
    if require_idle and not execution.is_idle():
        raise RuntimeError(f"execution {execution.id} is not idle; wait for it, or save without require_idle")

    core = execution._core
    try:
        with _uncollected(len(core.tasks)):
            body = dump_core(core, pack=True)

        data = encode(core.data)
    except UnencodableValue as exc:
        raise UnencodableValue(f"execution {execution.id}: {exc.path}", None, str(exc)) from exc

    state = {
        "format": FORMAT if "packed" in body else ROWS_FORMAT,
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
        write_state(state, Path(path), encoding)

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
    saved = read_state(state, encoding)
    if not trusted:
        _check(saved)
        saved = _migrated(execution, saved)

    missing = [key for key in saved["resource_keys"] if key not in execution._resources]
    if missing and resources_needed:
        raise MissingResource(
            f"execution {saved['execution_id']} needs runtime resource(s) {', '.join(map(repr, missing))}; "
            "pass them as runtime_resources= to create_execution() or load()"
        )

    try:
        _fill(execution, saved)
    except (SnapshotError, MissingResource):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as exc:
        raise SnapshotError(
            f"the saved state of {saved['execution_id']} does not hold together ({type(exc).__name__}: {exc}); "
            "was it changed by hand, or by a migration?"
        ) from exc


def _fill(execution: TriggerFlowExecution, saved: dict[str, Any]) -> None:
    core = execution._core
    core.execution_id = saved["execution_id"]
    with _uncollected(len(saved["core"]["tasks"]) if "tasks" in saved["core"] else MANY):
        load_core(core, saved["core"])

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
        if not lost_ops(core, saved["core"]):
            break

        saved = migration({**saved, "core": unpack(saved["core"], saved["execution_id"])})
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

    missing = [key for key in _SHAPE if key not in saved]
    if missing:
        raise SnapshotError(f"the saved state is incomplete: {', '.join(missing)} missing")

    wrong = [key for key, kinds in _SHAPE.items() if not isinstance(saved[key], kinds)]
    wrong += [] if wrong or all(isinstance(key, str) for key in saved["resource_keys"]) else ["resource_keys"]
    wrong += [key for key, words in _WORDS.items() if saved[key] not in words]
    if wrong:
        key = wrong[0]
        raise SnapshotError(f"the saved state was altered: {key!r} holds {str(saved[key])[:80]!r}")

    if _digest({k: v for k, v in saved.items() if k != "sha256"}) != saved["sha256"]:
        raise SnapshotError("the saved state was altered: its sha256 does not match")


def _digest(state: dict[str, Any]) -> str:
    core = state.get("core")
    if isinstance(core, dict) and "packed" in core:  # megabytes, so they are not written once more within a text
        state = {**state, "core": {**core, "packed": _sum(str(core["packed"]))}}

    return hashlib.sha256(_encoder.encode(state)).hexdigest()


def _sum(text: str) -> list[int]:
    """Return length and CRC-32: they show whatever an accident changes, in half the time of a cryptographic hash."""
    found = 0
    for start in range(0, len(text), _PIECE):  # a copy of the whole would be new memory
        found = crc32(text[start : start + _PIECE].encode(), found)

    return [len(text), found]


def _dump_run(run: RunContext) -> dict[str, Any]:
    names = ("run_id", "run_kind", "root_run_id", "parent_run_id", "agent_id", "agent_name", "session_id",
             "response_id", "execution_id")  # fmt: skip
    ids = {name: value for name in names if (value := getattr(run, name)) is not None}
    if ids["root_run_id"] == ids["run_id"]:
        del ids["root_run_id"]

    return {**ids, "meta": dict(run.meta)}


def _load_run(saved: dict[str, Any]) -> RunContext:
    return RunContext.create(**saved)
