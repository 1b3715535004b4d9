"""A run of the store as the commands about one run take it: found by what a person types, read as a tree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._options import command_store
from flowdeck_devtools.cli._stored import open_reader
from flowdeck_devtools.core.history import LINE_COLUMNS, line_of
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.wire import head

if TYPE_CHECKING:
    from flowdeck_devtools.core.span import SpanNode
    from flowdeck_sinks.store import Reader

__all__ = ["RunArgument", "StoredRun", "find_run", "load", "opened"]

RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A run's or execution's id, or its beginning or end (default: the newest)."),
]

_COLUMNS = (
    "execution_id, run_id, root_run_id, flow_name, status, started_at, ended_at, duration_ms, wait_ms, events, errors, "
    "waits, steps, error_type, error_message, session_id, task_id, tenant_id, user_id, trace_id, epoch, writer, "
    "resumable"
)
_MATCHES = 6


@dataclass(frozen=True)
class StoredRun:
    """One execution's row of ``runs`` by column name, and the tree it stands in."""

    row: dict[str, Any]
    trace: Trace
    node: SpanNode
    """The execution in the tree: its root, or a sub flow's row."""
    now_us: int
    """Up to when what is open has lasted: now, or of a lost run its last sign of life."""

    @property
    def execution_id(self) -> str:
        return str(self.row["execution_id"])

    @property
    def flow(self) -> str:
        return str(self.row["flow_name"] or "run")


@contextmanager
def opened(root: Path, wanted: str | None, *, condition: str = "true", what: str = "run") -> Iterator[StoredRun]:
    """The run a person means, with the reader closed afterwards.

    Raises:
        CliError: there is no such run, or several.
    """
    with open_reader(root) as reader:
        yield load(reader, find_run(reader, root, wanted, condition=condition, what=what))


def find_run(
    reader: Reader, root: Path, wanted: str | None, *, condition: str = "true", what: str = "run"
) -> dict[str, Any]:
    """The row of the run that is meant; without a name the newest that fulfils the condition.

    Raises:
        CliError: there is no such run, or several.
    """
    if wanted is None:
        from flowdeck_sinks.store import newest_runs

        found = newest_runs(reader.connection, 1, _COLUMNS, f"({condition}) AND parent_run_id IS NULL")
        rows = _records(found)
        if not rows:
            raise CliError(f"there is no {what} in {root}; see: flowdeck runs{command_store(root)}")
        return rows[0]

    rows = _matching(reader, "execution_id = $id OR run_id = $id", wanted)
    if not rows:
        if "…" in wanted.lstrip("…"):  # as the screens show it: a piece of the prefix, and the end
            like = "'%' || replace($id, '…', '%')"
            rows = _matching(reader, f"execution_id LIKE {like} OR run_id LIKE {like}", wanted)
        else:
            starts = "starts_with(execution_id, $id) OR starts_with(run_id, $id)"
            ends = "suffix(execution_id, $id) OR suffix(run_id, $id)"
            rows = _matching(reader, f"{starts} OR {ends}", wanted.lstrip("…"))
    if not rows:
        raise CliError(f"there is no run {wanted!r}; see: flowdeck runs{command_store(root)}", 2)

    # A sub flow's id begins with its parent's.
    first = min(rows, key=lambda row: len(row["execution_id"]))
    if any(not row["execution_id"].startswith(first["execution_id"]) for row in rows):
        several = ", ".join(row["execution_id"] for row in rows[: _MATCHES - 1])
        raise CliError(f"{wanted!r} names several runs: {several}{', …' if len(rows) == _MATCHES else ''}", 2)

    return first


def load(reader: Reader, row: dict[str, Any]) -> StoredRun:
    """Read the whole tree a run belongs to."""
    root_run_id = str(row["root_run_id"] or row["run_id"])
    trace = Trace(root_run_id)
    found = reader.connection.execute(
        f"SELECT {LINE_COLUMNS} FROM events WHERE root_run_id = ? ORDER BY writer, wseq", [root_run_id]
    )
    names = [column[0] for column in found.description]
    last_us = 0
    while rows := found.fetchmany(2048):
        for values in rows:
            record = dict(zip(names, values, strict=True))
            line = line_of(record)
            one = head(line)
            last_us = max(last_us, one.time_us)
            trace.extend([(str(record["writer"]), line, one)])
    node = trace.node_of(row["run_id"]) or trace.root
    if row["flow_name"]:
        node.title = str(row["flow_name"])
    return StoredRun(row, trace, node, last_us if row["status"] == "lost" else time.time_ns() // 1000)


def _matching(reader: Reader, condition: str, wanted: str) -> list[dict[str, Any]]:
    statement = f"SELECT {_COLUMNS} FROM runs WHERE {condition} ORDER BY started_at DESC LIMIT {_MATCHES}"
    return _records(reader.connection.execute(statement, {"id": wanted}))


def _records(found: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
