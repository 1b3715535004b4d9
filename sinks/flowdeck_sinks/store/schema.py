"""The columns of ``events``: one table of name, type and how a journal line yields the value.

Views, Parquet parts, exports and documentation are made from :data:`COLUMNS`. A hostile line cannot fail a query:
numbers are read with bounds, and whatever does not fit is NULL.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["COLUMNS", "EVENTS_VERSION", "Column", "empty_select", "journal_select"]

EVENTS_VERSION: Final = 2
"""Rises when a column is added or changes its meaning."""


class Column(NamedTuple):
    """One column of ``events``."""

    name: str
    type: str
    expression: str
    """SQL over a journal line: ``line`` its fields, ``m`` the known keys of ``meta``, ``r`` those of ``run.meta``, and
    ``u`` those of a ``model.*`` event's payload."""
    summary: str
    """One sentence for the documentation."""


# Milliseconds of the years 1 to 9999: what a timestamp, and every client that shows one, can hold.
_TIME: Final = (
    "CASE WHEN line.timestamp BETWEEN -62135596800000 AND 253402300799998 "
    "THEN make_timestamp(line.timestamp * 1000 + CASE WHEN m.us BETWEEN 0 AND 999 THEN m.us ELSE 0 END) END"
)

# A sub flow's execution inherits the meta of the step that started it.
_OF_STEP: Final = "line.run.run_kind IS DISTINCT FROM 'workflow_execution'"

COLUMNS: Final[tuple[Column, ...]] = (
    # First on purpose: count(*) over a union reads the first column, and this one is read anyway (filter).
    Column("event_id", "VARCHAR", "line.event_id", "Unique id, ordered within its process."),
    Column("ts", "TIMESTAMP", _TIME, "When it happened, UTC, in microseconds; NULL outside the years 1 to 9999."),
    Column("event_type", "VARCHAR", "line.event_type", "What happened, as in the event catalogue."),
    Column("source", "VARCHAR", "line.source", "Which component emitted it."),
    Column("level", "VARCHAR", "line.level", "DEBUG, INFO, WARNING, ERROR or CRITICAL."),
    Column("message", "VARCHAR", "line.message", "Text for people; lineage is never in it."),
    Column("run_id", "VARCHAR", "line.run.run_id", "The run (one attempt of something) it belongs to."),
    Column("parent_run_id", "VARCHAR", "line.run.parent_run_id", "The run above."),
    Column("root_run_id", "VARCHAR", "line.run.root_run_id", "The topmost run."),
    Column("run_kind", "VARCHAR", "line.run.run_kind", "workflow_execution, chunk_execution, request, action ..."),
    Column("agent_name", "VARCHAR", "line.run.agent_name", "The agent at work."),
    Column("session_id", "VARCHAR", "line.run.session_id", "The session active when the run began."),
    Column("execution_id", "VARCHAR", "line.run.execution_id", "The flow execution the run belongs to."),
    Column("flow_name", "VARCHAR", "r.flow_name", "The flow's name."),
    Column(
        "step_name",
        "VARCHAR",
        f"CASE WHEN {_OF_STEP} THEN coalesce(r.chunk_name, r.action_name) END",
        "The chunk's or action's name; NULL for executions.",
    ),
    Column(
        "operator_id",
        "VARCHAR",
        f"CASE WHEN {_OF_STEP} THEN r.chunk_id END",
        "The operator in the flow's definition; NULL for executions.",
    ),
    Column("scope", "VARCHAR", "m.scope", "Place in the execution, the same for every attempt."),
    Column("cause", "BIGINT", "m.cause", "seq of the transition that caused this one."),
    Column("epoch", "BIGINT", "m.epoch", "Rises at every load or claim of the execution."),
    Column("seq", "BIGINT", "m.seq", "Order of transitions within the epoch."),
    Column("sub", "BIGINT", "m.sub", "Order of DEBUG events after their transition."),
    Column("attempt", "BIGINT", "m.attempt", "1 for the first attempt."),
    Column("duration_ms", "DOUBLE", "m.duration_us / 1000.0", "How long the run took, on its end event."),
    Column("task_id", "VARCHAR", "r.task_id", "Given by the application; inherited by every child run."),
    Column("tenant_id", "VARCHAR", "r.tenant_id", "Given by the application; inherited by every child run."),
    Column("user_id", "VARCHAR", "r.user_id", "Given by the application; inherited by every child run."),
    Column("trace_id", "VARCHAR", "r.trace_id", "An incoming trace id, when there was one."),
    Column(
        "model",
        "VARCHAR",
        "coalesce(u.meta.model, u.meta.model_name, u.model, u.request.data.model, u.request.model)",
        "On model.* events: which model.",
    ),
    Column(
        "input_tokens",
        "BIGINT",
        "coalesce(u.meta.usage.input_tokens, u.meta.usage.prompt_tokens, u.usage.input_tokens, u.usage.prompt_tokens)",
        "On model.* events that report usage: tokens read. NULL is unknown, never a guess.",
    ),
    Column(
        "output_tokens",
        "BIGINT",
        "coalesce(u.meta.usage.output_tokens, u.meta.usage.completion_tokens, u.usage.output_tokens, "
        "u.usage.completion_tokens)",
        "On model.* events that report usage: tokens written.",
    ),
    Column("error_type", "VARCHAR", "line.error ->> '$.type'", "The exception's class name."),
    Column("error", "JSON", "line.error", "type, message, module, traceback, retryable, fatal, code, details."),
    Column("payload", "JSON", "line.payload", 'The event\'s own data; {"$blob"} when it lies in blobs/.'),
    Column("meta", "JSON", "line.meta", "The envelope's meta, with the emitter's own keys."),
    Column("run", "JSON", "to_json(line.run)", "The run with all its ids and meta."),
    Column("wseq", "BIGINT", "line.wseq", "Line number of the writer; a gap is a lost event."),
    Column("writer", "VARCHAR", "split_part(parse_filename(line.filename), '-', 1)", "Who wrote the line."),
    Column("schema_v", "BIGINT", "m.v", "Version of the envelope."),
)

