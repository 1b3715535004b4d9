"""What everyone who changes ``parts/`` and ``days/`` shares: the lock, the connection, the commit, the clean-up."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flowdeck.layout import Layout, is_locked
from flowdeck_sinks.store._duckdb import quoted, require_duckdb
from flowdeck_sinks.store.parts import (
    COPY_OPTIONS,
    KEEP_MS,
    MERGED_OPTIONS,
    VISIBLE_AFTER_MS,
    Listing,
    PublishedFile,
    is_whole,
    listing,
    published_files,
)
from flowdeck_sinks.store.unfinished import unfinished_option

__all__ = [
    "Timing",
    "commit",
    "exactly",
    "keepers_lock",
    "next_number",
    "now_ms",
    "remove_orphans",
    "remove_replaced",
    "spilling",
    "try_lock",
    "workbench",
]

MEMORY: Final = "512MB"
TEMPORARY: Final = ".publish-"
"""How names of unfinished files begin. Only the holder of the lock makes them, so the next holder may delete them."""
FILE_MODE: Final = 0o600

log: Final = logging.getLogger("flowdeck.sinks.store")


@dataclass(frozen=True, slots=True)
class Timing:
    """The two spans of :mod:`flowdeck_sinks.store.parts`, in milliseconds. Tests shorten them."""

    visible_after_ms: int = VISIBLE_AFTER_MS
    keep_ms: int = KEEP_MS


def now_ms() -> int:
    """Return milliseconds since the epoch: the clock of file names and of SQL's ``now()``."""
    return time.time_ns() // 1_000_000


def keepers_lock(layout: Layout) -> AbstractContextManager[bool]:
    """Try to become the one who changes the store's Parquet files; yield whether it worked.

    Raises:
        OSError: The store cannot be written.
    """
    return try_lock(layout.publish_lock)


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Take an advisory lock for the block, unless somebody holds it; yield whether it worked.

    Raises:
        OSError: The store cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def workbench(layout: Layout) -> AbstractContextManager[Any]:
    """Give a DuckDB connection that stays small: one thread, 512 MB, the rest on disk inside the store.

    Raises:
        DuckDBMissing: DuckDB is not installed.
    """
    return spilling(layout.root / f"{TEMPORARY}spill", threads="1")


@contextmanager
def spilling(spill: Path, **settings: str) -> Iterator[Any]:
    """Give a DuckDB connection that keeps 512 MB in memory and the rest in ``spill``, which it removes at the end.

    Raises:
        DuckDBMissing: DuckDB is not installed.
    """
    given = {
        "autoload_known_extensions": "false",
        "autoinstall_known_extensions": "false",
        "memory_limit": MEMORY,
        "temp_directory": str(spill),
        **settings,
    }
    connection = require_duckdb().connect(":memory:", config=given)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)


def next_number(layout: Layout) -> int:
    """Return the first of the publisher's numbers that no file has used."""
    return max((file.hi for file in published_files(layout)), default=0) + 1


def commit(
    connection: Any,
    query: str,
    directory: Path,
    file: PublishedFile,
    timing: Timing,
    *,
    checked: Callable[[int], None] = lambda rows: None,
) -> tuple[PublishedFile, int]:
    """Write the rows of ``query`` to a new Parquet file; the rename is the commit. The file's stamp is set here.

    Args:
        connection: From :func:`workbench`.
        query: As :func:`~flowdeck_sinks.store.parts.stored_select` returns.
        directory: ``parts/`` or ``days/``.
        file: Its numbers, level and stem.
        timing: When readers begin to count it.
        checked: Called with the number of rows before the rename; what it raises calls the commit off.

    Returns:
        The file and its number of rows.

    Raises:
        OSError, duckdb.Error: It could not be written; nothing changed.
    """
    temporary = directory / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        directory.mkdir(0o700, exist_ok=True)
        options = MERGED_OPTIONS + unfinished_option(connection, query) if file.level else COPY_OPTIONS
        row = connection.execute(f"COPY ({query}) TO {quoted(temporary)} ({options})").fetchone()
        written = int(row[0])
        checked(written)
        temporary.chmod(FILE_MODE)
        _force(temporary)
        stamped = file._replace(visible_ms=now_ms() + timing.visible_after_ms)
        stamped = stamped._replace(path=directory / stamped.name)
        temporary.rename(stamped.path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise

    _force(directory)
    return stamped, written


def exactly(rows: int) -> Callable[[int], None]:
    """Return a check for :func:`commit`: a file that stands for others has all of their rows."""

    def complete(written: int) -> None:
        if written != rows:
            raise ValueError(f"{written} rows instead of {rows}")

    return complete


def remove_orphans(layout: Layout) -> int:
    """Delete what killed publishers and writers left unfinished; return how many files. Needs the lock."""
    removed = 0
    for directory in (layout.parts, layout.days):
        for path in _hidden(directory, TEMPORARY):
            removed += _unlink(path)
    for path in _hidden(layout.journal, ".w"):
        # A writer heads its segment under such a name, locked.
        if path.suffix == ".tmp" and not is_locked(path) and now_ms() - path.stat().st_mtime_ns // 1_000_000 > KEEP_MS:
            removed += _unlink(path)
    for path in _hidden(layout.root, TEMPORARY):
        shutil.rmtree(path, ignore_errors=True)
    return removed


def remove_replaced(layout: Layout, timing: Timing) -> tuple[int, int, Listing]:
    """Delete files that newer ones stand for, where no reader can need them any more. Needs the lock.

    Returns:
        How many were deleted, how many are still too young, and the store's files afterwards.
    """
    now = now_ms()
    found = listing(layout, now)
    removed = waiting = 0
    for path, part in found.covered:
        if part.visible_ms + timing.keep_ms > now:
            waiting += 1
        elif is_whole(part.path):
            removed += _unlink(path)

    # The first input of a file goes first, and lower levels before higher ones: see the rule in parts.py.
    for file in sorted(found.hidden, key=lambda file: (file.level, file.lo)):
        over = [other for other in found.visible if other.hides(file)]
        if not over or max(other.visible_ms for other in over) + timing.keep_ms > now:
            waiting += 1
        elif all(is_whole(other.path) for other in over):
            removed += _unlink(file.path)

    return removed, waiting + len(found.waiting), listing(layout) if removed else found


def _force(path: Path) -> None:
    """Bring a file's or directory's contents to the device: a segment is deleted on the strength of its part."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can for directories
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hidden(directory: Path, prefix: str) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if path.name.startswith(prefix)]
    except FileNotFoundError:
        return []


def _unlink(path: Path) -> int:
    try:
        path.unlink()
    except OSError as error:
        log.info("flowdeck: %s could not be removed: %s", path, error)
        return 0

    return 1
