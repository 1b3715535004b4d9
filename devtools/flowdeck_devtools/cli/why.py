"""``flowdeck why``: what led to a failure, to a step or to an event, back to the beginning of the run."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._options import JsonOption, StoreOption, existing_store
from flowdeck_devtools.cli._runs import StoredRun, find_run, load
from flowdeck_devtools.cli._stored import open_reader
from flowdeck_devtools.cli._table import json_value, write_table
from flowdeck_devtools.core.causes import Link, Story
from flowdeck_devtools.core.describe import describe
from flowdeck_devtools.core.failure import failures, first_failure
from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.text import clean, clock_time

__all__ = ["why"]


def why(
    what: Annotated[
        str | None,
        typer.Argument(metavar="RUN|EVENT", help="A run or an event's id (default: the newest failed run)."),
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", metavar="NAME", help="Of a run: this step (its name or scope).")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell why a run failed: the exception that began it, and the chain of causes up to it."""
    root = existing_store(store)
    with open_reader(root) as reader:
        row = reader.connection.execute(
            "SELECT root_run_id FROM events WHERE event_id = ? LIMIT 1", [what or ""]
        ).fetchone()
        if row is not None and row[0] is None:
            raise CliError(f"the event {what} belongs to no run, so nothing is known to have caused it")
        wanted = what if row is None else str(row[0])
        run = find_run(reader, root, wanted, condition="true" if what else "status = 'failed'", what="failed run")
        found = load(reader, run)

    story = Story(found.trace)
    if row is not None:
        chain = story.why_event(str(what))
    elif step is not None:
        chain = story.why_node(_step(found, step))
    else:
        chain = story.why_failed()
        if not chain:
            raise CliError(
                f"{found.flow} {found.execution_id} did not fail ({found.row['status']}); "
                "name a step with --step, or an event's id"
            )

    if as_json:
        _output.out(json.dumps(_as_data(found, chain), ensure_ascii=False))
    else:
        _write(found, chain)


def _step(found: StoredRun, wanted: str) -> SpanNode:
    nodes = [node for node in found.trace.nodes.values() if node.role == "span" and wanted in (node.scope, node.name)]
    if not nodes:
        raise CliError(f"the run has no step {wanted!r}; see: flowdeck waterfall {found.execution_id}", 2)
    # The one that went wrong is the one asked about; else the last.
    return next((node for node in nodes if node.status in ("failed", "waiting")), nodes[-1])


def _as_data(found: StoredRun, chain: list[Link]) -> dict[str, Any]:
    failure = first_failure(found.trace)
    return {
        "execution_id": found.execution_id,
        "flow_name": found.flow,
        "status": found.row["status"],
        "failure": None
        if failure is None
        else {
            "step": failure.node.name,
            "scope": failure.node.scope,
            "run_id": failure.attempt.run_id,
            "error": json_value(failure.attempt.error),
            "propagated_to": [one.node.name for one in failures(found.trace) if one.propagated],
        },
        "chain": [
            {
                "back": link.back,
                "because": link.because,
                "event_id": link.event.event_id,
                "event_type": link.event.event_type,
                "step": link.node.name,
                "scope": link.event.meta.get("scope"),
                "time_us": link.event.time_us,
                "seq": link.event.meta.get("seq"),
                "cause": link.event.meta.get("cause"),
                "payload": json_value(link.event.payload),
            }
            for link in chain
        ],
    }


def _write(found: StoredRun, chain: list[Link]) -> None:
    failure = first_failure(found.trace)
    _output.note(f"{clean(found.flow)}, run {found.execution_id}: {found.row['status']}")
    if failure is not None:
        place = f" at {clean(failure.node.scope)}" if failure.node.scope else ""
        _output.out(
            f"{clean(failure.text)}\nraised in {clean(failure.node.name)}{place}, attempt {failure.attempt.number}"
        )
        passed = [clean(one.node.name) for one in failures(found.trace) if one.propagated]
        if passed:
            _output.out(f"passed on by {', '.join(passed)}")
        if failure.traceback:
            for text in failure.traceback.strip().splitlines()[-8:]:
                _output.out("  " + clean(text, limit=200))
        _output.out("")
    heads = ("", "because", "time", "what", "step", "details")
    lines = (
        (
            -link.back or "0",
            link.because,
            clock_time(link.event.time_us),
            link.event.event_type,
            link.node.name,
            describe(link.event),
        )
        for link in chain
    )
    write_table(heads, lines, width=_output.table_width())
