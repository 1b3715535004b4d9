"""Events of many machines in one DuckLake: Parquet in a directory all of them see, its catalogue in PostgreSQL.

Each machine hands over the Parquet files it has published (:func:`hand_over`). One that brings only new rows is linked
into the lake as it is, and copied where links do not reach. What a machine has handed over is noted by the publisher's
numbers its files cover (see :mod:`flowdeck_sinks.store.parts`), in the same transaction as the file: killed at any
moment, it goes on where it was, and no event is there twice. A file that was merged from rows of both kinds gives only
those that are new. :func:`connect` reads the lake under the names that a store's views have.

Needs DuckDB's extensions ``ducklake`` and ``postgres_scanner``, which exist for some of its versions only.
"""

from __future__ import annotations

import importlib
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from flowdeck.layout import Layout, StoreError, live_writers
from flowdeck_sinks.store._blobs import named_blobs
from flowdeck_sinks.store._duckdb import quoted, require_duckdb, spill_place
from flowdeck_sinks.store._keeping import keepers_lock
from flowdeck_sinks.store.parts import PublishedFile, listing, parquet_select
from flowdeck_sinks.store.schema import COLUMNS, empty_select
from flowdeck_sinks.store.views import derived_definitions

__all__ = ["LakeReport", "LakeUnavailable", "connect", "hand_over"]

EXTENSIONS: Final = ("postgres_scanner", "ducklake")
ATTEMPTS: Final = 50
PAUSE_SECONDS: Final = 0.2

T = TypeVar("T")
_SECRET: Final = re.compile(r"(password\s*=\s*|://[^:@/\s]*:)('[^']*'|[^\s@\"]+)", re.IGNORECASE)
_NAMES: Final = ", ".join(column.name for column in COLUMNS)
_STORED: Final = ", ".join(f"{column.name} {column.type}" for column in COLUMNS)


class LakeUnavailable(StoreError):
    """DuckDB here has no DuckLake, or the catalogue cannot be used."""


@dataclass(slots=True)
class LakeReport:
    """What :func:`hand_over` did."""

    busy: bool = False
    """Another process is at work on the store; nothing was done."""
    files: int = 0
    """Parquet files that are part of the lake now, as they are."""
    mixed: int = 0
    """Files of which only some rows were new."""
    events: int = 0
    """New in the lake."""
    blobs: int = 0


def hand_over(layout: Layout, catalogue: str, data: str | os.PathLike[str]) -> LakeReport:
    """Make what a store has published part of a lake.

    Args:
        layout: The store.
        catalogue: The PostgreSQL database with the lake's catalogue, as libpq takes it.
        data: The lake's directory; the first who hands over decides on it.

    Raises:
        LakeUnavailable: DuckDB lacks the extensions, or the catalogue cannot be used.
        OSError: The store or the directory cannot be written.
    """
    place = Path(data).expanduser().absolute()
    report = LakeReport()
    with keepers_lock(layout) as ours:  # nobody merges or deletes meanwhile
        if not ours:
            report.busy = True
            return report

        place.mkdir(0o700, parents=True, exist_ok=True)
        connection = _attached(catalogue, place)
        try:
            _create(connection)
            store = str(layout.describe()["id"])
            for file in listing(layout, at_once=True).visible:
                _hand_over(connection, layout, store, file, place, report)

            _note_living(connection, store, live_writers(layout))
        finally:
            connection.close()

    return report


def connect(catalogue: str, data: str | os.PathLike[str]) -> Any:
    """Return a DuckDB connection with the views of a store, over the events of all machines.

    Executions without an end count as running if their process lived when its machine last handed over.

    Raises:
        LakeUnavailable: as :func:`hand_over`.
    """
    connection = _attached(catalogue, Path(data).expanduser().absolute(), read_only=True)
    views = {
        "events": f"SELECT {_NAMES} FROM lake.events",
        "_stored": "SELECT * FROM events",
        "_tail": empty_select(),
        "_live_writers": "SELECT writer FROM lake.living",
        "_resumable": "SELECT NULL::VARCHAR AS execution_id WHERE false",
    }
    for name, body in views.items():
        connection.execute(f"CREATE VIEW {name} AS {body}")

    for statement in derived_definitions():
        connection.execute(statement)

    return connection


# -- handing over ------------------------------------------------------------------------------------------------------


def _create(connection: Any) -> None:
    def work() -> None:
        connection.execute(f"CREATE TABLE IF NOT EXISTS lake.events ({_STORED})")
        connection.execute("CREATE TABLE IF NOT EXISTS lake.handed (store VARCHAR, lo BIGINT, hi BIGINT)")
        connection.execute("CREATE TABLE IF NOT EXISTS lake.living (store VARCHAR, writer VARCHAR)")

    _commit(connection, work)


def _hand_over(
    connection: Any, layout: Layout, store: str, file: PublishedFile, place: Path, report: LakeReport
) -> None:
    """Make one file part of the lake: its rows, its blobs and the note of it, or nothing."""
    known = connection.execute(
        "SELECT lo, hi FROM lake.handed WHERE store = ? AND lo <= ? AND hi >= ?", [store, file.hi, file.lo]
    ).fetchall()
    new = set(range(file.lo, file.hi + 1)).difference(*(range(lo, hi + 1) for lo, hi in known))
    if not new:
        return

    rows = parquet_select([file.path])
    report.blobs += _blobs(connection, layout, rows, place)

    def work() -> int:
        connection.execute("INSERT INTO lake.handed VALUES (?, ?, ?)", [store, file.lo, file.hi])
        if known:
            return _add_new(connection, rows)

        return _add_file(connection, file.path, place / f"{store}-{file.lo:08d}-{file.hi:08d}.parquet")

    report.events += _commit(connection, work)
    report.mixed += bool(known)
    report.files += not known


