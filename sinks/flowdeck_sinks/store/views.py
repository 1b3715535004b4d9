"""The SQL views over a store's files, made from the event catalogue.

``events`` is the union of Parquet parts and live journal segments; the other views stand on it alone. Statuses come
from the catalogue's transitions, never from event names: within the newest epoch the first terminal transition wins,
else the latest transition.
"""

from __future__ import annotations

from typing import Final

from flowdeck.events.catalogue import CATALOGUE, TERMINAL
from flowdeck.layout import Layout
from flowdeck_sinks.store._duckdb import as_pattern, quoted
from flowdeck_sinks.store.schema import COLUMNS, empty_select, journal_lines, journal_select, parts_select

__all__ = ["VIEWS", "VIEWS_VERSION", "view_definitions"]

VIEWS_VERSION: Final = 1
"""Rises when a view changes its columns or meaning."""

VIEWS: Final = ("events", "runs", "spans", "interrupts", "errors", "damaged_lines")
"""The views users see; names beginning with ``_`` are internal."""

_EXECUTION: Final = "workflow_execution"
_OPEN: Final = "('created', 'running', 'waiting')"


def view_definitions(layout: Layout, *, with_parts: bool = True, in_memory: bool = False) -> list[str]:
    """Return the statements that create the views, in order.

    Args:
        layout: The store; its absolute path enters the views.
        with_parts: Whether ``parts/`` holds its empty first part (without one the glob would be an error).
        in_memory: Whether the reader keeps the tables ``_dead_writers`` and ``_resumable`` beside the views.
    """
    parts = parts_select(_pattern(layout, "parts/*.parquet")) if with_parts else empty_select()
    dead = "SELECT writer FROM _dead_writers" if in_memory else "SELECT NULL WHERE false"
    resumable = "SELECT execution_id FROM _resumable" if in_memory else "SELECT NULL::VARCHAR WHERE false"
    columns = ", ".join(column.name for column in COLUMNS)
    bodies = {
        "_parts": parts,
        "_journal": journal_select(_pattern(layout, "journal/*.jsonl")),
        "events": f"SELECT {columns} FROM _parts UNION ALL SELECT {columns} FROM _journal",
        "_live_writers": (
            f"SELECT parse_filename(file, true) AS writer FROM glob({_pattern(layout, 'writers/*.lock')}) "
            f"WHERE parse_filename(file, true) NOT IN ({dead})"
        ),
        "_kept": resumable,
        "_transitions": _transitions(),
        "runs": _RUNS,
        "spans": _SPANS,
        "_interrupt_events": _INTERRUPT_EVENTS,
        "interrupts": _INTERRUPTS,
        "errors": _ERRORS,
        "damaged_lines": (
            "SELECT split_part(parse_filename(filename), '-', 1) AS writer, parse_filename(filename) AS segment, "
            f"count(*) AS lines FROM {journal_lines(_pattern(layout, 'journal/*.jsonl'), flowdeck='VARCHAR')} "
            "WHERE event_id IS NULL AND flowdeck IS NULL GROUP BY ALL"
        ),
    }
    return [f"CREATE OR REPLACE VIEW {name} AS\n{body}" for name, body in bodies.items()]


def _pattern(layout: Layout, inside: str) -> str:
    """Return the quoted glob of files in the store."""
    return quoted(f"{as_pattern(layout.root)}/{inside}")


def _case(statuses: dict[str, str]) -> str:
    return "CASE event_type " + " ".join(f"WHEN '{name}' THEN '{to}'" for name, to in statuses.items()) + " END"


def _transitions() -> str:
    """Return every event with the status it leads its run to, and its rank among the run's transitions."""
    all_runs = {name: spec.transition for name, spec in CATALOGUE.items() if spec.transition is not None}
    executions = {name: to for name, to in all_runs.items() if CATALOGUE[name].run_kind == _EXECUTION}
    terminal = ", ".join(f"'{status}'" for status in sorted(TERMINAL))
    # place orders the events of one run within an epoch: seq where the core gave one, else time. rank puts a newer
    # epoch first, then the earliest terminal transition, then the latest other one.
    return f"""SELECT *,
  CASE WHEN run_status IN ({terminal}) THEN epoch_base + {2**61} + ({2**60 - 1} - place) ELSE epoch_base + place END
    AS rank
FROM (
  SELECT *,
    {_case(all_runs)} AS run_status,
    {_case(executions)} AS execution_status,
    greatest(coalesce(epoch, 0), 0)::HUGEINT * {2**62} AS epoch_base,
    greatest(0, least({2**60 - 1}, coalesce(nullif(seq, 0), epoch_us(ts), 0))) AS place
  FROM events
)"""


