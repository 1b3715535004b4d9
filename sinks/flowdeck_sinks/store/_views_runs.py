"""Views of what ran: ``runs`` (executions), ``spans`` (attempts of anything), ``steps_p95``.

Statuses come from the catalogue's transitions, never from event names. Within the newest epoch the first terminal
transition wins, else the latest transition; order is by ``seq``, so neither the place in a file nor a clock decides.
"""

from __future__ import annotations

from typing import Final

from flowdeck.events.catalogue import CATALOGUE, TERMINAL
from flowdeck_sinks.store._view import View, status_case

__all__ = [
    "ENDING",
    "EXECUTION",
    "EXECUTIONS",
    "LIFECYCLE",
    "OPEN",
    "RUNS",
    "RUN_COLUMNS",
    "RUN_NEEDS",
    "SPANS",
    "SPAN_COLUMNS",
    "SPAN_NEEDS",
    "STEPS",
    "STEP_COLUMNS",
    "open_of",
    "runs_of",
    "spans_of",
    "steps_of",
    "transitions",
]

EXECUTION: Final = "workflow_execution"
OPEN: Final = "('created', 'running', 'waiting')"

_ALL: Final = {name: spec.transition for name, spec in CATALOGUE.items() if spec.transition is not None}
EXECUTIONS: Final = {name: to for name, to in _ALL.items() if CATALOGUE[name].run_kind == EXECUTION}
LIFECYCLE: Final = "(" + ", ".join(f"'{name}'" for name in EXECUTIONS) + ")"
"""The events that move an execution's status, as an SQL list."""
ENDING: Final = "(" + ", ".join(f"'{name}'" for name, to in EXECUTIONS.items() if to in TERMINAL) + ")"
"""Those that end it."""
_TERMINAL: Final = "(" + ", ".join(f"'{status}'" for status in sorted(TERMINAL)) + ")"


_TWINS: Final = ", ".join(f"'{name}'" for name in CATALOGUE if name.startswith("tool."))
_COUNTED: Final = f"coalesce(event_type, '') NOT IN ({_TWINS})"
"""Whether an event counts: the twin of another (seed 004) would count that one twice."""

RUN_NEEDS: Final = (
    "event_id", "ts", "event_type", "level", "run_id", "parent_run_id", "root_run_id", "run_kind", "session_id",
    "execution_id", "flow_name", "epoch", "seq", "duration_ms", "task_id", "tenant_id", "user_id", "trace_id",
    "error_type", "error", "writer",
)  # fmt: skip
"""The columns of ``events`` that :func:`runs_of` reads."""

SPAN_NEEDS: Final = (
    *(name for name in RUN_NEEDS if name not in ("level", "session_id", "trace_id")),
    "step_name", "operator_id", "scope", "attempt", "agent_name", "model", "input_tokens", "output_tokens",
)  # fmt: skip


def transitions(events: str, columns: tuple[str, ...]) -> str:
    """Return columns of every event, the status it leads its run to, and its rank among the run's transitions.

    ``place`` orders the events of one run within an epoch: seq where the core gave one, else time. ``moment`` puts a
    newer epoch last; ``rank`` does, too, and puts the earliest terminal transition after the others of its epoch. Both
    are NULL for events that are no transition, which are most: 128-bit numbers are dear.
    """
    # By name, not *: binding 40 columns through three layers takes longer than the query.
    named = ", ".join(columns)
    return f"""SELECT {named}, run_status, execution_status, place, moment,
  CASE WHEN run_status IN {_TERMINAL} THEN moment - place + {2**61} + ({2**60 - 1} - place) ELSE moment END AS rank
FROM (
  SELECT {named}, run_status, execution_status, place,
    CASE WHEN run_status IS NOT NULL THEN greatest(coalesce(epoch, 0), 0)::HUGEINT * {2**62} + place END AS moment
  FROM (
    SELECT {named},
      {status_case(_ALL)} AS run_status,
      {status_case(EXECUTIONS)} AS execution_status,
      greatest(0, least({2**60 - 1}, coalesce(nullif(seq, 0), epoch_us(ts), 0))) AS place
    FROM {events}
  )
)"""