_LINE_FIELDS: Final = {
    "wseq": "BIGINT",
    "event_id": "VARCHAR",
    "event_type": "VARCHAR",
    "source": "VARCHAR",
    "level": "VARCHAR",
    "message": "VARCHAR",
    "payload": "JSON",
    "error": "JSON",
    "run": "STRUCT(run_id VARCHAR, run_kind VARCHAR, root_run_id VARCHAR, parent_run_id VARCHAR, agent_id VARCHAR, "
    "agent_name VARCHAR, session_id VARCHAR, response_id VARCHAR, execution_id VARCHAR, meta JSON)",
    "meta": "JSON",
    "timestamp": "BIGINT",
}
_META: Final = (
    '{"v":"BIGINT","us":"BIGINT","epoch":"BIGINT","seq":"BIGINT","sub":"BIGINT","scope":"VARCHAR",'
    '"cause":"BIGINT","attempt":"BIGINT","duration_us":"BIGINT"}'
)
_RUN_META: Final = (
    '{"flow_name":"VARCHAR","chunk_name":"VARCHAR","chunk_id":"VARCHAR","action_name":"VARCHAR",'
    '"task_id":"VARCHAR","tenant_id":"VARCHAR","user_id":"VARCHAR","trace_id":"VARCHAR"}'
)
_TOKENS: Final = (
    '{"input_tokens":"BIGINT","prompt_tokens":"BIGINT","output_tokens":"BIGINT","completion_tokens":"BIGINT"}'
)
_MODEL: Final = (
    f'{{"model":"VARCHAR","usage":{_TOKENS},"meta":{{"model":"VARCHAR","model_name":"VARCHAR","usage":{_TOKENS}}},'
    '"request":{"model":"VARCHAR","data":{"model":"VARCHAR"}}}'
)
"""Where model requesters put the model's name and its usage; both the OpenAI and the newer token names."""


def journal_select(pattern: str) -> str:
    """Return the SELECT that reads events from the journal files matching ``pattern`` (a quoted glob)."""
    return line_select(journal_lines(pattern))


def line_select(lines: str) -> str:
    """Return the SELECT that makes events of raw journal lines, a relation like :func:`journal_lines`."""
    columns = ",\n  ".join(f"{column.expression} AS {column.name}" for column in COLUMNS)
    # One parse of each object yields all its keys; unused ones are pruned by the optimizer. The header line, torn
    # lines and garbage have no event_id.
    return f"""SELECT
  {columns}
FROM (
  SELECT *, json_transform(line.meta, '{_META}') AS m, json_transform(line.run.meta, '{_RUN_META}') AS r,
    CASE WHEN starts_with(line.event_type, 'model.') THEN json_transform(line.payload, '{_MODEL}') END AS u
  FROM {lines} AS line
  WHERE line.event_id IS NOT NULL
) AS line"""


def journal_lines(pattern: str, **extra: str) -> str:
    """Return the table function over raw journal lines, one row each, NULL where a line is damaged."""
    fields = ", ".join(f"{name}: '{kind}'" for name, kind in {**_LINE_FIELDS, **extra}.items())
    return f"read_ndjson({pattern}, columns = {{{fields}}}, ignore_errors = true, filename = true)"


def empty_select(*, plain: bool = False) -> str:
    """Return a SELECT with every column and no row; ``plain`` gives JSON columns as text, as parts store them."""
    return (
        "SELECT "
        + ", ".join(
            f"NULL::{'VARCHAR' if plain and column.type == 'JSON' else column.type} AS {column.name}"
            for column in COLUMNS
        )
        + " WHERE false"
    )
