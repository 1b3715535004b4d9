"""``flowdeck executions``: what is open now, and what can be done about it from any terminal."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._executions import ActorOption, IdArgument, client_of, find, told, who_runs
from flowdeck_devtools.cli._options import JsonOption, StoreOption, command_store, control_store
from flowdeck_devtools.cli._table import json_value, write_table
from flowdeck_devtools.core.login import login_name
from flowdeck_devtools.core.text import age

if TYPE_CHECKING:
    from pathlib import Path

    from flowdeck.durable import ControlClient, ExecutionRow

__all__ = ["executions"]

_WAIT_S = 5.0

executions = typer.Typer(
    help="List executions, and cancel, resume or fork them.", no_args_is_help=True, rich_markup_mode=None
)

WaitOption = Annotated[float, typer.Option(min=0.0, help="Seconds to wait until it is applied.")]


@executions.command("list")
def list_executions(
    all_: Annotated[bool, typer.Option("--all", help="Finished ones, too.")] = False,
    status: Annotated[str | None, typer.Option(help="Only these, for example waiting or blocked_version.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most executions to list.")] = 100,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the executions of a store, the latest first."""
    client = client_of(control_store(store))
    wanted = [each.strip() for each in status.split(",")] if status else None
    _check_statuses(wanted or [])
    rows = client.list_executions(open_only=not all_ and not wanted, status=wanted, limit=limit)
    if as_json:
        _output.out(json.dumps([_plain(client, row) for row in rows], ensure_ascii=False, indent=2))
        return

    if not rows:
        none = "no executions yet" if all_ else f"no executions that are {status}" if wanted else "no open executions"
        _output.note(none)
        return

    now_us = time.time() * 1e6
    lines = [
        (row.id, row.flow_name, row.status, age(now_us - row.started_us), row.open_interrupts, who_runs(client, row))
        for row in rows
    ]
    write_table(("execution", "flow", "status", "age", "waits for", "process"), lines, width=_output.table_width())


