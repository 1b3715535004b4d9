"""A run made again from its input log: header or snapshot, then every committed input in order.

The core is deterministic, so the same inputs give the same state. No handler runs, no clock is read and no definition
is imported: the plan is the skeleton the inputs were written under. A fresh execution of the same definition takes the
core over as it is (:mod:`flowdeck.execution.adoption`). In a changed one, or with sub flows under way, it goes the way
of every saved state, with its checks: :meth:`Replica.dump` has the shape of ``execution.save()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flowdeck.definition.plan import Plan
from flowdeck.definition.skeleton import load_plan
from flowdeck.errors import SnapshotError
from flowdeck.execution.core import Core
from flowdeck.execution.interventions_ledger import Ledger
from flowdeck.execution.log_format import HEADER_DEFAULTS, RUN_DEFAULTS
from flowdeck.execution.replica_inputs import HANDLERS
from flowdeck.execution.replica_run import Frame, Run
from flowdeck.execution.snapshot import load_core
from flowdeck.execution.values import decode

__all__ = ["Replica", "replay"]

Plans = Mapping[str, bytes]
"""Skeletons by digest."""


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
        self.header = header = {**HEADER_DEFAULTS, **header}
        header["run_context"] = {**RUN_DEFAULTS, "execution_id": header["execution_id"], **header["run_context"]}
        core = Core(self._plan(definition), header["execution_id"], header["concurrency"])
        core.skip_exceptions = header["skip_exceptions"]
        if header["interventions"] is not None:
            core.ledger = Ledger(*header["interventions"])

        self.root = Run(core, header["execution_id"], header["run_context"], header["created_at"], definition)
        self.root.started_us = header["started_at"]
        self.root.settings = tuple(header["settings"])
        self.root.flow_data = decode(header["flow_data"])
        self.runs: dict[int, Run] = {0: self.root}
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
    ) -> Run:
        core = Core(self._plan(definition), saved["execution_id"])
        load_core(core, saved["core"])
        core.data = decode(saved["runtime_data"])
        lineage = {"execution_id": saved["execution_id"], **saved["run_context"]}
        run = Run(core, saved["execution_id"], lineage, saved["created_at"], definition)
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
            frame = Frame(each["frame_id"], each["task"], child)
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
        handler = HANDLERS.get(code)
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

    def forget_child(self, frame: Frame) -> None:
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
