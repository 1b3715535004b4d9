"""Level ``history``: what a stored run left, as the evidence of a round. Nothing runs and no flow is imported.

:func:`evidence_of` reads a tape, :func:`stored_evidence` runs of a store, :func:`matching` answers which of many
runs satisfy a trajectory without making rounds of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowdeck_evals.happenings import Happening, paused_us
from flowdeck_evals.rounds import Evidence
from flowdeck_evals.steps import Track
from flowdeck_evals.tapes import Tape
from flowdeck_evals.trajectory import compile_path

__all__ = ["evidence_of", "matching", "stored_evidence"]


def evidence_of(tape: Tape) -> Evidence:
    """Return what happened in the recorded run; its work and wall times are those of then."""
    events, root = tape.events, tape.root
    of_root = [(line, event) for line, event in zip(tape.lines, events, strict=True) if _is_root(line, root)]
    error: Mapping[str, Any] = {}
    output: Any = tape.header.get("output")
    for line, event in of_root:
        if event.type == "triggerflow.execution_completed" and event.payload.get("result") is not None:
            output = event.payload["result"]
        elif event.type == "triggerflow.execution_failed":
            error = line.get("error") or {}

    times = [event.time_us for event in events]
    wall_us = max(times) - min(times) if times else 0
    return Evidence(
        output=output,
        snapshot=output if isinstance(output, Mapping) else None,
        error_type=str(error.get("type") or ""),
        error_message=str(error.get("message") or ""),
        events=events,
        run_id=root.get("run_id"),
        execution_id=root.get("execution_id"),
        wall_us=wall_us,
        work_us=max(0, wall_us - paused_us([event for _, event in of_root])),
    )


def _is_root(line: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    return (line.get("run") or {}).get("run_id") == root.get("run_id")


def stored_evidence(store: str | Path | None, where: str, limit: int = 100_000) -> Iterator[tuple[str, Evidence]]:
    """Yield ``(run id, evidence)`` of the stored runs that a SQL condition over the view ``runs`` chooses.

    Raises:
        NoSuchRun: it chooses none.
        StoreError: the store cannot be read, or the condition is no SQL.
    """
    from flowdeck_evals.recording import record_stored, stored_runs

    for run_id in stored_runs(store, where, limit):
        yield run_id, evidence_of(record_stored(store, run_id))


def matching(path: Iterable[Mapping[str, Any]], runs: Iterable[Sequence[Happening] | Track]) -> Iterator[str | None]:
    """Yield for every run what is wrong with it under the trajectory ``path``, or ``None``; it is compiled once."""
    clauses = [clause for _, clause in compile_path(path)]
    for events in runs:
        track = events if isinstance(events, Track) else Track(events)
        yield next(filter(None, (clause(track) for clause in clauses)), None)
