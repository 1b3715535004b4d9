"""``flowdeck interrupts``: what waits for a person, and answering it from any terminal."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._executions import client_of, how_to_go_on
from flowdeck_devtools.cli._hints import example_answer, how_to_answer, question_of
from flowdeck_devtools.cli._options import JsonOption, StoreOption, command_store, control_store, parse_json
from flowdeck_devtools.cli._table import json_value, write_table
from flowdeck_devtools.core.login import login_name
from flowdeck_devtools.core.text import age

if TYPE_CHECKING:
    from flowdeck.durable import AnswerResult, ControlClient, InterruptRow

__all__ = ["interrupts"]

_WAIT_S = 5.0
"""How long ``answer`` waits for the owner to apply it; owners look every 50 ms."""

interrupts = typer.Typer(
    help="List what waits for a person, and answer it.", no_args_is_help=True, rich_markup_mode=None
)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The interrupt's id, or an unambiguous part of it.")]


@interrupts.command("list")
def list_interrupts(
    all_: Annotated[bool, typer.Option("--all", help="Answered and cancelled ones, too.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the interrupts that wait for an answer."""
    client = client_of(control_store(store))
    rows = client.list_interrupts(open_only=not all_)
    if as_json:
        _output.out(json.dumps([_plain(row) for row in rows], ensure_ascii=False, indent=2))
        return

    if not rows:
        _output.note("nothing waits for an answer")
        return

    now_us = time.time() * 1e6
    owners = {writer: client.owner_alive(writer) for writer in {row.writer for row in rows}}
    stored = set() if all(owners.values()) else set(client.resumable())
    lines = [
        (
            row.id,
            row.flow_name,
            row.type,
            age(now_us - row.opened_us),
            _status(row, owners[row.writer], row.execution_id in stored),
            question_of(row.payload),
        )
        for row in rows
    ]
    write_table(("id", "flow", "type", "age", "status", "question"), lines, width=_output.table_width())


@interrupts.command()
def show(interrupt_id: IdArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show one interrupt with all its details."""
    root = control_store(store)
    row = _find(client_of(root), interrupt_id, root)
    _output.out(json.dumps(_plain(row), ensure_ascii=False, indent=None if as_json else 2))
    if not as_json and row.status == "waiting":
        _output.note(how_to_answer(row.id, row.type, row.payload, row.schema, root))


@interrupts.command()
def answer(
    interrupt_id: IdArgument,
    value: Annotated[str, typer.Option("--value", "-v", metavar="JSON", help="The answer: JSON, @file, or -.")],
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="Who answers (default: the login name).")] = None,
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait until it is applied.")] = _WAIT_S,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer an interrupt; the run goes on in the process it belongs to."""
    root = control_store(store)
    parsed = parse_json(value, "--value")
    client = client_of(root)
    row = _find(client, interrupt_id, root)
    _check(parsed, row)
    who = actor or login_name()
    result = client.answer(f"{row.execution_id}/{row.id}", parsed, who)
    if result.outcome is None and result.row_id is not None:
        # Nobody can apply the answer of a process that is gone; waiting for it would only look like hanging.
        # One that was given back may have a worker, though.
        result = client.wait_outcome(result.row_id, wait if not row.writer or client.owner_alive(row.writer) else 0.0)

    if not result.accepted:
        raise CliError(_refusal(result, client.get_interrupt(f"{row.execution_id}/{row.id}") or row))

    if as_json:
        record = {"interrupt_id": row.id, "actor": who, "outcome": result.outcome or "queued", "row_id": result.row_id}
        _output.out(json.dumps(record, ensure_ascii=False))
    elif result.outcome in ("applied", "duplicate"):
        _output.out(f"answered {row.id} as {who}")

    if result.outcome in (None, "early"):
        _output.note(
            f"the answer to {row.id} is kept, but no process has applied it yet: {_why_not_applied(client, row, root)}"
        )


def _plain(row: InterruptRow) -> Any:
    import msgspec

    return json_value(msgspec.to_builtins(row))


def _find(client: ControlClient, wanted: str, root: Path) -> InterruptRow:
    from flowdeck.durable import AmbiguousInterrupt

    try:
        found = client.get_interrupt(wanted)
    except AmbiguousInterrupt as error:
        raise CliError(str(error), 2) from None

    if found is None:
        listing = f"flowdeck interrupts list --all{command_store(root)}"
        raise CliError(f"there is no interrupt {wanted!r}; see: {listing}", 2)

    return found


def _status(row: InterruptRow, owned: bool, stored: bool) -> str:
    if row.status != "waiting" or owned:
        return row.status

    if not stored:
        return "lost with its process"

    # Given back: whichever worker there is goes on with it, as DBOS has it. Else its process ended without a word.
    return "waiting, needs a worker" if row.writer else "waiting"


def _refusal(result: AnswerResult, row: InterruptRow) -> str:
    if result.outcome == "conflict" and row.actor:
        given = f": {json.dumps(json_value(row.response), ensure_ascii=False)}" if row.response is not None else ""
        return f"{row.id} was answered already by {row.actor}{given}"

    return f"{row.id}: {result.detail or result.outcome}"


def _check(value: Any, row: InterruptRow) -> None:
    """Refuse what the schema forbids here, where the person still has the command on the screen."""
    if row.schema is None:
        return

    from flowdeck.execution.schema import check_value

    problem = check_value(row.schema, value)
    if problem:
        example = json.dumps(example_answer(row.schema), ensure_ascii=False)
        raise CliError(f"the answer does not fit: {problem}; one that fits: --value {shlex.quote(example)}", 2)


def _why_not_applied(client: ControlClient, row: InterruptRow, root: Path) -> str:
    if client.owner_alive(row.writer):
        return f"its run is busy; see: flowdeck runs{command_store(root)}"

    execution = client.get_execution(row.execution_id)
    if execution is None:
        return f"its run has stopped; see: flowdeck runs{command_store(root)}"

    return how_to_go_on(client, execution, root)
