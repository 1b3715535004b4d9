"""The doctor's look at the OTLP export: configuration, the collector itself, and what was delivered."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from flowdeck_devtools.cli._doctor_report import Case, Finding
from flowdeck_devtools.core.text import duration

__all__ = ["otlp_delivery", "otlp_endpoint", "otlp_settings"]

_PROBE_SECONDS = 3.0


def otlp_settings(case: Case) -> Iterable[Finding]:
    """Look at the ``OTEL_*`` variables."""
    settings = _settings(case)
    for problem in settings.problems:
        yield Finding("warning", problem, "correct the variable, or unset it")

    if settings.disabled:
        yield Finding("note", "OTEL_SDK_DISABLED is true: nothing is exported", "unset it to export")


def otlp_endpoint(case: Case) -> Iterable[Finding]:
    """Send an empty request to each collector: address, TLS, key and path, all at once."""
    settings = _settings(case)
    if settings.disabled:
        return

    if not _is_used(case):
        yield Finding("note", "no export is configured", "flowdeck docs otlp, or try: flowdeck doctor --endpoint URL")
        return

    from flowdeck_sinks.otlp.transport import DELIVERED, REFUSED, RETRY, UNWANTED, open_transport

    unreachable: set[str] = set()
    misplaced: set[str] = set()
    """Collectors that refused another signal for its address or key: a 404 says nothing more about them."""
    for signal, target in settings.targets.items():
        try:
            transport = open_transport(target)
        except ImportError as problem:
            yield Finding("error", f"{signal}: {problem.name} is not installed", "pip install 'flowdeck[otlp]'")
            continue

        outcome = transport.send(b"", min(target.timeout, _PROBE_SECONDS))
        transport.close()
        if outcome.kind == DELIVERED:
            yield Finding("ok", f"{signal}: {target.shown} answers", "")
        elif outcome.kind == UNWANTED and target.address not in misplaced:
            yield Finding("ok", f"{signal}: {target.shown} takes none (Jaeger takes traces only)", "")
        elif outcome.kind == REFUSED:
            yield Finding("ok", f"{signal}: {target.shown} answers (and refuses the empty request of this check)", "")
        elif outcome.kind not in (RETRY, UNWANTED) or target.address not in unreachable | misplaced:
            (unreachable if outcome.kind == RETRY else misplaced).add(target.address)
            yield Finding("error", f"{signal}: {outcome.reason}", _mend(outcome.reason))


def otlp_delivery(case: Case) -> Iterable[Finding]:
    """Look at what the exporter of the store left behind: position, counters, dead letters."""
    layout = case.layout
    if layout is None:
        return

    from flowdeck.layout import is_locked
    from flowdeck_sinks.otlp.cursor import read_cursor
    from flowdeck_sinks.otlp.dead_letters import DeadLetters, dead_letter_directory
    from flowdeck_sinks.otlp.store_lines import StoreLines

    letters = DeadLetters(dead_letter_directory(layout)).list()
    if letters:
        items = sum(letter.items for letter in letters)
        yield Finding(
            "warning",
            f"{len(letters)} dead letters with {items} items; the last: {letters[-1].reason}",
            "flowdeck export otlp --dead-letters lists them, --resend sends them again",
        )

    cursor = read_cursor(layout.root / "cursors" / "otlp.json")
    if cursor is None:
        return

    status = _status(layout.root / "cursors" / "otlp.status")
    reader = StoreLines(layout, dict(cursor[1]))
    behind = reader.ahead()
    reader.close()
    age_us = time.time_ns() // 1000 - int(status.get("updated_us") or 0)
    working = is_locked(layout.root / "cursors" / "otlp.lock")
    when = "at work now" if working else _moment(status.get("updated_us"))
    sent = f"{status.get('spans_exported', 0)} spans sent since it started"
    yield Finding("ok", f"exporter of this store: {when}, {sent}, {behind} events to go", "")
    if status.get("failure"):
        lasting = "" if working else f" (last seen {duration(age_us)} ago)"
        yield Finding("error", f"{status['failure']}{lasting}", _mend(str(status["failure"])))

    for name, what in (
        ("spans_rejected", "spans were taken by the collector and thrown away there"),
        ("map_failed", "events could not be mapped"),
        ("undecodable", "lines are no events"),
        ("damaged_lines", "lines were cut off by a kill or a full disk"),
    ):
        count = status.get(name)
        if isinstance(count, int) and count > 0:
            reason = status.get("last_refusal") if name == "spans_rejected" else ""
            yield Finding("warning", f"{count} {what}{f': {reason}' if reason else ''}", "")

    if status.get("unreadable"):
        yield Finding("error", str(status["unreadable"]), "")


def _settings(case: Case) -> Any:
    from flowdeck_sinks.otlp.settings import OtlpSettings

    return OtlpSettings.from_environment(case.endpoint)


def _is_used(case: Case) -> bool:
    if case.endpoint or any(name.startswith("OTEL_EXPORTER_OTLP") for name in os.environ):
        return True

    if "otlp" in os.environ.get("FLOWDECK_SINKS", ""):
        return True

    return case.layout is not None and (case.layout.root / "cursors" / "otlp.json").exists()


def _mend(reason: str) -> str:
    text = reason.lower()
    if "tls" in text or "certificate" in text or "ssl" in text:
        return "check OTEL_EXPORTER_OTLP_CERTIFICATE and the scheme (http or https) of the endpoint"

    if "401" in text or "403" in text or "unauthenticated" in text or "permission" in text:
        return "check OTEL_EXPORTER_OTLP_HEADERS: the collector wants a key"

    if "404" in text or "405" in text or "unimplemented" in text:
        return "check the path of the endpoint: OTEL_EXPORTER_OTLP_ENDPOINT is a base URL, /v1/traces is added to it"

    if "not installed" in text:
        return ""

    return "start the collector, or set OTEL_EXPORTER_OTLP_ENDPOINT; what the store holds is sent later"


def _status(path: Any) -> dict[str, Any]:
    try:
        status = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}

    return status if isinstance(status, dict) else {}


def _moment(time_us: Any) -> str:
    if not isinstance(time_us, int) or time_us <= 0:
        return "not seen yet"

    return f"last at work {datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
