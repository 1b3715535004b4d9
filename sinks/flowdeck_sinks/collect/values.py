"""OTLP's attribute values as plain data, without secrets that hide in texts.

Keys that name a secret are masked when an event is encoded (:mod:`flowdeck.events.redaction`). Two kinds of text are
looked into here: JSON inside a text (GenAI and OpenInference put messages and arguments there) and addresses with a
password or a key in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from flowdeck.events.encoding import looks_clean, sanitise
from flowdeck.events.redaction import MASK, is_secret_key

__all__ = ["attributes_of", "clip", "count_of", "structure", "text_of", "value_of", "without_secrets"]

NAME_LIMIT: Final = 512
"""Characters kept of a name or an id; whole values stand in the payload."""
JSON_LIMIT: Final = 4 * 1024 * 1024
"""Longest text that is looked into as JSON."""

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_USER: Final = re.compile(r"(?<=://)[^/?#\s@]*:[^/?#\s@]*(?=@)")
_QUERY: Final = re.compile(r"(?<=[?&])([^=&#\s]{1,200})=([^&#\s]+)")
_CONTROL: Final = dict.fromkeys((*range(32), 127, *range(128, 160)), " ")


def value_of(value: Any) -> Any:
    """Return an ``AnyValue`` as plain data; bytes become base64 when they are encoded."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return without_secrets(value.string_value)

    if kind is None:
        return None

    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]

    if kind == "kvlist_value":
        return {pair.key: value_of(pair.value) for pair in value.kvlist_value.values}

    return getattr(value, kind)


def attributes_of(pairs: Iterable[Any]) -> dict[str, Any]:
    """Return a list of ``KeyValue`` as a mapping. Of a key that comes twice the last value counts."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def without_secrets(text: str) -> str:
    """Return a text as it is, unless secrets are seen in it: JSON with secret keys, passwords in addresses."""
    first = text[:1]
    if (first == "{" or first == "[") and len(text) <= JSON_LIMIT:
        found = structure(text)
        if found is not text and not looks_clean(found):
            return _encode(sanitise(found)).decode()

    if "://" in text:
        text = _USER.sub(MASK, text)
        if "?" in text:
            text = _QUERY.sub(_masked, text)

    return text


def _masked(found: re.Match[str]) -> str:
    return f"{found[1]}={MASK}" if is_secret_key(found[1]) else found[0]


def structure(value: Any) -> Any:
    """Return the data a JSON text stands for; anything else, and a text that is no object or list, as it is."""
    if isinstance(value, str) and value[:1] in ("{", "[") and len(value) <= JSON_LIMIT:
        try:
            return _decode(value)
        except (ValueError, RecursionError):
            return value

    return value


def text_of(attributes: dict[str, Any], *names: str) -> str | None:
    """Return the first of these attributes that is a text which says something, fit to be a name."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and value:
            return clip(value)

    return None


def count_of(attributes: dict[str, Any], *names: str) -> int | None:
    """Return the first of these attributes that is a number of something."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)

        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
            return value

    return None


def clip(text: str, limit: int = NAME_LIMIT) -> str:
    """Return a text as a name: one line without control characters, at most ``limit`` characters."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"

    return text if text.isprintable() else text.translate(_CONTROL)
