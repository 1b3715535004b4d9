"""The SQL views and macros over a store, in the three places they live.

- in the memory of a Python reader (:mod:`flowdeck_sinks.store.connection`), where ``events`` names its files;
- in ``observe.duckdb``, for plain clients, where ``events`` finds its files by SQL;
- in an exported file, over a table ``events``.

Everything but ``events`` is the same in all three and stands on it alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flowdeck.layout import Layout
from flowdeck_sinks.store._view import View
from flowdeck_sinks.store._views_errors import ERROR_GROUPS, ERRORS, MODEL_CALLS, MODEL_USAGE
from flowdeck_sinks.store._views_evals import EVAL_CHECKS, EVAL_ROUNDS, EVAL_RULES, EVAL_SESSIONS
from flowdeck_sinks.store._views_people import INTERNAL, INTERRUPTS, INTERVENTIONS, STREAM_ITEMS
from flowdeck_sinks.store._views_runs import LIFECYCLE, RUNS, SPANS, STEPS, open_of
from flowdeck_sinks.store.macros import MACROS, macro_definitions
from flowdeck_sinks.store.parts import store_glob, visibility_views, visible_events_select
from flowdeck_sinks.store.schema import COLUMNS, empty_select, journal_lines, journal_select

__all__ = ["MACROS", "VIEWS", "VIEWS_VERSION", "derived_definitions", "view_definitions"]

VIEWS_VERSION: Final = 2
"""Rises when a view or macro changes its columns or meaning."""

EVENTS: Final = View(
    "events",
    "One row per event, as it was emitted.",
    "",
    {column.name: column.summary for column in COLUMNS},
)
DAMAGED: Final = View(
    "damaged_lines",
    "Journal lines that are no events, such as the last one of a killed process; skipped by every other view.",
    "",
    {
        "writer": "Who wrote them.",
        "segment": "The file in journal/.",
        "lines": "How many.",
    },
)

VIEWS: Final = (
    EVENTS,
    RUNS,
    SPANS,
    INTERRUPTS,
    INTERVENTIONS,
    STREAM_ITEMS,
    ERRORS,
    ERROR_GROUPS,
    MODEL_CALLS,
    MODEL_USAGE,
    STEPS,
    EVAL_SESSIONS,
    EVAL_ROUNDS,
    EVAL_CHECKS,
    EVAL_RULES,
    DAMAGED,
)
"""The views users see; names beginning with ``_`` are internal."""

ALL_LIFECYCLE: Final = f"SELECT * FROM _stored WHERE event_type IN {LIFECYCLE} AND execution_id IS NOT NULL"
"""The body of ``_stored_lifecycle``: what decides executions' statuses, without the journal. A reader that knows which
published executions are open gives it a cheaper one."""

_LIFECYCLE: Final = (
    "SELECT * FROM _stored_lifecycle "
    f"UNION ALL SELECT * FROM _tail WHERE event_type IN {LIFECYCLE} AND execution_id IS NOT NULL"
)


def view_definitions(layout: Layout, *, with_parts: bool = True, in_memory: bool = False) -> list[str]:
    """Return the statements that create the views and macros, in order.

    Args:
        layout: The store; its absolute path enters the views.
        with_parts: Whether ``parts/`` holds its empty first part (without one the glob would be an error). Without it
            ``events`` reads the journal alone.
        in_memory: For a reader that keeps the tables ``_live_writers`` and ``_resumable`` itself and replaces the views
            ``events``, ``_stored`` (Parquet), ``_tail`` (the journal) and ``_stored_lifecycle``, which are empty.
    """
    # While the others are made events is an empty view: binding each of them to files would cost ten times as much.
    first = {"events": empty_select(), "_stored": "SELECT * FROM events", "_tail": empty_select()}
    last: dict[str, str] = {}
    if in_memory:
        first |= {"_stored_lifecycle": empty_select(), "_stored": empty_select()}
    else:
        if with_parts:
            last |= visibility_views(layout)
        last["events"] = (
            visible_events_select(layout) if with_parts else journal_select(store_glob(layout, "journal/*.jsonl"))
        )
        first["_live_writers"] = (
            f"SELECT parse_filename(file, true) AS writer FROM glob({store_glob(layout, 'writers/*.lock')})"
        )
        first["_resumable"] = "SELECT NULL::VARCHAR AS execution_id WHERE false"
    last["damaged_lines"] = (
        "SELECT split_part(parse_filename(filename), '-', 1) AS writer, parse_filename(filename) AS segment, "
        f"count(*) AS lines FROM {journal_lines(store_glob(layout, 'journal/*.jsonl'), flowdeck='VARCHAR')} "
        "WHERE event_id IS NULL AND flowdeck IS NULL GROUP BY ALL"
    )
    return [*_create(first), *derived_definitions(lifecycle=not in_memory), *_create(last)]


def derived_definitions(*, lifecycle: bool = True) -> list[str]:
    """Return the statements for all views and macros that stand on ``events``, ``_live_writers`` and ``_resumable``.

    Args:
        lifecycle: Whether to define ``_stored_lifecycle``, too.
    """
    bodies: dict[str, str] = {"_stored_lifecycle": ALL_LIFECYCLE} if lifecycle else {}
    bodies["_lifecycle"] = _LIFECYCLE
    bodies["_open_executions"] = open_of("_lifecycle")
    bodies |= INTERNAL
    bodies |= {view.name: view.sql for view in VIEWS if view.sql}
    return [*_create(bodies), *macro_definitions()]


def _create(bodies: dict[str, str]) -> Iterable[str]:
    return (f"CREATE OR REPLACE VIEW {name} AS\n{body}" for name, body in bodies.items())
