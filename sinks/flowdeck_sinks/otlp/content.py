"""What of a run's content leaves the process, and how much of it.

One knob, the standard one: ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` = ``NO_CONTENT`` (default),
``SPAN_ONLY``, ``EVENT_ONLY``, ``SPAN_AND_EVENT``. It covers inputs and outputs of steps and flows, prompts and answers,
arguments and results; values are the redacted ones of the journal, cut at :attr:`Limits.value`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

__all__ = ["CAPTURE_VARIABLE", "Capture", "Limits", "blob_of", "clip", "json_text"]

CAPTURE_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
EXCEPTION_VARIABLE: Final = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"
"""``logs``: errors are log records only; ``logs/dup`` or not set: span events as well, for viewers of traces alone."""

_CHOICES: Final = {
    "": (False, False),
    "NO_CONTENT": (False, False),
    "FALSE": (False, False),
    "SPAN_ONLY": (True, False),
    "EVENT_ONLY": (False, True),
    "SPAN_AND_EVENT": (True, True),
    "TRUE": (True, True),
}


@dataclass(frozen=True, slots=True)
class Capture:
    """Where content may go."""

    spans: bool = False
    events: bool = False
    """Log records. Span events never carry content."""
    span_exceptions: bool = True
    """Whether errors are span events too, not log records alone. ``OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN``."""
    problem: str | None = None
    """What was wrong with the variable, a sentence."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Capture:
        """Return what the environment asks for; an unknown value captures nothing and says so in :attr:`problem`."""
        variables = os.environ if environ is None else environ
        text = variables.get(CAPTURE_VARIABLE, "")
        signals = {name.strip() for name in variables.get(EXCEPTION_VARIABLE, "").lower().split(",")}
        spans = "logs" not in signals
        found = _CHOICES.get(text.strip().upper())
        if found is None:
            names = ", ".join(name for name in _CHOICES if name not in ("", "TRUE", "FALSE"))
            return cls(
                span_exceptions=spans,
                problem=f"{CAPTURE_VARIABLE}={text!r} is not known ({names}): no content is captured",
            )

        return cls(*found, span_exceptions=spans)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one span or log record."""

    value: int = 8192
    """Characters of one attribute. ``OTEL_[SPAN_]ATTRIBUTE_VALUE_LENGTH_LIMIT``."""
    events: int = 128
    """Span events. ``OTEL_SPAN_EVENT_COUNT_LIMIT``."""
    attributes: int = 128
    """Attributes of one span. ``OTEL_[SPAN_]ATTRIBUTE_COUNT_LIMIT``."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Limits:
        """Return the limits of the standard variables; what is not a number counts as not set."""
        variables = os.environ if environ is None else environ

        def read(default: int, *names: str) -> int:
            for name in names:
                text = variables.get(name, "").strip()
                if text.isdigit():
                    return int(text)

            return default

        return cls(
            value=read(8192, "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
            events=read(128, "OTEL_SPAN_EVENT_COUNT_LIMIT"),
            attributes=read(128, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
        )


def clip(text: str, limit: int) -> str:
    """Return ``text`` as valid Unicode of at most ``limit`` characters, with a mark for what was cut."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no place on the wire

    if len(text) <= limit:
        return text

    mark = f"… [+{len(text) - limit} characters]"
    return text[: max(0, limit - len(mark))] + mark if limit > 2 * len(mark) else text[:limit]


class _Blob(msgspec.Struct):
    blob: str = msgspec.field(name="$blob")
    preview: str = ""


_blob_decoder: Final = msgspec.json.Decoder(_Blob)


def blob_of(payload: bytes | msgspec.Raw) -> tuple[str, str] | None:
    """Return ``(sha256, preview)`` of a payload that the store keeps as a blob, else ``None``."""
    if bytes(memoryview(payload)[:16]).lstrip(b" {").startswith(b'"$blob"'):
        try:
            found = _blob_decoder.decode(payload)
        except ValueError:
            return None

        return found.blob, found.preview

    return None


def json_text(value: Any, limit: int) -> tuple[str, bool]:
    """Return a decoded value, or JSON bytes, as attribute text, and whether it was cut. A text stays itself.

    Only as much of JSON bytes as can be shown is decoded: a payload may have megabytes.
    """
    if isinstance(value, msgspec.Raw | bytes):
        data = bytes(value)
        most = 4 * limit + 8
        if len(data) > most:
            text = data[:most].decode("utf-8", "ignore")[:limit]
            return f"{text}… [{len(data)} bytes in all]", True

        value = msgspec.json.decode(data) if data[:1] == b'"' else data.decode("utf-8", "replace")

    elif not isinstance(value, str):
        value = msgspec.json.encode(value).decode("utf-8", "replace")

    return clip(value, limit), len(value) > limit
