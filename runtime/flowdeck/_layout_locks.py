"""Writer locks: who writes to a store, and whether it still lives."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flowdeck._layout_errors import boot_id, host_name, library_version, naming_the_mend, require_posix

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from flowdeck.layout import Layout

FILE_MODE = 0o600


class WriterLock:
    """The proof that a writer lives: an exclusive ``flock`` on ``writers/<writer>.lock``.

    The kernel drops it when the process ends, however it ends. :meth:`release` also removes the file, so a
    file that can be locked belongs to a writer that was killed. A forked child does not inherit the lock: its
    copy is closed, :attr:`held` is false there, and the child takes one of its own under a new writer id.

    Args:
        layout: The store.
        writer: The writer's id; a new one when omitted.

    Raises:
        StoreError: The lock file cannot be created.
    """

    def __init__(self, layout: Layout, writer: str | None = None) -> None:
        require_posix()
        self.layout = layout
        self.writer = writer or new_writer_id()
        self._descriptor: int | None = None
        with naming_the_mend(layout.root):
            self._acquire()

        _locks.add(self)

    @property
    def held(self) -> bool:
        """Whether this process holds the lock."""
        return self._descriptor is not None

    def ensure(self) -> None:
        """Take the lock again when its file was deleted from under the writer.

        Raises:
            OSError: The file cannot be created.
        """
        deleted = self._descriptor
        if deleted is not None and os.fstat(deleted).st_nlink == 0:
            self._acquire()
            os.close(deleted)

    def release(self) -> None:
        """Remove the file and drop the lock; does nothing when not held."""
        if self._descriptor is None:
            return

        # If somebody deleted the store and made it anew, another file may stand there: remove only our own.
        path = self.layout.lock_path(self.writer)
        with suppress(OSError):
            if _same_file(path, self._descriptor):
                path.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def _acquire(self) -> None:
        # Locked under a private name, then renamed: nobody sees an unlocked lock file of a living writer.
        path = self.layout.lock_path(self.writer)
        temporary = path.with_name(f".{path.name}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            about = {
                "writer": self.writer,
                "pid": os.getpid(),
                "host": host_name(),
                "boot_id": boot_id(),
                "library": library_version(),
                "started_us": time.time_ns() // 1000,
            }
            os.write(descriptor, json.dumps(about).encode() + b"\n")
            temporary.rename(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _forget(self) -> None:
        """Close the inherited copy in a forked child; closing does not unlock the parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _forget_locks() -> None:
    for lock in list(_locks):
        lock._forget()
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def new_writer_id() -> str:
    """Return a new writer id: ``w``, the time in microseconds and a random part, so ids sort by start."""
    return f"w{time.time_ns() // 1000:014x}{secrets.token_hex(4)}"


def is_locked(path: Path) -> bool:
    """Return whether some process holds an exclusive ``flock`` on the file; a missing file is not locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def is_writer_alive(layout: Layout, writer: str) -> bool:
    """Return whether ``writer`` still holds its lock."""
    return is_locked(layout.lock_path(writer))


def live_writers(layout: Layout) -> list[str]:
    """Return the ids of the writers that hold their lock now, oldest first."""
    return [writer for writer, path in _lock_files(layout) if is_locked(path)]


def reap_writers(layout: Layout) -> list[str]:
    """Remove the lock files of killed writers and return their ids; what may not be removed stays.

    Plain SQL takes a lock file for a living writer, so readers call this when they open a store.
    """
    reaped = []
    for writer, path in _lock_files(layout):
        with suppress(OSError):
            if not is_locked(path):
                path.unlink()
                reaped.append(writer)

    return reaped


def _lock_files(layout: Layout) -> Iterator[tuple[str, Path]]:
    try:
        names = sorted(path.name for path in layout.writers.iterdir())
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(".lock") and not name.startswith("."):
            yield name.removesuffix(".lock"), layout.writers / name


def _same_file(path: Path, descriptor: int) -> bool:
    return os.path.samestat(path.stat(), os.fstat(descriptor))