def open_of(lifecycle: str) -> str:
    """Return the SELECT of executions that have not ended, over a relation of lifecycle events."""
    return f"""SELECT execution_id FROM {lifecycle} GROUP BY execution_id
HAVING coalesce(max(coalesce(epoch, 0)) FILTER (event_type IN {ENDING}), -1) < max(coalesce(epoch, 0))"""


_GONE: Final = f"status IN {OPEN} AND last_writer NOT IN (SELECT writer FROM _live_writers)"


def _kept(execution_id: str = "execution_id") -> str:
    return f"coalesce({execution_id}, '') IN (SELECT execution_id FROM _resumable)"


# What was waited for: from each transition to 'waiting' until the one that followed it. Sorted here and not in the
# aggregate, and counted by lists instead of DISTINCT: so whatever a query does not ask for costs it nothing.
_MOVES: Final = """list({'moment': moment, 'ts': ts, 'status': execution_status})
      FILTER (execution_status IS NOT NULL AND ts IS NOT NULL)"""
_WAITED: Final = """list_transform([list_sort(list_distinct(moves))], lambda sorted: list_sum(
    list_transform(range(1, len(sorted)), lambda i: CASE WHEN sorted[i].status = 'waiting'
      THEN epoch_us(sorted[i + 1].ts) - epoch_us(sorted[i].ts) END)))[1] / 1000.0"""


def _distinct(what: str, condition: str = "") -> str:
    """Return an aggregate that counts the different values of ``what``."""
    return f"coalesce(list_unique(list(hash({what})){f' FILTER ({condition})' if condition else ''}), 0)::BIGINT"


def runs_of(events: str = "events") -> str:
    """Return the SELECT of runs over a relation of events."""
    return f"""SELECT
  execution_id, run_id, root_run_id, parent_run_id, flow_name,
  CASE WHEN {_GONE} AND NOT {_kept()} THEN 'lost' ELSE status END AS status,
  started_at,
  CASE WHEN status NOT IN {OPEN} THEN status_at END AS ended_at,
  CASE WHEN status NOT IN {OPEN} THEN coalesce(end_ms, epoch_ms(status_at - started_at)::DOUBLE) END AS duration_ms,
  {_WAITED} AS wait_ms,
  CASE WHEN status = 'waiting' THEN status_at END AS waiting_since,
  last_at, events, errors, waits, steps,
  CASE WHEN status = 'failed' THEN last_error_type END AS error_type,
  CASE WHEN status = 'failed' THEN last_error_message END AS error_message,
  session_id, task_id, tenant_id, user_id, trace_id, epoch, last_writer AS writer,
  status IN {OPEN} AND {_kept()} AS resumable
FROM (
  SELECT
    execution_id,
    coalesce(any_value(run_id) FILTER (run_kind = '{EXECUTION}'),
             any_value(parent_run_id) FILTER (run_kind = 'chunk_execution')) AS run_id,
    any_value(root_run_id) AS root_run_id,
    any_value(nullif(parent_run_id, run_id)) FILTER (run_kind = '{EXECUTION}') AS parent_run_id,
    any_value(flow_name) AS flow_name,
    coalesce(arg_max(execution_status, rank), 'running') AS status,
    arg_max(ts, rank) FILTER (execution_status IS NOT NULL) AS status_at,
    arg_max_null(duration_ms, rank) FILTER (execution_status IS NOT NULL) AS end_ms,
    {_MOVES} AS moves,
    min(ts) AS started_at,
    max(ts) AS last_at,
    {_distinct("event_id", _COUNTED)} AS events,
    {_distinct("event_id", f"level IN ('ERROR', 'CRITICAL') AND {_COUNTED}")} AS errors,
    {_distinct("event_id", "event_type = 'triggerflow.interrupt_raised'")} AS waits,
    {_distinct("run_id", "run_kind = 'chunk_execution'")} AS steps,
    -- The failure that ended it: the terminal event's own error, else the last one (earlier ones were retried).
    coalesce(arg_max(error_type, rank) FILTER (execution_status = 'failed' AND error_type IS NOT NULL),
             arg_max(error_type, place) FILTER (error_type IS NOT NULL)) AS last_error_type,
    coalesce(arg_max(error ->> '$.message', rank) FILTER (execution_status = 'failed' AND error_type IS NOT NULL),
             arg_max(error ->> '$.message', place) FILTER (error_type IS NOT NULL)) AS last_error_message,
    any_value(session_id) AS session_id,
    any_value(task_id) AS task_id,
    any_value(tenant_id) AS tenant_id,
    any_value(user_id) AS user_id,
    any_value(trace_id) AS trace_id,
    max(epoch) AS epoch,
    coalesce(arg_max(writer, moment), max(writer)) AS last_writer
  FROM ({transitions(events, RUN_NEEDS)})
  WHERE execution_id IS NOT NULL
  GROUP BY execution_id
)"""


