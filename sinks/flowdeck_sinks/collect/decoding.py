"""Bodies of requests as OTLP messages, and answers as bodies: protobuf and JSON, plain, gzip and deflate."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Final, NamedTuple

from flowdeck.errors import FlowdeckError

__all__ = ["JSON", "PROTOBUF", "SIGNALS", "BadRequest", "answer_body", "decode_body", "error_body", "inflate"]

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
SIGNALS: Final = {"/v1/traces": "trace", "/v1/logs": "logs", "/v1/metrics": "metrics"}
"""The paths and the packages of their messages."""
_REQUESTS: Final = {"trace": "ExportTraceService", "logs": "ExportLogsService", "metrics": "ExportMetricsService"}
_ID_KEYS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
_WINDOW: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_DEPTH: Final = 100
"""Messages inside messages; protobuf's own limit."""


class BadRequest(FlowdeckError):
    """A request that is refused. ``status`` is HTTP's, ``retry_s`` when to come again (``None``: never)."""

    def __init__(self, status: int, message: str, retry_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_s = retry_s


class _Messages(NamedTuple):
    request: Any
    response: Any


def _messages(signal: str) -> _Messages:
    from importlib import import_module

    module = import_module(f"opentelemetry.proto.collector.{signal}.v1.{signal}_service_pb2")
    return _Messages(getattr(module, f"{_REQUESTS[signal]}Request"), getattr(module, f"{_REQUESTS[signal]}Response"))


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a body without its compression.

    Raises:
        BadRequest: 415 for an encoding that is not known, 413 above ``limit`` bytes, 400 for damaged data.
    """
    if encoding in ("", "identity"):
        return body

    window = _WINDOW.get(encoding)
    if window is None:
        raise BadRequest(415, f"Content-Encoding {encoding[:40]!r} is not known: use gzip, deflate or none")

    stream = zlib.decompressobj(window)
    try:
        out = stream.decompress(body, limit + 1)
    except zlib.error as problem:
        raise BadRequest(400, f"the body is no {encoding}: {problem}") from None

    if len(out) > limit:
        raise BadRequest(413, f"the body is larger than {limit} bytes when it is unpacked; send smaller batches")

    if not stream.eof:
        raise BadRequest(400, f"the body is cut off: its {encoding} has no end")

    return out


def decode_body(signal: str, content_type: str, body: bytes) -> Any:
    """Return the ``Export…ServiceRequest`` of a body.

    Raises:
        BadRequest: 400, the body is not what it says.
    """
    message = _messages(signal).request
    if content_type == PROTOBUF:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            return message.FromString(body)
        except DecodeError:
            raise BadRequest(
                400, f"the body is no {message.DESCRIPTOR.name} in protobuf, or nested more than {_DEPTH} deep"
            ) from None

    from google.protobuf.json_format import Error, ParseDict  # type: ignore[import-untyped]

    try:
        value = json.loads(body)
        if not isinstance(value, dict):
            raise BadRequest(400, "the body is JSON, but no object")

        # Ids are hexadecimal in OTLP's JSON, which protobuf's own JSON knows nothing of; and a lone surrogate is
        # JSON, but no text.
        given = _prepared(value, b"\\ud" in body or b"\\uD" in body, _DEPTH * 3)
        return ParseDict(given, message(), ignore_unknown_fields=True)
    except RecursionError:
        raise BadRequest(400, f"the JSON is nested more than {_DEPTH} deep") from None
    except UnicodeDecodeError:
        raise BadRequest(400, "the JSON is not UTF-8") from None
    except (Error, ValueError) as problem:
        raise BadRequest(400, f"the body is no {message.DESCRIPTOR.name} in JSON: {str(problem)[:300]}") from None


def _prepared(value: Any, surrogates: bool, room: int) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode() if surrogates else value

    if room == 0:
        raise RecursionError

    if isinstance(value, list):
        return [_prepared(item, surrogates, room - 1) for item in value]

    if isinstance(value, dict):
        return {
            _prepared(key, surrogates, room): _id(item)
            if key in _ID_KEYS and isinstance(item, str)
            else _prepared(item, surrogates, room - 1)
            for key, item in value.items()
        }

    return value


def _id(text: str) -> str:
    """Return an id of hexadecimal digits as base64; what is none becomes one that no id has, to be refused by name."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = text.encode("utf-8", "replace")[:7]

    return base64.b64encode(raw).decode()


def answer_body(signal: str, content_type: str, rejected: int, message: str) -> bytes:
    """Return the body of a 200: empty, or how much of the request was refused and why."""
    from google.protobuf.json_format import MessageToJson

    response = _messages(signal).response()
    if message:
        partial = response.partial_success
        partial.error_message = message
        field = {"trace": "rejected_spans", "logs": "rejected_log_records", "metrics": "rejected_data_points"}[signal]
        setattr(partial, field, rejected)

    if content_type == JSON:
        text: str = MessageToJson(response, indent=None)
        return text.encode()

    body: bytes = response.SerializeToString()
    return body


def error_body(content_type: str, status: int, message: str) -> bytes:
    """Return the body of a refusal: a ``google.rpc.Status``, as OTLP/HTTP has it."""
    # google.rpc.Code: INVALID_ARGUMENT, UNAUTHENTICATED, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAVAILABLE.
    code = {401: 16, 403: 7, 413: 8, 429: 8, 500: 13, 503: 14}.get(status, 3)
    if content_type == PROTOBUF:
        text = message.encode("utf-8", "replace")[:2000]
        return b"\x08" + bytes((code,)) + b"\x12" + _varint(len(text)) + text

    return json.dumps({"code": code, "message": message[:2000]}).encode()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7

    out.append(number)
    return bytes(out)
