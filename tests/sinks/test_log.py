"""Events as records of the standard library's logging."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flowdeck import RunContext, Runtime
from flowdeck.events import EventCenter
from flowdeck_sinks.log import LOGGER, LoggingSink, create_sink


class Handler(logging.Handler):
    """Keeps records; can be held up, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False

    def emit(self, record: logging.LogRecord) -> None:
        self.gate.wait(10)
        if self.broken:
            raise OSError("disk full")

        self.records.append(record)


@pytest.fixture
def handler() -> Iterator[Handler]:
    logger = logging.getLogger("test.flowdeck")
    made = Handler()
    logger.addHandler(made)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield made
    made.gate.set()
    logger.removeHandler(made)


def logged(emit: Any, **options: Any) -> LoggingSink:
    center = EventCenter()
    sink = create_sink("test.flowdeck", **options)
    center.add_sink(sink, min_level="DEBUG")
    emit(center)
    assert sink.flush(10.0)
    return sink


def test_an_event_is_a_record(handler: Handler) -> None:
    """Level and time are the event's, the text is one clean line, and the whole event is at hand for formatters."""

    def emit(center: EventCenter) -> None:
        run = RunContext.create(run_kind="job", meta={"flow_name": "nightly"})
        center.emit(
            {"event_type": "billing.paid", "message": "a\x1b[31m\nb %s", "payload": {"token": "x", "n": 1}, "run": run}
        )
        try:
            raise ValueError("bad")
        except ValueError as problem:
            center.emit(
                {"event_type": "billing.failed", "level": "ERROR", "error": problem, "timestamp": 1_700_000_000_123}
            )

    sink = logged(emit)
    paid, failed = handler.records
    assert (paid.name, paid.levelno, paid.getMessage()) == ("test.flowdeck", 20, "billing.paid [nightly] - a b %s")
    assert paid.flowdeck["payload"] == {"token": "[redacted]", "n": 1}  # type: ignore[attr-defined]
    assert (failed.levelno, failed.created, failed.msecs) == (40, 1_700_000_000.123, 123)
    assert "Traceback (most recent call last)" in logging.Formatter("%(message)s").format(failed)
    assert sink.statistics() == {"logger": "test.flowdeck", "logged": 2, "accepted": 2, "dropped": 0, "queued": 0}
    sink.close(5.0)


def test_what_the_logger_does_not_want_is_not_encoded(handler: Handler) -> None:
    """An event below the logger's level costs one look."""
    sink = logged(lambda center: center.emit({"event_type": "a.b", "level": "DEBUG"}))
    assert handler.records == []
    assert sink.statistics()["accepted"] == 0


def test_a_slow_handler_holds_nobody_up(handler: Handler) -> None:
    """What does not fit is dropped, counted and said; the emitter goes on."""
    handler.gate.clear()
    sink = LoggingSink("test.flowdeck", queue_bytes=2_000)
    center = EventCenter()
    center.add_sink(sink)
    for n in range(100):
        center.emit({"event_type": "a.b", "payload": n})

    dropped = sink.statistics()["dropped"]
    assert isinstance(dropped, int) and dropped > 50
    handler.gate.set()
    assert sink.flush(10.0)
    center.emit({"event_type": "a.last"})
    assert sink.flush(10.0)
    texts = [record.getMessage() for record in handler.records]
    assert f"{dropped} observation events were not logged: a handler was too slow, or failed" in texts
    assert texts[-1] == "a.last"


def test_a_handler_that_raises(handler: Handler) -> None:
    """It is counted and never reaches the flow; the next event is logged."""
    handler.broken = True
    sink = logged(lambda center: center.emit({"event_type": "a.b"}))
    assert sink.statistics()["dropped"] == 1
    handler.broken = False
    center = EventCenter()
    center.add_sink(sink)
    center.emit({"event_type": "a.c"})
    assert sink.flush(10.0)
    assert [record.getMessage().partition(" ")[0] for record in handler.records] == ["1", "a.c"]


def test_by_name(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    """``runtime.observe(sinks=["logging:name"])`` and FLOWDECK_SINKS find it as an installed sink."""
    assert create_sink().logger.name == LOGGER
    for attach in (
        lambda host: host.observe(sinks=["logging:test.flowdeck"]),
        lambda host: host.observe_from_environment({"FLOWDECK_SINKS": "logging:test.flowdeck"}),
    ):
        host = Runtime()
        observation = attach(host)
        host.emit({"event_type": "a.b"})
        assert observation is not None and observation.flush()
        observation.close()

    assert [record.getMessage() for record in handler.records] == ["a.b", "a.b"]
