"""Views of what went wrong and what models cost: ``errors``, ``error_groups``, ``model_calls``, ``model_usage``."""

from __future__ import annotations

from typing import Final

from flowdeck.events.catalogue import CATALOGUE
from flowdeck_sinks.store._view import View

__all__ = ["ERRORS", "ERROR_GROUPS", "MODEL_CALLS", "MODEL_USAGE", "ORIGIN", "errors_of"]

_MESSAGE_BYTES: Final = 500
"""As much of a message as decides its group."""

# What differs between two occurrences of one fault: quoted values, ids, numbers, paths' last digits.
_SHAPE: Final = f"""regexp_replace(regexp_replace(regexp_replace(
    left(split_part(coalesce(said, ''), chr(10), 1), {_MESSAGE_BYTES}),
    '''[^'']*''|"[^"]*"', '…', 'g'),
    '(?i)\\b(0x)?[0-9a-f]{{8,}}\\b|[0-9a-f]{{8}}-[0-9a-f-]{{20,}}', '#', 'g'),
    '[0-9]+([.,][0-9]+)*', '#', 'g')"""

# The core marks a failure that only passes through: a chunk's with the attempt it came from, the execution's with the
# attempt that began it. An agent's turn names the request that failed in it.
ORIGIN: Final = """coalesce(payload ->> '$.propagated_from', payload ->> '$.origin_run_id',
    CASE WHEN event_type = 'agent_turn.failed' THEN payload ->> '$.request_run_id' END)"""


def errors_of(events: str = "events", *, few: bool = False) -> str:
    """Return the SELECT of errors over a relation of events, of which there may be ``few``."""
    chosen = f"SELECT * FROM {events} WHERE level IN ('ERROR', 'CRITICAL') OR error_type IS NOT NULL"
    if not few:
        # Not one condition with OR: each of these is answered by statistics alone for most of history.
        chosen = f"""SELECT * FROM {events} WHERE error_type IS NOT NULL
      UNION ALL SELECT * FROM {events} WHERE level IN ('ERROR', 'CRITICAL') AND error_type IS NULL"""
    return f"""SELECT
  ts, execution_id, flow_name, step_name, event_type, level, error_type, said AS message,
  left(md5(concat_ws('|', coalesce(error_type, event_type), module, shape)), 12) AS fingerprint,
  coalesce(origin <> run_id, false) AS propagated,
  coalesce(origin, run_id) AS origin_run_id,
  module, TRY_CAST(error ->> '$.retryable' AS BOOLEAN) AS retryable,
  TRY_CAST(payload ->> '$.will_retry' AS BOOLEAN) AS will_retry,
  attempt, scope, run_id, root_run_id, event_id, shape, error ->> '$.traceback' AS traceback, error,
  task_id, tenant_id, user_id
FROM (
  SELECT *, {_SHAPE} AS shape
  FROM (
    SELECT *, coalesce(error ->> '$.message', message) AS said, error ->> '$.module' AS module, {ORIGIN} AS origin
    FROM (
      {chosen}
    )
  )
)
WHERE json_type(meta, '$.compat_event_alias') IS NULL"""


ERRORS: Final = View(
    "errors",
    "One row per event that reports an error. Several report one fault: the one with `propagated = false` began it.",
    errors_of(),
    {
        "ts": "When, UTC.",
        "execution_id": "The execution.",
        "flow_name": "The flow's name.",
        "step_name": "The chunk or action; NULL when the execution itself reports it.",
        "event_type": "What happened.",
        "level": "ERROR or CRITICAL; WARNING for failures that were dealt with.",
        "error_type": "The exception's class name.",
        "message": "What it said.",
        "fingerprint": "The same for faults of one kind: class, module and message without its values.",
        "propagated": "It began in another run and only passed through this one.",
        "origin_run_id": "The attempt where it began.",
        "module": "The exception's module.",
        "retryable": "Whether the exception says that trying again may help.",
        "will_retry": "Whether another attempt followed.",
        "attempt": "Which attempt met it.",
        "scope": "Place in the execution.",
        "run_id": "The attempt that reports it.",
        "root_run_id": "The topmost run.",
        "event_id": "The event.",
        "shape": "The message without its values; what groups go by.",
        "traceback": "Where it was raised; only at the origin.",
        "error": "type, message, module, traceback, retryable, fatal, code, details.",
        "task_id": "Given by the application.",
        "tenant_id": "Given by the application.",
        "user_id": "Given by the application.",
    },
)

