"""The Typer application: one function per verb, each in a module of its own."""

from __future__ import annotations

import sys

import typer

from flowdeck_evals.cli.baseline import baseline
from flowdeck_evals.cli.calibrate import calibrate
from flowdeck_evals.cli.compare import compare
from flowdeck_evals.cli.listing import list_suites
from flowdeck_evals.cli.merge import merge
from flowdeck_evals.cli.mine import mine
from flowdeck_evals.cli.record import record
from flowdeck_evals.cli.replay import replay
from flowdeck_evals.cli.report import report
from flowdeck_evals.cli.run import run
from flowdeck_evals.cli.schema import lint, schema
from flowdeck_evals.cli.score import score

__all__ = ["app", "run_command"]

app = typer.Typer(
    name="evals",
    help="Run scenario cases against flows and get a verdict that can be trusted before a release.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(list_suites)
app.command("run")(run)
app.command("record")(record)
app.command("replay")(replay)
app.command("compare")(compare)
app.command("score")(score)
app.command("merge")(merge)
app.command("mine")(mine)
app.command("calibrate")(calibrate)
app.command("schema")(schema)
app.command("lint")(lint)
app.command("report")(report)
app.add_typer(baseline)


def run_command(argv: list[str]) -> int:
    """Run one command line and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")

    try:
        code = app(args=argv, prog_name="evals", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None or not hasattr(error, "exit_code"):
            raise

        show()
        return int(error.exit_code)
