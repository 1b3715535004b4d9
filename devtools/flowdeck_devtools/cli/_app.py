"""The Typer application and the one place where a command's errors become a line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from flowdeck_devtools.cli import _output, missing_extra
from flowdeck_devtools.cli._errors import OutputClosed, Stopped, explain, one_line
from flowdeck_devtools.cli.demo import demo
from flowdeck_devtools.cli.devtools import devtools
from flowdeck_devtools.cli.diff import diff
from flowdeck_devtools.cli.doctor import doctor
from flowdeck_devtools.cli.errors import errors
from flowdeck_devtools.cli.evals import evals
from flowdeck_devtools.cli.events import events
from flowdeck_devtools.cli.executions import executions
from flowdeck_devtools.cli.export import export
from flowdeck_devtools.cli.graph import graph
from flowdeck_devtools.cli.inbox import inbox
from flowdeck_devtools.cli.interrupts import interrupts
from flowdeck_devtools.cli.intervene import intervene
from flowdeck_devtools.cli.run import run as run_flow
from flowdeck_devtools.cli.runs import runs
from flowdeck_devtools.cli.show import show
from flowdeck_devtools.cli.sql import sql
from flowdeck_devtools.cli.store import store
from flowdeck_devtools.cli.tail import tail
from flowdeck_devtools.cli.waterfall import waterfall
from flowdeck_devtools.cli.why import why
from flowdeck_devtools.cli.worker import worker
from flowdeck_devtools.cli.workspace import workspace

__all__ = ["app", "run"]

_CLICK_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)  # Typer carries its own copy of click in newer versions, so the class is taken from where Typer has it.

app = typer.Typer(
    name="flowdeck",
    help="Run flows, watch them live, query what happened, and answer what waits for a person.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("run")(run_flow)
app.command("devtools")(devtools)
app.command("watch", hidden=True, help="The same as devtools.")(devtools)
app.add_typer(interrupts, name="interrupts")
app.add_typer(executions, name="executions")
app.command("intervene")(intervene)
app.command("worker")(worker)
app.add_typer(workspace, name="workspace")
app.command("sql")(sql)
app.add_typer(store, name="store")
app.command("runs")(runs)
app.command("events")(events)
app.add_typer(export, name="export")
app.add_typer(evals, name="evals")
app.command("doctor")(doctor)
app.command("graph")(graph)
app.command("show")(show)
app.command("waterfall")(waterfall)
app.command("why")(why)
app.command("diff")(diff)
app.command("errors")(errors)
app.command("tail")(tail)
app.command("inbox")(inbox)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        _output.out(f"flowdeck {version('flowdeck')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


def run(argv: list[str]) -> int:
    """Run one command line and return the exit code."""
    _output.prepare()
    try:
        code = app(args=argv, prog_name="flowdeck", standalone_mode=False)
        _output.flush()
        return code if isinstance(code, int) else 0
    except OutputClosed:
        _silence_stdout()
        return 141
    except Stopped as stopped:
        if str(stopped):
            _output.note(str(stopped))

        return stopped.code
    except (KeyboardInterrupt, typer.Abort):
        _output.note("stopped")
        return 130
    except SystemExit as leaving:  # click ends so when the reader of its own output went away
        _silence_stdout()
        return leaving.code if isinstance(leaving.code, int) else 1
    except _CLICK_ERROR as error:
        error.show()  # type: ignore[attr-defined]
        return int(getattr(error, "exit_code", 2))
    except ModuleNotFoundError as error:
        return _report(missing_extra(error), 2, error)
    except Exception as error:
        known = explain(error)
        return _report(str(known) if known else None, known.code if known else 1, error)


def _report(message: str | None, code: int, error: Exception) -> int:
    if os.environ.get("FLOWDECK_DEBUG"):
        raise error

    if message is None:
        kind = type(error).__name__
        message = f"internal error, {kind}: {one_line(error)}; FLOWDECK_DEBUG=1 shows where. Please report it"

    _output.note(f"flowdeck: {message}")
    return code


def _silence_stdout() -> None:
    """Keep the interpreter from complaining when it flushes a closed stdout at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass
