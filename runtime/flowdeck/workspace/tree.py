"""The directory of a workspace: its format file, and files that are only ever opened below it.

::

    <root>/workspace.meta.json           format, id, who made it
    <root>/workspace.db                  SQLite: records, links, checkpoints, the full-text index
    <root>/content/<collection>/<file>   the contents, one file a record
    <root>/files/                        the application's own files

Every component of a path is opened relative to the directory before it and may not be a symbolic link. So neither
``..`` nor a link leads out, also when somebody swaps a directory for a link at that very moment.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final

from flowdeck.errors import (
    WorkspaceConfigurationError,
    WorkspaceError,
    WorkspacePolicyError,
    WorkspaceRecordNotFound,
)
from flowdeck.events.ids import new_id

__all__ = ["SCHEMA", "Tree", "slug"]

SCHEMA: Final = "agently.workspace.local.v1"
COLLECTION_SCHEMA: Final = "agently.workspace.collection.v1"
FORMAT: Final = 1
"""Version of what Flowdeck keeps in a workspace; a newer one is refused."""
META: Final = "workspace.meta.json"
DATABASE: Final = "workspace.db"
CONTENT: Final = "content"
FILES: Final = "files"
INCOMING: Final = ".incoming"
_STALE_S: Final = 24 * 3600
"""After this a half-written content is nobody's any more."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_CLOEXEC", 0)
_SINGLY: Final = 64
"""Up to how many files are brought to the disk one by one."""
_LINKED: Final = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)


def slug(text: str, default: str = "record", limit: int = 60) -> str:
    """Return ``text`` as a safe part of a file name; letters of every language stay."""
    cleaned = re.sub(r"[^\w-]+", "-", text.strip()).strip("-_")
    while len(cleaned.encode()) > limit:
        cleaned = cleaned[: max(1, len(cleaned) - 8)] if len(cleaned) > 8 else cleaned[:-1]

    return cleaned or default