@executions.command()
def show(
    execution_id: IdArgument,
    history: Annotated[bool, typer.Option("--history", help="Its committed points, to fork from.")] = False,
    state: Annotated[bool, typer.Option("--state", help="Its state, as far as it is committed.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one execution: what it waits for, what a resume needs, and its committed points."""
    root = control_store(store)
    client = client_of(root)
    row = find(client, execution_id, root)
    record = _plain(client, row)
    record["interrupts"] = [
        {"id": each.id, "type": each.type, "payload": json_value(each.payload)}
        for each in client.list_interrupts(execution_id=row.id)
    ]
    record["inbox"] = [
        {"id": each.id, "kind": each.kind, "target": each.target, "actor": each.actor}
        for each in client.list_inbox(execution_id=row.id, pending_only=True)
    ]
    if state:
        record["state"] = json_value(client.stored_state(row.id)["runtime_data"])

    if history:
        record["history"] = [
            {"at": point.seq, "time_us": point.time_us, "inputs": point.codes} for point in client.history(row.id)
        ]

    _output.out(json.dumps(record, ensure_ascii=False, indent=None if as_json else 2))
    durable = record["durable"]
    if not as_json and durable is not None and row.finished_us is None and record["process"] != "alive":
        needs = f" with resources {', '.join(durable['resource_keys'])}" if durable["resource_keys"] else ""
        entry = row.entrypoint or "MODULE:FLOW"
        _output.note(f"nobody runs it; take it up{needs}: flowdeck worker {entry}{command_store(root)}")


@executions.command()
def cancel(
    execution_id: IdArgument,
    actor: ActorOption = None,
    wait: WaitOption = _WAIT_S,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel an execution: its handlers are stopped, its interrupts given up."""
    root = control_store(store)
    client = client_of(root)
    row = find(client, execution_id, root)
    who = actor or login_name()
    result = client.put_inbox("cancel", row.id, None, None, who)
    record = told(client, row, result, wait, root, f"cancelled {row.id} as {who}")
    if as_json:
        _output.out(json.dumps({**record, "actor": who}, ensure_ascii=False))


@executions.command()
def resume(
    execution_id: IdArgument,
    flow: Annotated[str | None, typer.Option(metavar="MODULE:FLOW", help="Its flow, when it has moved.")] = None,
    resources: Annotated[str | None, typer.Option(metavar="MODULE:FN", help="Returns the runtime resources.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also from a living process that is stuck.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an execution up in this process, and run it until it ends or waits for somebody."""
    root = control_store(store)
    client = client_of(root)
    row = find(client, execution_id, root)
    if client.durable_info(row.id) is None:
        raise CliError(f"{row.id} is not durable (see runtime.use_store), so it cannot be taken up", 2)

    spec = flow or row.entrypoint
    if spec is None:
        raise CliError(f"{row.id} does not say where its flow is; name it: --flow MODULE:FLOW", 2)

    status = _resumed(root, row, spec, resources, force)
    if as_json:
        _output.out(json.dumps({"execution_id": row.id, "status": status}))
    else:
        _output.out(f"{row.id} is {status}")


def _resumed(root: Path, row: ExecutionRow, spec: str, resources: str | None, force: bool) -> str:
    from flowdeck import runtime
    from flowdeck.durable.worker import Worker
    from flowdeck_devtools.cli._flows import load_flow, load_function
    from flowdeck_devtools.cli._observe import observe
    from flowdeck_devtools.cli._stopping import run_stoppable

    given = load_function(resources) if resources else None
    definition = load_flow(spec)
    with observe(root):
        worker = Worker(root, [definition], runtime.services, resources=given)
        execution = run_stoppable(worker.run_one(row.id, force=force))
        return str(execution.get_status())


@executions.command()
def fork(
    execution_id: IdArgument,
    at: Annotated[int | None, typer.Option(min=0, metavar="N", help="After so many inputs (default: all).")] = None,
    actor: ActorOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new execution that goes on from a committed point of this one. A worker takes it up."""
    from flowdeck.durable.using import open_store

    root = control_store(store)
    client = client_of(root)
    row = find(client, execution_id, root)
    if client.durable_info(row.id) is None:
        raise CliError(f"{row.id} is not durable (see runtime.use_store), so it has no committed points", 2)

    who = actor or login_name()
    try:
        new = open_store(root).fork(row.id, at, actor=who)
    except ValueError as error:
        raise CliError(f"{error}; see: flowdeck executions show {row.id} --history{command_store(root)}", 2) from None

    if as_json:
        _output.out(json.dumps({"execution_id": new, "forked_from": row.id, "actor": who}))
    else:
        _output.out(new)
        _output.note(f"take it up: flowdeck worker {row.entrypoint or 'MODULE:FLOW'}{command_store(root)}")


@executions.command()
def prune(
    days: Annotated[float | None, typer.Option(min=0.0, help="Forget what ended longer ago.")] = 30.0,
    keep: Annotated[int | None, typer.Option(min=0, help="Keep the newest so many at most.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget finished executions. Their events stay in the store's history."""
    from flowdeck.durable import Retention
    from flowdeck.durable.using import open_store

    root = control_store(store)
    count = open_store(root).prune(Retention(days=days, keep=keep))
    _output.out(json.dumps({"forgotten": count}) if as_json else f"forgot {count} finished executions")


def _check_statuses(wanted: list[str]) -> None:
    from flowdeck.events.catalogue import TRANSITIONS

    known = [status for status in TRANSITIONS if status != "lost"]  # lost is concluded by readers, never registered
    unknown = [status for status in wanted if status not in known]
    if unknown:
        raise CliError(f"--status {','.join(unknown)}: choose from {', '.join(known)}", 2)


def _plain(client: ControlClient, row: ExecutionRow) -> dict[str, Any]:
    import msgspec

    info = client.durable_info(row.id)
    record: dict[str, Any] = {"process": who_runs(client, row), **msgspec.to_builtins(row)}
    record["durable"] = None if info is None else msgspec.to_builtins(info)
    plain: dict[str, Any] = json_value(record)
    return plain
