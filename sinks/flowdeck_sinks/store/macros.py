"""The table macros over a store: questions with an argument. ``FROM recent_runs(24)``.

They stand on ``events`` and the views alone, and prune by time or id, so that they answer in milliseconds where the
same filter on a view would read all history.
"""

from __future__ import annotations

from typing import Final

from flowdeck_sinks.store._view import Macro
from flowdeck_sinks.store._views_errors import ORIGIN, errors_of
from flowdeck_sinks.store._views_people import waits_of
from flowdeck_sinks.store._views_runs import (
    EXECUTION,
    LIFECYCLE,
    RUN_COLUMNS,
    RUN_NEEDS,
    SPAN_COLUMNS,
    SPAN_NEEDS,
    open_of,
    runs_of,
    spans_of,
    steps_of,
)

__all__ = ["MACROS", "SCALARS", "macro_definitions"]

SCALARS: Final = {
    # Not now(): its zone would be the client's. Events are in UTC.
    "utc_now()": "make_timestamp(epoch_us(now()))",
    "hours_ago(hours)": "make_timestamp(epoch_us(now()) - CAST(hours * 3600000000 AS BIGINT))",
}
"""Scalar macros by signature."""

DEPTH: Final = 64
"""Deepest run tree that is followed; scopes are bounded the same way."""
STEPS_BACK: Final = 200
"""Longest chain of causes that is followed."""


def _ordered(events: str) -> str:
    """Return the SELECT of the events of one run tree in the order they happened, each once.

    An execution's events are ordered by epoch, seq and sub; one without a seq follows what its writer wrote before it.
    Executions are woven by time, which never runs backwards within one, whatever the clock did.
    """
    return f"""SELECT * EXCLUDE (placed, clock) FROM (
  SELECT *,
    max(ts) OVER (PARTITION BY execution_id ORDER BY coalesce(epoch, 0), placed, coalesce(sub, 0), wseq) AS clock
  FROM (
    SELECT *, coalesce(seq, max(seq) OVER (PARTITION BY execution_id, epoch, writer ORDER BY wseq), 0) AS placed
    FROM {events}
    QUALIFY row_number() OVER (PARTITION BY event_id, writer ORDER BY wseq) = 1
  )
)
ORDER BY clock NULLS LAST, coalesce(epoch, 0), placed, coalesce(sub, 0), writer, wseq"""


_BEGINNING: Final = "triggerflow.execution_started"
_NEEDED: Final = ", ".join(RUN_NEEDS)
_TOLD: Final = ", ".join((*SPAN_NEEDS, "payload"))
_NO_WAITS: Final = "(SELECT NULL AS run_id, NULL AS execution_id, NULL AS wait_ms WHERE false)"
_WINDOW: Final = "(SELECT * FROM events WHERE ts > hours_ago(hours))"
_MOST_ROOTS: Final = 16
"""An id belongs to one tree. Saying that they are few makes DuckDB look for them by their statistics."""
_MOST_OLDER: Final = 10_000
"""More runs than this never cross into a window from within one file. The bound tells DuckDB that they are few: it then
looks at them first and, as there are usually none, not at history at all."""

