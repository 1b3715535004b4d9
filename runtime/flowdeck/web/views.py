"""What a client is shown of a run."""

from __future__ import annotations

from typing import Any

from flowdeck.durable import ExecutionRow
from flowdeck.triggerflow import TriggerFlowExecution
from flowdeck.web.control import interrupts_of
from flowdeck.web.feed import run_problem

__all__ = ["RUN_SCHEMA", "shown_row", "shown_run"]

RUN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Run",
    "required": ["execution_id", "flow", "status"],
    "properties": {
        "execution_id": {"type": "string"},
        "flow": {"type": "string"},
        "status": {"enum": ["created", "running", "waiting", "completed", "failed", "cancelled"]},
        "task_id": {"type": ["string", "null"]},
        "started_at": {"type": ["number", "null"], "description": "seconds since the Unix epoch"},
        "ended_at": {"type": ["number", "null"]},
        "interrupts": {"type": "array", "items": {"type": "object"}, "description": "what it asks"},
        "result": {"description": "the close snapshot, or what the flow set as its result; once it has ended"},
        "error": {"type": "object", "description": "why it failed"},
    },
}


def shown_run(execution: TriggerFlowExecution, flow_name: str, expose: bool) -> dict[str, Any]:
    """Return a run that is in memory; its result once it has ended."""
    meta = execution.result.get_meta()
    shown = {
        "execution_id": execution.id,
        "flow": flow_name,
        "status": meta["status"],
        "task_id": execution.run_context.meta.get("task_id"),
        "started_at": meta["started_at"],
        "ended_at": meta["closed_at"],
        "interrupts": interrupts_of(execution),
    }
    problem = run_problem(execution, expose)
    if problem is not None:
        shown["error"] = problem
    elif execution.is_closed():
        state = execution.result.get_state()
        shown["result"] = state.get("$final_result", state) if isinstance(state, dict) else state

    return shown


def shown_row(row: ExecutionRow, interrupts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a run that is not in memory, and has not ended: it is parked, or with another server."""
    return {
        "execution_id": row.id,
        "flow": row.flow_name,
        "status": row.status,
        "task_id": row.task_id,
        "started_at": row.started_us / 1e6,
        "ended_at": None if row.finished_us is None else row.finished_us / 1e6,
        "interrupts": interrupts,
    }
