"""Values too large for a journal line (DESIGN §5.7)."""

from __future__ import annotations

import hashlib
import os
from typing import Final

import msgspec

from flowdeck.layout import Layout, write_file

__all__ = ["BLOB_BYTES", "LINE_BYTES", "PREVIEW_CHARACTERS", "move_payload"]

BLOB_BYTES: Final = 256 * 1024
"""A payload of more JSON bytes than this goes to ``<store>/blobs/<sha256>``."""
LINE_BYTES: Final = 16 * 1024 * 1024
"""Longest line DuckDB surely reads; a longer one would fail every query over its segment."""
PREVIEW_CHARACTERS: Final = 1024
_LEVELS: Final = {"payload": 0, "meta": 1, "error": 2, "run": 2}
"""How deep a field is searched for the members that are too large (``run.meta.x``, ``error.details.x``)."""
_KEPT_FIELDS: Final = 64
_KEPT_BYTES: Final = 256

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode: Final = msgspec.json.Encoder().encode


def move_payload(layout: Layout, line: bytes) -> bytes:
    """Return ``line`` with a large payload replaced by ``{"$blob", "size", "preview"}``.

    The same content is stored once. Error, run and meta keep their small members; only members that are too large
    move. A line that is not JSON is returned as it is.

    Raises:
        OSError: The blob cannot be written.
    """
    try:
        fields = _fields.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return line

    for name, levels in _LEVELS.items():
        if name in fields:
            fields[name] = _shrunk(layout, fields[name], levels)
    return _encode(fields)


def _shrunk(layout: Layout, value: msgspec.Raw, levels: int) -> msgspec.Raw:
    """Return ``value``, or a reference to it when it is too large; ``levels`` of objects shrink by their members."""
    content = memoryview(value)
    if len(content) <= BLOB_BYTES:
        return value

    members: dict[str, msgspec.Raw] = {}
    if levels and content[0] == ord("{"):
        members = {name: _shrunk(layout, member, levels - 1) for name, member in _fields.decode(value).items()}
        shorter = msgspec.Raw(_encode(members))
        if len(memoryview(shorter)) <= BLOB_BYTES:
            return shorter

    small = [(name, member) for name, member in members.items() if len(memoryview(member)) <= _KEPT_BYTES]
    reference = _stored(layout, bytes(content))
    return msgspec.Raw(_encode({**dict(small[:_KEPT_FIELDS]), **reference}))


def _stored(layout: Layout, content: bytes) -> dict[str, str | int]:
    digest = hashlib.sha256(content).hexdigest()
    path = layout.blobs / digest
    try:
        os.utime(path)  # retention leaves alone what is young
    except FileNotFoundError:
        write_file(path, content)

    # Four bytes a character at most; a sequence cut at the end is dropped.
    preview = content[: 4 * PREVIEW_CHARACTERS].decode("utf-8", "ignore")[:PREVIEW_CHARACTERS]
    return {"$blob": digest, "size": len(content), "preview": preview}