_LOST: Final = (
    f"status IN {_OPEN} AND last_writer NOT IN (FROM _live_writers) AND coalesce(execution_id, '') NOT IN (FROM _kept)"
)

_RUNS: Final = f"""SELECT
  execution_id, run_id, root_run_id, parent_run_id, flow_name,
  CASE WHEN {_LOST} THEN 'lost' ELSE status END AS status,
  started_at,
  CASE WHEN status NOT IN {_OPEN} THEN status_at END AS ended_at,
  CASE WHEN status NOT IN {_OPEN} THEN coalesce(end_ms, epoch_ms(status_at - started_at)::DOUBLE) END AS duration_ms,
  last_at, events, errors, waits, steps,
  CASE WHEN status = 'failed' THEN last_error_type END AS error_type,
  CASE WHEN status = 'failed' THEN last_error_message END AS error_message,
  session_id, task_id, tenant_id, user_id, trace_id, epoch, last_writer AS writer
FROM (
  SELECT
    execution_id,
    coalesce(arg_min(run_id, place) FILTER (run_kind = '{_EXECUTION}'),
             arg_min(parent_run_id, place) FILTER (run_kind = 'chunk_execution')) AS run_id,
    arg_min(root_run_id, place) AS root_run_id,
    arg_min(parent_run_id, place) FILTER (run_kind = '{_EXECUTION}') AS parent_run_id,
    arg_min(flow_name, place) AS flow_name,
    coalesce(arg_max(execution_status, rank) FILTER (execution_status IS NOT NULL), 'running') AS status,
    arg_max(ts, rank) FILTER (execution_status IS NOT NULL) AS status_at,
    arg_max(duration_ms, rank) FILTER (execution_status IS NOT NULL) AS end_ms,
    min(ts) AS started_at,
    max(ts) AS last_at,
    count(DISTINCT event_id) AS events,
    count(DISTINCT event_id) FILTER (level IN ('ERROR', 'CRITICAL')) AS errors,
    count(DISTINCT event_id) FILTER (event_type = 'triggerflow.interrupt_raised') AS waits,
    count(DISTINCT run_id) FILTER (run_kind = 'chunk_execution') AS steps,
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
    arg_max(writer, epoch_base + coalesce(epoch_us(ts), 0)) AS last_writer
  FROM _transitions
  WHERE execution_id IS NOT NULL
  GROUP BY execution_id
)"""

_SPANS: Final = f"""SELECT
  run_id, run_kind, execution_id, root_run_id, parent_run_id, flow_name, step_name, operator_id, scope, attempt,
  CASE WHEN {_LOST} THEN 'lost' ELSE status END AS status,
  started_at,
  CASE WHEN status NOT IN {_OPEN} THEN status_at END AS ended_at,
  CASE WHEN status NOT IN {_OPEN} THEN coalesce(end_ms, epoch_ms(status_at - started_at)::DOUBLE) END AS duration_ms,
  events, error_type, error_message, task_id, last_writer AS writer
FROM (
  SELECT
    run_id,
    any_value(run_kind) AS run_kind,
    any_value(execution_id) AS execution_id,
    any_value(root_run_id) AS root_run_id,
    any_value(nullif(parent_run_id, run_id)) AS parent_run_id,
    any_value(flow_name) AS flow_name,
    any_value(step_name) AS step_name,
    any_value(operator_id) AS operator_id,
    any_value(scope) FILTER (run_status IS NOT NULL) AS scope,
    max(attempt) AS attempt,
    coalesce(arg_max(run_status, rank) FILTER (run_status IS NOT NULL), 'running') AS status,
    arg_max(ts, rank) FILTER (run_status IS NOT NULL) AS status_at,
    arg_max(duration_ms, rank) FILTER (run_status IS NOT NULL) AS end_ms,
    min(ts) AS started_at,
    count(DISTINCT event_id) AS events,
    arg_min(error_type, place) FILTER (error_type IS NOT NULL) AS error_type,
    arg_min(error ->> '$.message', place) FILTER (error_type IS NOT NULL) AS error_message,
    any_value(task_id) AS task_id,
    arg_max(writer, epoch_base + coalesce(epoch_us(ts), 0)) AS last_writer
  FROM _transitions
  WHERE run_id IS NOT NULL
  GROUP BY run_id
)"""

