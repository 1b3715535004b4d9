from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest
from tests.events.support import Collector, collecting, strict

from flowdeck.events import EventCenter, EventRecord, InvalidEvent, RunContext, run_scope
from flowdeck.events.center import TYPE_LIMIT


class Broken(Collector):
    def accept(self, record: EventRecord) -> None:
        raise OSError("disk full")

    def flush(self, timeout: float) -> bool:
        raise OSError("disk full")

    def close(self, timeout: float) -> None:
        raise OSError("disk full")

    def statistics(self) -> dict[str, int | float | str]:
        raise OSError("disk full")


def test_a_type_is_one_object() -> None:
    """A name gives the same type every time; its level comes from the catalogue, else it is INFO."""
    center = EventCenter()

    assert center.type("chunk.failed") is center.type("chunk.failed")
    assert center.type("chunk.failed") is center.type("chunk.failed", "ERROR")
    assert center.type("chunk.failed").level == "ERROR"
    assert center.type("user.thing").level == "INFO"
    assert center.type("user.thing", "debug").level == "DEBUG"


def test_nobody_interested_means_no_sinks() -> None:
    """The tuple of sinks is empty unless somebody wants the type at its level."""
    center = EventCenter()
    started, signal = center.type("chunk.started"), center.type("triggerflow.signal")
    assert not started.sinks

    sink = Collector()
    center.add_sink(sink)
    assert started.sinks
    assert not signal.sinks, "a DEBUG event does not interest an INFO sink"

    center.add_sink(sink, ["trigger_flow.sig*"], "DEBUG")
    assert signal.sinks
    assert not started.sinks

    center.remove_sink(sink)
    assert not signal.sinks


def test_sinks_get_what_they_ask_for() -> None:
    """Names, patterns, aliases and levels select; two sinks of one name are two sinks."""
    center = EventCenter()
    some, warnings = Collector(), Collector()
    center.add_sink(some, ["workflow.execution_*", "billing.paid"])
    center.add_sink(warnings, None, "WARNING")

    for name in ("triggerflow.execution_started", "triggerflow.execution_failed", "billing.paid", "chunk.started"):
        center.type(name).emit()

    assert some.types == ["triggerflow.execution_started", "triggerflow.execution_failed", "billing.paid"]
    assert warnings.types == ["triggerflow.execution_failed"]
    assert set(center.statistics()["sinks"]) == {"collector", "collector#2"}


def test_a_level_given_at_emit_counts() -> None:
    """An event at another level than its type's reaches those who want that level."""
    center, sink = collecting(min_level="WARNING")
    kind = center.type("billing.paid")
    kind.emit({"a": 1})
    kind.emit({"a": 2}, level="ERROR")
    kind.emit({"a": 3}, level="nonsense")

    assert [(record.level, record.payload) for record in sink.records if record.event_type == "billing.paid"] == [
        ("ERROR", {"a": 2})
    ]
    assert "nonsense" in center.quarantine()[0].reason


def test_a_wrong_level_is_named() -> None:
    """Asking for an unknown level raises where it is asked."""
    with pytest.raises(InvalidEvent, match="DEBUG, INFO, WARNING, ERROR, CRITICAL"):
        EventCenter().add_sink(Collector(), None, "LOUD")


def test_a_failing_sink_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Other sinks go on, the failure is counted, logged, and told as an event that does not fail again."""
    center = EventCenter()
    broken, good = Broken("broken"), Collector("good")
    center.add_sink(broken)
    center.add_sink(good)

    with caplog.at_level(logging.WARNING, "flowdeck.events"):
        for _ in range(100):
            center.type("billing.paid").emit()

        center.emit({"event_type": "billing.paid"})
        assert not center.flush(0.1)

    assert good.types.count("billing.paid") == 101
    told = [record for record in good.records if record.event_type == "runtime.sink_failed"]
    assert [record.payload["failures"] for record in told] == [*range(1, 11), 16, 32, 64]
    assert told[0].payload["sink"] == "broken"
    assert told[0].error is not None and told[0].error.message == "disk full"
    assert "disk full" in caplog.text
    assert "disk full" in center.statistics()["sinks"]["broken"]["error"]
    center.close(0.1)
    assert good.closed == 1


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({}, "event_type must be a non-empty text"),
        ({"event_type": ""}, "event_type must be a non-empty text"),
        ({"event_type": 3}, "not int 3"),
        ({"event_type": "x" * 600}, "at most 512"),
        ({"event_type": "a.b", "level": "LOUD"}, "level must be one of"),
        ({"event_type": "a.b", "level": 20}, "level must be one of"),
        ({"event_type": "a.b", "meta": [1]}, "meta must be a mapping"),
        ({"event_type": "a.b", "message": 1}, "message must be text"),
        ({"event_type": "a.b", "source": 1}, "source must be text"),
        ({"event_type": "a.b", "run": "r"}, "run must be a RunContext"),
        ({"event_type": "a.b", "run": {"run_id": 1}}, "run.run_id must be text"),
        ({"event_type": "a.b", "timestamp": "now"}, "timestamp must be milliseconds"),
        ({"event_type": "a.b", "timestamp": -1}, "timestamp must be milliseconds"),
        ({"event_type": "a.b", "event_id": ""}, "event_id must be"),
        (None, "an event is a mapping"),
        ("runtime.info", "an event is a mapping"),
        (object(), "an event is a mapping"),
    ],
)
def test_a_bad_event_is_quarantined(event: Any, reason: str) -> None:
    """Nothing is raised; the event is listed with its reason and counted, and an event tells about it."""
    center, sink = collecting()
    center.emit(event)
    asyncio.run(center.async_emit(event))

    listed = center.quarantine()
    assert len(listed) == center.statistics()["quarantined"] == 2
    assert reason in listed[0].reason
    assert sink.types == ["runtime.event_quarantined"] * 2
    strict(sink.lines[0])


def test_the_quarantine_is_bounded() -> None:
    """A flood of bad events is counted whole, listed in part, and told about seldom."""
    center, sink = collecting()
    for number in range(1000):
        center.emit({"event_type": number})

    assert center.statistics()["quarantined"] == 1000
    assert len(center.quarantine()) == 100
    assert "999" in center.quarantine()[-1].preview
    assert len(sink.records) == 10 + len([16, 32, 64, 128, 256, 512])


def test_a_mapping_event_keeps_its_fields() -> None:
    """What is given is written, unknown fields are named, not lost silently."""
    center, sink = collecting()
    center.emit(
        {
            "event_id": 'my "id" ü',
            "event_type": "billing.paid",
            "source": "Docs",
            "level": "warning",
            "message": "m",
            "payload": {"a": 1},
            "error": "bad",
            "run": {"run_id": "r", "run_kind": "job"},
            "meta": {"tenant": "demo"},
            "timestamp": 1_700_000_000_123,
            "payloads": "typo",
        }
    )
    event = sink.events()[0]

    named = [event[name] for name in ("event_id", "source", "level", "message")]
    assert named == ['my "id" ü', "Docs", "WARNING", "m"]
    assert event["error"]["type"] == "RuntimeError"
    assert event["run"] == {"run_id": "r", "run_kind": "job", "root_run_id": "r", "meta": {}}
    assert event["meta"] == {"v": 1, "us": 0, "tenant": "demo", "ignored_fields": ["payloads"]}
    assert event["timestamp"] == 1_700_000_000_123


def test_a_received_event_can_be_emitted_again() -> None:
    """Envelope meta of a received event goes back to its place instead of being taken for the user's."""
    center, sink = collecting()
    center.type("chunk.started").emit({"a": 1}, epoch=1, seq=7, scope="s", meta={"k": "v"})
    other, again = collecting()
    other.emit(sink.records[0].to_event())

    assert again.events() == sink.events()


