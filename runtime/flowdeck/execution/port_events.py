"""What a port call tells observers: enough to answer the same call from a recording later.

The digest is taken of the exact arguments, before anything is redacted; results are tagged by
:func:`~flowdeck.execution.values.encode`, so a tuple comes back as a tuple. What cannot be stored is named by its type
and marked ``unrecorded``: a tape that needs it says so instead of answering with something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from flowdeck.errors import UnencodableValue
from flowdeck.execution.ports import PortCall
from flowdeck.execution.values import encode

__all__ = [
    "DIGEST_KEY",
    "argument_digest",
    "called_payload",
    "class_name",
    "encode_arguments",
    "failed_payload",
    "key_id",
    "returned_payload",
]

DIGEST_KEY: Final = "ports.digest_key"
"""The runtime setting that holds the key of argument digests, so that nobody can guess short arguments from them."""


def class_name(value: Any) -> str:
    """Return the full name of an object's class."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def key_id(key: str) -> str:
    """Return what names a digest key without showing it; empty for none."""
    return hashlib.blake2b(key.encode(), digest_size=4, person=b"flowdeck.key").hexdigest() if key else ""


def encode_arguments(args: tuple[Any, ...]) -> list[Any]:
    """Return ``args`` as they are recorded; what cannot be stored (a function, a live object) by its type only."""
    parts = []
    for arg in args:
        try:
            parts.append(encode(arg))
        except UnencodableValue:
            parts.append({"$opaque": class_name(arg)})

    return parts


def argument_digest(encoded: list[Any], key: str = "") -> str:
    """Return 32 hex digits that tell argument lists apart: ``1`` and ``1.0``, a tuple and a list differ."""
    data = msgspec.json.encode(encoded, order="deterministic")
    short = hashlib.blake2b(key.encode(), digest_size=32).digest() if key else b""
    return hashlib.blake2b(data, digest_size=16, key=short, person=b"flowdeck.port").hexdigest()


def called_payload(call: PortCall, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies a call: its place, its ordinal, its arguments and their digest."""
    key = str(settings.get(DIGEST_KEY) or "")
    args = encode_arguments(call.args)
    payload = {
        "scope": call.scope,
        "port": call.port,
        "name": call.name,
        "ordinal": call.ordinal,
        "digest": argument_digest(args, key),
        "args": args,
    }
    if key:
        payload["key_id"] = key_id(key)

    return payload


def returned_payload(result: Any) -> dict[str, Any]:
    """Return what a call gave back."""
    try:
        return {"result": encode(result)}
    except UnencodableValue as exc:
        return {"unrecorded": str(exc)}


def failed_payload(exc: BaseException) -> dict[str, Any]:
    """Return what a call raised."""
    failure: dict[str, Any] = {"type": class_name(exc), "message": str(exc)}
    try:
        failure["args"] = encode(list(exc.args))
    except UnencodableValue:
        pass  # class and message are enough for most

    return {"failure": failure}
