"""``flowdeck demo``: audit the licences of installed distributions, in DevTools or without a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._audit import Order, Outcome, run_audit
from flowdeck_devtools.cli._demo_view import Progress, show_verdicts
from flowdeck_devtools.cli._errors import CliError, Stopped, one_line
from flowdeck_devtools.cli._example import load
from flowdeck_devtools.cli._hints import this_command
from flowdeck_devtools.cli._options import StoreOption, command_store
from flowdeck_devtools.cli._table import write_table

__all__ = ["demo"]

_QUESTION = "select event_type, count(*) as events from events group by 1 order by 2 desc, 1 limit 5"


def demo(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Site-packages folders or virtual environments (default: this one)."),
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="No DevTools: answer by policy and print.")] = False,
    approve: Annotated[
        str | None,
        typer.Option(metavar="all|none|FILE", help="The policy, or a file of approved names. Implies --headless."),
    ] = None,
    out: Annotated[str, typer.Option(metavar="DIR", help="Where report.md and summary.json go.")] = "licence-audit",
    store: StoreOption = None,
) -> None:
    """Audit the licences of the installed distributions.

    A real flow on real input, observed as it runs. With a terminal DevTools opens on the live run and you decide in
    its inbox; otherwise a policy decides.
    """
    from flowdeck.layout import Layout, resolve_store

    audit_error: type[Exception] = load("metadata").AuditError
    by_policy = headless or approve is not None or not _is_terminal_session()
    try:
        policy = load("policy").Policy.parse(approve or "none") if by_policy else None
        load("metadata").discover(paths or ())  # a typing mistake should not leave a failed run behind
        root = Path(resolve_store(store)).absolute()
        Layout.create(root)
        order = Order(tuple(paths or ()), out, root, policy)
        if by_policy:
            _without_people(order)
        else:
            from flowdeck_devtools.cli._demo_live import with_people

            _show(with_people(order), order)
    except audit_error as error:
        raise CliError(one_line(error), 2) from None


def _is_terminal_session() -> bool:
    return _output.is_terminal(sys.stdin) and _output.drawable(sys.stdout)


def _without_people(order: Order) -> None:
    progress = Progress()
    try:
        outcome = run_audit(order, progress.event)
    except Stopped as stopped:
        progress.clear()
        raise Stopped(f"stopped; the run is recorded as cancelled in {order.store}", stopped.code) from None
    finally:
        progress.clear()

    _show(outcome, order)


def _show(outcome: Outcome, order: Order) -> None:
    show_verdicts(outcome.summary)
    _output.out(f"\nreport   {outcome.summary['report']}\nsummary  {outcome.summary['summary']}")
    _output.out(f"store    {order.store}\n")
    for remark in outcome.remarks:
        _output.note(f"flowdeck: {remark}")

    _output.out(f'$ {this_command()} sql{command_store(order.store)} "{_QUESTION}"')
    result: Any = _query(order.store)
    write_table(result.columns, result.rows, width=_output.table_width())


def _query(store: Path) -> Any:
    from flowdeck_sinks.store import query

    return query(store, _QUESTION)