# One row per interrupt and event about it. An event names one interrupt by id or record, or several in a list.
_INTERRUPT_EVENTS: Final = """SELECT ts, event_type, execution_id, payload, meta, run_id,
  coalesce(named ->> '$.id', named ->> '$') AS interrupt_id,
  CASE WHEN json_type(named) = 'OBJECT' THEN named END AS record
FROM (
  SELECT *, unnest(CASE
    WHEN json_type(payload, '$.interrupts') = 'ARRAY' THEN from_json(payload -> '$.interrupts', '["JSON"]')
    ELSE [coalesce(payload -> '$.interrupt', payload -> '$.interrupt_id')] END) AS named
  FROM events
  WHERE event_type IN ('triggerflow.interrupt_raised', 'triggerflow.interrupt_answered',
    'triggerflow.interrupt_expired', 'triggerflow.execution_resumed', 'triggerflow.pending_interrupts_cancelled')
)
WHERE named IS NOT NULL AND json_type(named) IN ('OBJECT', 'VARCHAR')"""

_INTERRUPTS: Final = """SELECT
  interrupt_id, execution_id, flow_name, type,
  CASE WHEN resumed_at IS NOT NULL THEN 'resumed' WHEN expired_at IS NOT NULL THEN 'expired'
    WHEN cancelled_at IS NOT NULL THEN 'cancelled' ELSE 'waiting' END AS status,
  raised_at,
  coalesce(resumed_at, expired_at, cancelled_at) AS closed_at,
  epoch_ms(coalesce(resumed_at, expired_at, cancelled_at) - raised_at)::DOUBLE AS wait_ms,
  payload, resume_to, response, actor, operator_id, record
FROM (
  SELECT
    interrupt_id,
    any_value(execution_id) AS execution_id,
    any_value(raised ->> '$.source_flow_name') AS flow_name,
    any_value(raised ->> '$.type') AS type,
    min(ts) FILTER (event_type = 'triggerflow.interrupt_raised') AS raised_at,
    min(ts) FILTER (event_type IN ('triggerflow.execution_resumed', 'triggerflow.interrupt_answered')) AS resumed_at,
    min(ts) FILTER (event_type = 'triggerflow.interrupt_expired') AS expired_at,
    min(ts) FILTER (event_type = 'triggerflow.pending_interrupts_cancelled') AS cancelled_at,
    any_value(raised -> '$.payload') AS payload,
    any_value(raised -> '$.resume_to') AS resume_to,
    any_value(coalesce(answer -> '$.value', record -> '$.response')) AS response,
    any_value(answer ->> '$.actor') AS actor,
    any_value(raised ->> '$.source_operator_id') AS operator_id,
    any_value(raised) AS record
  FROM (
    SELECT *,
      CASE WHEN event_type = 'triggerflow.interrupt_raised' THEN record END AS raised,
      CASE WHEN event_type IN ('triggerflow.execution_resumed', 'triggerflow.interrupt_answered')
        THEN payload END AS answer
    FROM _interrupt_events
  )
  WHERE interrupt_id IS NOT NULL
  GROUP BY interrupt_id
)"""

_ERRORS: Final = """SELECT
  ts, execution_id, flow_name, step_name, event_type, level, error_type,
  coalesce(error ->> '$.message', message) AS message,
  error ->> '$.module' AS module, TRY_CAST(error ->> '$.retryable' AS BOOLEAN) AS retryable,
  TRY_CAST(payload ->> '$.will_retry' AS BOOLEAN) AS will_retry,
  attempt, scope, run_id, root_run_id, event_id, error, task_id
FROM events
WHERE level IN ('ERROR', 'CRITICAL') OR error_type IS NOT NULL"""