class Billing:
    name = "billing-service"

    def emit(self, center: EventCenter) -> None:
        center.emit({"event_type": "billing.paid"})


class Nameless:
    def emit(self, center: EventCenter) -> None:
        center.emit({"event_type": "billing.paid"})


def test_the_source_is_inferred_from_the_caller() -> None:
    """Without a source: the object's name, else its class, else the module."""
    center, sink = collecting()
    Billing().emit(center)
    Nameless().emit(center)
    center.emit({"event_type": "billing.paid"})

    assert [record.source for record in sink.records][:2] == ["billing-service", "Nameless"]
    assert sink.records[2].source.endswith("test_center")


def test_a_users_event_belongs_to_the_current_run() -> None:
    """Without a run the event joins the run the code works for."""
    center, sink = collecting()
    run = RunContext.create(run_kind="chunk_execution")
    with run_scope(run):
        center.emit({"event_type": "billing.paid"})
        center.emit({"event_type": "billing.paid", "run": RunContext.create(run_kind="other")})

    center.emit({"event_type": "billing.paid"})

    assert [record.run and record.run.run_kind for record in sink.records] == ["chunk_execution", "other", None]


def test_threads_emit_without_loss() -> None:
    """Eight threads emitting while sinks come and go lose nothing and repeat no id."""
    center, sink = collecting()

    def work(number: int) -> None:
        kind = center.type(f"load.t{number}")
        for count in range(500):
            kind.emit({"n": count})
            center.emit({"event_type": f"user.t{number}", "payload": count})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()

    for _ in range(20):
        other = Collector("other")
        center.add_sink(other)
        center.remove_sink(other)

    for thread in threads:
        thread.join()

    assert len(sink.records) == 8_000
    assert len({record.event_id for record in sink.records}) == 8_000


def test_type_names_without_end_do_not_eat_memory() -> None:
    """Ids inside type names are delivered, but only a bounded number of types is kept."""
    center, sink = collecting()
    for number in range(TYPE_LIMIT + 500):
        center.emit({"event_type": f"user.{number}"})

    assert len(sink.records) == TYPE_LIMIT + 500
    assert len(center._types) <= TYPE_LIMIT + 1


def test_a_forked_child_can_emit() -> None:
    """Locks and threads of the parent do not hang the child."""
    center, sink = collecting()
    center.register_hook(lambda event: None, event_types="x.y", hook_name="h")
    center._lock.acquire()
    try:
        child = os.fork()
        if child == 0:
            worker = threading.Thread(target=center.emit, args=({"event_type": "x.y"},))
            worker.start()
            worker.join(5)
            os._exit(0 if sink.types == ["x.y"] and not worker.is_alive() else 1)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        center._lock.release()


def test_a_center_can_be_collected() -> None:
    """Nothing global keeps an unused center alive."""
    center = EventCenter()
    center.type("a.b")
    gone = weakref.ref(center)
    del center
    gc.collect()

    assert gone() is None


def test_importing_stays_light() -> None:
    """`import flowdeck` and the Event Center load neither pydantic nor asyncio-heavy extras, within the budget."""
    code = (
        "import sys, time; begun = time.process_time(); import flowdeck; spent = time.process_time() - begun\n"
        "assert spent < 0.15, spent\n"
        "import flowdeck.events\n"
        "heavy = {'pydantic', 'duckdb', 'textual', 'opentelemetry', 'anyio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert sorted(flowdeck.__all__) == flowdeck.__all__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
