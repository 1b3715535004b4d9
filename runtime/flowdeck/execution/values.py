"""What may be stored: JSON plus tagged types, copied in and out by our own walker.

``copy_value`` checks and copies in one pass (a 512-byte dict takes about 3 us; ``deepcopy`` takes 15), ``encode`` and
``decode`` go to JSON and back without altering tuples, NaN or datetimes as fast encoders silently do. Anything
outside the list is refused with its key path rather than turned into text. Source: the design's §3, "What may flow".
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import importlib
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from flowdeck.errors import SnapshotError, UnencodableValue

__all__ = [
    "KEPT",
    "copy_loosely",
    "copy_value",
    "decode",
    "encode",
    "is_clean",
    "is_plain",
    "keeps_in_json",
    "register_type",
]

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_IMMUTABLE: Final = frozenset({bytes, datetime, date, time, timedelta, Decimal, UUID}) | _SCALARS
_TAG: Final = "$type"
_TAG_BYTES: Final = _TAG.encode()
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_CONTAINERS: Final = frozenset({dict, list})
KEPT: Final = frozenset({str, int, bool, type(None)})
"""Types whose values JSON keeps; of a text it does not, one with a lone surrogate, its encoder says so."""
_json_encode: Final = msgspec.json.Encoder().encode
_json_decode: Final = msgspec.json.Decoder().decode
_HINT: Final = "keep live objects in runtime resources, or register the type with flowdeck.register_type()"
_MAX_DEPTH: Final = 200

_registered: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {}
_registered_names: dict[str, Callable[[Any], Any]] = {}


def register_type(cls: type, name: str, to_json: Callable[[Any], Any], from_json: Callable[[Any], Any]) -> None:
    """Let instances of ``cls`` be stored. ``name`` goes into snapshots, so it must stay the same over releases."""
    _registered[cls] = (name, to_json, from_json)
    _registered_names[name] = from_json


def copy_value(value: Any, path: str = "") -> Any:
    """Return a copy of ``value`` that shares nothing mutable with it.

    Raises:
        UnencodableValue: something in it cannot be stored; the error carries its key path.
    """
    return value if type(value) in _SCALARS else _copy(value, path, 0)


def copy_loosely(value: Any) -> Any:
    """Return a copy like :func:`copy_value`, with parts that cannot be stored handed on as they are.

    For records that quote a signal's value, which may be any object.
    """
    try:
        return _copy(value, "", 0)
    except UnencodableValue:
        return {k: copy_loosely(v) for k, v in value.items()} if type(value) is dict else value


def _copy(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if kind in _IMMUTABLE:
        return value

    if depth > _MAX_DEPTH:
        raise UnencodableValue(path, value, f"it is nested more than {_MAX_DEPTH} deep, or contains itself")

    if kind is dict:
        copied = {}
        for k, v in value.items():
            copied[k if type(k) is str else _copy_key(k, path)] = (
                v if type(v) in _SCALARS else _copy(v, f"{path}.{k}" if path else str(k), depth + 1)
            )

        return copied

    if kind is list:
        return _copy_items(value, path, depth)

    if kind is tuple:
        return tuple(_copy_items(value, path, depth))

    if kind is set or kind is frozenset:
        return kind(_copy_members(value, f"{path}{{}}", depth + 1))

    return _copy_object(value, path, depth)


def _copy_items(value: Sequence[Any], path: str, depth: int) -> list[Any]:
    return [v if type(v) in _SCALARS else _copy(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]


def _copy_members(value: Collection[Any], path: str, depth: int) -> list[Any]:
    return [_copy(v, path, depth) for v in value]


def _copy_key(key: Any, path: str) -> Any:
    if type(key) in _IMMUTABLE or type(key) is tuple:
        return key

    raise UnencodableValue(f"{path}.{key!r}" if path else repr(key), key, "a key must be a plain value")


def _copy_object(value: Any, path: str, depth: int) -> Any:
    if type(value) in _registered:
        return copy.deepcopy(value)

    if isinstance(value, str | int | float):  # enum members and other subclasses lose nothing but their class
        return _plain(value)

    if isinstance(value, bytearray):
        return bytes(value)

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _copy(getattr(value, f.name), f"{path}.{f.name}", depth + 1) for f in _fields(value)}
        clone = copy.copy(value)
        for name, each in fields.items():
            object.__setattr__(clone, name, each)

        return clone

    if _is_pydantic(value):
        _encode(value, path, depth)  # refuses what could not be stored
        return value.model_copy(deep=True)

    if isinstance(value, Mapping):
        return _copy(dict(value), path, depth)

    raise UnencodableValue(path, value, _HINT)


def encode(value: Any, path: str = "") -> Any:
    """Return ``value`` as JSON-safe data from which :func:`decode` restores it exactly.

    Raises:
        UnencodableValue: something in it cannot be stored.
    """
    if value.__class__ in _CONTAINERS:
        try:
            # Most data is JSON as it is. Then the C codec copies it, and equality says that nothing got lost: a tuple
            # comes back as a list, a datetime as a text, NaN as None.
            written = _json_encode(value)
            if _TAG_BYTES not in written and _is_shallow(written):
                copied = _json_decode(written)
                if copied == value:
                    return copied
        except Exception:
            pass  # not JSON, or an object that will not be compared: the walk below says what to do with it

    return _encode(value, path, 0)


def is_plain(value: Any) -> bool:
    """Whether :func:`encode` would return ``value`` as it is: it holds nothing that needs a tag."""
    try:
        written = _json_encode(value)
        return _TAG_BYTES not in written and _is_shallow(written) and bool(_json_decode(written) == value)
    except Exception:
        return False


def keeps_in_json(value: Any) -> bool:
    """Whether JSON gives ``value`` back as it is, or its encoder raises (for a text that is no Unicode)."""
    kind = type(value)
    if kind in KEPT:
        return True

    if kind is dict and _TAG not in value:
        for key, each in value.items():
            if type(key) is not str or type(each) not in KEPT:
                break
        else:
            return True

    return is_plain(value)


def _is_shallow(written: bytes) -> bool:
    """Whether JSON is surely not nested too deep to be decoded again. Brackets inside texts may make it say no."""
    if written.count(b"[") + written.count(b"{") <= _MAX_DEPTH:
        return True

    brackets = written.translate(None, _NO_BRACKETS)
    for _ in range(_MAX_DEPTH):  # each round takes the innermost level away
        outer = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(outer) == len(brackets):
            break

        brackets = outer

    return not brackets


def _encode(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if kind is bool or value is None:
        return value

    if kind is str:
        return (
            value
            if is_clean(value)
            else _tagged("str", base64.b64encode(value.encode(errors="surrogatepass")).decode())
        )

    if kind is int:
        return value if -(2**63) <= value < 2**63 else _tagged("int", str(value))

    if kind is float:
        return value if math.isfinite(value) else _tagged("float", repr(value))

    if depth > _MAX_DEPTH:
        raise UnencodableValue(path, value, f"it is nested more than {_MAX_DEPTH} deep, or contains itself")

    if kind is dict:
        return _encode_dict(value, path, depth)

    if kind is list:
        return [_encode(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]

    if kind is tuple:
        return _tagged("tuple", [_encode(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)])

    if kind is set or kind is frozenset:
        members = [_encode(v, f"{path}{{}}", depth + 1) for v in value]
        return _tagged(kind.__name__, sorted(members, key=repr))  # the same bytes in every process

    return _encode_object(value, path, depth)


def _encode_dict(value: dict[Any, Any], path: str, depth: int) -> Any:
    if _TAG not in value and all(type(k) is str and is_clean(k) for k in value):
        return {k: _encode(v, f"{path}.{k}" if path else k, depth + 1) for k, v in value.items()}

    pairs = [[_encode(k, path, depth + 1), _encode(v, f"{path}.{k!r}", depth + 1)] for k, v in value.items()]
    return _tagged("map", pairs)


def _encode_object(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if kind in _registered:
        name, to_json, _ = _registered[kind]
        return _tagged("registered", [name, _encode(to_json(value), path, depth + 1)])

    if kind in (bytes, bytearray):
        return _tagged("bytes", base64.b64encode(value).decode())

    if kind in (datetime, date, time):
        return _tagged(kind.__name__, value.isoformat())

    if kind is timedelta:
        return _tagged("timedelta", [value.days, value.seconds, value.microseconds])

    if kind is Decimal or kind is UUID:
        return _tagged(kind.__name__, str(value))

    if isinstance(value, str | int | float):
        return _encode(_plain(value), path, depth)

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        body = {f.name: _encode(getattr(value, f.name), f"{path}.{f.name}", depth + 1) for f in _fields(value)}
        return _tagged("dataclass", [_class_path(value), body])

    if _is_pydantic(value):
        return _tagged("pydantic", [_class_path(value), _encode(value.model_dump(), path, depth + 1)])

    if isinstance(value, Mapping):
        return _encode_dict(dict(value), path, depth)

    raise UnencodableValue(path, value, _HINT)


def decode(value: Any) -> Any:
    """Restore what :func:`encode` wrote.

    Raises:
        SnapshotError: a stored class is gone, or the data was altered.
    """
    kind = type(value)
    if kind is list:
        return [decode(v) for v in value]

    if kind is not dict:
        return value

    if _TAG not in value:
        return {k: decode(v) for k, v in value.items()}

    tag, body = value[_TAG], value.get("v")
    try:
        return _DECODERS[tag](body)
    except SnapshotError:
        raise
    except Exception as exc:
        raise SnapshotError(f"stored value of type {tag!r} cannot be restored: {exc}") from exc


def _decode_object(body: Any) -> Any:
    cls = _load_class(body[0])
    fields = decode(body[1])
    if _is_pydantic_type(cls):
        return cls.model_validate(fields)

    clone = cls.__new__(cls)
    for name, each in fields.items():
        object.__setattr__(clone, name, each)

    return clone


def _decode_registered(body: Any) -> Any:
    if body[0] not in _registered_names:
        raise SnapshotError(f"type {body[0]!r} is not registered; call flowdeck.register_type() before loading")

    return _registered_names[body[0]](decode(body[1]))


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "str": lambda b: base64.b64decode(b).decode(errors="surrogatepass"),
    "int": int,
    "float": float,
    "map": lambda b: {decode(k): decode(v) for k, v in b},
    "tuple": lambda b: tuple(decode(v) for v in b),
    "set": lambda b: {decode(v) for v in b},
    "frozenset": lambda b: frozenset(decode(v) for v in b),
    "bytes": base64.b64decode,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda b: timedelta(*b),
    "Decimal": Decimal,
    "UUID": UUID,
    "dataclass": _decode_object,
    "pydantic": _decode_object,
    "registered": _decode_registered,
}


def _tagged(tag: str, body: Any) -> dict[str, Any]:
    return {_TAG: tag, "v": body}


def is_clean(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: it has no lone surrogates."""
    if text.isascii():
        return True

    try:
        text.encode()
    except UnicodeEncodeError:
        return False

    return True


def _plain(value: Any) -> Any:
    for base in (str, int, float):
        if isinstance(value, base):
            return base.__str__(value) if base is str else base(value)

    return value


def _fields(value: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(value)


def _is_pydantic(value: Any) -> bool:
    return _is_pydantic_type(type(value))


def _is_pydantic_type(cls: type) -> bool:
    return "pydantic" in sys.modules and hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_dump")


def _class_path(value: Any) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _load_class(path: str) -> Any:
    module, _, qualname = path.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as exc:
        raise SnapshotError(f"class {path} of a stored value is gone: {exc}") from exc

    if not isinstance(found, type) or not (dataclasses.is_dataclass(found) or _is_pydantic_type(found)):
        raise SnapshotError(f"{path} is no dataclass or pydantic model any more")

    return found
