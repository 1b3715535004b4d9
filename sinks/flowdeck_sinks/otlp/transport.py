"""One request to a collector: how it is sent, and what its answer means for the batch.

A transport makes a single attempt and never raises; :class:`Outcome` says what to do next. The official exporters are
not used here: they retry inside ``export()`` where nothing can stop them (20 s at shutdown with a dead collector) and
throw a batch away after a minute. Source: the OTLP specification 1.x, "Failures", "OTLP/HTTP response", and "OTLP/gRPC
throttling".
"""

from __future__ import annotations

import email.utils
import gzip
import logging
import re
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from flowdeck_sinks.otlp.settings import Target

__all__ = ["Outcome", "Transport", "open_transport"]

log = logging.getLogger("flowdeck.sinks.otlp")

DELIVERED: Final = "delivered"
"""The collector has it."""
RETRY: Final = "retry"
"""Nobody is there, or it is busy: the same request may succeed later."""
FAULTY: Final = "faulty"
"""The collector broke over it (500): worth a few more attempts, not endless ones."""
SPLIT: Final = "split"
"""Too large: send halves."""
REFUSED: Final = "refused"
"""The data are at fault: it will never be taken."""
MISDIRECTED: Final = "misdirected"
"""The address or the key is at fault, not the data."""
UNWANTED: Final = "unwanted"
"""The collector does not take this signal at all, as Jaeger takes no logs."""

_WRONG_PLACE: Final = frozenset({401, 403, 404, 405, 407})
_LATER: Final = frozenset({408, 425, 429, 502, 503, 504})
_GRPC_LATER: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS", "RESOURCE_EXHAUSTED"}
)
_ANSWER_BYTES: Final = 64 * 1024
_REASON_CHARACTERS: Final = 300
RETRY_AFTER_LIMIT: Final = 300.0
"""Seconds; a collector that asks for more is asked again then."""


class Outcome(NamedTuple):
    """What became of a request."""

    kind: str
    reason: str = ""
    """A sentence for people; without secrets and control characters."""
    retry_after: float | None = None
    """Seconds the collector asked to wait."""
    rejected: int = 0
    """Items of a delivered batch that the collector threw away (partial success)."""


class Transport(Protocol):
    """Sends encoded requests of one signal."""

    def send(self, body: bytes, timeout: float) -> Outcome:
        """Make one attempt of at most about ``timeout`` seconds. Never raises."""
        ...

    def close(self) -> None:
        """Give up the connection. Safe to call twice."""
        ...


def open_transport(target: Target) -> Transport:
    """Return the transport for a target. Connects at the first request.

    Raises:
        ImportError: gRPC is asked for and not installed.
    """
    return GrpcTransport(target) if target.protocol == "grpc" else HttpTransport(target)


