"""Why a store cannot be used, in words that name the path and the mend.

The tree::

    StoreError (a FlowdeckError)
     +- StoreNotFound       nothing there
     +- StoreIsFile         the path, or a parent of it, is a file
     +- StoreForeign        a directory with other files in it
     +- StorePermission     not readable or not writable by this user
     +- StoreFull           no space to create it
     +- StoreTooNew         written by a newer Flowdeck
     +- StoreTooOld         older than the version before this one
     `- StoreDamaged        store.json is unreadable
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from flowdeck.errors import FlowdeckError

FORMAT: Final = 1
"""Format of the directory. Readers accept this one and the one before it."""

STORE_VARIABLE: Final = "FLOWDECK_STORE"


class StoreError(FlowdeckError):
    """A store cannot be used. The message names the path and the mend."""


class StoreNotFound(StoreError):
    """There is no store at the path."""


class StoreIsFile(StoreError):
    """The path, or one of its parents, is a file."""


class StoreForeign(StoreError):
    """The directory holds other files and is not a store."""


class StorePermission(StoreError):
    """The store may not be read or written by this user."""


class StoreFull(StoreError):
    """The disk or quota has no room to create the store."""


class StoreTooNew(StoreError):
    """A newer Flowdeck wrote the store."""


class StoreTooOld(StoreError):
    """The store's format is older than this Flowdeck reads."""


class StoreDamaged(StoreError):
    """``store.json`` cannot be understood."""


def checked(path: Path, text: bytes) -> dict[str, Any]:
    """Return the contents of ``store.json``; raise when this library may not use the store."""
    try:
        about = json.loads(text)
        number = about["format"]
        if not isinstance(number, int) or not isinstance(about["id"], str):
            raise TypeError("format or id")
    except (ValueError, KeyError, TypeError):
        raise StoreDamaged(
            f"{path} is damaged: it should be JSON with 'format' and 'id'. Put back a copy of the file, or "
            f"move {path.parent} away and start a new store."
        ) from None

    if number > FORMAT:
        raise StoreTooNew(
            f"The store {path.parent} has format {number}, written by "
            f"{about.get('created_by', 'a newer Flowdeck')}; flowdeck {library_version()} reads up to format "
            f"{FORMAT}. Upgrade with `pip install -U flowdeck`, or name another store with --store or "
            f"{STORE_VARIABLE}."
        )
    if number < FORMAT - 1:
        raise StoreTooOld(
            f"The store {path.parent} has format {number}; flowdeck {library_version()} reads {FORMAT - 1} "
            f"and {FORMAT}. Open it once with the Flowdeck version between them, or name another store."
        )
    return dict(about)


@contextmanager
def naming_the_mend(root: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into the :class:`StoreError` that explains it."""
    try:
        yield
    except OSError as error:
        raise store_error(error, root) from error


def store_error(error: OSError, root: Path) -> StoreError:
    """Return the :class:`StoreError` that explains ``error`` for the store at ``root``."""
    elsewhere = f"name another directory with --store or {STORE_VARIABLE}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        blocked = error.filename or root
        return StorePermission(
            f"The store {root} may not be used: {error.strerror} ({blocked}). Give this user "
            f"(uid {os.geteuid()}) read and write permission there, or {elsewhere}."
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        file = next((path for path in (root, *root.parents) if path.exists() and not path.is_dir()), root)
        return StoreIsFile(f"The store path {root} needs a directory, but {file} is a file. Move it, or {elsewhere}.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(f"No room for the store {root}: {error.strerror}. Free some space, or {elsewhere}.")

    return StoreError(f"The store {root} cannot be used: {error.strerror or error}. Mend that, or {elsewhere}.")


def require_posix() -> None:
    """Refuse Windows."""
    if sys.platform == "win32":
        raise StoreError("Flowdeck keeps its store with POSIX file locks: it runs on Linux and macOS (or WSL).")


@cache
def library_version() -> str:
    """Return the installed version of Flowdeck."""
    version = getattr(sys.modules.get("flowdeck"), "__version__", None)
    if isinstance(version, str):
        return version

    from importlib import metadata

    try:
        return metadata.version("flowdeck")
    except metadata.PackageNotFoundError:
        return "unknown"


def host_name() -> str:
    """Return the machine's name."""
    return os.uname().nodename


@cache
def boot_id() -> str | None:
    """Return the id of this boot where the system offers one (Linux), else ``None``."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
