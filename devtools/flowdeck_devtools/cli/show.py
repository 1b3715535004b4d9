"""``flowdeck show``: one run on one page: what it was given, what it did, how it ended, and what is stored of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._options import JsonOption, StoreOption, command_store, existing_store
from flowdeck_devtools.cli._runs import RunArgument, StoredRun, opened
from flowdeck_devtools.cli._table import json_value, write_table
from flowdeck_devtools.cli.waterfall import span_data
from flowdeck_devtools.core.compare import NOTHING, final_state, initial_value
from flowdeck_devtools.core.critical import Share, critical_path
from flowdeck_devtools.core.failure import failures, first_failure
from flowdeck_devtools.core.links import Links, links_of
from flowdeck_devtools.core.outline import Outline
from flowdeck_devtools.core.span import short_json
from flowdeck_devtools.core.text import clean, clock_time, duration

__all__ = ["show"]

_PATH_ROWS = 5
_LINK_ROWS = 8


def show(run: RunArgument = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show one run: input and result, its steps, the first failure, the critical path, and what is stored of it."""
    root = existing_store(store)
    with opened(root, run) as found:
        pass
    now_us = found.now_us
    path = critical_path(found.trace, now_us)
    links = links_of(root, found.execution_id, found.trace)
    if as_json:
        _output.out(json.dumps(_as_data(found, path, links, now_us), ensure_ascii=False))
    else:
        _write(found, path, links, root)


def _as_data(found: StoredRun, path: list[Share], links: Links, now_us: int) -> dict[str, Any]:
    outline = Outline(found.trace)
    outline.fold_all(False)
    outline.refresh(0.0)
    first = first_failure(found.trace)
    return {
        "run": {key: json_value(value) for key, value in found.row.items()},
        "input": _json(initial_value(found.trace)),
        "result": _json(final_state(found.trace)),
        "first_failure": None
        if first is None
        else {**span_data(first.node, first.node.depth, found, now_us), "traceback": first.traceback},
        "failures": [
            {"step": one.node.name, "scope": one.node.scope, "error": one.text, "propagated": one.propagated}
            for one in failures(found.trace)
        ],
        "critical_path": [
            {"name": one.node.name, "scope": one.node.scope, "own_ms": one.own_us / 1000} for one in path
        ],
        "spans": [span_data(row.node, row.depth, found, now_us) for row in outline.rows],
        "links": json_value(links.as_data()),
    }


def _json(value: Any) -> Any:
    return None if value is NOTHING else json_value(value)


def _write(found: StoredRun, path: list[Share], links: Links, root: Path) -> None:
    row, trace = found.row, found.trace
    lasted = duration(row["duration_ms"] * 1000 if row["duration_ms"] is not None else None)
    facts: list[tuple[str, Any]] = [
        ("flow", found.flow),
        ("execution", found.execution_id),
        ("run", row["run_id"]),
        ("status", row["status"] + (" (resumable)" if row["resumable"] else "")),
        ("started", f"{clock_time(trace.started_us)}, took {lasted}" if trace.started_us else "–"),
        ("events", f"{row['events']}, {row['steps']} steps, {row['errors']} errors, {row['waits']} waits"),
    ]
    facts += [(key.removesuffix("_id"), row[key]) for key in ("task_id", "tenant_id", "user_id", "session_id")]
    value, result = initial_value(trace), final_state(trace)
    facts += [("input", _shown(value)), ("result", _shown(result))]
    for name, fact in facts:
        if fact not in (None, ""):
            _output.out(f"{name:<10}{clean(str(fact), limit=_room())}")

    first = first_failure(trace)
    if first is not None:
        _output.out(
            f"\nfirst failure: {clean(first.text)}\n  in {clean(first.node.name)}"
            f"{f' at {clean(first.node.scope)}' if first.node.scope else ''}, attempt {first.attempt.number}; "
            f"see: flowdeck why {found.execution_id}{command_store(root)}"
        )
        for one in failures(trace):
            if one.propagated:
                _output.out(f"  passed on by {clean(one.node.name)}")

    longest = sorted((one for one in path if one.node is not trace.root and one.own_us), key=lambda one: -one.own_us)[
        :_PATH_ROWS
    ]
    if longest:
        _output.out("\non the critical path")
        write_table(("step", "own time", "share"), _shares(longest, path), width=_output.table_width())
    _write_links(links)
    _output.note(f"\nsteps: flowdeck waterfall {found.execution_id}{command_store(root)}")


def _room() -> int:
    width = _output.table_width()
    return 4000 if width is None else max(20, width - 11)


def _shown(value: Any) -> str | None:
    return None if value is NOTHING else short_json(value, 2_000)


def _shares(longest: list[Share], path: list[Share]) -> Iterator[tuple[str, str, str]]:
    whole = sum(one.own_us for one in path) or 1
    for one in longest:
        name = f"{one.node.name} {one.node.scope}" if one.node.scope not in (None, one.node.name) else one.node.name
        yield name, duration(one.own_us), f"{100 * one.own_us / whole:.0f}%"


def _write_links(links: Links) -> None:
    for title, rows in links.groups():
        if not rows:
            continue
        _output.out(f"\n{title}")
        for text, _ in rows[:_LINK_ROWS]:
            _output.out("  " + clean(text, limit=_room()))
        if len(rows) > _LINK_ROWS:
            _output.out(f"  … {len(rows) - _LINK_ROWS} more: --json")
