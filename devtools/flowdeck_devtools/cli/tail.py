"""``flowdeck tail``: events as they come, and those piped in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flowdeck_devtools.cli._errors import Stopped
from flowdeck_devtools.cli._options import JsonOption, StoreOption
from flowdeck_devtools.cli.events import compile_filter, events, show_lines

__all__ = ["tail"]


def tail(
    file: Annotated[str | None, typer.Argument(metavar="[FILE|-]", help="Read JSON lines from here instead.")] = None,
    filter: Annotated[str, typer.Option(metavar="EXPR", help="Only matching: 'level>=warn kind:chunk.*'.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many of the newest to begin with.")] = 10,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show events as they come, until Ctrl-C. The twin of DevTools' Events screen."""
    if file is None:
        events(follow=True, limit=limit, filter=filter, store=store, as_json=as_json)
        return

    wanted = compile_filter(filter)
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as lines:
            for line in lines:
                text = line.rstrip(b"\r\n")
                if text and not text.startswith(b'{"flowdeck":') and wanted(text):
                    show_lines([text], as_json=as_json)
    except KeyboardInterrupt:
        raise Stopped("") from None
