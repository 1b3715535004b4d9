"""Where a store's files are, their format number, and the locks that say which writers live.

A store is one directory (DESIGN §4)::

    store.json            format, id, created_by
    journal/              <writer>-<n>.jsonl   event segments, one open per writer, flock held while open
    parts/                Parquet parts made from sealed segments
    days/                 larger Parquet files made from parts
    blobs/                <sha256>             payloads over 256 KiB
    writers/              <writer>.lock        held for the writer's life, gone when it ended cleanly
    quarantine/           lines and files that cannot be read, kept as they were found
    cursors/              <exporter>.json      how far each exporter has come
    publish.lock          held by the process that changes parts/ and days/
    publish.json          what the last publisher did
    absences.json         which numbers retention took
    state.db              executions, interrupts and inbox: what is open now
    observe.duckdb        SQL views over the event files

Directories are 0700 and files 0600. Every error is a :class:`StoreError` whose message names the mend.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flowdeck._layout_errors import (
    FORMAT,
    STORE_VARIABLE,
    StoreDamaged,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreIsFile,
    StoreNotFound,
    StorePermission,
    StoreTooNew,
    StoreTooOld,
    boot_id,
    checked,
    host_name,
    library_version,
    naming_the_mend,
    require_posix,
    store_error,
)
from flowdeck._layout_locks import WriterLock, is_locked, is_writer_alive, live_writers, reap_writers

if sys.platform != "win32":
    import fcntl

__all__ = [
    "FORMAT",
    "SCHEMA",
    "Layout",
    "StoreDamaged",
    "StoreError",
    "StoreForeign",
    "StoreFull",
    "StoreIsFile",
    "StoreNotFound",
    "StorePermission",
    "StoreTooNew",
    "StoreTooOld",
    "WriterLock",
    "boot_id",
    "host_name",
    "is_locked",
    "is_writer_alive",
    "library_version",
    "live_writers",
    "reap_writers",
    "resolve_store",
    "store_error",
    "write_file",
]

SCHEMA: Final = 1
"""Version of the event envelope on a journal line (``meta.v``)."""

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
DEFAULT_STORE: Final = ".flowdeck"

_OURS: Final = frozenset(
    {"journal", "parts", "days", "blobs", "writers", "quarantine", "cursors", "artifacts"}
    | {"runs"}  # where the documents put the workspaces of tasks
    | {"publish.lock", "keeper.lock", "publish.json", "absences.json"}
)
_OUR_PREFIXES: Final = ("store.json", "state.db", "observe.duckdb", ".")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one store. Building it touches no disk; :meth:`create` and :meth:`open` do."""

    root: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "root", Path(path).expanduser().absolute())

    @property
    def journal(self) -> Path:
        """Directory of JSONL segments."""
        return self.root / "journal"

    @property
    def parts(self) -> Path:
        """Directory of Parquet parts."""
        return self.root / "parts"

    @property
    def days(self) -> Path:
        """Directory of compacted Parquet files."""
        return self.root / "days"

    @property
    def quarantine(self) -> Path:
        """Directory of what could not be read."""
        return self.root / "quarantine"

    @property
    def cursors(self) -> Path:
        """Directory of exporters' cursors."""
        return self.root / "cursors"

    @property
    def publish_lock(self) -> Path:
        """Lock of the process that changes ``parts/`` and ``days/``."""
        return self.root / "publish.lock"

    @property
    def keeper_lock(self) -> Path:
        """Lock of the background publisher, for its whole life."""
        return self.root / "keeper.lock"

    @property
    def publish_json(self) -> Path:
        """What the last publisher did."""
        return self.root / "publish.json"

    @property
    def blobs(self) -> Path:
        """Directory of large payloads, named by SHA-256."""
        return self.root / "blobs"

    @property
    def writers(self) -> Path:
        """Directory of writer locks."""
        return self.root / "writers"

    @property
    def state_db(self) -> Path:
        """SQLite file of open executions, interrupts and the inbox."""
        return self.root / "state.db"

    @property
    def catalog(self) -> Path:
        """DuckDB file with the SQL views."""
        return self.root / "observe.duckdb"

    @property
    def store_json(self) -> Path:
        """Format, id and creator of the store."""
        return self.root / "store.json"

    def lock_path(self, writer: str) -> Path:
        """Return the lock file of ``writer``."""
        return self.writers / f"{writer}.lock"

    def segment_path(self, writer: str, number: int) -> Path:
        """Return the journal segment ``number`` (from 1) of ``writer``."""
        return self.journal / f"{writer}-{number:06d}.jsonl"

    def describe(self) -> dict[str, Any]:
        """Return the contents of ``store.json``, checked.

        Raises:
            StoreNotFound, StoreIsFile, StorePermission, StoreDamaged, StoreTooNew, StoreTooOld
        """
        with naming_the_mend(self.root):
            try:
                text = self.store_json.read_bytes()
            except FileNotFoundError:
                if self.root.exists() and not self.root.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(self.root)) from None
                raise StoreNotFound(
                    f"No Flowdeck store at {self.root}. Run a flow with --store {self.root} (or "
                    f"runtime.observe(store={str(self.root)!r})) to create it, or name another with --store "
                    f"or {STORE_VARIABLE}."
                ) from None

        return checked(self.store_json, text)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Layout:
        """Return the layout of an existing store.

        Raises:
            StoreNotFound, StoreIsFile, StorePermission, StoreDamaged, StoreTooNew, StoreTooOld
        """
        layout = cls(path)
        layout.describe()
        return layout

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Layout:
        """Return the layout at ``path``, creating what is missing. Safe when several processes do it at once.

        Raises:
            StoreError: any of its kinds but ``StoreNotFound``.
        """
        require_posix()
        layout = cls(path)
        with naming_the_mend(layout.root):
            layout.root.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                layout.root.mkdir(DIRECTORY_MODE)

            try:
                checked(layout.store_json, layout.store_json.read_bytes())
            except FileNotFoundError:
                layout._found()

            for directory in (layout.journal, layout.parts, layout.days, layout.blobs, layout.writers):
                directory.mkdir(DIRECTORY_MODE, exist_ok=True)

            # A glob that matches nothing is an error in SQL, so one empty file is always there.
            sentinel = layout.journal / "_.jsonl"
            if not sentinel.exists():
                os.close(os.open(sentinel, os.O_WRONLY | os.O_CREAT, FILE_MODE))

        return layout

    def _found(self) -> None:
        """Write ``store.json`` once, under a lock on the directory, so that rivals agree on one id."""
        directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            names = [path.name for path in self.root.iterdir()]
            if "store.json" in names:
                checked(self.store_json, self.store_json.read_bytes())
                return

            foreign = [name for name in names if name not in _OURS and not name.startswith(_OUR_PREFIXES)]
            if foreign:
                raise StoreForeign(
                    f"{self.root} is a directory with other files in it ({min(foreign)!r}, ...) and not a "
                    f"Flowdeck store. Name a new or empty directory with --store or {STORE_VARIABLE}, for "
                    f"instance {self.root / DEFAULT_STORE}."
                )

            # Events may hold business data: keep them out of version control, as .venv and caches do.
            write_file(self.root / ".gitignore", b"*\n")
            about = {
                "format": FORMAT,
                "id": secrets.token_hex(8),
                "created_by": f"flowdeck {library_version()}",
                "created_us": time.time_ns() // 1000,
            }
            write_file(self.store_json, json.dumps(about).encode() + b"\n")
        finally:
            os.close(directory)


def resolve_store(explicit: str | os.PathLike[str] | None = None) -> Path:
    """Return the store's absolute path: ``explicit``, else ``FLOWDECK_STORE``, else ``./.flowdeck``.

    Raises:
        StoreError: it is the URL of a database; events are kept in a directory.
    """
    chosen = explicit or os.environ.get(STORE_VARIABLE) or DEFAULT_STORE
    if str(chosen).startswith(("postgresql://", "postgres://")):
        raise StoreError(
            "events are kept in a directory, only executions can be in PostgreSQL: give the URL to "
            "runtime.use_store(url), or in FLOWDECK_EXECUTIONS, and a directory here"
        )

    return Path(chosen).expanduser().absolute()


def write_file(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Write ``data`` to ``path`` by rename, so a reader sees the whole file or none.

    Raises:
        OSError: as the system reports it; no partial file stays behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
