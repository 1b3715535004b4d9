"""Payloads too large for a journal line (DESIGN §5.7)."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from flowdeck.layout import Layout, write_file

__all__ = ["BLOB_BYTES", "PREVIEW_CHARACTERS", "move_payload"]

BLOB_BYTES: Final = 256 * 1024
"""A payload of more JSON bytes than this goes to ``<store>/blobs/<sha256>``."""
PREVIEW_CHARACTERS: Final = 1024

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode: Final = msgspec.json.Encoder().encode


def move_payload(layout: Layout, line: bytes) -> bytes:
    """Return ``line`` with its payload replaced by ``{"$blob", "size", "preview"}`` when that is too large.

    The same content is stored once. A line that is long for another reason, or is not JSON, is returned as it is.

    Raises:
        OSError: The blob cannot be written.
    """
    try:
        fields = _fields.decode(line)
    except msgspec.DecodeError:
        return line

    payload = bytes(fields.get("payload", b""))
    if len(payload) <= BLOB_BYTES:
        return line

    digest = hashlib.sha256(payload).hexdigest()
    path = layout.blobs / digest
    if not path.exists():
        write_file(path, payload)

    # Four bytes a character at most; a sequence cut at the end is dropped.
    preview = payload[: 4 * PREVIEW_CHARACTERS].decode("utf-8", "ignore")[:PREVIEW_CHARACTERS]
    reference = {"$blob": digest, "size": len(payload), "preview": preview}
    fields["payload"] = msgspec.Raw(_encode(reference))
    return _encode(fields)
