"""``flowdeck intervene``: add context to a run from another terminal, while it runs or waits."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._executions import ActorOption, IdArgument, client_of, find, told
from flowdeck_devtools.cli._options import JsonOption, StoreOption, control_store, parse_json
from flowdeck_devtools.core.login import login_name

__all__ = ["intervene"]


def intervene(
    execution_id: IdArgument,
    value: Annotated[
        str | None, typer.Option("--value", "-v", metavar="JSON", help="What to add: JSON, @file, or -.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Where it becomes visible: a point, an operator, a block.")] = None,
    note: Annotated[str | None, typer.Option(help="Why, for people.")] = None,
    reject: Annotated[str | None, typer.Option(metavar="ID", help="Refuse this pending intervention instead.")] = None,
    actor: ActorOption = None,
    key: Annotated[str | None, typer.Option(help="Dedup key: the same key is applied once.")] = None,
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait until it is recorded.")] = 5.0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add an intervention to an execution. It changes nothing until an operator that takes it is reached."""
    if (value is None) == (reject is None):
        raise CliError("give --value JSON to add an intervention, or --reject ID to refuse one", 2)

    root = control_store(store)
    client = client_of(root)
    payload: Any
    if reject is not None:
        target, payload = reject, {"action": "reject", "reason": note}
    else:
        payload = {"payload": parse_json(value or "", "--value"), "note": note}

    row = find(client, execution_id, root)
    who = actor or login_name()
    result = client.put_inbox("intervene", row.id, target, payload, who, key)
    done = f"refused {reject} as {who}" if reject else f"recorded for {row.id} as {who}"
    record = told(client, row, result, wait, root, done)
    if as_json:
        _output.out(json.dumps({**record, "actor": who}, ensure_ascii=False))
    elif record["detail"]:
        _output.out(str(record["detail"]))
