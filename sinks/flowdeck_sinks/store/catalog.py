"""``observe.duckdb``: a file with nothing but views, so that any DuckDB client can query a store.

It is never written in place: a new one is built beside it and renamed over it. A client that opened the old file,
even for writing, keeps only its own copy busy. Storage format v1.0.0, which every DuckDB since 1.0 reads.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from flowdeck.layout import Layout, library_version, reap_writers
from flowdeck_sinks.store._duckdb import quoted, require_duckdb
from flowdeck_sinks.store.schema import EVENTS_VERSION, empty_select
from flowdeck_sinks.store.views import VIEWS_VERSION, view_definitions

__all__ = ["CATALOG_VERSION", "build_catalog", "catalog_is_current", "ensure_catalog"]

CATALOG_VERSION: Final = VIEWS_VERSION * 1000 + EVENTS_VERSION
CATALOG_MODE: Final = 0o400
SEED: Final = "_.parquet"
"""The empty part that gives ``parts/`` its columns before there is a real one."""

_log: Final = logging.getLogger("flowdeck.sinks.store")


def ensure_catalog(layout: Layout) -> bool:
    """Build the catalog unless it is current; return whether it is now. A store on a read-only disk stays as it is.

    Raises:
        DuckDBMissing: DuckDB is not installed.
    """
    if catalog_is_current(layout):
        return True

    duckdb = require_duckdb()
    try:
        build_catalog(layout)
    except (OSError, duckdb.Error) as error:
        _log.info("flowdeck: no catalog %s: %s", layout.catalog, error)
        return False

    return True


def catalog_is_current(layout: Layout) -> bool:
    """Return whether the catalog opens, belongs to this path, and has these views or a newer version's."""
    duckdb = require_duckdb()
    if not layout.catalog.exists() or not (layout.parts / SEED).exists():
        return False

    try:
        with _memory(duckdb) as connection:
            connection.execute(f"ATTACH {quoted(layout.catalog)} AS found (READ_ONLY)")
            row = connection.execute("SELECT root, version, digest FROM found._about").fetchone()
    except duckdb.Error:
        return False

    if row is None or row[0] != str(layout.root):
        return False

    return bool(row[1] > CATALOG_VERSION or (row[1] == CATALOG_VERSION and row[2] == _digest(layout)))


def build_catalog(layout: Layout) -> None:
    """Write ``observe.duckdb`` anew, and the empty part beside the real ones.

    Raises:
        OSError: The store cannot be written.
        duckdb.Error: The same, as DuckDB reports it.
        DuckDBMissing: DuckDB is not installed.
    """
    duckdb = require_duckdb()
    reap_writers(layout)
    with _memory(duckdb) as connection:
        with _replacing(layout.parts / SEED, 0o600) as temporary:
            connection.execute(f"COPY ({empty_select(plain=True)}) TO {quoted(temporary)} (FORMAT parquet)")
        with _replacing(layout.catalog, CATALOG_MODE) as temporary:
            connection.execute(f"ATTACH {quoted(temporary)} AS built (STORAGE_VERSION 'v1.0.0')")
            connection.execute("USE built")
            for statement in view_definitions(layout):
                connection.execute(statement)
            connection.execute(
                f"CREATE VIEW _about AS SELECT {quoted(layout.root)} AS root, {CATALOG_VERSION} AS version, "
                f"'{_digest(layout)}' AS digest, 'flowdeck {library_version()}' AS built_by"
            )
            connection.execute("USE memory")
            connection.execute("DETACH built")


def _digest(layout: Layout) -> str:
    return hashlib.sha256("\n".join(view_definitions(layout)).encode()).hexdigest()[:16]


@contextmanager
def _memory(duckdb: Any) -> Iterator[Any]:
    connection = duckdb.connect(":memory:", config={"autoload_known_extensions": "false"})
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _replacing(path: Path, mode: int) -> Iterator[Path]:
    """Give a private name to write to; rename it to ``path`` when the block succeeded."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.chmod(mode)
        temporary.rename(path)
    finally:
        for left in (temporary, temporary.with_name(temporary.name + ".wal")):
            with suppress(OSError):
                left.unlink()
