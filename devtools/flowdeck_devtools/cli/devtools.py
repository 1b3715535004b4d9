"""``flowdeck devtools``: watch live and past runs in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._options import StoreOption, existing_store

__all__ = ["devtools", "open_devtools"]


def devtools(
    run: Annotated[str | None, typer.Option(metavar="ID", help="Open this run or execution at once.")] = None,
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="Who answers (default: the login name).")] = None,
    store: StoreOption = None,
) -> int:
    """Watch live and past runs, and answer what waits."""
    return open_devtools(existing_store(store), run, actor)


def open_devtools(store: Path, run: str | None = None, actor: str | None = None) -> int:
    """Show DevTools on ``store`` until the person leaves it, and return its exit code.

    Raises:
        CliError: there is no terminal to show it on.
    """
    if not (_output.is_terminal(sys.stdin) and _output.is_terminal(sys.stdout)):
        raise CliError("devtools needs a terminal; for pipes use: flowdeck runs, flowdeck events, flowdeck sql", 2)

    from flowdeck_devtools.tui import run_devtools

    return run_devtools(store, initial_run=run, actor=actor)
