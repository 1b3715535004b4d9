"""``flowdeck graph``: how a flow hangs together, and how far a run of it has come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._flows import load_flow
from flowdeck_devtools.cli._options import JsonOption, StoreOption, command_store, existing_store
from flowdeck_devtools.cli._table import write_table
from flowdeck_devtools.core.flowgraph import called, operators, worse
from flowdeck_devtools.core.text import clean, duration

if TYPE_CHECKING:
    from flowdeck.definition.diagram import Graph, Node

__all__ = ["graph"]

_MATCHES = 6


@dataclass
class _Steps:
    """What a run has done at one operator."""

    status: str
    times: int
    duration_ms: float | None


@dataclass
class _Run:
    """A run of a store, as far as a graph shows it."""

    execution_id: str
    status: str
    steps: dict[str, _Steps] = field(default_factory=dict)


def graph(
    what: Annotated[str, typer.Argument(metavar="RUN|MODULE:FLOW", help="A run's id (or its beginning), or a flow.")],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Write a Mermaid flowchart.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Write a table of steps (the default).")] = False,
    detailed: Annotated[bool, typer.Option("--detailed", help="With --mermaid: label every signal.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a flow's steps and signals; of a run, also each step's status."""
    if mermaid + text + as_json > 1:
        raise CliError("choose one of --mermaid, --text and --json", 2)

    if detailed and not mermaid:
        raise CliError("--detailed belongs to --mermaid", 2)

    if ":" in what:
        definition, run = load_flow(what).describe(), None
    else:
        definition, run = _of_run(existing_store(store), what)

    from flowdeck.definition.diagram import graph_of, to_mermaid

    if mermaid:
        statuses = None if run is None else {op: steps.status for op, steps in run.steps.items()}
        mode = "detailed" if detailed else "simplified"
        _output.out(to_mermaid(definition, mode=mode, statuses=statuses), end="")
        return

    drawn = graph_of(definition)
    if as_json:
        _output.out(json.dumps(_as_data(drawn, run), ensure_ascii=False, allow_nan=False))
    else:
        _write_table(drawn, run)


# -- a run of the store --------------------------------------------------------------------------------------------


def _of_run(root: Path, wanted: str) -> tuple[dict[str, Any], _Run]:
    """Return the definition a run followed, and how far it has come.

    Raises:
        CliError: there is no such run, several, or its definition is not in the store.
    """
    from flowdeck_sinks.store import Reader

    with Reader(root) as reader:
        run, entrypoint, fingerprint, flow_name = _find(reader, wanted, root)
        definition = _definition(reader, root, fingerprint, flow_name)
        if definition is None:
            hint = f"; its flow is {entrypoint}: flowdeck graph {entrypoint}" if entrypoint else ""
            raise CliError(
                f"the definition of {flow_name or 'the flow'!s} is not in the store: the run began before it was "
                f"observed{hint}"
            )

        run.steps = _steps(reader, run.execution_id)

    return definition, run


def _find(reader: Any, wanted: str, root: Path) -> tuple[_Run, str | None, str | None, str | None]:
    rows = _rows(
        reader,
        "SELECT execution_id, status, flow_name FROM runs WHERE execution_id = $id OR run_id = $id "
        "OR starts_with(execution_id, $id) ORDER BY execution_id <> $id, length(execution_id), started_at DESC "
        f"LIMIT {_MATCHES}",
        wanted,
    )
    exact = [row for row in rows if row[0] == wanted]
    if not exact and all(row[0].startswith(f"{rows[0][0]}.") for row in rows[1:]):
        exact = rows[:1]  # the others are runs of its sub flows

    if not rows:
        raise CliError(
            f"there is no run {wanted!r}; see: flowdeck runs{command_store(root)}. A flow is named module:flow", 2
        )

    if len(rows) > 1 and not exact:
        several = ", ".join(row[0] for row in rows[: _MATCHES - 1]) + (", …" if len(rows) == _MATCHES else "")
        raise CliError(f"{wanted!r} begins several runs: {several}", 2)

    execution_id, status, flow_name = (exact or rows)[0]
    started = _rows(
        reader,
        "SELECT payload ->> '$.entrypoint', payload ->> '$.definition' FROM events "
        "WHERE event_type = 'triggerflow.execution_started' AND execution_id = $id LIMIT 1",
        execution_id,
    )
    entrypoint, fingerprint = started[0] if started else (None, None)
    return _Run(execution_id, status), entrypoint, fingerprint, flow_name


