"""Where a replayed run first did something else than the recorded one.

Compared is what each *place* did, never the global order: concurrency may interleave places as it likes. A place's
history is what its steps gave, which errors they raised, what they asked people, and how the run ended. The first
difference in the order of the replayed run is named, with the recorded and the actual side and the line of the flow's
code. Source: the evals reference, §3.5.
"""

from __future__ import annotations

import inspect
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from flowdeck_evals.pinpoint import field_diff, shown_path
from flowdeck_evals.rounds import Finding
from flowdeck_evals.tapes import loss_in, places_of

__all__ = ["first_difference", "source_of", "steps_of"]

_ENDS: Final = {
    "triggerflow.execution_completed": "the run completed",
    "triggerflow.execution_failed": "the run failed",
    "triggerflow.execution_cancelled": "the run was cancelled",
}


class StepSeen(NamedTuple):
    """One thing a place did."""

    position: int
    place: str
    what: str
    name: str
    given: Any
    """Its output, error or question; ``None`` where that does not matter."""
    chunk_id: str

    def __str__(self) -> str:
        return f"{self.name} {self.what}" if self.name else self.what


def steps_of(lines: Iterable[Mapping[str, Any]]) -> list[StepSeen]:
    """Return what a run did, in order, from its events as a journal holds them."""
    rows = list(lines)
    places = places_of(rows)
    found = []
    for index, line in enumerate(rows):
        kind, run, meta = line["event_type"], line.get("run") or {}, line.get("meta") or {}
        payload = line.get("payload")
        payload = payload if isinstance(payload, dict) else {}
        above = places.get(run.get("execution_id") or "", "")
        scope = meta.get("scope") or ""
        place = f"{above}/{scope}" if above else scope
        name, chunk = str(payload.get("chunk_name") or ""), str(payload.get("chunk_id") or "")
        if kind == "chunk.completed" and not payload.get("returned_pause_signal"):
            found.append(StepSeen(index, place, "gave", name, payload.get("output"), chunk))
        elif kind == "chunk.failed":
            error = (line.get("error") or {}).get("type")
            found.append(StepSeen(index, place, "failed with", name, error, chunk))
        elif kind == "triggerflow.interrupt_raised":
            record = payload.get("interrupt") or {}
            if not record.get("sub_flow_frame_id"):
                asker = str(record.get("source_operator_name") or "")
                asked = {"type": record.get("type"), "payload": record.get("payload")}
                found.append(StepSeen(index, place, "asked", asker, asked, str(record.get("source_operator_id") or "")))
        elif kind in _ENDS and not above and not run.get("parent_run_id"):
            found.append(StepSeen(index, "", _ENDS[kind], "", None, ""))

    return found


def first_difference(
    recorded: Iterable[Mapping[str, Any]],
    actual: Iterable[Mapping[str, Any]],
    locate: Callable[[str, str], str] = lambda chunk_id, name: "",
) -> tuple[Finding, int] | None:
    """Return the first divergence and its position in the actual run, or ``None``.

    Args:
        locate: ``(chunk id, chunk name)`` -> ``file:line`` of its handler in the flow that was replayed.
    """
    wanted: defaultdict[str, deque[StepSeen]] = defaultdict(deque)
    for step in steps_of(recorded):
        wanted[step.place].append(step)

    seen = steps_of(actual)
    for step in seen:
        queue = wanted[step.place]
        before = queue.popleft() if queue else None
        if before is None or (before.what, before.name) != (step.what, step.name):
            why = f"{step} is new" if before is None else f"recorded: {before}; now: {step}"
            return _finding(why, step, before, locate), step.position

        if before.given != step.given and not loss_in(before.given) and not loss_in(step.given):
            changes = "; ".join(field_diff(before.given, step.given)[:5])
            return _finding(f"{step} something else: {changes}", step, before, locate), step.position

    left = sorted((step for queue in wanted.values() for step in queue), key=lambda step: step.position)
    if not left:
        return None

    return _finding(f"{left[0]} did not happen", None, left[0], locate), seen[-1].position + 1 if seen else 0


def _finding(
    why: str, actual: StepSeen | None, recorded: StepSeen | None, locate: Callable[[str, str], str]
) -> Finding:
    step = actual or recorded
    assert step is not None
    source = locate(step.chunk_id, step.name) if step.chunk_id or step.name else ""
    return Finding(
        "divergence",
        f"first divergence at {step.place or 'the end of the run'}: {why}",
        scope=step.place,
        recorded=None if recorded is None else {"step": str(recorded), "value": recorded.given},
        actual=None if actual is None else {"step": str(actual), "value": actual.given},
        source=source,
        detail={"cause": "step"},
    )


def source_of(execution: Any) -> Callable[[str, str], str]:
    """Return ``(chunk id, chunk name)`` -> ``file:line`` of the handler, over the flow and its sub flows."""
    by_id: dict[str, Any] = {}
    by_name: dict[str, Any] = {}

    def collect(plan: Any, depth: int) -> None:
        for op in plan.ops:
            handler = getattr(op, "handler", None)
            by_id.setdefault(op.id, handler)
            by_name.setdefault(op.name, handler)
            child = getattr(getattr(op, "sub_flow", None), "flow", None)
            if child is not None and depth < 16 and hasattr(child, "plan"):
                collect(child.plan(), depth + 1)

    try:
        collect(execution._plan, 0)
    except (AttributeError, TypeError):
        pass  # a callable, or a flow of another kind: divergences then name the scope only

    return lambda chunk_id, name: _line_of(by_id.get(chunk_id) or by_name.get(name))


def _line_of(handler: Any) -> str:
    try:
        code = inspect.unwrap(handler).__code__
    except (AttributeError, ValueError):
        return ""

    return f"{shown_path(code.co_filename)}:{code.co_firstlineno}"
