"""What the standard ``OTEL_*`` variables ask of the export, read once.

Source: the OpenTelemetry specification (SDK environment variables; OTLP exporter configuration). A value that cannot
be used is left out with a sentence in :attr:`OtlpSettings.problems`; an environment never stops a program. Importing
this module imports nothing of OpenTelemetry.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

__all__ = ["SIGNALS", "OtlpSettings", "Target", "without_secrets"]

SIGNALS: Final = ("traces", "logs", "metrics")
PROTOCOLS: Final = ("http/protobuf", "grpc")
COMPRESSIONS: Final = ("none", "gzip", "deflate")
HTTP_DEFAULT: Final = "http://localhost:4318"
GRPC_DEFAULT: Final = "http://localhost:4317"
QUEUE_BYTES: Final = 64 * 1024 * 1024
"""What memory mode holds for a collector that is away: about 90,000 spans of 500 bytes, 18 s at 5,000 a second; and as
much again of events that wait to be mapped, in a burst."""
BATCH_BYTES: Final = 3_500_000
"""gRPC receivers refuse 4 MiB and more by default."""
BATCH_ITEMS: Final = 2048
_MILLISECONDS_FROM: Final = 600.0
"""A timeout above this is in milliseconds: the specification's unit. Python's exporters take seconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how one signal is sent."""

    signal: str
    """``traces``, ``logs`` or ``metrics``."""
    endpoint: str
    """The whole URL for HTTP; scheme, host and port for gRPC."""
    protocol: str = "http/protobuf"
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0
    """Seconds one request may take."""
    compression: str = "none"
    certificate: str | None = None
    """File with the certificates to trust instead of the system's."""
    client_key: str | None = None
    client_certificate: str | None = None
    insecure: bool = True
    """gRPC without TLS."""

    @property
    def address(self) -> str:
        """Scheme, host and port: what the signals of one collector have in common."""
        parts = urlsplit(self.endpoint)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def shown(self) -> str:
        """The endpoint without user name and password, for people."""
        return without_secrets(self.endpoint)


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """The whole configuration of an export. Make it with :meth:`from_environment`."""

    targets: Mapping[str, Target]
    """By signal; a signal that is switched off is not in it."""
    disabled: bool = False
    """``OTEL_SDK_DISABLED``."""
    mode: str = "auto"
    """``durable``, ``memory``, or ``auto``: durable when the events are stored too."""
    batch_items: int = BATCH_ITEMS
    batch_bytes: int = BATCH_BYTES
    queue_bytes: int = QUEUE_BYTES
    queue_items: int = 0
    """Most items of one signal that wait for the collector, 0: bounded by bytes alone."""
    delay: float = 1.0
    """Seconds an item waits for others before a batch is sent."""
    log_batch_items: int | None = None
    """``batch_items`` of log records, where it is another one."""
    log_queue_items: int | None = None
    log_delay: float | None = None
    metric_interval: float = 60.0
    """Seconds between two exports of metrics."""
    sampler: str = "parentbased_always_on"
    ratio: float = 1.0
    problems: tuple[str, ...] = ()
    """What could not be used, a sentence each."""

    def batch_items_of(self, signal: str) -> int:
        """Return the most items of one request."""
        own = self.log_batch_items if signal == "logs" else None
        return self.batch_items if own is None else own

    def queue_items_of(self, signal: str) -> int:
        """Return the most items that wait, 0: bounded by bytes alone."""
        own = self.log_queue_items if signal == "logs" else None
        return self.queue_items if own is None else own

    def delay_of(self, signal: str) -> float:
        """Return the seconds an item waits for others."""
        own = self.log_delay if signal == "logs" else None
        return self.delay if own is None else own

    @classmethod
    def from_environment(
        cls,
        endpoint: str | None = None,
        *,
        mode: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> OtlpSettings:
        """Return the settings; ``endpoint`` is a base URL and wins over the endpoint variables.

        Raises:
            ValueError: ``endpoint`` or ``mode`` itself cannot be used. Variables never raise.
        """
        return _Reading(os.environ if environ is None else environ).settings(endpoint, mode)


class _Reading:
    """One pass over an environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[str] = []

    def settings(self, endpoint: str | None, mode: str | None) -> OtlpSettings:
        if mode is not None and mode not in ("auto", "memory", "durable"):
            raise ValueError(f"the mode of the otlp sink is 'auto', 'memory' or 'durable', not {mode!r}")

        base = None
        if endpoint:
            base = _with_scheme(endpoint)
            if not _usable(base):
                raise ValueError(
                    f"otlp={endpoint!r} is no endpoint; write a URL such as {HTTP_DEFAULT!r} (or set "
                    "OTEL_EXPORTER_OTLP_ENDPOINT)"
                )

        targets = {}
        for signal in SIGNALS:
            if self.wanted(signal):
                target = self.target(signal, base)
                if target is not None:
                    targets[signal] = target

        self.histograms()
        log_delay = self.optional("OTEL_BLRP_SCHEDULE_DELAY")
        log_batch = self.optional("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE")
        log_queue = self.optional("OTEL_BLRP_MAX_QUEUE_SIZE")
        sampler = self.choice("OTEL_TRACES_SAMPLER", _SAMPLERS, "parentbased_always_on")
        return OtlpSettings(
            targets=targets,
            disabled=self.flag("OTEL_SDK_DISABLED"),
            mode=mode or self.choice("FLOWDECK_OTLP_MODE", ("auto", "memory", "durable"), "auto"),
            batch_items=max(1, int(self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_ITEMS))),
            queue_bytes=max(65_536, int(self.number("FLOWDECK_OTLP_QUEUE_BYTES", QUEUE_BYTES))),
            queue_items=int(self.number("OTEL_BSP_MAX_QUEUE_SIZE", 0)),
            delay=self.number("OTEL_BSP_SCHEDULE_DELAY", 1000.0) / 1000,
            log_batch_items=None if log_batch is None else max(1, int(log_batch)),
            log_queue_items=None if log_queue is None else int(log_queue),
            log_delay=None if log_delay is None else log_delay / 1000,
            metric_interval=max(0.1, self.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000.0) / 1000),
            sampler=sampler,
            ratio=min(1.0, self.number("OTEL_TRACES_SAMPLER_ARG", 1.0)) if "ratio" in sampler else 1.0,
            problems=tuple(self.problems),
        )

    def wanted(self, signal: str) -> bool:
        """Whether ``OTEL_<SIGNAL>_EXPORTER`` leaves the signal to OTLP, as it does when it is not set."""
        chosen = self.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower()
        return not chosen or "otlp" in [name.strip() for name in chosen.split(",")]

    def target(self, signal: str, base: str | None) -> Target | None:
        protocol = self.of_signal(signal, "PROTOCOL") or "http/protobuf"
        if protocol not in PROTOCOLS:
            self.problems.append(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not supported: http/protobuf is used")
            protocol = "http/protobuf"

        endpoint = self.endpoint(signal, protocol, base)
        if endpoint is None:
            return None

        return Target(
            signal=signal,
            endpoint=endpoint,
            protocol=protocol,
            headers=self.headers(signal),
            timeout=self.timeout(signal),
            compression=self.compression(signal),
            certificate=self.of_signal(signal, "CERTIFICATE"),
            client_key=self.of_signal(signal, "CLIENT_KEY"),
            client_certificate=self.of_signal(signal, "CLIENT_CERTIFICATE"),
            insecure=self.insecure(signal, endpoint),
        )

    def endpoint(self, signal: str, protocol: str, base: str | None) -> str | None:
        if base is None:
            own = self.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
            if own:
                return self.checked(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", own)

            given = self.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
            if given:
                base = self.checked("OTEL_EXPORTER_OTLP_ENDPOINT", given)
                if base is None:
                    return None

        if protocol == "grpc":
            return base or GRPC_DEFAULT

        return _signal_url(base or HTTP_DEFAULT, signal)

    def checked(self, name: str, endpoint: str) -> str | None:
        url = _with_scheme(endpoint)
        if _usable(url):
            return url

        problem = f"{name}={without_secrets(endpoint)} is no URL: nothing is sent there"
        if problem not in self.problems:
            self.problems.append(problem)

        return None

    def of_signal(self, signal: str, name: str) -> str | None:
        """Return ``OTEL_EXPORTER_OTLP_<SIGNAL>_<NAME>``, else ``OTEL_EXPORTER_OTLP_<NAME>``."""
        own = self.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()
        return own or self.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip() or None

    def headers(self, signal: str) -> dict[str, str]:
        shared = self.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
        own = self.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_HEADERS", "")
        out: dict[str, str] = {}
        for item in f"{shared},{own}".split(","):
            name, equals, value = item.partition("=")
            if not item.strip():
                continue

            key = unquote(name.strip()).lower()
            text = unquote(value.strip())
            if not equals or not key or not _is_header(key, text):
                # The value is a secret more often than not: only its name is shown.
                self.problems.append(f"OTEL_EXPORTER_OTLP_HEADERS: {name.strip()[:40]!r} is no header name=value")
                continue

            out[key] = text

        return out

    def timeout(self, signal: str) -> float:
        name = f"OTEL_EXPORTER_OTLP_{signal.upper()}_TIMEOUT"
        given = self.number(name if self.environ.get(name) else "OTEL_EXPORTER_OTLP_TIMEOUT", 10.0)
        if given <= 0:
            return 10.0

        return given / 1000 if given > _MILLISECONDS_FROM else given

    def compression(self, signal: str) -> str:
        chosen = (self.of_signal(signal, "COMPRESSION") or "none").lower()
        if chosen in COMPRESSIONS:
            return chosen

        self.problems.append(f"OTEL_EXPORTER_OTLP_COMPRESSION={chosen} is not one of {', '.join(COMPRESSIONS)}")
        return "none"

    def insecure(self, signal: str, endpoint: str) -> bool:
        scheme = urlsplit(endpoint).scheme
        if scheme in ("http", "https"):
            return scheme == "http"

        return (self.of_signal(signal, "INSECURE") or "").lower() == "true"

    def flag(self, name: str) -> bool:
        return self.environ.get(name, "").strip().lower() == "true"

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        chosen = self.environ.get(name, "").strip().lower()
        if chosen in choices:
            return chosen

        if chosen:
            self.problems.append(f"{name}={chosen} is not one of {', '.join(choices)}: {default} is used")

        return default

    def histograms(self) -> None:
        """Say that the buckets are ours, where others are asked for."""
        name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
        chosen = self.environ.get(name, "").strip().lower()
        if chosen and chosen != "explicit_bucket_histogram":
            self.problems.append(f"{name}={chosen} is not supported: explicit_bucket_histogram is used")

    def optional(self, name: str) -> float | None:
        """Return a number, ``None`` when it is not set or cannot be used."""
        value = self.number(name, -1.0)
        return None if value < 0 else value

    def number(self, name: str, default: float) -> float:
        text = self.environ.get(name, "").strip()
        if not text:
            return default

        try:
            value = float(text)
        except ValueError:
            value = -1.0

        if not 0 <= value < 1e12:
            shown = f"{default:g}" if default >= 0 else "that of spans"
            self.problems.append(f"{name}={text} is not a number of 0 or more: {shown} is used")
            return default

        return value


_SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)


def without_secrets(url: str) -> str:
    """Return a URL without its user name, password and query."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "(not a URL)"


def _with_scheme(endpoint: str) -> str:
    """``localhost:4318`` is what people write; it means plain HTTP."""
    text = endpoint.strip()
    return text if "://" in text else f"http://{text}"


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False

    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and not _has_blank(url)


def _has_blank(text: str) -> bool:
    return any(character.isspace() or ord(character) < 32 for character in text)


def _signal_url(base: str, signal: str) -> str:
    """Return the signal's URL below a base URL; a base that already names a signal's path is taken back to its base."""
    parts = urlsplit(base)
    path = parts.path.rstrip("/")
    for known in SIGNALS:
        path = path.removesuffix(f"/v1/{known}")

    return urlunsplit((parts.scheme, parts.netloc, f"{path}/v1/{signal}", parts.query, ""))


def _is_header(name: str, value: str) -> bool:
    return name.isascii() and not _has_blank(name) and ":" not in name and "\n" not in value and "\r" not in value