class HttpTransport:
    """OTLP over HTTP with protobuf bodies."""

    def __init__(self, target: Target) -> None:
        import requests

        self._target = target
        self._requests = requests
        self._session: Any = None

    def _opened(self) -> Any:
        if self._session is None:
            session = self._requests.Session()
            session.headers.update({"User-Agent": _user_agent(), **self._target.headers})
            session.headers["Content-Type"] = "application/x-protobuf"
            if self._target.compression != "none":
                session.headers["Content-Encoding"] = self._target.compression

            # A proxy of the environment is for the outside world; a collector on this machine is reached directly.
            session.trust_env = not _is_loopback(self._target.endpoint)
            if self._target.client_certificate:
                key = self._target.client_key
                session.cert = (self._target.client_certificate, key) if key else self._target.client_certificate

            self._session = session

        return self._session

    def send(self, body: bytes, timeout: float) -> Outcome:
        target = self._target
        errors = self._requests.exceptions
        try:
            # Redirects are not followed: they turn a POST into a GET.
            with self._opened().post(
                target.endpoint,
                data=_compressed(body, target.compression),
                timeout=max(0.05, timeout),
                # Here, not on the session: there REQUESTS_CA_BUNDLE would win over OTEL_EXPORTER_OTLP_CERTIFICATE.
                verify=target.certificate,
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = _read_some(answer, time.monotonic() + timeout)
                return _http_outcome(target, answer.status_code, answer.headers, content)
        except errors.SSLError as problem:
            return Outcome(RETRY, f"TLS to {target.shown} failed: {_short(_innermost(problem))}")
        except errors.Timeout:
            return Outcome(RETRY, f"{target.shown} did not answer within {timeout:.3g} s")
        except errors.ConnectionError as problem:
            return Outcome(RETRY, f"{target.shown} cannot be reached: {_plainly(problem)}")
        except errors.InvalidURL:
            return Outcome(MISDIRECTED, f"{target.shown} is no address")
        except Exception as problem:  # a missing certificate file, a broken proxy setting, an answer that is no HTTP
            said = _short(problem).replace(target.endpoint, target.shown)
            return Outcome(RETRY, f"{target.shown}: {type(problem).__name__}: {said}")

    def close(self) -> None:
        if self._session is not None:
            with suppress(Exception):
                self._session.close()

            self._session = None


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _read_some(answer: Any, deadline: float) -> bytes:
    """Return the beginning of an answer's body; one that is long or slow is not waited for."""
    out = b""
    with suppress(Exception):
        for chunk in answer.iter_content(4096):
            out += chunk
            if len(out) >= _ANSWER_BYTES or time.monotonic() > deadline:
                break

    return out


def _http_outcome(target: Target, status: int, headers: Mapping[str, str], content: bytes) -> Outcome:
    if 200 <= status < 300:
        return _delivered(content if "json" not in headers.get("Content-Type", "") else b"")

    said = _said(content, headers.get("Content-Type", ""))
    reason = f"{target.shown} answered {status}{': ' + said if said else ''}"
    if status == 413:
        return Outcome(SPLIT, reason)

    if status in _LATER:
        return Outcome(RETRY, reason, _retry_after(headers.get("Retry-After")))

    if target.signal != "traces" and status in (404, 501):
        return Outcome(UNWANTED, reason)

    if status in _WRONG_PLACE or 300 <= status < 400:
        hint = " (4317 is the gRPC port: OTEL_EXPORTER_OTLP_PROTOCOL=grpc)" if ":4317" in target.endpoint else ""
        return Outcome(MISDIRECTED, reason + hint)

    if 400 <= status < 500:
        return Outcome(REFUSED, reason)

    return Outcome(FAULTY, reason, _retry_after(headers.get("Retry-After")))


class GrpcTransport:
    """OTLP over gRPC. Importing grpc costs 20 MB, so it happens here, when it is asked for."""

    _METHODS: Final = {
        signal: f"/opentelemetry.proto.collector.{package}.v1.{service}/Export"
        for signal, package, service in (
            ("traces", "trace", "TraceService"),
            ("logs", "logs", "LogsService"),
            ("metrics", "metrics", "MetricsService"),
        )
    }

    def __init__(self, target: Target) -> None:
        import grpc  # type: ignore[import-untyped,unused-ignore]

        self._grpc = grpc
        self._target = target
        self._channel: Any = None
        self._call: Any = None
        self._metadata = [(name.lower(), value) for name, value in target.headers.items()]

    def _opened(self) -> Any:
        if self._call is None:
            grpc = self._grpc
            target = self._target
            address = urlsplit(target.endpoint).netloc.rpartition("@")[2] or target.endpoint
            options = [("grpc.primary_user_agent", _user_agent()), ("grpc.max_send_message_length", -1)]
            compression = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}.get(
                target.compression, grpc.Compression.NoCompression
            )
            if target.insecure:
                self._channel = grpc.insecure_channel(address, options=options, compression=compression)
            else:
                credentials = grpc.ssl_channel_credentials(
                    _content(target.certificate), _content(target.client_key), _content(target.client_certificate)
                )
                self._channel = grpc.secure_channel(address, credentials, options=options, compression=compression)

            # Bytes in, bytes out: requests are encoded already.
            self._call = self._channel.unary_unary(self._METHODS[target.signal])

        return self._call

    def send(self, body: bytes, timeout: float) -> Outcome:
        try:
            answer = self._opened()(body, timeout=max(0.05, timeout), metadata=self._metadata)
        except self._grpc.RpcError as problem:
            return self._failed(problem)
        except Exception as problem:
            return Outcome(RETRY, f"{self._target.shown}: {type(problem).__name__}: {_short(problem)}")

        return _delivered(answer if isinstance(answer, bytes) else b"")

    def _failed(self, problem: Any) -> Outcome:
        code = problem.code()
        details = _short(problem.details() or "")
        reason = f"{self._target.shown} answered {code.name}{': ' + details if details else ''}"
        if code.name in ("OUT_OF_RANGE", "RESOURCE_EXHAUSTED") and _says_too_large(details):
            return Outcome(SPLIT, reason)

        if code.name == "UNIMPLEMENTED":
            return Outcome(MISDIRECTED if self._target.signal == "traces" else UNWANTED, reason)

        if code.name in ("UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND"):
            return Outcome(MISDIRECTED, reason)

        if code.name in _GRPC_LATER:
            return Outcome(RETRY, reason, _grpc_delay(problem))

        if code.name in ("UNKNOWN", "INTERNAL"):
            return Outcome(FAULTY, reason)

        return Outcome(REFUSED, reason)

    def close(self) -> None:
        if self._channel is not None:
            with suppress(Exception):
                self._channel.close()

            self._channel = self._call = None


