"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli._errors import CliError

__all__ = [
    "JsonOption",
    "StoreOption",
    "command_store",
    "control_store",
    "existing_store",
    "parse_json",
    "shown_url",
    "store_path",
    "where",
]

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="The store (default: $FLOWDECK_STORE, else ./.flowdeck), or a postgresql:// URL where the executions are.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON for programs, without decoration.")]


def existing_store(explicit: str | None) -> Path:
    """Return the store to read.

    Raises:
        flowdeck.layout.StoreError: it does not exist, is a file, is too new, or cannot be read.
    """
    from flowdeck.layout import Layout

    return Path(Layout.open(store_path(explicit)).root)


def store_path(explicit: str | None) -> Path:
    """Return the directory of events; it may not exist.

    A URL says where executions are, not events: from then on this process and its children look for the executions of
    every store there, and events stay in the default directory.
    """
    from flowdeck.layout import resolve_store

    variable = os.environ.get(_STORE, "")
    if variable.startswith(_URLS):
        # The commands have one place for both; libraries refuse a URL where events are to be written.
        del os.environ[_STORE]
        os.environ.setdefault(_EXECUTIONS, variable)

    if explicit is not None and explicit.startswith(_URLS):
        os.environ[_EXECUTIONS] = explicit
        _asked["url"] = explicit
        explicit = None

    return Path(resolve_store(explicit))


def control_store(explicit: str | None) -> Path:
    """Return the store of a command that reads executions alone: in PostgreSQL, nothing has to be on this machine.

    Raises:
        flowdeck.layout.StoreError: as for :func:`existing_store`.
    """
    path = store_path(explicit)
    return path if os.environ.get(_EXECUTIONS) else existing_store(explicit)


_URLS = ("postgresql://", "postgres://")
_STORE, _EXECUTIONS = "FLOWDECK_STORE", "FLOWDECK_EXECUTIONS"
_asked: dict[str, str] = {}
"""The URL that ``--store`` gave, for hints."""


def command_store(store: Path) -> str:
    """Return the ``--store`` argument for a hint; nothing when the default finds the store anyway."""
    from flowdeck.layout import resolve_store

    if "url" in _asked and os.environ.get(_EXECUTIONS) == _asked["url"]:
        return f" --store {_quoted(shown_url(_asked['url']))}"

    try:
        if Path(resolve_store(None)).resolve() == store.resolve():
            return ""
    except OSError:
        pass

    return f" --store {_quoted(str(store))}"


def shown_url(url: str) -> str:
    """Return a URL without the password that may be in it."""
    from flowdeck.durable.postgres.address import parse

    return parse(url).shown if "@" in url and ":" in url.partition("://")[2].partition("@")[0] else url


def where(store: Path) -> str:
    """Name the place of events, and that of executions where it is another."""
    url = os.environ.get(_EXECUTIONS)
    return f"{store}, executions in {shown_url(url)}" if url else str(store)


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