ERROR_GROUPS: Final = View(
    "error_groups",
    "One row per kind of fault over all runs.",
    """SELECT
  fingerprint,
  any_value(coalesce(error_type, event_type)) AS error_type,
  any_value(shape) AS shape,
  count(DISTINCT event_id) FILTER (NOT propagated) AS occurrences,
  count(DISTINCT event_id) FILTER (propagated) AS propagations,
  count(DISTINCT execution_id) AS executions,
  list_sort(list(DISTINCT flow_name) FILTER (flow_name IS NOT NULL)) AS flows,
  list_sort(list(DISTINCT step_name) FILTER (step_name IS NOT NULL AND NOT propagated)) AS steps,
  min(ts) AS first_at,
  max(ts) AS last_at,
  arg_max(message, ts) AS last_message,
  arg_max(execution_id, ts) AS last_execution_id,
  arg_max(event_id, ts) FILTER (NOT propagated) AS last_event_id
FROM errors
GROUP BY fingerprint""",
    {
        "fingerprint": "The kind of fault.",
        "error_type": "The exception's class name; the event's type where there is none.",
        "shape": "The message without its values.",
        "occurrences": "Faults: where they began, each once.",
        "propagations": "Events that only passed them on.",
        "executions": "Executions that met it.",
        "flows": "Flows that met it.",
        "steps": "Steps where it began.",
        "first_at": "First seen, UTC.",
        "last_at": "Last seen.",
        "last_message": "What it said last.",
        "last_execution_id": "The execution that met it last.",
        "last_event_id": "The event that reported it last where it began.",
    },
)

_MODEL_TYPES: Final = [name for name, spec in CATALOGUE.items() if spec.run_kind == "model_request"]
_MODEL_LIST: Final = "(" + ", ".join(f"'{name}'" for name in _MODEL_TYPES) + ")"

MODEL_CALLS: Final = View(
    "model_calls",
    "One row per request to a model.",
    f"""SELECT
  run_id, execution_id, root_run_id, flow_name, agent_name, model, status, started_at, ended_at,
  coalesce(duration_ms, epoch_us(ended_at - started_at) / 1000.0) AS duration_ms,
  epoch_us(first_token_at - started_at) / 1000.0 AS first_token_ms,
  input_tokens, output_tokens, error_type, session_id, task_id, tenant_id, user_id
FROM (
  SELECT
    run_id,
    any_value(execution_id) AS execution_id,
    any_value(root_run_id) AS root_run_id,
    any_value(flow_name) AS flow_name,
    any_value(agent_name) AS agent_name,
    any_value(model) AS model,
    CASE WHEN bool_or(event_type = 'model.completed') THEN 'completed'
      WHEN bool_or(event_type IN ('model.failed', 'model.request_failed')) THEN 'failed' ELSE 'running' END AS status,
    min(ts) AS started_at,
    max(ts) FILTER (event_type IN ('model.completed', 'model.failed', 'model.request_failed')) AS ended_at,
    max(duration_ms) AS duration_ms,
    min(ts) FILTER (event_type = 'model.streaming') AS first_token_at,
    max(input_tokens) AS input_tokens,
    max(output_tokens) AS output_tokens,
    any_value(error_type) AS error_type,
    any_value(session_id) AS session_id,
    any_value(task_id) AS task_id,
    any_value(tenant_id) AS tenant_id,
    any_value(user_id) AS user_id
  FROM events
  WHERE event_type IN {_MODEL_LIST} AND run_id IS NOT NULL
  GROUP BY run_id
)""",
    {
        "run_id": "The request's run.",
        "execution_id": "The execution it was made in; NULL outside flows.",
        "root_run_id": "The topmost run.",
        "flow_name": "The flow's name.",
        "agent_name": "The agent that asked.",
        "model": "The model's name, as the provider gave it.",
        "status": "running, completed or failed.",
        "started_at": "When it began, UTC.",
        "ended_at": "When it ended.",
        "duration_ms": "How long it took.",
        "first_token_ms": "Until the first delta, where DEBUG events are stored.",
        "input_tokens": "Tokens read; NULL where the provider did not say.",
        "output_tokens": "Tokens written; NULL where the provider did not say.",
        "error_type": "The exception, when it failed.",
        "session_id": "The session.",
        "task_id": "Given by the application.",
        "tenant_id": "Given by the application.",
        "user_id": "Given by the application.",
    },
)

MODEL_USAGE: Final = View(
    "model_usage",
    "Requests and tokens per day, model, flow and agent.",
    """SELECT
  started_at::DATE AS day, model, flow_name, agent_name,
  count(*) AS requests,
  count(*) FILTER (status = 'failed') AS failed,
  count(*) FILTER (input_tokens IS NULL AND output_tokens IS NULL) AS without_usage,
  sum(input_tokens)::BIGINT AS input_tokens,
  sum(output_tokens)::BIGINT AS output_tokens,
  quantile_cont(duration_ms, 0.5) AS p50_ms,
  quantile_cont(duration_ms, 0.95) AS p95_ms
FROM model_calls
GROUP BY ALL""",
    {
        "day": "UTC day.",
        "model": "The model's name; NULL where no event said.",
        "flow_name": "The flow's name.",
        "agent_name": "The agent that asked.",
        "requests": "Requests made.",
        "failed": "Requests that failed.",
        "without_usage": "Requests whose tokens are unknown. They are in no sum: nothing is guessed.",
        "input_tokens": "Tokens read, where known.",
        "output_tokens": "Tokens written, where known.",
        "p50_ms": "Median duration.",
        "p95_ms": "95th percentile.",
    },
)