def _says_too_large(details: str) -> bool:
    text = details.lower()
    return "too large" in text or "larger than" in text or "exceeds" in text


def _grpc_delay(problem: Any) -> float | None:
    """Return the delay of a ``google.rpc.RetryInfo`` among the trailing metadata."""
    with suppress(Exception):
        from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped,unused-ignore]

        for name, value in problem.trailing_metadata() or ():
            if name == "grpc-status-details-bin":
                for detail in status_pb2.Status.FromString(value).details:
                    info = error_details_pb2.RetryInfo()
                    if detail.Unpack(info):
                        return float(min(RETRY_AFTER_LIMIT, info.retry_delay.ToTimedelta().total_seconds()))

    return None


def _delivered(content: bytes) -> Outcome:
    """Read a partial success: the messages of the three signals have the same fields."""
    if content:
        with suppress(Exception):
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

            partial = ExportTraceServiceResponse.FromString(content).partial_success
            if partial.rejected_spans > 0 or partial.error_message:
                return Outcome(DELIVERED, _short(partial.error_message), rejected=max(0, partial.rejected_spans))

    return Outcome(DELIVERED)


def _retry_after(text: str | None) -> float | None:
    """Return the seconds of a ``Retry-After`` header: a number or a date (RFC 9110, §10.2.3)."""
    if not text:
        return None

    with suppress(ValueError, OverflowError):
        seconds = float(text)
        return min(RETRY_AFTER_LIMIT, seconds) if seconds >= 0 else None

    with suppress(ValueError, TypeError, OverflowError):
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        return max(0.0, min(RETRY_AFTER_LIMIT, seconds))

    return None


def _said(content: bytes, content_type: str) -> str:
    """Return what an error's body says: OTLP answers with a ``google.rpc.Status``, proxies with text."""
    if not content:
        return ""

    if "protobuf" in content_type:
        with suppress(Exception):
            from google.rpc import status_pb2  # type: ignore[import-untyped,unused-ignore]

            return _short(status_pb2.Status.FromString(content).message)

    if "html" in content_type:
        return ""

    return _short(content.decode("utf-8", "replace"))


def _compressed(body: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(body, compresslevel=5, mtime=0)

    return zlib.compress(body, 5) if compression == "deflate" else body


def _content(path: str | None) -> bytes | None:
    if not path:
        return None

    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


def _innermost(problem: BaseException) -> BaseException:
    """Return what the layers of an HTTP client wrapped."""
    seen = 0
    while seen < 8:
        inner = getattr(problem, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((one for one in problem.args if isinstance(one, BaseException)), None)
        if inner is None:
            break

        problem, seen = inner, seen + 1

    return problem


def _plainly(problem: BaseException) -> str:
    """Return what the operating system said, without the layers of an HTTP client around it."""
    text = _short(_innermost(problem))
    said = re.search(r"\[Errno [-0-9]+\] (.+)", text)
    return said[1].rstrip("')") if said else text


def _short(text: object) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 4 * _REASON_CHARACTERS]).split())
    return line if len(line) <= _REASON_CHARACTERS else line[: _REASON_CHARACTERS - 1] + "…"


def _user_agent() -> str:
    from flowdeck.layout import library_version

    return f"flowdeck-otlp/{library_version()}"
