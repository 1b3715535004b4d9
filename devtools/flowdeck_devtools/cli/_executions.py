"""What the commands about executions share: finding one, asking it something, and telling what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._options import command_store

if TYPE_CHECKING:
    from flowdeck.durable import AnswerResult, ControlClient, ExecutionRow

__all__ = ["ActorOption", "IdArgument", "client_of", "find", "how_to_go_on", "told", "use_store", "who_runs"]

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The execution's id, or an unambiguous part of it.")]
ActorOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Who asks; kept with the run (default: the login name).")
]


def client_of(root: Path) -> ControlClient:
    from flowdeck.durable import ControlClient

    return ControlClient(root)


def find(client: ControlClient, wanted: str, root: Path) -> ExecutionRow:
    """Return the execution, or end the command with a hint."""
    from flowdeck.durable import AmbiguousExecution

    try:
        found = client.find_execution(wanted)
    except AmbiguousExecution as error:
        raise CliError(str(error), 2) from None

    if found is None:
        raise CliError(f"there is no execution {wanted!r}; see: flowdeck executions list --all{command_store(root)}", 2)

    return found


def who_runs(client: ControlClient, row: ExecutionRow) -> str:
    """Say in a word whether anybody runs it."""
    if row.finished_us is not None:
        return "–"

    if row.writer and client.owner_alive(row.writer):
        return "alive"

    return "gone" if row.writer else "nobody"


def told(
    client: ControlClient, row: ExecutionRow, result: AnswerResult, wait: float, root: Path, done: str
) -> dict[str, Any]:
    """Wait until a request is applied, say what became of it, and return it as a record.

    Raises:
        CliError: it was refused.
    """
    if result.outcome is None and result.row_id is not None:
        # Nobody can apply what is asked of a process that is gone; waiting for it would only look like hanging.
        result = client.wait_outcome(result.row_id, wait if who_runs(client, row) == "alive" else 0.0)

    if not result.accepted:
        raise CliError(f"{row.id}: {result.detail or result.outcome}")

    if result.outcome in ("applied", "duplicate"):
        _output.note(done)
    else:
        _output.note(f"kept, but nobody runs {row.id} now; {how_to_go_on(client, row, root)}")

    return {"execution_id": row.id, "outcome": result.outcome or "queued", "row_id": result.row_id,
            "detail": result.detail}  # fmt: skip


def how_to_go_on(client: ControlClient, row: ExecutionRow, root: Path) -> str:
    """Say how an execution that nobody runs goes on."""
    if client.durable_info(row.id) is None:
        return (
            "its process is gone and the run was not durable, so no worker can take it up. Start it again, with "
            "runtime.use_store() or flowdeck run --durability full; a state you saved yourself can be loaded"
        )

    return f"a worker takes it up: flowdeck worker {row.entrypoint or 'MODULE:FLOW'}{command_store(root)}"


def use_store(store: Path, durability: str) -> None:
    """Make the runs of the default runtime durable.

    Raises:
        CliError: there is no such durability.
    """
    from flowdeck import runtime
    from flowdeck.durable.store import DURABILITIES

    if durability not in DURABILITIES[1:]:
        raise CliError(f"--durability {durability}: choose from {', '.join(DURABILITIES[1:])}", 2)

    runtime.use_store(store, durability=durability)
