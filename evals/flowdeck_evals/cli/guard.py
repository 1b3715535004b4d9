"""How an error of a verb becomes lines and an exit code; shared by all verbs.

What a user can mend is lines and code 2. Anything else is a fault of ours: a traceback, and code 3 where there should
have been a verdict, because Python's own exit code for it, 1, would say that the gate had failed.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from flowdeck.errors import FlowdeckError, SuiteError

__all__ = ["guarded", "note", "out"]

F = TypeVar("F", bound=Callable[..., Any])
_USAGE, _INCOMPLETE = 2, 3


def out(text: str) -> None:
    """Write a result to stdout. A reader that went away does not change the exit code."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """Write something about the work to stderr; never fails."""
    try:
        sys.stderr.write("".join(c for c in text if c.isprintable() or c == "\n") + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def guarded(verdict: bool) -> Callable[[F], F]:
    """Turn errors a user can meet into lines and exit code 2; with ``verdict`` the last line of stdout says so."""

    def decorate(verb: F) -> F:
        @functools.wraps(verb)
        def run(*args: Any, **options: Any) -> Any:
            try:
                return verb(*args, **options)
            except SuiteError as error:
                return _end(error.problems, verdict, error)
            except (FlowdeckError, OSError) as error:
                return _end([str(error)], verdict, error)
            except ModuleNotFoundError as error:
                if error.name not in ("yaml", "duckdb"):
                    return _fault(error, verdict)

                return _end([f"{error.name} is not installed: pip install 'flowdeck[evals]'"], verdict, error)
            except (typer.Exit, typer.Abort, typer.BadParameter):
                raise
            except Exception as error:
                return _end([str(error)], verdict, error) if _is_store_error(error) else _fault(error, verdict)

        return run  # type: ignore[return-value]

    return decorate


def _is_store_error(error: Exception) -> bool:
    layout = sys.modules.get("flowdeck.layout")
    return layout is not None and isinstance(error, layout.StoreError)


def _fault(error: Exception, verdict: bool) -> Any:
    """Say where the harness itself broke; no verdict can be trusted then."""
    note("".join(traceback.format_exception(error)).rstrip())
    note("evals: this is a fault of evals itself, not of what it evaluates; please report it")
    if verdict:
        out(f"verdict=incomplete code={_INCOMPLETE}")

    raise typer.Exit(_INCOMPLETE)


def _end(lines: list[str], verdict: bool, error: Exception) -> Any:
    if os.environ.get("FLOWDECK_DEBUG"):
        raise error

    for line in lines[:100]:
        note(f"evals: {line}")

    if len(lines) > 100:
        note(f"evals: and {len(lines) - 100} more")

    if verdict:
        out("verdict=usage code=2")

    raise typer.Exit(_USAGE)