RUN_COLUMNS: Final = {
    "execution_id": "The execution.",
    "run_id": "Its run: the parent of its steps' runs.",
    "root_run_id": "The topmost run of the tree it belongs to; its own unless it is a sub flow.",
    "parent_run_id": "The run that started it, for a sub flow.",
    "flow_name": "The flow's name.",
    "status": "created, running, waiting, completed, failed, cancelled, blocked_version or lost: open, but its writer "
    "is gone and nothing holds it for another.",
    "started_at": "Time of its first event, UTC.",
    "ended_at": "When it ended; NULL while it is open.",
    "duration_ms": "From start to end by the writer's monotonic clock; by event times where that is missing.",
    "wait_ms": "How long it waited for answers, waits that are over only.",
    "waiting_since": "Since when it waits; NULL unless it does.",
    "last_at": "Time of its latest event.",
    "events": "Events, each once however often it was written.",
    "errors": "Events of level ERROR or CRITICAL.",
    "waits": "Interrupts raised.",
    "steps": "Attempts of chunks.",
    "error_type": "Of a failed run: the exception that ended it.",
    "error_message": "Of a failed run: what it said.",
    "session_id": "The session active when it began.",
    "task_id": "Given by the application.",
    "tenant_id": "Given by the application.",
    "user_id": "Given by the application.",
    "trace_id": "The incoming trace id, when there was one.",
    "epoch": "Rises each time it was loaded or claimed.",
    "writer": "Who wrote its latest event.",
    "resumable": "It is open and held in state.db for whoever resumes it. Known to flowdeck and to Python readers that "
    "were told; false for a plain client.",
}

RUNS: Final = View("runs", "One row per execution, finished or not.", runs_of(), RUN_COLUMNS)


def spans_of(events: str = "events", waits: str = "_interrupt_waits") -> str:
    """Return the SELECT of spans over a relation of events and one of the waits of their runs."""
    return f"""SELECT
  s.run_id, run_kind, s.execution_id, root_run_id, parent_run_id, flow_name, step_name, operator_id, scope, attempt,
  CASE WHEN {_GONE} AND NOT {_kept("s.execution_id")} THEN 'lost' ELSE status END AS status,
  started_at,
  CASE WHEN status NOT IN {OPEN} THEN status_at END AS ended_at,
  CASE WHEN status NOT IN {OPEN} THEN coalesce(end_ms, epoch_ms(status_at - started_at)::DOUBLE) END AS duration_ms,
  CASE WHEN run_kind = '{EXECUTION}' THEN {_WAITED} ELSE w.wait_ms END AS wait_ms,
  events, error_type, error_message, agent_name, model, input_tokens, output_tokens, task_id, tenant_id, user_id,
  last_writer AS writer
FROM (
  SELECT
    run_id, execution_id,
    any_value(run_kind) AS run_kind,
    any_value(root_run_id) AS root_run_id,
    any_value(nullif(parent_run_id, run_id)) AS parent_run_id,
    any_value(flow_name) AS flow_name,
    any_value(step_name) AS step_name,
    any_value(operator_id) AS operator_id,
    any_value(scope) FILTER (run_status IS NOT NULL AND run_kind <> '{EXECUTION}') AS scope,
    max(attempt) AS attempt,
    coalesce(arg_max(run_status, rank), 'running') AS status,
    arg_max(ts, rank) AS status_at,
    arg_max_null(duration_ms, rank) FILTER (run_status IS NOT NULL) AS end_ms,
    {_MOVES} AS moves,
    count(run_status) AS transitions,
    min(ts) AS started_at,
    {_distinct("event_id", _COUNTED)} AS events,
    arg_min(error_type, place) FILTER (error_type IS NOT NULL) AS error_type,
    arg_min(error ->> '$.message', place) FILTER (error_type IS NOT NULL) AS error_message,
    any_value(agent_name) AS agent_name,
    any_value(model) AS model,
    max(input_tokens) AS input_tokens,
    max(output_tokens) AS output_tokens,
    any_value(task_id) AS task_id,
    any_value(tenant_id) AS tenant_id,
    any_value(user_id) AS user_id,
    coalesce(arg_max(writer, moment), max(writer)) AS last_writer
  FROM ({transitions(events, SPAN_NEEDS)})
  WHERE run_id IS NOT NULL
  GROUP BY run_id, execution_id
) AS s LEFT JOIN {waits} AS w ON w.run_id = s.run_id AND w.execution_id = s.execution_id
WHERE transitions > 0 OR s.execution_id IS NOT NULL"""


