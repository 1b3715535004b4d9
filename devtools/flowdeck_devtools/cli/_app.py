"""The Typer application and the one place where a command's errors become a line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from flowdeck_devtools.cli import _output, missing_extra
from flowdeck_devtools.cli._commands import Commands
from flowdeck_devtools.cli._errors import OutputClosed, Stopped, explain, one_line

__all__ = ["app", "run"]

_CLICK_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)  # Typer carries its own copy of click in newer versions, so the class is taken from where Typer has it.

app = typer.Typer(
    name="flowdeck",
    cls=Commands,
    help="Run flows, watch them live, query what happened, and answer what waits for a person.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