# A run in the window may have begun before it. An hour more is read for that; of what began earlier still, and of open
# runs however old, the lifecycle events are taken: they decide status and times, not counts. Runs are made of all of
# them at once, and an event that comes twice counts once.
_RECENT: Final = f"""WITH tail AS MATERIALIZED (
  SELECT {_NEEDED} FROM _tail
), lately AS MATERIALIZED (
  SELECT execution_id, bool_or(ts > hours_ago(hours)) AS recent, bool_or(event_type = '{_BEGINNING}') AS whole
  FROM (
    SELECT execution_id, ts, event_type FROM _stored WHERE ts > hours_ago(hours + 1)
    UNION ALL SELECT execution_id, ts, event_type FROM tail WHERE ts > hours_ago(hours + 1)
  )
  WHERE execution_id IS NOT NULL GROUP BY execution_id
), life AS MATERIALIZED (
  SELECT {_NEEDED} FROM _stored_lifecycle
  UNION ALL SELECT {_NEEDED} FROM tail WHERE event_type IN {LIFECYCLE} AND execution_id IS NOT NULL
), older AS MATERIALIZED (
  SELECT execution_id FROM lately WHERE recent AND NOT whole
  EXCEPT SELECT execution_id FROM life WHERE event_type = '{_BEGINNING}'
  LIMIT {_MOST_OLDER}
), known AS (
  SELECT {_NEEDED} FROM _stored
  WHERE ts > hours_ago(hours + 1) AND execution_id IN (SELECT execution_id FROM lately WHERE recent)
  UNION ALL
  SELECT {_NEEDED} FROM tail
  WHERE ts > hours_ago(hours + 1) AND execution_id IN (SELECT execution_id FROM lately WHERE recent)
  UNION ALL
  SELECT {_NEEDED} FROM life
  WHERE execution_id IN (
    {open_of("life")} UNION ALL SELECT execution_id FROM lately WHERE recent AND NOT whole)
  UNION ALL
  SELECT {_NEEDED} FROM _stored
  WHERE event_type IN {LIFECYCLE} AND ts <= hours_ago(hours + 1) AND execution_id IN (SELECT execution_id FROM older)
)
SELECT r.* REPLACE (
  CASE WHEN whole THEN events END AS events,
  CASE WHEN whole THEN errors END AS errors,
  CASE WHEN whole THEN steps END AS steps
)
FROM ({runs_of("known")}) AS r LEFT JOIN lately AS l ON l.execution_id = r.execution_id
WHERE recent OR status IN ('created', 'running', 'waiting', 'blocked_version')
ORDER BY r.started_at DESC NULLS LAST, r.execution_id DESC"""

_TREE: Final = f"""WITH RECURSIVE family AS MATERIALIZED (
  SELECT DISTINCT coalesce(e.root_run_id, e.run_id) AS root FROM _events_of(id) AS e LIMIT {_MOST_ROOTS}
), story AS MATERIALIZED (
  SELECT {_TOLD} FROM events WHERE root_run_id IN (SELECT root FROM family)
), span AS MATERIALIZED (
  {spans_of("story", f"({waits_of('story')})")}
), node AS MATERIALIZED (
  -- Tops: the run itself; below an execution or a root also what names a parent that left no event. A run has one
  -- parent, so the rest cannot multiply.
  SELECT s.*, row_number() OVER (ORDER BY s.run_id = id DESC, s.started_at, s.run_id) AS place,
    s.run_id = id OR (s.execution_id = id AND s.run_kind = '{EXECUTION}')
      OR (id IN (s.execution_id, s.root_run_id) AND NOT coalesce(s.parent_run_id IN (SELECT run_id FROM span), false))
      AS chosen
  FROM span AS s
), tree AS (
  SELECT run_id, 0 AS depth, [place] AS path FROM node WHERE chosen
  UNION ALL
  SELECT c.run_id, t.depth + 1, list_append(t.path, c.place)
  FROM tree AS t JOIN node AS c ON c.parent_run_id = t.run_id
  WHERE t.depth < {DEPTH} AND NOT c.chosen AND NOT list_contains(t.path, c.place)
)
SELECT depth,
  repeat('  ', depth::INTEGER) || coalesce(step_name, flow_name, agent_name, run_kind, n.run_id) AS name,
  status, started_at, duration_ms, wait_ms, attempt, scope, error_type, error_message, model, events,
  run_kind, n.run_id, parent_run_id, execution_id, writer
FROM tree AS t JOIN node AS n ON n.run_id = t.run_id
ORDER BY path"""

_WHY: Final = f"""WITH RECURSIVE given AS MATERIALIZED (
  SELECT * FROM events WHERE event_id = id LIMIT 1
), story AS MATERIALIZED (
  SELECT DISTINCT ON (e.event_id) e.* FROM (
    SELECT * FROM events WHERE root_run_id IN (SELECT root_run_id FROM given) UNION ALL SELECT * FROM given
  ) AS e
), start AS MATERIALIZED (
  SELECT s.run_id AS began,
    arg_min(s.event_id, coalesce(s.epoch, 0)::HUGEINT * {2**62} + greatest(coalesce(s.seq, 0), 0)) AS event_id
  FROM story AS s WHERE s.run_id IS NOT NULL GROUP BY s.run_id
), raised AS MATERIALIZED (
  SELECT s.run_id AS raised_in,
    arg_max(s.event_id, coalesce(s.epoch, 0)::HUGEINT * {2**62} + greatest(coalesce(s.seq, 0), 0)) AS event_id
  FROM story AS s WHERE s.run_id IS NOT NULL AND s.error_type IS NOT NULL GROUP BY s.run_id
), link AS MATERIALIZED (
  -- Where an event came from: the failure it passes on, else the transition it names, else the beginning of its run,
  -- else that of the run above.
  SELECT s.event_id,
    any_value(f.event_id) AS passed_on,
    arg_max(c.event_id, coalesce(c.epoch, 0)) AS caused_by,
    any_value(CASE WHEN own.event_id <> s.event_id THEN own.event_id END) AS begun_by,
    any_value(CASE WHEN above.event_id <> s.event_id THEN above.event_id END) AS started_by
  FROM (SELECT *, CASE WHEN error_type IS NOT NULL THEN nullif({ORIGIN}, run_id) END AS origin FROM story) AS s
  LEFT JOIN raised AS f ON f.raised_in = s.origin
  LEFT JOIN story AS c ON c.execution_id = s.execution_id AND c.seq = s.cause AND c.seq < s.seq
    AND coalesce(c.sub, 0) = 0 AND coalesce(c.epoch, 0) <= coalesce(s.epoch, 0)
  LEFT JOIN start AS own ON own.began = s.run_id
  LEFT JOIN start AS above ON above.began = s.parent_run_id
  GROUP BY s.event_id
), chain AS (
  SELECT g.event_id AS link_id, 0 AS back, 'this' AS because, [g.event_id] AS seen FROM given AS g
  UNION ALL
  SELECT coalesce(l.passed_on, l.caused_by, l.begun_by, l.started_by), c.back + 1,
    CASE WHEN l.passed_on IS NOT NULL THEN 'raised in' WHEN l.caused_by IS NOT NULL THEN 'caused by'
      WHEN l.begun_by IS NOT NULL THEN 'in the run begun by' ELSE 'in the run above' END,
    list_append(c.seen, coalesce(l.passed_on, l.caused_by, l.begun_by, l.started_by))
  FROM chain AS c JOIN link AS l ON l.event_id = c.link_id
  WHERE coalesce(l.passed_on, l.caused_by, l.begun_by, l.started_by) IS NOT NULL AND c.back < {STEPS_BACK}
    AND NOT list_contains(c.seen, coalesce(l.passed_on, l.caused_by, l.begun_by, l.started_by))
)
SELECT c.back, c.because, s.ts, s.event_type, s.step_name, s.scope, s.attempt, s.level, s.message, s.error_type,
  s.seq, s.cause, s.epoch, s.flow_name, s.execution_id, s.run_id, s.event_id, s.payload
FROM chain AS c JOIN story AS s ON s.event_id = c.link_id
ORDER BY c.back"""


def _side(execution: str) -> str:
    """Return the SELECT of one execution's places, one row each: its last attempt, and how many there were."""
    return f"""SELECT scope, any_value(step_name) AS step_name, count(DISTINCT run_id) AS attempts,
    arg_max(status, coalesce(attempt, 1)) AS status, sum(duration_ms) AS ms, any_value(error_type) AS error_type,
    min(place) AS place, arg_max(output, coalesce(attempt, 1)) AS output
  FROM (
    SELECT s.*, row_number() OVER (ORDER BY s.started_at, s.run_id) AS place, o.output
    FROM ({spans_of(f"(SELECT * FROM events WHERE execution_id = {execution})", _NO_WAITS)}) AS s
    LEFT JOIN (
      SELECT e.run_id, any_value(e.payload ->> '$.output') AS output FROM events AS e
      WHERE e.execution_id = {execution} AND e.run_kind = 'chunk_execution' AND e.duration_ms IS NOT NULL
      GROUP BY e.run_id
    ) AS o ON o.run_id = s.run_id
    WHERE s.scope IS NOT NULL
  )
  GROUP BY scope"""


