"""``flowdeck inbox``: everything that waits for a person, with what happens next and how to answer."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._hints import how_to_answer
from flowdeck_devtools.cli._options import JsonOption, StoreOption, existing_store
from flowdeck_devtools.cli._table import json_value
from flowdeck_devtools.core.span import short_json
from flowdeck_devtools.core.text import age, clean

if TYPE_CHECKING:
    from flowdeck_devtools.core.inbox import InterruptRow

__all__ = ["inbox"]


def inbox(
    all_: Annotated[bool, typer.Option("--all", help="What was answered or expired, too.")] = False,
    mine: Annotated[
        str | None, typer.Option("--mine", metavar="NAME", help="Only what is asked of this person.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what waits for a person: the question, what happens after an answer, and the command that gives one."""
    from flowdeck_devtools.core.inbox import Inbox  # loads SQLite, which the other commands do without

    root = existing_store(store)
    box = Inbox(root)
    box.look()
    if box.problem:
        _output.note(f"flowdeck: {box.problem}")
        raise typer.Exit(2)

    rows = [row for row in box.rows if (all_ or row.is_open) and (mine is None or mine in row.assignees)]
    now_us = time.time_ns() // 1000
    if as_json:
        _output.out(json.dumps([_as_data(row, now_us) for row in rows], ensure_ascii=False))
        return

    if not rows:
        _output.note("nothing waits for an answer")
        return

    for number, row in enumerate(rows):
        if number:
            _output.out("")
        for text in _lines(row, now_us):
            _output.out(text)
        if row.is_open:
            _output.out(how_to_answer(row.id, row.type, row.payload, row.schema, root).splitlines()[-1])


def _lines(row: InterruptRow, now_us: int) -> list[str]:
    waited = age(now_us - row.opened_us) if row.opened_us is not None else "–"
    left = f", expires in {age(row.expires_us - now_us)}" if row.expires_us is not None and row.is_open else ""
    width = _output.table_width()
    room = 4000 if width is None else max(20, width - 2)
    lines = [f"{'!' if row.is_open else '✓'} {row.id}  {clean(row.flow)}  {waited}{left}", f"  {row.question}"]
    if row.is_open:
        lines.append(f"  then: {row.consequence}")
    else:
        lines.append(f"  {row.outcome}")
    if row.context is not None and row.is_open:
        lines.append(f"  with: {clean(short_json(row.context, 400))}")
    return [clean(line, limit=room) if width is not None else line for line in lines]


def _as_data(row: InterruptRow, now_us: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "execution_id": row.execution_id,
        "flow_name": row.flow,
        "type": row.type,
        "status": row.status,
        "open": row.is_open,
        "owned": row.owned,
        "question": row.question,
        "payload": json_value(row.payload),
        "schema": json_value(dict(row.schema)) if row.schema is not None else None,
        "consequence": row.consequence,
        "outcome": row.outcome,
        "age_s": (now_us - row.opened_us) / 1e6 if row.opened_us is not None else None,
        "expires_s": (row.expires_us - now_us) / 1e6 if row.expires_us is not None else None,
        "assignees": list(row.assignees),
        "actor": row.actor,
        "response": json_value(row.response),
    }