def _definition(reader: Any, root: Path, fingerprint: str | None, flow_name: str | None) -> dict[str, Any] | None:
    """Return the newest declaration with that fingerprint; a large one is in a blob."""
    if fingerprint is None:
        return None

    rows = _rows(
        reader,
        "SELECT payload::VARCHAR FROM events WHERE event_type = 'triggerflow.definition_declared' AND "
        "(payload ->> '$.fingerprint' = $id OR payload ->> '$.\"$blob\"' IS NOT NULL) ORDER BY ts DESC",
        fingerprint,
    )
    found: dict[str, Any] | None = None
    for (text,) in rows:
        payload = _whole(root, json.loads(text))
        if payload.get("fingerprint") == fingerprint and isinstance(payload.get("definition"), dict):
            definition: dict[str, Any] = payload["definition"]
            if payload.get("flow_name") == flow_name:
                return definition

            found = found or definition  # flows of one shape may have several names

    return found


def _whole(root: Path, payload: Any) -> dict[str, Any]:
    blob = payload.get("$blob") if isinstance(payload, dict) else None
    if isinstance(blob, str) and blob.isalnum():
        try:
            payload = json.loads((root / "blobs" / blob).read_bytes())
        except (OSError, ValueError):
            return {}

    return payload if isinstance(payload, dict) else {}


def _steps(reader: Any, execution_id: str) -> dict[str, _Steps]:
    """Return what happened at each operator: the last attempt at each place counts, and the worst of the places."""
    rows = _rows(
        reader,
        "SELECT operator_id, status, count(*), sum(duration_ms) FROM ("
        "  SELECT operator_id, coalesce(arg_max(status, started_at), 'running') AS status, "
        "  sum(duration_ms) AS duration_ms FROM spans "
        "  WHERE execution_id = $id AND run_kind = 'chunk_execution' AND operator_id IS NOT NULL "
        "  GROUP BY operator_id, coalesce(scope, run_id)) GROUP BY operator_id, status",
        execution_id,
    )
    waiting = _rows(
        reader, "SELECT operator_id FROM interrupts WHERE execution_id = $id AND status = 'waiting'", execution_id
    )
    steps: dict[str, _Steps] = {}
    for operator_id, status, times, lasted in rows:
        known = steps.get(operator_id)
        if known is None:
            steps[operator_id] = _Steps(status, times, lasted)
        else:
            known.status = worse(known.status, status)
            known.times += times
            known.duration_ms = (known.duration_ms or 0) + lasted if lasted is not None else known.duration_ms

    for (operator_id,) in waiting:
        known = steps.setdefault(operator_id, _Steps("waiting", 1, None))
        known.status = worse(known.status, "waiting")

    return steps


def _rows(reader: Any, statement: str, wanted: str) -> list[tuple[Any, ...]]:
    return list(reader.query(statement, {"id": wanted}).rows)


# -- writing ---------------------------------------------------------------------------------------------------------


def _as_data(drawn: Graph, run: _Run | None) -> dict[str, Any]:
    data = drawn.to_dict()
    if run is not None:
        data["run"] = {"execution_id": run.execution_id, "status": run.status}
        for node in data["nodes"]:
            steps = run.steps.get(node["id"])
            node["status"] = steps.status if steps else None
            node["times"] = steps.times if steps else 0
            node["duration_ms"] = steps.duration_ms if steps else None

    return data


def _write_table(drawn: Graph, run: _Run | None) -> None:
    heads, name = ["step", "kind", "after"], clean(drawn.name)
    if run is not None:
        heads += ["status", "times", "took"]
        _output.note(f"{name}, run {run.execution_id}: {run.status}")
    else:
        _output.note(f"{name}: {sum(node.kind != 'signal' for node in drawn.nodes.values())} steps")

    write_table(heads, _lines(drawn, run, 0), width=_output.table_width())


def _lines(drawn: Graph, run: _Run | None, depth: int) -> Iterator[tuple[Any, ...]]:
    for node, level, after in operators(drawn):
        inside = depth + level
        line: tuple[Any, ...] = ("  " * inside + called(node), node.kind.replace("_", " "), after)
        yield line + _progress(run, node) if run is not None else line
        if node.child is not None:
            # The child's own run has its statuses: a step of that name may have run in several.
            yield from _lines(node.child, _Run("", "") if run is not None else None, inside + 1)


def _progress(run: _Run, node: Node) -> tuple[Any, ...]:
    steps = run.steps.get(node.id)
    if steps is None:
        return "", "", ""

    return steps.status, steps.times, duration(steps.duration_ms * 1000 if steps.duration_ms is not None else None)