_DIFF: Final = f"""WITH left_side AS ({_side("a")}), right_side AS ({_side("b")})
SELECT
  CASE WHEN l.scope IS NULL THEN 'only in b' WHEN r.scope IS NULL THEN 'only in a'
    WHEN l.status IS DISTINCT FROM r.status THEN 'status' WHEN l.error_type IS DISTINCT FROM r.error_type THEN 'error'
    WHEN l.output IS DISTINCT FROM r.output THEN 'output' WHEN l.attempts <> r.attempts THEN 'attempts'
    ELSE 'same' END AS difference,
  coalesce(l.scope, r.scope) AS scope, coalesce(l.step_name, r.step_name) AS step_name,
  l.status AS status_a, r.status AS status_b, l.attempts AS attempts_a, r.attempts AS attempts_b,
  l.ms AS ms_a, r.ms AS ms_b, r.ms - l.ms AS slower_ms,
  l.error_type AS error_a, r.error_type AS error_b, l.output AS output_a, r.output AS output_b
FROM left_side AS l FULL JOIN right_side AS r ON r.scope = l.scope
ORDER BY coalesce(l.place, r.place), 2"""

_ENDED: Final = f"duration_ms IS NOT NULL AND run_kind <> '{EXECUTION}'"
_SPARE: Final = 8
"""A line may have been copied a few times; as many rows are looked at for each that is wanted."""

_SLOWEST: Final = f"""SELECT flow_name, step_name, duration_ms, event_type, ts AS ended_at, scope, attempt, error_type,
  run_kind, run_id, execution_id, task_id
FROM (
  SELECT * FROM events
  WHERE {_ENDED} AND duration_ms >= (
    SELECT min(duration_ms) FROM (
      SELECT duration_ms FROM events WHERE {_ENDED} ORDER BY duration_ms DESC LIMIT n * {_SPARE}
    )
  )
  QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY writer, wseq) = 1
)
ORDER BY duration_ms DESC, run_id LIMIT n"""

_SHARED: Final = {name: SPAN_COLUMNS[name] for name in ("status", "started_at", "duration_ms", "wait_ms", "attempt")}