class Tree:
    """The files of one workspace.

    Args:
        root: its directory.
        create: make it when it is not there.
        read_only: write nothing at all.

    Raises:
        WorkspaceConfigurationError: it is not there, is no workspace, or was made by a newer version.
        OSError: it cannot be read or made.
    """

    def __init__(self, root: Path, *, create: bool, read_only: bool) -> None:
        self.root = root
        self.read_only = read_only
        self.created = False
        self._described: set[str] = set()
        if root.exists() and not root.is_dir():
            raise WorkspaceConfigurationError(f"{root} is a file; a workspace is a directory")

        if not (root / META).exists():
            if read_only or not create:
                raise WorkspaceConfigurationError(f"{root} is no workspace; use_workspace(…, create=True) makes one")

            self._create()

        self.meta = self._read_meta()
        self.id = str(self.meta["id"])
        if not read_only:
            self._sweep()

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / DATABASE

    @property
    def content_root(self) -> Path:
        """Where contents are."""
        return self.root / CONTENT

    @property
    def files_root(self) -> Path:
        """The application's own files."""
        return self.root / FILES

    # -- opening below ---------------------------------------------------------------------------------------------

    def parts(self, path: str) -> tuple[str, ...]:
        """Return the components of a relative path.

        Raises:
            WorkspacePolicyError: it is absolute, has ``..`` or a NUL in it.
        """
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\0" in path or not pure.parts:
            raise WorkspacePolicyError(f"{path!r} leads out of the workspace {self.root}")

        return pure.parts

    @contextmanager
    def directory(self, *names: str, create: bool = False) -> Iterator[int]:
        """Open a directory below the root and yield its descriptor.

        Raises:
            WorkspacePolicyError: a component is a symbolic link, or no directory.
        """
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in names:
                try:
                    inner = os.open(name, _DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    if not create:
                        raise

                    try:
                        os.mkdir(name, 0o700, dir_fd=fd)
                    except FileExistsError:
                        pass  # another process was quicker

                    inner = os.open(name, _DIRECTORY, dir_fd=fd)
                except OSError as problem:
                    if problem.errno in _LINKED:
                        raise self._leads_out("/".join(names)) from None

                    raise

                os.close(fd)
                fd = inner

            yield fd
        finally:
            os.close(fd)

    def open_file(self, area: str, path: str) -> int:
        """Open a file below ``content`` or ``files`` for reading and return its descriptor.

        Raises:
            WorkspaceRecordNotFound: it is not there.
            WorkspacePolicyError: it lies outside, or a component is a symbolic link.
        """
        *folders, name = self.parts(path)
        try:
            with self.directory(area, *folders) as fd:
                opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
        except FileNotFoundError:
            raise WorkspaceRecordNotFound(f"workspace {self.root}: there is no file {area}/{path}") from None
        except OSError as problem:
            if problem.errno in _LINKED:
                raise self._leads_out(f"{area}/{path}") from None

            raise

        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise WorkspacePolicyError(f"workspace {self.root}: {area}/{path} is no plain file")

        return opened

    def _leads_out(self, path: str) -> WorkspacePolicyError:
        return WorkspacePolicyError(f"workspace {self.root}: {path} goes through a symbolic link or a file")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what the disk has against writing into an error that names the workspace.

        Raises:
            WorkspaceError: it is full, read-only, or somebody else's.
        """
        try:
            yield
        except WorkspaceError:
            raise
        except OSError as problem:
            raise WorkspaceError(f"workspace {self.root} cannot be written: {problem.strerror or problem}") from problem

    # -- writing ---------------------------------------------------------------------------------------------------

    def new_incoming(self) -> tuple[str, int]:
        """Make an empty file for a content under way; return its name and descriptor."""
        name = f"{os.getpid()}-{new_id()}"
        with self.directory(CONTENT, INCOMING, create=True) as fd:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return name, os.open(name, flags, 0o600, dir_fd=fd)

    def drop_incoming(self, name: str) -> None:
        """Forget a content that did not become one."""
        try:
            with self.directory(CONTENT, INCOMING) as fd:
                os.unlink(name, dir_fd=fd)
        except OSError:
            pass

    def settle_incoming(self, name: str, path: str) -> None:
        """Give a whole content its place ``<collection>/<file>``; the collection is made when it is new."""
        collection, file = self.parts(path)
        with self.directory(CONTENT, collection, create=True) as target, self.directory(CONTENT) as content:
            os.rename(f"{INCOMING}/{name}", file, src_dir_fd=content, dst_dir_fd=target)
            if collection not in self._described:
                described = {"schema": COLLECTION_SCHEMA, "collection": collection, "created_at": _now()}
                self._write_small(target, "_collection.meta.json", described)
                self._described.add(collection)

    def remove(self, path: str) -> None:
        """Remove a content that got no record."""
        collection, file = self.parts(path)
        with self.directory(CONTENT, collection) as fd:
            os.unlink(file, dir_fd=fd)

    def sync(self, paths: Sequence[str]) -> None:
        """Bring contents and their directories to the disk itself."""
        if len(paths) > _SINGLY and self._sync_all():
            return

        for folder in {path.partition("/")[0] for path in paths}:
            try:
                with self.directory(CONTENT, folder) as directory:
                    for path in (each for each in paths if each.startswith(f"{folder}/")):
                        fd = os.open(path.partition("/")[2], os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
                        try:
                            os.fsync(fd)
                        finally:
                            os.close(fd)

                    os.fsync(directory)
            except FileNotFoundError:
                continue  # somebody removed it; the audit tells

    def _sync_all(self) -> bool:
        """Bring everything of the file system to the disk in one call, if there is one.

        For 4,096 small files it took 0.05 s, one by one 0.8 s.
        """
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if sys.platform == "linux" else None
        if syncfs is None:
            return False

        with self.directory(CONTENT) as fd:
            if syncfs(fd):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

        return True

    def orphans(self, known: set[str]) -> list[str]:
        """Return the contents no record has, as ``collection/file``."""
        found: list[str] = []
        for folder in sorted(self.content_root.iterdir()) if self.content_root.is_dir() else ():
            if folder.is_symlink() or not folder.is_dir() or folder.name.startswith("."):
                continue

            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("_"))

            found += [path for path in (f"{folder.name}/{name}" for name in names) if path not in known]

        return found

    # -- the format ------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.created = True
        meta = {
            "schema": SCHEMA,
            "format": FORMAT,
            "id": f"ws_{secrets.token_hex(8)}",
            "created_at": _now(),
            "created_by": "flowdeck",
        }
        with self.directory(CONTENT, create=True), self.directory(FILES, create=True):
            pass

        with self.directory() as fd:
            self._write_small(fd, META, meta)

    def _write_small(self, directory: int, name: str, value: dict[str, Any]) -> None:
        """Write a small file whole or not at all; who comes second leaves the first's."""
        temporary = f".{name}-{new_id()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump(value, file, indent=2)

            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except FileExistsError:
            pass
        finally:
            os.unlink(temporary, dir_fd=directory)

    def _read_meta(self) -> dict[str, Any]:
        path = self.root / META
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, UnicodeDecodeError) as problem:
            raise WorkspaceConfigurationError(f"{path} cannot be read: {problem}") from problem

        if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
            kind = meta.get("schema") if isinstance(meta, dict) else None
            raise WorkspaceConfigurationError(f"{path}: schema {kind!r}, expected {SCHEMA!r}")

        if meta.get("format") != FORMAT or not isinstance(meta.get("id"), str):
            raise WorkspaceConfigurationError(
                f"{path}: format {meta.get('format')!r}, this version of Flowdeck reads {FORMAT}"
            )

        return meta

    def _sweep(self) -> None:
        """Remove contents that a process began to write and never finished."""
        try:
            with self.directory(CONTENT, INCOMING) as fd:
                for name in os.listdir(fd):  # noqa: PTH208 - of a descriptor
                    if time.time() - os.stat(name, dir_fd=fd, follow_symlinks=False).st_mtime > _STALE_S:
                        os.unlink(name, dir_fd=fd)
        except OSError:
            pass


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
