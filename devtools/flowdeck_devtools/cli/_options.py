"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli._errors import CliError

__all__ = ["JsonOption", "StoreOption", "command_store", "existing_store", "parse_json"]

StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="DIR", help="The store (default: $FLOWDECK_STORE, else ./.flowdeck)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON for programs, without decoration.")]


def existing_store(explicit: str | None) -> Path:
    """Return the store to read.

    Raises:
        flowdeck.layout.StoreError: it does not exist, is a file, is too new, or cannot be read.
    """
    from flowdeck.layout import Layout, resolve_store

    return Path(Layout.open(resolve_store(explicit)).root)


def command_store(store: Path) -> str:
    """Return the ``--store`` argument for a hint; nothing when the default finds the store anyway."""
    from flowdeck.layout import resolve_store

    try:
        if Path(resolve_store(None)).resolve() == store.resolve():
            return ""
    except OSError:
        pass

    return f" --store {_quoted(str(store))}"


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def parse_json(text: str, option: str) -> Any:
    """Read an option that holds JSON: the text itself, ``@file``, or ``-`` for stdin.

    Raises:
        CliError: it is no JSON; a bare word gets the hint to quote it.
    """
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise CliError(f"{option} {text} cannot be read: {reason}", 2) from None

    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise CliError(f"{option}: the JSON is nested too deeply", 2) from None
    except ValueError as error:
        bare = text.strip()
        hint = f"; for the text {bare!r} write '\"{bare}\"'" if bare.replace("_", "").replace("-", "").isalnum() else ""
        raise CliError(f"{option} is no valid JSON: {error}{hint}", 2) from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