MACROS: Final = (
    Macro(
        "run_events",
        ("id",),
        "The events of one run in the order they happened: of an execution, of any run, or of a whole tree, by "
        "whichever id you have (execution, run or root run).",
        _ordered("_events_of(id)"),
        {},
        "events",
    ),
    Macro(
        "run_tree",
        ("id",),
        "What ran within a run, indented: its steps, sub flows, model requests and actions. `id` as above. A run that "
        "is its own ancestor is listed once.",
        _TREE,
        {
            "depth": "0 for the run asked for.",
            "name": "Its step, flow or agent, indented.",
            **_SHARED,
            **{name: SPAN_COLUMNS[name] for name in ("scope", "error_type", "error_message", "model", "events")},
            **{name: SPAN_COLUMNS[name] for name in ("run_kind", "run_id", "parent_run_id", "execution_id", "writer")},
        },
    ),
    Macro(
        "recent_runs",
        ("hours := 24",),
        "Runs with an event in the last hours, and every open one however old, the newest first. For a run that began "
        "more than an hour before that, events, errors and steps are not counted (NULL): ask `runs` about it.",
        _RECENT,
        {},
        "runs",
    ),
    Macro(
        "recent_errors",
        ("hours := 24",),
        "Errors of the last hours, the newest first.",
        f"SELECT * FROM ({errors_of(_WINDOW, few=True)}) ORDER BY ts DESC",
        {},
        "errors",
    ),
    Macro(
        "recent_steps",
        ("hours := 24",),
        "How long steps took in the last hours.",
        f"SELECT * FROM ({steps_of(_WINDOW)}) ORDER BY total_ms DESC",
        {},
        "steps_p95",
    ),
    Macro(
        "slowest",
        ("n := 20",),
        "The longest attempts of steps, requests and actions over all history.",
        _SLOWEST,
        {
            "flow_name": SPAN_COLUMNS["flow_name"],
            "step_name": SPAN_COLUMNS["step_name"],
            "duration_ms": SPAN_COLUMNS["duration_ms"],
            "event_type": "How it ended.",
            "ended_at": "When, UTC.",
            **{name: SPAN_COLUMNS[name] for name in ("scope", "attempt", "error_type", "run_kind", "run_id")},
            "execution_id": SPAN_COLUMNS["execution_id"],
            "task_id": SPAN_COLUMNS["task_id"],
        },
    ),
    Macro(
        "diff_runs",
        ("a", "b"),
        "Two executions side by side, place by place, in the order of the first. Places are scopes, which are the "
        "same in every run of a flow.",
        _DIFF,
        {
            "difference": "same, output, attempts, status, error, only in a, or only in b.",
            "scope": SPAN_COLUMNS["scope"],
            "step_name": SPAN_COLUMNS["step_name"],
            "status_a": "Status of the last attempt in the first run.",
            "status_b": "The same in the second.",
            "attempts_a": "Attempts in the first run.",
            "attempts_b": "Attempts in the second.",
            "ms_a": "Milliseconds of all attempts in the first run.",
            "ms_b": "The same in the second.",
            "slower_ms": "By how much the second is slower; negative when it is faster.",
            "error_a": "Exception in the first run.",
            "error_b": "Exception in the second.",
            "output_a": "What the step returned in the first run.",
            "output_b": "What it returned in the second.",
        },
    ),
    Macro(
        "why",
        ("id",),
        "What led to an event: the event itself, what caused that, and so on back to the beginning of the run. A "
        "failure that only passes through leads to the attempt where it began.",
        _WHY,
        {
            "back": "0 for the event asked for, 1 for what led to it ...",
            "because": "this, raised in (it only passes that failure on), caused by, in the run begun by, or in the "
            "run above.",
            "ts": "When, UTC.",
            "event_type": "What happened.",
            "step_name": "The chunk or action.",
            "scope": SPAN_COLUMNS["scope"],
            "attempt": SPAN_COLUMNS["attempt"],
            "level": "DEBUG, INFO, WARNING, ERROR or CRITICAL.",
            "message": "Text for people.",
            "error_type": "The exception's class name.",
            "seq": "Its place among the execution's transitions.",
            "cause": "seq of the transition that caused it.",
            "epoch": RUN_COLUMNS["epoch"],
            "flow_name": SPAN_COLUMNS["flow_name"],
            "execution_id": SPAN_COLUMNS["execution_id"],
            "run_id": SPAN_COLUMNS["run_id"],
            "event_id": "The event.",
            "payload": "The event's own data.",
        },
    ),
)
"""The macros users call."""

# Three branches, each pruned by its own column's statistics; one condition with OR would read all of the Parquet files.
# The journal has no statistics, so it is read once.
_EVENTS_OF: Final = """SELECT * FROM _stored AS e WHERE e.execution_id = id
UNION ALL
SELECT * FROM _stored AS e WHERE e.root_run_id = id AND e.execution_id IS DISTINCT FROM id
UNION ALL
SELECT * FROM _stored AS e
  WHERE e.run_id = id AND e.root_run_id IS DISTINCT FROM id AND e.execution_id IS DISTINCT FROM id
UNION ALL
SELECT * FROM _tail AS e WHERE e.execution_id = id OR e.root_run_id = id OR e.run_id = id"""


def macro_definitions() -> list[str]:
    """Return the statements that create the macros, in order. They need the views."""
    scalars = [f"CREATE OR REPLACE MACRO {signature} AS {body}" for signature, body in SCALARS.items()]
    tables = [f"CREATE OR REPLACE MACRO _events_of(id) AS TABLE\n{_EVENTS_OF}"]
    tables += [
        f"CREATE OR REPLACE MACRO {macro.name}({', '.join(macro.parameters)}) AS TABLE\n{macro.sql}" for macro in MACROS
    ]
    return scalars + tables
