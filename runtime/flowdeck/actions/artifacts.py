"""Where large results go: files named by their content, so that a result kept twice is kept once."""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final, Protocol

from flowdeck.errors import ActionError

__all__ = ["ArtifactStore", "FileArtifacts", "text_between"]

_REF: Final = re.compile(r"artifact:([0-9a-f]{64})")


class ArtifactStore(Protocol):
    """Keeps results that are too large for a record."""

    def put(self, content: bytes) -> str:
        """Keep ``content`` and return its reference. Raises :class:`OSError` when it cannot."""

    def read(self, ref: str, offset: int = 0, size: int = -1) -> bytes:
        """Return ``size`` bytes from ``offset`` on. Raises :class:`~flowdeck.errors.ActionError` for an unknown ref."""


def text_between(store: ArtifactStore, ref: str, offset: int, size: int) -> str:
    """Return the characters of an artifact that begin in ``size`` bytes from ``offset`` on.

    So pieces that follow each other make up the whole text, wherever they are cut.

    Raises:
        ActionError: nothing is kept under ``ref``.
    """
    data = store.read(ref, offset, size + 3)
    begin = next((at for at, byte in enumerate(data[:4]) if not _continues(byte)), 0) if offset else 0
    end = next((at for at in range(size, len(data)) if not _continues(data[at])), len(data))
    return data[begin:end].decode("utf-8", "replace")


def _continues(byte: int) -> bool:
    """Whether a byte belongs to a character that begins before it."""
    return byte & 0b1100_0000 == 0b1000_0000


class FileArtifacts:
    """Artifacts in a directory; without one, in a private directory that ends with the process."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """The directory, made when it is first needed."""
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="flowdeck-artifacts-"))
            atexit.register(shutil.rmtree, self._root, ignore_errors=True)

        return self._root

    def put(self, content: bytes) -> str:
        """Keep ``content`` under its SHA-256.

        Raises:
            OSError: the directory cannot be written.
        """
        digest = hashlib.sha256(content).hexdigest()
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.root / digest
        if not path.exists():
            handle, name = tempfile.mkstemp(dir=self.root)  # 0600; renamed when it is whole
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)

                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

        return f"artifact:{digest}"

    def read(self, ref: str, offset: int = 0, size: int = -1) -> bytes:
        """Return a part of an artifact.

        Raises:
            ActionError: the reference is none, or nothing is kept under it here.
        """
        found = _REF.fullmatch(ref) if isinstance(ref, str) else None
        path = self.root / found[1] if found is not None else None
        if path is None or not path.is_file():
            raise ActionError(f"{ref!r} is no artifact of this store ({self.root})")

        with path.open("rb") as file:
            file.seek(max(0, offset))
            return file.read(size)
