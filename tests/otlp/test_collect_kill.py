"""`flowdeck collect` as a process: killed while an OpenTelemetry SDK sends, and stopped by hand."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from tests.e2e.cli_shell import Running, Shell, eventually
from tests.otlp.collecting import request_of, rows, span

TOKEN = "token-of-the-test"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in a folder of its own."""
    made = Shell(tmp_path)
    made.env["FLOWDECK_COLLECT_TOKEN"] = TOKEN
    yield made
    made.close()


class Stubborn(SpanExporter):
    """The SDK's exporter behind a program that does not give up: what was not acknowledged is sent again."""

    def __init__(self, url: str) -> None:
        self._inner = OTLPSpanExporter(f"{url}/v1/traces", headers={"authorization": f"Bearer {TOKEN}"}, timeout=2)

    def export(self, spans: list[ReadableSpan]) -> SpanExportResult:  # type: ignore[override]
        while True:
            try:
                if self._inner.export(spans) is SpanExportResult.SUCCESS:
                    return SpanExportResult.SUCCESS
            except requests.ConnectionError:
                continue


def start(shell: Shell, port: int = 0) -> tuple[Running, str]:
    """Start a collector; return it and its address."""
    running = shell.start("collect", "--port", str(port))
    line = running.wait_for("OTEL_EXPORTER_OTLP_ENDPOINT=")
    return running, line.partition("ENDPOINT=")[2].split()[0]


def say_it_again(url: str) -> None:
    """Send one and the same span; a second time it is a delivery whose answer was lost with a killed collector."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/x-protobuf"}
    answer = requests.post(f"{url}/v1/traces", request_of(span(1)), headers=headers, timeout=5)
    assert (answer.status_code, answer.content) == (200, b"")


def send_over_kills(shell: Shell, spans: int, kills: int) -> None:
    """Send that many spans, and kill the collector that often meanwhile."""
    running, url = start(shell)
    port = int(url.rpartition(":")[2])
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Stubborn(url)))
    say_it_again(url)
    ended = threading.Event()
    count = [0]

    def send() -> None:
        tracer = provider.get_tracer("sender")
        for number in range(spans):
            with tracer.start_as_current_span(f"span {number}"):
                pass
            count[0] += 1

        ended.set()

    threading.Thread(target=send, daemon=True).start()
    chance = random.Random(kills)
    for kill in range(kills):
        wanted = spans * (kill + chance.random()) // kills
        eventually(lambda wanted=wanted: count[0] >= wanted or ended.is_set(), f"{wanted} spans", 60)  # type: ignore[misc]
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        running, _ = start(shell, port)

    assert ended.wait(60), count
    say_it_again(url)
    assert running.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert "spans and 0 log records were sent" in running.text
    assert "Traceback" not in running.text


def nothing_lost_nothing_twice(store: Path, spans: int) -> None:
    ((ends, distinct, events, event_ids),) = rows(
        store,
        "SELECT count(*) FILTER (event_type = 'chunk.completed' AND message LIKE 'span %'), "
        "count(DISTINCT message) FILTER (message LIKE 'span %'), count(*), count(DISTINCT event_id) FROM events",
    )
    assert (ends, distinct) == (spans, spans)
    assert events == event_ids == (spans + 1) * 4


def test_a_killed_collector_has_what_it_acknowledged_and_nothing_twice(shell: Shell) -> None:
    """kill -9 while an SDK sends: after a restart on the same port every span is there exactly once."""
    send_over_kills(shell, spans=80, kills=1)
    nothing_lost_nothing_twice(shell.store, 80)


@pytest.mark.slow
def test_twelve_kills_lose_nothing_and_repeat_nothing(shell: Shell) -> None:
    """The same with twelve kills, some of them between the disk and the answer."""
    send_over_kills(shell, spans=6_000, kills=12)
    nothing_lost_nothing_twice(shell.store, 6_000)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--host", "0.0.0.0", "--no-token"), "reachable from other machines"),
        (("--token", "short"), "at least 8"),
        (("--port", "{taken}", "--no-token"), "choose another with --port"),
    ],
)
def test_what_cannot_be_listened_on_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of the command line is told with its mend."""
    import socket

    import typer
    from typer.testing import CliRunner

    from flowdeck_devtools.cli._errors import explain
    from flowdeck_devtools.cli.collect import collect

    monkeypatch.delenv("FLOWDECK_COLLECT_TOKEN", raising=False)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(collect)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [word.format(taken=taken.getsockname()[1]) for word in arguments]
        done = CliRunner().invoke(app, [*given, "--store", str(tmp_path / "store")])

    assert done.exception is not None
    told = explain(done.exception)
    assert told is not None
    assert says in str(told)
