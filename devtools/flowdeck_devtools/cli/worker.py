"""``flowdeck worker``: take up durable executions that nobody runs, and go on with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError, Stopped
from flowdeck_devtools.cli._flows import load_flow, load_function
from flowdeck_devtools.cli._observe import observe
from flowdeck_devtools.cli._options import JsonOption, StoreOption, store_path, where
from flowdeck_devtools.cli._stopping import run_stoppable

if TYPE_CHECKING:
    from flowdeck.durable.worker import Worker

__all__ = ["worker"]


def worker(
    flows: Annotated[list[str], typer.Argument(metavar="MODULE:FLOW...", help="The flows whose executions it runs.")],
    once: Annotated[bool, typer.Option("--once", help="End when nothing is left but what waits for somebody.")] = False,
    resources: Annotated[
        str | None, typer.Option(metavar="MODULE:FN", help="Returns runtime resources; beside @flow.resources.")
    ] = None,
    durability: Annotated[str, typer.Option(help="full, process or exit.")] = "full",
    engine: Annotated[
        str, typer.Option(help="own, or dbos: DBOS says what runs where; --store is the URL of a PostgreSQL store.")
    ] = "own",
    concurrency: Annotated[int, typer.Option(min=1, help="Executions that may be active at once.")] = 256,
    keep_days: Annotated[float | None, typer.Option(min=0.0, help="Forget what ended longer ago.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take up executions that were left behind: after a crash, an answer, or when their time has come.

    A step that was running when its process ended runs again, with the same data.idempotency_key and the next attempt.
    """
    from flowdeck import runtime
    from flowdeck.durable import Retention
    from flowdeck.durable.store import DURABILITIES

    if durability not in DURABILITIES[1:]:
        raise CliError(f"--durability {durability}: choose from {', '.join(DURABILITIES[1:])}", 2)

    definitions = [load_flow(spec) for spec in flows]
    given = load_function(resources) if resources else None
    root = store_path(store)
    with observe(root):
        working = _worker_class(engine)(
            root,
            definitions,
            runtime.services,
            resources=given,
            durability=durability,
            concurrency=concurrency,
            retention=None if keep_days is None else Retention(days=keep_days),
            tell=_tell,
        )
        names = ", ".join(sorted(working.flows))
        _output.note(f"working on {names} in {where(root)}{'' if once else '; Ctrl-C stops'}")
        try:
            report = run_stoppable(working.run(once=once))
        except Stopped as stopped:
            raise Stopped("stopped; what is open can be taken up again", stopped.code) from None

    if as_json:
        _output.out(json.dumps(_plain(report), ensure_ascii=False))
    else:
        _output.note(
            f"{report.taken_up} taken up, {report.started} started, {report.ended} ended, {report.parked} wait"
        )

    if report.refused:
        raise CliError(f"{len(report.refused)} execution(s) could not be taken up; see: flowdeck executions list")


def _worker_class(engine: str) -> type[Worker]:
    if engine == "own":
        from flowdeck.durable.worker import Worker

        return Worker

    if engine != "dbos":
        raise CliError(f"--engine {engine}: choose from own, dbos", 2)

    from flowdeck.durable.on_dbos.worker import DbosWorker

    return DbosWorker


def _tell(kind: str, execution_id: str, text: str) -> None:
    words = {"taken": "took up", "started": "started", "ended": "ended", "refused": "could not take up"}
    _output.note(f"{words[kind]} {execution_id}: {text}")


def _plain(report: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(report)