SPAN_COLUMNS: Final = {
    "run_id": "The run: one attempt of something.",
    "run_kind": "workflow_execution, chunk_execution, request, model_request, action, agent_turn ...",
    "execution_id": "The execution it belongs to.",
    "root_run_id": "The topmost run.",
    "parent_run_id": "The run above; NULL at the top, and for a run that names itself.",
    "flow_name": "The flow's name.",
    "step_name": "The chunk's or action's name; NULL for executions.",
    "operator_id": "The operator in the flow's definition.",
    "scope": "Place in the execution, the same for every attempt, such as `for_each[3]/classify`.",
    "attempt": "1 for the first attempt.",
    "status": "running, completed, failed, waiting, cancelled or lost.",
    "started_at": "Time of its first event, UTC.",
    "ended_at": "When it ended; NULL while it is open.",
    "duration_ms": "How long it took, by the writer's monotonic clock.",
    "wait_ms": "Of a step: how long the interrupts it raised were open. Of an execution: how long nothing else could "
    "go on. Waits that are over only.",
    "events": "Events, each once.",
    "error_type": "The first exception it met.",
    "error_message": "What that said.",
    "agent_name": "The agent at work.",
    "model": "The model asked, for model requests.",
    "input_tokens": "Tokens read, where the model said so.",
    "output_tokens": "Tokens written, where the model said so.",
    "task_id": "Given by the application.",
    "tenant_id": "Given by the application.",
    "user_id": "Given by the application.",
    "writer": "Who wrote its latest event.",
}

SPANS: Final = View(
    "spans",
    "One row per run: an attempt of a step, a model request, an action, or a whole execution.",
    spans_of(),
    SPAN_COLUMNS,
)


def steps_of(events: str = "events") -> str:
    """Return the SELECT of step times over a relation of events."""
    return f"""SELECT flow_name, step_name, attempts, failed,
  quantiles[1] AS p50_ms, quantiles[2] AS p95_ms, quantiles[3] AS p99_ms, max_ms, total_ms, last_at
FROM (
  SELECT flow_name, step_name,
    count(*) AS attempts,
    count(*) FILTER (event_type IN {_FAILING}) AS failed,
    quantile_cont(duration_ms, [0.5, 0.95, 0.99]) AS quantiles,
    max(duration_ms) AS max_ms,
    sum(duration_ms) AS total_ms,
    max(ts) AS last_at
  FROM {events}
  WHERE duration_ms IS NOT NULL AND step_name IS NOT NULL AND run_kind <> '{EXECUTION}'
  GROUP BY flow_name, step_name
)"""


_FAILING: Final = "(" + ", ".join(f"'{name}'" for name, to in _ALL.items() if to == "failed") + ")"

STEP_COLUMNS: Final = {
    "flow_name": "The flow's name.",
    "step_name": "The chunk's or action's name.",
    "attempts": "Attempts that ended.",
    "failed": "Those that failed.",
    "p50_ms": "Median of their durations, exact.",
    "p95_ms": "95th percentile.",
    "p99_ms": "99th percentile.",
    "max_ms": "The longest.",
    "total_ms": "The sum: where the time goes.",
    "last_at": "When the latest ended.",
}

STEPS: Final = View("steps_p95", "How long each step of each flow takes, over all history.", steps_of(), STEP_COLUMNS)