def _commit(connection: Any, work: Callable[[], T]) -> T:
    """Do ``work`` in a transaction, anew when another machine's came between.

    Raises:
        LakeUnavailable: it did so again and again.
    """
    duckdb = require_duckdb()
    for attempt in range(ATTEMPTS):
        connection.execute("BEGIN")
        try:
            done = work()
            connection.execute("COMMIT")
            return done
        except duckdb.TransactionException as problem:
            with suppress(duckdb.Error):
                connection.execute("ROLLBACK")

            if attempt + 1 == ATTEMPTS:
                raise LakeUnavailable(f"other machines kept changing the lake: {problem}") from problem

            time.sleep(random.random() * PAUSE_SECONDS)
        except BaseException:
            with suppress(duckdb.Error):
                connection.execute("ROLLBACK")

            raise

    raise AssertionError("unreachable")


def _add_file(connection: Any, path: Path, target: Path) -> int:
    _place(path, target)
    connection.execute(
        f"CALL ducklake_add_data_files('lake', 'events', {quoted(target)}, "
        "allow_missing => true, ignore_extra_columns => true)"
    )
    (count,) = connection.execute(f"SELECT count(*) FROM read_parquet({quoted(target)})").fetchone()
    return int(count)


def _add_new(connection: Any, rows: str) -> int:
    """Add what no file before has brought; ``writer`` and ``wseq`` name an event."""
    done = connection.execute(
        f"INSERT INTO lake.events ({_NAMES}) SELECT {_NAMES} FROM ({rows}) AS f WHERE NOT EXISTS "
        "(FROM lake.events AS e WHERE e.writer = f.writer AND e.wseq = f.wseq)"
    ).fetchone()
    return int(done[0])


def _blobs(connection: Any, layout: Layout, rows: str, place: Path) -> int:
    """Put large values beside the files that name them. Returns how many are new."""
    count = 0
    for (sha,) in connection.execute(named_blobs(rows)).fetchall():
        target = place / "blobs" / sha
        if not target.exists():
            with suppress(FileNotFoundError):
                target.parent.mkdir(0o700, exist_ok=True)
                _place(layout.blobs / sha, target)
                count += 1

    return count


def _place(path: Path, target: Path) -> None:
    """Let ``target`` be the file at ``path``, without a copy where both are on one file system."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with suppress(FileNotFoundError):
        beside.unlink()

    try:
        os.link(path, beside)
    except OSError:
        shutil.copyfile(path, beside)

    beside.replace(target)


def _note_living(connection: Any, store: str, writers: Iterable[str]) -> None:
    rows = [(store, writer) for writer in writers]

    def work() -> None:
        connection.execute("DELETE FROM lake.living WHERE store = ?", [store])
        for row in rows:
            connection.execute("INSERT INTO lake.living VALUES (?, ?)", row)

    _commit(connection, work)


# -- DuckDB ------------------------------------------------------------------------------------------------------------


def _attached(catalogue: str, place: Path, *, read_only: bool = False) -> Any:
    duckdb = require_duckdb()
    settings = {
        "autoload_known_extensions": "false",
        "autoinstall_known_extensions": "false",
        "temp_directory": spill_place(),
    }
    connection = duckdb.connect(":memory:", config=settings)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        _load(connection, duckdb)
        options = f"DATA_PATH {quoted(f'{place}/')}{', READ_ONLY' if read_only else ''}"
        _attach(connection, f"ATTACH {quoted(f'ducklake:postgres:{catalogue}')} AS lake ({options})", duckdb)
    except duckdb.Error as problem:
        connection.close()
        raise LakeUnavailable(f"the lake's catalogue cannot be used: {_shown(problem, catalogue)}") from None
    except BaseException:
        connection.close()
        raise

    return connection


def _shown(problem: BaseException, catalogue: str) -> str:
    """Return what DuckDB says, without the catalogue's address: that may hold a password."""
    text = str(problem).splitlines()[0].replace(catalogue, "...")
    return _SECRET.sub(r"\1***", text)


def _attach(connection: Any, statement: str, duckdb: Any) -> None:
    for attempt in range(ATTEMPTS):
        try:
            connection.execute(statement)
            return
        except duckdb.Error as problem:  # another machine makes the catalogue at the same moment
            if "Failed to initialize DuckLake" not in str(problem) or attempt + 1 == ATTEMPTS:
                raise

            time.sleep(random.random() * PAUSE_SECONDS)


def _load(connection: Any, duckdb: Any) -> None:
    """Load the extensions: those installed in DuckDB's own folder, or from packages."""
    for name in EXTENSIONS:
        for source in (name, *map(quoted, _packaged(name, duckdb.__version__))):
            with suppress(duckdb.Error):
                connection.execute(f"LOAD {source}")
                break
        else:
            raise LakeUnavailable(
                f"DuckDB {duckdb.__version__} has no extension {name} here: pip install 'flowdeck[lake]', which brings "
                f"one that has, or INSTALL {name} in DuckDB where there is a network"
            )


def _packaged(name: str, version: str) -> list[Path]:
    try:
        package = importlib.import_module(f"duckdb_extension_{name}")
    except ImportError:
        return []

    return [Path(str(package.__file__)).parent / "extensions" / f"v{version}" / f"{name}.duckdb_extension"]
