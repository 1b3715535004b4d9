"""Contents on their way in and out: any size, hashed while they pass, never held whole unless asked for whole."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterable, Generator, Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from flowdeck.errors import WorkspaceContentError
from flowdeck.workspace.text import indexed_text
from flowdeck.workspace.tree import Tree

__all__ = [
    "CHUNK",
    "INDEXED_BYTES",
    "Stored",
    "as_json",
    "head_text",
    "is_asynchronous",
    "read_chunks",
    "store",
    "store_bytes",
    "store_stream",
    "words_of",
]

CHUNK: Final = 1 << 20
INDEXED_BYTES: Final = 256 * 1024
"""How much of a content the full-text index takes; the rest is found through its summary and labels."""


@dataclasses.dataclass(slots=True)
class Stored:
    """A content that lies in ``.incoming``, whole."""

    name: str
    sha256: str
    size: int
    head: bytes
    """Its first :data:`INDEXED_BYTES`."""
    suffix: str


class _Incoming:
    """Writes one content. Call :meth:`drop` instead of :meth:`finish` and nothing is left of it.

    A cancelled caller drops it while a worker thread may still be at a write: whoever comes second finds it ended, and
    nothing is ever written to a descriptor that has become another file's.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        with tree.writing():
            self.name, self._fd = tree.new_incoming()

        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._head = bytearray()
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        with self._lock:
            if self._fd < 0:
                return

            self._hash.update(view)
            self._size += len(view)
            room = INDEXED_BYTES - len(self._head)
            if room > 0:
                self._head += view[:room]

            with self._tree.writing():
                while view:
                    view = view[os.write(self._fd, view) :]

    def finish(self, suffix: str) -> Stored:
        self._end()
        return Stored(self.name, self._hash.hexdigest(), self._size, bytes(self._head), suffix)

    def drop(self) -> None:
        self._end()
        self._tree.drop_incoming(self.name)

    def _end(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1

        if fd >= 0:
            os.close(fd)


def store_bytes(tree: Tree, data: bytes | bytearray | memoryview, suffix: str) -> Stored:
    """Write a content that is in memory."""
    return _store_all(tree, [data], suffix)


def is_asynchronous(content: Any) -> bool:
    """Whether a content must be drawn in the event loop."""
    return isinstance(content, AsyncIterable)


def store(tree: Tree, content: Any) -> Stored:
    """Write any content that is not asynchronous: text, bytes, a path or file to copy, an iterator, else JSON.

    Raises:
        WorkspaceContentError: it holds what cannot be written.
        OSError: a file cannot be read, or the disk is full. Nothing is left of the content.
    """
    if isinstance(content, str):
        return store_bytes(tree, _encoded(content), ".txt")

    if isinstance(content, bytes | bytearray | memoryview):
        return store_bytes(tree, content, ".txt")

    if isinstance(content, Path):
        with content.open("rb") as file:
            return _store_all(tree, _file_chunks(file), _suffix(content))

    if callable(getattr(content, "read", None)):
        return _store_all(tree, _file_chunks(content), ".txt")

    if isinstance(content, Iterator):
        return _store_all(tree, content, ".txt")

    return store_bytes(tree, as_json(content), ".json")


def _store_all(tree: Tree, chunks: Iterable[Any], suffix: str) -> Stored:
    incoming = _Incoming(tree)
    try:
        for chunk in chunks:
            incoming.write(_chunk(chunk))

        return incoming.finish(suffix)
    except BaseException:
        incoming.drop()
        raise


async def store_stream(tree: Tree, content: AsyncIterable[Any]) -> Stored:
    """Write a content that comes in pieces of text or bytes."""
    incoming = await asyncio.to_thread(_Incoming, tree)
    buffer = bytearray()
    try:
        async for chunk in content:
            buffer += _chunk(chunk)
            if len(buffer) >= CHUNK:
                await asyncio.to_thread(incoming.write, buffer)
                buffer = bytearray()

        await asyncio.to_thread(incoming.write, buffer)
        return incoming.finish(".txt")
    except BaseException:
        incoming.drop()
        raise


def _chunk(chunk: Any) -> bytes | bytearray | memoryview:
    if isinstance(chunk, str):
        return _encoded(chunk)

    if isinstance(chunk, bytes | bytearray | memoryview):
        return chunk

    raise WorkspaceContentError(f"a streamed content is text or bytes, not {type(chunk).__name__}")


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as problem:
        raise WorkspaceContentError(
            f"the content has half a character (a lone surrogate) at {problem.start}; pass bytes to keep it as it is"
        ) from None


def _file_chunks(file: Any) -> Iterator[Any]:
    while chunk := file.read(CHUNK):
        yield chunk


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return suffix if 1 < len(suffix) <= 9 and suffix[1:].isalnum() and suffix.isascii() else ".txt"


def as_json(value: Any) -> bytes:
    """Return a value as JSON text; dates, UUIDs, decimals, enums, sets, dataclasses and pydantic models are converted.

    Raises:
        WorkspaceContentError: it holds something else, or a number JSON has no form for.
    """
    try:
        return json.dumps(value, ensure_ascii=False, indent=2, default=_plain, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise WorkspaceContentError(
            f"a {type(value).__name__} cannot be stored as JSON: {problem}; pass text or bytes"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()

    if isinstance(value, UUID | Decimal | Path):
        return str(value)

    if isinstance(value, Enum):
        return value.value

    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)

    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")

    raise TypeError(f"it holds a {type(value).__name__}")


def head_text(stored: Stored) -> str:
    """Return the beginning of a content as text; empty when it is no text."""
    try:
        return stored.head.decode()
    except UnicodeDecodeError as problem:
        # A character cut at the end of the head is no sign of binary content.
        if problem.start >= len(stored.head) - 3 and stored.size > len(stored.head):
            return stored.head[: problem.start].decode()

        return ""


def words_of(stored: Stored, kind: str, summary: str) -> str:
    """Return what the full-text index takes of a record: its kind, its summary, and the beginning of its content."""
    head = head_text(stored)
    return indexed_text("\n".join([kind, head] if head.startswith(summary) else [kind, summary, head]))


def read_chunks(fd: int, size: int = CHUNK) -> Generator[bytes, None, None]:
    """Read an open file piece by piece and close it."""
    with os.fdopen(fd, "rb") as file:
        while chunk := file.read(size):
            yield chunk
