"""Writes docs/reference/commands.md from the commands themselves: ``python -m docs.command_reference``."""

# ruff: noqa: E501 - lines of a page, not of code

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from flowdeck_devtools.cli._app import app as flowdeck
from flowdeck_evals.cli.app import app as evals

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parent / "reference" / "commands.md"

INTRODUCTION = """# Commands

<!-- made by python -m docs.command_reference -->

`flowdeck evals …` is the same as `evals …`. Exit codes of `flowdeck`: 0 done, 1 the work failed, 2 asked for wrongly, 130
stopped with Ctrl-C, 141 the reader of the output went away; those of `evals` are in [Evals](../evals.md). `--install-completion`
sets up your shell.
"""


def page() -> str:
    """Return the page as it should be."""
    parts = [INTRODUCTION]
    for name, made in (("flowdeck", flowdeck), ("evals", evals)):
        parts += _described(typer.main.get_command(made), name, 2)

    return "\n".join(parts).rstrip() + "\n"


def _described(command: Any, name: str, level: int) -> Iterator[str]:
    if command.hidden or (name == "flowdeck evals"):
        return

    yield f"{'#' * level} `{name}`\n"
    yield " ".join((command.help or "").split("\f")[0].split()) + "\n"
    rows = [row for parameter in command.params for row in _row(parameter)]
    if rows and not hasattr(command, "commands"):
        yield "\n".join(["| | |", "|---|---|", *rows]) + "\n"

    for sub, inner in getattr(command, "commands", {}).items():
        yield from _described(inner, f"{name} {sub}", min(level + 1, 4))


def _row(parameter: Any) -> Iterator[str]:
    if getattr(parameter, "hidden", False) or parameter.name in ("help", "install_completion", "show_completion"):
        return

    is_option = parameter.param_type_name == "option"
    shown = (
        ", ".join(f"`{each}`" for each in parameter.opts) if is_option else f"`{parameter.metavar or parameter.name}`"
    )
    text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    yield f"| {shown.replace('|', chr(92) + '|')} | {text} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
