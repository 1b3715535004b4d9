"""``flowdeck diff``: two runs side by side, only what differs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._options import JsonOption, StoreOption, existing_store
from flowdeck_devtools.cli._runs import StoredRun, find_run, load
from flowdeck_devtools.cli._stored import open_reader
from flowdeck_devtools.cli._table import json_value, write_table
from flowdeck_devtools.core.compare import NOTHING, Change, Comparison, PlaceDiff, compare
from flowdeck_devtools.core.span import short_json
from flowdeck_devtools.core.text import clean, duration

__all__ = ["diff"]


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A run, as in flowdeck show.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The run it is compared with.")],
    everything: Annotated[bool, typer.Option("--all", help="Places that are the same, too.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs: the places they went to, how each ended, how long it took, and the final state.

    Exits with 1 when path, outcome, input or state differ, like diff; times alone are no difference.
    """
    root = existing_store(store)
    with open_reader(root) as reader:
        left = load(reader, find_run(reader, root, a))
        right = load(reader, find_run(reader, root, b))
    found = compare(left.trace, right.trace)
    now_us = time.time_ns() // 1000
    if as_json:
        _output.out(json.dumps(_as_data(left, right, found, now_us), ensure_ascii=False))
    else:
        _write(left, right, found, now_us, everything)
    if found.differing or found.state or found.input:
        raise typer.Exit(1)


def _as_data(left: StoredRun, right: StoredRun, found: Comparison, now_us: int) -> dict[str, Any]:
    return {
        "a": _head(left),
        "b": _head(right),
        "same": not (found.differing or found.state or found.input),
        "first": found.first.place if found.first is not None else None,
        "places": [json_value(one.as_data(now_us)) for one in found.places],
        "input": [_change(one) for one in found.input],
        "state": [_change(one) for one in found.state],
    }


def _head(run: StoredRun) -> dict[str, Any]:
    keys = ("execution_id", "run_id", "flow_name", "status", "duration_ms", "steps", "errors", "error_type")
    return {key: json_value(run.row[key]) for key in keys}


def _change(change: Change) -> dict[str, Any]:
    """A side on which the value is missing has no key."""
    data: dict[str, Any] = {"path": change.path}
    for side, value in (("a", change.a), ("b", change.b)):
        if value is not NOTHING:
            data[side] = json_value(value)
    return data


def _write(left: StoredRun, right: StoredRun, found: Comparison, now_us: int, everything: bool) -> None:
    for side, run in (("a", left), ("b", right)):
        lasted = run.row["duration_ms"]
        _output.note(
            f"{side}  {clean(run.flow)} {run.execution_id}  {run.row['status']}  "
            f"{duration(lasted * 1000 if lasted is not None else None)}  {run.row['steps']} steps"
        )
    shown = found.places if everything else found.differing
    if not shown and not found.state and not found.input:
        _output.out("same path, outcome, outputs and state")
        return
    if shown:
        heads = ("difference", "place", "a", "b", "slower", "output a", "output b")
        write_table(heads, _lines(shown, now_us), width=_output.table_width())
    for title, changes in (("input", found.input), ("state", found.state)):
        if changes:
            _output.out("")
            columns = (title, "a", "b")
            write_table(
                columns, ((one.path, _shown(one.a), _shown(one.b)) for one in changes), width=_output.table_width()
            )


def _lines(places: list[PlaceDiff], now_us: int) -> Iterator[tuple[Any, ...]]:
    for one in places:
        a_us, b_us = one.times(now_us)
        slower = ""
        if a_us is not None and b_us is not None:
            slower = ("+" if b_us >= a_us else "-") + duration(abs(b_us - a_us))
        outputs = (
            ("", "")
            if one.difference not in ("output", "only in a", "only in b")
            else (_shown(one.output_a), _shown(one.output_b))
        )
        yield (one.difference, one.place, _outcome(one.a), _outcome(one.b), slower, *outputs)


def _outcome(node: Any) -> str:
    if node is None:
        return ""
    again = f" ↻{node.attempt_count}" if node.attempt_count > 1 else ""
    return f"{node.status}{again}"


def _shown(value: Any) -> str:
    return "–" if value is NOTHING else short_json(value, 80)
