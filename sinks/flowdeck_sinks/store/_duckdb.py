"""DuckDB is an extra: it is imported where it is used, and its absence is one clear error."""

from __future__ import annotations

import os
import secrets
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from flowdeck.layout import StoreError

__all__ = ["DuckDBMissing", "as_pattern", "quoted", "require_duckdb", "spill_place"]

OLDEST = (1, 5)


class DuckDBMissing(StoreError):
    """DuckDB is not installed, or too old."""


@cache
def require_duckdb() -> Any:
    """Return the ``duckdb`` module.

    Raises:
        DuckDBMissing: It is not installed or older than 1.5; the message has the install command.
    """
    try:
        import duckdb
    except ImportError:
        raise DuckDBMissing("SQL over a store needs DuckDB: pip install 'flowdeck[duckdb]'") from None

    version = tuple(int(part) for part in duckdb.__version__.split(".")[:2])
    if version < OLDEST:
        raise DuckDBMissing(
            f"SQL over a store needs DuckDB 1.5 or newer, this is {duckdb.__version__}: "
            "pip install -U 'flowdeck[duckdb]'"
        )
    return duckdb


def quoted(text: str | os.PathLike[str]) -> str:
    """Return ``text`` as an SQL string literal."""
    return "'" + os.fspath(text).replace("'", "''") + "'"


def as_pattern(path: str | os.PathLike[str]) -> str:
    """Return a glob that matches ``path`` itself: its ``*?[`` stand for themselves."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in os.fspath(path))


def spill_place() -> str:
    """Return a folder that does not exist yet, where a connection may put what memory does not hold.

    DuckDB makes it when it is needed and removes it at the end; left to itself it takes ``.tmp`` where the user stands.
    """
    return str(Path(tempfile.gettempdir()) / f"flowdeck-sql-{os.getpid()}-{secrets.token_hex(4)}")
