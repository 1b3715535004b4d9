"""Any Python value as JSON bytes that never fail, never recurse away and never hold a secret.

Two speeds. :func:`encode` first looks at the value with C-speed set operations: known scalar types, clean keys, at most
64 levels. A clean value goes straight to msgspec. Anything else (a secret, an unknown object, a cycle) is rebuilt by
:func:`sanitise`, which is exact and slower, and then encoded.

What the wire shows for values JSON has no form for: NaN and infinities ``null``; bytes base64; sets lists; datetimes,
UUIDs and Decimals text; keys ``str(key)``; pydantic models and dataclasses objects; integers beyond 64 bits stay
numbers; a lone surrogate its escape ``\\udc80`` as text; any other object ``{"$repr", "$type"}``; what is too deep
``{"$cut": "depth"}``.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import sys
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Set
from pathlib import PurePath
from typing import Any, Final

import msgspec

from flowdeck.events.redaction import MASK, _is_clean, has_unclean_key, is_secret_key

__all__ = ["DEPTH_LIMIT", "describe", "encode", "fast_encode", "looks_clean", "sanitise"]

DEPTH_LIMIT: Final = 64
"""Containers inside containers; what lies deeper is cut with a mark."""
REPR_LIMIT: Final = 1024
"""Characters kept of an object's repr."""
INTEGER_LIMIT: Final = 14_000
"""Bits of an integer; a longer one is named, not written."""

PLAIN: Final = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        str,
        bytes,
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
        uuid.UUID,
        decimal.Decimal,
    }
)
CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})

fast_encode: Final = msgspec.json.Encoder().encode
"""msgspec as it is: quick, but raises on what JSON has no form for."""


def encode(value: Any) -> bytes:
    """Return ``value`` as JSON bytes, redacted and at most 64 levels deep. Never raises."""
    kind = type(value)
    if kind in PLAIN or (kind in CONTAINERS and looks_clean(value)):
        try:
            return fast_encode(value)
        except Exception:
            pass  # a lone surrogate, a huge integer, an odd key: the exact way handles it

    return _encode_exactly(value)


def looks_clean(container: Any, room: int = DEPTH_LIMIT) -> bool:
    """Whether ``container`` may be encoded as it is. Wrong only on the careful side."""
    try:
        if type(container) is dict:
            if not _is_clean(container) and has_unclean_key(container):
                return False

            container = container.values()

        room -= 1
        for item in container:  # a loop beats map() and set operations below some fifty items
            kind = type(item)
            if kind not in PLAIN and (kind not in CONTAINERS or room == 0 or not looks_clean(item, room)):
                return False
    except RuntimeError:
        return False  # changed by another thread while we looked

    return True


def _encode_exactly(value: Any) -> bytes:
    for _ in range(3):
        try:
            return fast_encode(sanitise(value))
        except Exception:  # changed by another thread in between: look again
            continue

    return fast_encode(describe(value))


def sanitise(value: Any) -> Any:
    """Return a JSON-ready copy of ``value``: redacted, cut at 64 levels, free of cycles. Never raises."""
    return _sanitise(value, DEPTH_LIMIT)


def _sanitise(value: Any, room: int) -> Any:
    kind = type(value)
    if kind is str:
        return _text(value)

    if kind is int:
        return _integer(value)

    if kind in PLAIN:
        return value

    try:
        return _convert(value, room)
    except Exception:
        return describe(value)


def _convert(value: Any, room: int) -> Any:
    if isinstance(value, enum.Enum):
        return _sanitise(value.value, room)

    if isinstance(value, str):
        return _text(str.__str__(value))

    if isinstance(value, bool | int):
        return _integer(int(value))

    if isinstance(value, float):
        return float(value)

    if isinstance(value, datetime.datetime):
        return value.isoformat()

    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")

    if isinstance(value, Mapping):
        if room == 0:
            return {"$cut": "depth"}

        return _mapping(value.items(), room)

    if isinstance(value, PurePath):
        return _text(str(value))

    if isinstance(value, list | tuple | Set | deque) and not isinstance(value, msgspec.Struct):
        if room == 0:
            return {"$cut": "depth"}

        return [_sanitise(item, room - 1) for item in list(value)]

    if isinstance(value, BaseException):
        return {"$repr": _text(_repr(value)), "$type": _type_name(value)}

    fields = _fields(value)
    if fields is None:
        return describe(value)

    if room == 0:
        return {"$cut": "depth"}

    return _mapping(fields, room)


def _fields(value: Any) -> Any:
    """The named fields of a record-like object as pairs, or ``None``."""
    if isinstance(value, type):
        return None

    if isinstance(value, msgspec.Struct):
        return [(name, getattr(value, name)) for name in value.__struct_fields__]

    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]

    # pydantic is looked up, not imported: an object can only be its model when it is loaded.
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return [*value.__dict__.items(), *(value.model_extra or {}).items()]

    return None


def _mapping(pairs: Any, room: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in list(pairs):
        name = _key(key)
        while name in out:  # {1: ..., "1": ...}: two keys, one text
            name += "~"

        out[name] = MASK if item is not None and is_secret_key(name) else _sanitise(item, room - 1)

    return out


def _key(key: Any) -> str:
    if type(key) is str:
        return _text(key)

    if key is None or key is True or key is False:
        return {None: "null", True: "true", False: "false"}[key]

    if isinstance(key, enum.Enum):
        return _key(key.value)

    try:
        return _text(str(key))[:REPR_LIMIT]
    except Exception:
        return _type_name(key)


def _text(value: str) -> str:
    if value.isascii():
        return value

    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode("utf-8")

    return value


def _integer(value: int) -> int | str:
    bits = value.bit_length()
    if bits <= 64 and (value >= -(2**63) or _LONG_INTEGERS):
        return value

    # Python refuses decimal text of more than 4,300 digits, and no reader wants it.
    if bits > INTEGER_LIMIT:
        return f"{bits}-bit integer"

    return value if _LONG_INTEGERS else str(value)


def _encodes_long_integers() -> bool:
    try:
        return fast_encode(2**64) == str(2**64).encode()
    except Exception:
        return False


_LONG_INTEGERS: Final = _encodes_long_integers()
"""Whether this msgspec writes integers beyond 64 bits as JSON numbers; older ones refuse, then they become text."""


def describe(value: object) -> dict[str, str]:
    """Return ``{"$repr", "$type"}`` of an object JSON has no form for. Bounded, and safe against a raising repr."""
    return {"$repr": _text(_repr(value)), "$type": _type_name(value)}


def _repr(value: object) -> str:
    try:
        text = repr(value)
        if type(text) is not str:
            text = str.__str__(text)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise

        return f"<{_type_name(value)}: its repr raised {type(error).__name__}>"

    if len(text) > REPR_LIMIT:
        return f"{text[:REPR_LIMIT]}… [{len(text) - REPR_LIMIT} more characters]"

    return text


def _type_name(value: object) -> str:
    kind: Callable[..., Any] = type(value)
    return _text(f"{kind.__module__}.{kind.__qualname__}")
