"""A locked-down DuckDB connection over a store: it reads the store's events and can do nothing to it.

DuckDB itself refuses files outside the store, extensions and changed settings. Inside the store it would let ``COPY``
and ``ATTACH`` write, so every statement is looked at first. Before each one the connection looks which files hold the
events now, so that they can come and go while it is open.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from flowdeck.layout import Layout, is_locked, reap_writers
from flowdeck_sinks.store._duckdb import as_pattern, quoted, require_duckdb, spill_place
from flowdeck_sinks.store.catalog import ensure_catalog
from flowdeck_sinks.store.guard import HARMLESS, QUERIES, QueryRefused, check
from flowdeck_sinks.store.parts import Source, events_select, is_whole, visible_sources
from flowdeck_sinks.store.schema import COLUMNS
from flowdeck_sinks.store.unfinished import load_unfinished, with_unfinished
from flowdeck_sinks.store.views import ALL_LIFECYCLE, view_definitions

__all__ = ["QueryRefused", "StoreConnection", "connect"]

MEMORY: Final = "512MB"
"""What a connection holds; larger sorts and groups go to disk."""
SPILL: Final = "10GB"
"""Most of what it puts there."""
VANISHED_TRIES: Final = 20
"""Further tries when a file vanished. What is merged goes long after it was last listed, so this is for retention."""

_VANISHED: Final = re.compile(r"No such file|Cannot open file|No files found", re.IGNORECASE)
_NAME: Final = re.compile(r"CREATE OR REPLACE (?:VIEW|MACRO) (\w+)")
_WORD: Final = re.compile(r"\w+")
_SHOWN_ALL: Final = frozenset({"show", "describe", "summarize", "information_schema", "sqlite_master", "pragma"})
"""Words after which a statement may want to see every view."""
_log: Final = logging.getLogger("flowdeck.sinks.store")


class StoreConnection:
    """A DuckDB connection with the store's views and macros, of which only the statements are watched.

    :meth:`execute` and :meth:`sql` are as DuckDB's. Everything else (``fetchall``, ``description``, ``df``,
    ``to_arrow_table`` ...) is DuckDB's own. Tables may be created: they live in memory.

    Args:
        raw: The DuckDB connection.
        files: What the connection knows about the store's files; shared by its cursors.
        allowed: The kinds of statements that are run.
    """

    def __init__(self, raw: Any, files: _Files, allowed: Collection[str] = HARMLESS) -> None:
        self._raw = raw
        self._files = files
        self._allowed = allowed

    @property
    def layout(self) -> Layout:
        """The store."""
        return self._files.layout

    def execute(self, query: Any, parameters: Any = None) -> StoreConnection:
        """Run a statement and return this connection, which has its result.

        A file that vanishes between listing and opening (it was merged or pruned) makes it run again.

        Raises:
            QueryRefused: It does more than read; the message names the mend.
            duckdb.Error: As DuckDB reports it; ``duckdb.InterruptException`` after ``interrupt()``.
        """
        self._run(lambda: self._raw.execute(query, parameters), query)
        return self

    def executemany(self, query: Any, parameters: Any = None) -> StoreConnection:
        """Run a statement once per row of parameters, as DuckDB does.

        Raises:
            QueryRefused, duckdb.Error: as :meth:`execute`.
        """
        self._run(lambda: self._raw.executemany(query, parameters), query)
        return self

    def sql(self, query: Any, **options: Any) -> Any:
        """Return a DuckDB relation for a query; it reads when it is shown or fetched.

        Raises:
            QueryRefused, duckdb.Error: as :meth:`execute`.
        """
        return self._run(lambda: self._raw.sql(query, **options), query)

    query = from_query = sql

    def table(self, name: str) -> Any:
        """Return a DuckDB relation for a view or table."""
        return self._run(lambda: self._raw.table(name), f'FROM "{name}"')

    view = table

    def cursor(self) -> StoreConnection:
        """Return a connection to the same tables and views, for another thread."""
        return StoreConnection(self._raw.cursor(), self._files, self._allowed)

    duplicate = cursor

    def set_resumable(self, executions: Iterable[str]) -> None:
        """Say anew which open executions ``state.db`` holds for whoever resumes them; they are not called lost."""
        self._files.set_resumable(executions)

    def size(self) -> int:
        """Return the bytes of the files that hold the events now."""
        return self._files.size()

    def interrupt(self) -> None:
        """Stop the running query. Called from another thread."""
        self._raw.interrupt()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._raw.close()

    def check(self, query: Any, allowed: Collection[str] | None = None) -> None:
        """Refuse what is not allowed, without running it.

        Raises:
            QueryRefused: It is not.
            duckdb.ParserException: It is no SQL.
        """
        kinds = self._allowed if allowed is None else allowed
        if isinstance(query, str):
            check(self._raw, query, kinds)
        elif query.type.name not in kinds:  # a statement that DuckDB has parsed
            check(self._raw, query.query, kinds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __enter__(self) -> StoreConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Callable[[], Any], query: Any) -> Any:
        self.check(query)
        text = query if isinstance(query, str) else query.query

        def look_and_work() -> Any:
            self._files.refresh()
            self._files.provide(text)
            try:
                return work()
            except require_duckdb().CatalogException:
                if not self._files.provide():
                    raise

                return work()  # the SQL made a view's name out of pieces

        return _retried(look_and_work)


def connect(
    store: str | os.PathLike[str],
    *,
    resumable: Iterable[str] = (),
    threads: int | None = None,
    memory: str = MEMORY,
    read_only: bool = False,
) -> StoreConnection:
    """Return a DuckDB connection, in memory, with the store's views and macros.

    It sees new events with every query, takes no lock, cannot reach files outside the store and writes none. What does
    not fit into its memory goes to a directory in the system's temporary one, which goes with it.

    Args:
        store: The store's directory.
        resumable: Executions that ``state.db`` holds for whoever resumes them; they are not called lost.
        threads: DuckDB threads; its own choice when omitted.
        memory: DuckDB's memory limit.
        read_only: Refuse even tables in memory.

    Raises:
        StoreError: There is no store, it cannot be read, or DuckDB is missing.
    """
    layout = Layout.open(store)
    duckdb = require_duckdb()
    ensure_catalog(layout)
    settings = {
        "autoload_known_extensions": "false",
        "autoinstall_known_extensions": "false",
        "allow_persistent_secrets": "false",
        "memory_limit": memory,
        "temp_directory": spill_place(),
        "max_temp_directory_size": SPILL,
    }
    raw = duckdb.connect(":memory:", config=settings)
    try:
        for setting in ("TimeZone = 'UTC'", "parquet_metadata_cache = true", "enable_progress_bar = false"):
            raw.execute(f"SET {setting}")
        if threads is not None:
            raw.execute(f"SET threads = {int(threads)}")
        files = _Files(layout, raw.cursor(), resumable)
        _retried(files.refresh)
        allowed = {f"{layout.root}/", f"{as_pattern(layout.root)}/"}  # both are compared as text
        raw.execute(f"SET allowed_directories = [{', '.join(map(quoted, allowed))}]")
        raw.execute("SET enable_external_access = false")
        raw.execute("SET lock_configuration = true")
    except BaseException:
        raw.close()
        raise

    return StoreConnection(raw, files, QUERIES if read_only else HARMLESS)


class _Files:
    """Keeps ``events``, its parts and ``_live_writers`` of one in-memory database as the store's files are."""

    def __init__(self, layout: Layout, raw: Any, resumable: Iterable[str]) -> None:
        self.layout = layout
        self._raw = raw
        self._lock = threading.Lock()
        self._sources: list[Source] | None = None
        self._writers: list[str] | None = None
        self._known: set[Path] = set()
        self._complete: dict[Path, bool] = {}
        self._whole: set[Path] = set()
        self._damaged: set[Path] = set()
        raw.execute("CREATE TABLE _live_writers (writer VARCHAR)")
        raw.execute("CREATE TABLE _resumable (execution_id VARCHAR)")
        self.set_resumable(resumable)
        raw.execute(f"CREATE TABLE _unfinished (file VARCHAR, {', '.join(f'{c.name} {c.type}' for c in COLUMNS)})")

        self._missing: dict[str, str] = {}
        for statement in view_definitions(layout, in_memory=True):
            found = _NAME.match(statement)
            assert found is not None
            self._missing[found[1]] = statement
        self._wanting = _wanting(self._missing)
        for name in ("events", "_stored", "_tail", "_stored_lifecycle"):
            raw.execute(self._missing.pop(name))

    def set_resumable(self, executions: Iterable[str]) -> None:
        """Replace the table ``_resumable``."""
        with self._lock:
            self._replace("_resumable", sorted(set(executions)))

    def size(self) -> int:
        """Return the bytes of the files as of the last look."""
        total = 0
        for source in self._sources or ():
            with suppress(FileNotFoundError):
                total += source.path.stat().st_size
        return total

    def provide(self, sql: str | None = None) -> bool:
        """Create the views and macros that a statement names, all without one; return whether there were any.

        Binding a view costs a few milliseconds and there are many, so that who asks for one thing does not wait for
        the others.
        """
        if not self._missing:
            return False

        with self._lock:
            words = None if sql is None else set(_WORD.findall(sql.lower()))
            if words is None or words & _SHOWN_ALL or any(word.startswith(("duckdb_", "pragma_")) for word in words):
                wanted = set(self._missing)
            else:
                wanted = set().union(*(self._wanting[word] for word in words if word in self._wanting))
            chosen = [name for name in self._missing if name in wanted]
            for name in chosen:
                self._raw.execute(self._missing[name])
                del self._missing[name]
            return bool(chosen)

    def refresh(self) -> None:
        """Look at the directories, and change what has changed. A look costs about 0.1 ms."""
        with self._lock:
            self._refresh_sources()
            self._refresh_writers()

    def _refresh_sources(self) -> None:
        sources = self._readable_sources()
        if sources == self._sources:
            return

        self._sources = None  # until all that follows has worked
        alike = self._are_alike([source.path for source in sources if source.kind != "segment"])
        stored = [source for source in sources if source.kind != "segment"]
        tail = [source for source in sources if source.kind == "segment"]
        for name, chosen in (("events", sources), ("_stored", stored), ("_tail", tail)):
            self._raw.execute(f"CREATE OR REPLACE VIEW {name} AS {events_select(chosen, alike=alike)}")
        days = [source.path for source in sources if source.kind == "day"]
        self._known = load_unfinished(self._raw, days, self._known)
        rest = [source for source in stored if source.path not in self._known]
        lifecycle = with_unfinished(events_select(rest, alike=alike), ALL_LIFECYCLE)
        self._raw.execute(f"CREATE OR REPLACE VIEW _stored_lifecycle AS {lifecycle}")
        self._sources = sources

    def _readable_sources(self) -> list[Source]:
        """Return the files to read; in place of one that is not whole those it stands for, where they are left."""
        broken: set[Path] = set()
        while True:
            sources = visible_sources(self.layout, at_once=True, without=broken)
            found = {source.path for source in sources if not self._is_whole(source)}
            if not found:
                return sources

            broken |= found

    def _is_whole(self, source: Source) -> bool:
        """Return whether a file can be read at all: a Parquet file that lost its end would fail every query."""
        if source.kind == "segment" or source.path in self._whole:
            return True

        if is_whole(source.path):
            self._whole.add(source.path)
            return True

        if source.path not in self._damaged and source.path.exists():
            self._damaged.add(source.path)
            _log.warning(
                "flowdeck: %s is not a whole Parquet file; events that lie nowhere else are missing from every answer. "
                "See: flowdeck store doctor",
                source.path,
            )
        return False

    def _are_alike(self, files: list[Path]) -> bool:
        """Return whether the published files have all of the schema's columns: those of an older library have not."""
        new = [path for path in files if path not in self._complete]
        if new:
            names = ", ".join(quoted(path) for path in new)
            wanted = ", ".join(quoted(column.name) for column in COLUMNS)
            rows = self._raw.execute(
                f"SELECT file_name, count(*) FROM parquet_schema([{names}]) WHERE name IN ({wanted}) GROUP BY file_name"
            ).fetchall()
            self._complete.update((Path(name), count == len(COLUMNS)) for name, count in rows)
        for path in self._complete.keys() - set(files):
            del self._complete[path]
        return all(self._complete.get(path, False) for path in files)

    def _refresh_writers(self) -> None:
        reap_writers(self.layout)
        # What could not be removed (another user's store) is looked at.
        try:
            alive = sorted(path.stem for path in self.layout.writers.glob("*.lock") if is_locked(path))
        except OSError:
            alive = []
        if alive != self._writers:
            self._replace("_live_writers", alive)
            self._writers = alive

    def _replace(self, table: str, values: list[str]) -> None:
        """Put other rows into a table of one column; a query sees the old ones or the new."""
        self._raw.execute("BEGIN")
        self._raw.execute(f"DELETE FROM {table}")
        self._raw.execute(f"INSERT INTO {table} SELECT unnest(?::VARCHAR[])", [values])
        self._raw.execute("COMMIT")


def _wanting(statements: Mapping[str, str]) -> dict[str, set[str]]:
    """Return, for each view or macro, what it needs, itself among it."""
    out: dict[str, set[str]] = {}
    for name, statement in statements.items():  # each stands on earlier ones only
        named = set(_WORD.findall(statement))
        out[name] = {name}.union(*(needs for other, needs in out.items() if other in named))
    return out


def _retried(work: Callable[[], Any]) -> Any:
    """Do ``work``; again when a file vanished meanwhile."""
    duckdb = require_duckdb()
    for _ in range(VANISHED_TRIES):
        try:
            return work()
        except duckdb.IOException as error:
            if not _VANISHED.search(str(error)):
                raise

    return work()
