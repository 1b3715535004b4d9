"""Bodies of requests as OTLP messages, and answers as bodies: protobuf and JSON, plain, gzip and deflate."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Final, NamedTuple

from flowdeck.errors import FlowdeckError
from flowdeck_sinks.otlp.wire import varint

__all__ = [
    "JSON",
    "MAX_ITEMS",
    "PROTOBUF",
    "SIGNALS",
    "BadRequest",
    "answer_body",
    "decode_body",
    "error_body",
    "inflate",
    "prepare",
]

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
SIGNALS: Final = {"/v1/traces": "trace", "/v1/logs": "logs", "/v1/metrics": "metrics"}
"""The paths and the packages of their messages."""
_REQUESTS: Final = {"trace": "ExportTraceService", "logs": "ExportLogsService", "metrics": "ExportMetricsService"}
_ID_KEYS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
_WINDOW: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_LISTS: Final = {
    "trace": (("resource_spans", "resourceSpans"), ("scope_spans", "scopeSpans"), ("spans", "spans")),
    "logs": (("resource_logs", "resourceLogs"), ("scope_logs", "scopeLogs"), ("log_records", "logRecords")),
    "metrics": (("resource_metrics", "resourceMetrics"), ("scope_metrics", "scopeMetrics"), ("metrics", "metrics")),
}
_FIELDS: Final = (0x0A, 0x12, 0x12)
"""The tags of these lists in protobuf, alike for all signals."""
_DEPTH: Final = 100
"""Messages inside messages; protobuf's own limit."""
MAX_ITEMS: Final = 65_536
"""Spans or log records of one request with the groups they stand in, and as many span events. Two bytes can be a span,
which takes 160 in memory and tens of microseconds."""


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


def prepare() -> None:
    """Import what requests need, so that no request waits for it.

    Raises:
        ModuleNotFoundError: The extra ``otlp`` is not installed.
    """
    import google.protobuf.json_format  # type: ignore[import-untyped]  # noqa: F401

    for signal in SIGNALS.values():
        _messages(signal)


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

    if stream.unused_data:
        raise BadRequest(400, f"the body goes on after the end of its {encoding}; send one stream")

    return out


def decode_body(signal: str, content_type: str, body: bytes) -> Any:
    """Return the ``Export…ServiceRequest`` of a body.

    Raises:
        BadRequest: 400, the body is not what it says; 413, there is more in it than :data:`MAX_ITEMS`.
    """
    message = _messages(signal).request
    if content_type == PROTOBUF:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        if len(body) > 2 * MAX_ITEMS and _items_of(memoryview(body), MAX_ITEMS) > MAX_ITEMS:
            raise _too_many(signal)

        try:
            return message.FromString(body)
        except DecodeError:
            raise BadRequest(
                400,
                f"the body is no {message.DESCRIPTOR.name} in protobuf: damaged, a text that is not UTF-8, or nested "
                f"more than {_DEPTH} deep",
            ) from None

    from google.protobuf.json_format import Error, ParseDict

    try:
        value = json.loads(body)
        if not isinstance(value, dict):
            raise BadRequest(400, "the body is JSON, but no object")

        if _listed(value, signal) > MAX_ITEMS:
            raise _too_many(signal)

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


def _too_many(signal: str) -> BadRequest:
    return BadRequest(
        413, f"more than {MAX_ITEMS} {_LISTS[signal][2][0]} in one request, groups counted; send smaller batches"
    )


def _items_of(body: memoryview, most: int, level: int = 0) -> int:
    """Count the groups and items of a request in protobuf without unpacking it; ends above ``most`` or at damage."""
    count, at, end = 0, 0, len(body)
    try:
        while at < end and count <= most:
            tag, wire = body[at], body[at] & 7
            while body[at] & 128:  # a field above 15
                at += 1

            size, shift, at = 0, 0, at + 1
            if wire == 2 or wire == 0:
                while True:
                    byte = body[at]
                    at += 1
                    size |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break

            if wire == 2:
                if tag == _FIELDS[level]:
                    count += 1  # empty groups cost as much as items
                    if level < 2:
                        count += _items_of(body[at : at + size], most - count, level + 1)

                at += size
            elif wire == 1 or wire == 5:
                at += 8 if wire == 1 else 4
            elif wire != 0:
                break
    except IndexError:
        pass  # cut off: the parser says so

    return count


def _listed(request: dict[str, Any], signal: str) -> int:
    """Count the groups and items of a request in JSON."""
    count, values = 0, [request]
    for names in _LISTS[signal]:
        found = [value.get(name) for value in values if isinstance(value, dict) for name in names if name in value]
        values = [item for items in found if isinstance(items, list) for item in items]
        count += len(values)

    return count


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
        return b"\x08" + bytes((code,)) + b"\x12" + varint(len(text)) + text

    return json.dumps({"code": code, "message": message[:2000]}).encode()
