"""Durable mode: the store is the queue, the cursor the memory. Outages, restarts, kills, refusals."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.otlp.receiver import Answer, Receiver, attributes, http_receiver
from tests.otlp.story import Teller, settings, stored

from flowdeck.layout import Layout
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.otlp.cursor import Cursor, CursorBusy, read_cursor
from flowdeck_sinks.otlp.dead_letters import DeadLetters, dead_letter_directory
from flowdeck_sinks.otlp.sink import OTLPSink
from flowdeck_sinks.otlp.store_export import ExportStalled, StoreExport

EXPORTER = Path(__file__).with_name("process_exporter.py")


def export_all(store: Path, receiver: Receiver, **variables: str) -> dict[str, Any]:
    """Export what is behind the cursor and return the statistics."""
    export = StoreExport(Layout(store), settings(receiver.url, **variables))
    export.open()
    try:
        while export.round():
            pass

        export.settle()
        return export.statistics()
    finally:
        export.shut()


def test_a_store_is_exported_once(tmp_path: Path) -> None:
    """Every span of a store arrives; a second export finds nothing to do."""
    spans = stored(tmp_path / "s", 50, segment_bytes=4000)
    with http_receiver() as receiver:
        assert export_all(tmp_path / "s", receiver)["spans_exported"] == spans
        assert export_all(tmp_path / "s", receiver)["spans_exported"] == 0
        assert set(receiver.copies().values()) == {1}
        assert len(receiver.copies()) == spans

    found = read_cursor(tmp_path / "s" / "cursors" / "otlp.json")
    about = json.loads((tmp_path / "s" / "cursors" / "otlp.json").read_bytes())
    assert found is not None
    assert about["name"] == "otlp"
    assert list(about["writers"].values()) == [50 * 9]


def test_runs_that_are_open_at_a_restart_keep_their_beginning(tmp_path: Path) -> None:
    """A run that began before the export was restarted has its whole span, name and start."""
    sink = JournalSink(tmp_path / "s", publish=False)
    teller = Teller(sink)
    run = teller.execution(finish=False)
    assert sink.flush(5)
    with http_receiver() as receiver:
        assert export_all(tmp_path / "s", receiver)["spans_exported"] == 3
        teller.center.type("triggerflow.execution_completed").emit(
            {"result": 1}, run=run, epoch=1, seq=99, duration_us=5
        )
        sink.close(5)
        assert export_all(tmp_path / "s", receiver)["spans_exported"] == 1

    root = receiver.spans[-1]
    assert root.name == "invoke_workflow audit"
    assert attributes(root)["flow.outcome"] == "success"
    assert root.start_time_unix_nano <= min(span.start_time_unix_nano for span in receiver.spans)
    assert "flow.span.start_missing" not in attributes(root)


def test_an_outage_loses_nothing(tmp_path: Path) -> None:
    """Spans stored while the collector is away arrive once it answers; the flow never waits."""
    answers = {"down": True}
    with http_receiver(lambda path, message: Answer(503 if answers["down"] else 200)) as receiver:
        journal = JournalSink(tmp_path / "s", publish=False)
        sink = OTLPSink(settings=settings(receiver.url))
        sink.bind_store(journal)
        teller = Teller(journal, sink)
        for _ in range(30):
            teller.execution()

        journal.flush(5)
        receiver.wait(lambda: receiver.requests, "an attempt")
        assert receiver.spans == []
        answers["down"] = False
        assert sink.flush(20)
        sink.close()
        journal.close(5)
        assert len(receiver.copies()) == teller.spans
        assert set(receiver.copies().values()) == {1}
        assert sink.statistics()["mode"] == "durable"


def test_the_first_export_of_an_observed_store_begins_now(tmp_path: Path) -> None:
    """Attached to a store with history, a sink exports what happens from now on; `flowdeck export` sends the rest."""
    stored(tmp_path / "s", 20)
    with http_receiver() as receiver:
        journal = JournalSink(tmp_path / "s", publish=False)
        sink = OTLPSink(settings=settings(receiver.url))
        sink.bind_store(journal)
        teller = Teller(journal, sink)
        teller.execution(flow="fresh")
        assert sink.flush(10)
        sink.close()
        journal.close(5)

    assert {span.name for span in receiver.spans if not span.parent_span_id} == {"invoke_workflow fresh"}
    assert len(receiver.copies()) == teller.spans


def test_closing_with_a_dead_collector_is_quick_and_loses_nothing(tmp_path: Path) -> None:
    """The process ends at once; the next export sends what this one could not."""
    journal = JournalSink(tmp_path / "s", publish=False)
    sink = OTLPSink(settings=settings("http://127.0.0.1:9"))
    sink.bind_store(journal)
    teller = Teller(journal, sink)
    for _ in range(20):
        teller.execution()

    begun = time.monotonic()
    sink.close(5)
    journal.close(5)
    assert time.monotonic() - begun < 3
    with http_receiver() as receiver:
        export_all(tmp_path / "s", receiver)
        assert len(receiver.copies()) == teller.spans


def test_closing_with_a_silent_collector_keeps_the_deadline(tmp_path: Path) -> None:
    """A collector that accepts and never answers cannot hold up the end."""
    with http_receiver(lambda path, message: Answer(hang=True)) as receiver:
        journal = JournalSink(tmp_path / "s", publish=False)
        sink = OTLPSink(settings=settings(receiver.url))
        sink.bind_store(journal)
        Teller(journal, sink).execution()
        journal.flush(5)
        receiver.wait(lambda: receiver.requests, "an attempt")
        begun = time.monotonic()
        sink.close(1)
        assert time.monotonic() - begun < 2
        journal.close(5)


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_kill_9_repeats_at_most_the_batch_in_flight(tmp_path: Path, kills: int) -> None:
    """However often the exporter is killed, every span arrives, and a kill repeats no more than one batch."""
    spans = stored(tmp_path / "s", 500, steps=7)
    batch = 64
    chance = random.Random(7)
    with http_receiver() as receiver:
        command = [sys.executable, str(EXPORTER), str(tmp_path / "s"), receiver.url, str(batch)]
        killed = 0
        while True:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OTEL_SDK_DISABLED": ""})
            if killed < kills:
                seen = len(receiver.requests)
                wanted = seen + chance.randint(1, 3)
                receiver.wait(
                    lambda wanted=wanted, process=process: (
                        len(receiver.requests) >= wanted or process.poll() is not None
                    ),
                    "a request",
                    60,
                )
                if process.poll() is None:
                    process.kill()
                    killed += 1

            output, _ = process.communicate(timeout=60)
            if b"done" in output:
                break

        copies = receiver.copies()
        assert len(copies) == spans
        repeated = sum(count - 1 for count in copies.values())
        assert repeated <= killed * batch
        assert killed >= min(kills, 3)


def test_a_refusal_becomes_a_dead_letter_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A batch refused for good is kept as a file with its reason; it can be listed and sent again."""
    spans = stored(tmp_path / "s", 40)
    refused: list[int] = []

    def refuse_first(path: str, message: Any) -> Answer:
        refused.append(1)
        return Answer(400, {}, b"no such tenant") if len(refused) == 1 else Answer()

    with http_receiver(refuse_first) as receiver:
        counts = export_all(tmp_path / "s", receiver, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="50")
        letters = DeadLetters(dead_letter_directory(Layout(tmp_path / "s"))).list()
        assert [(letter.signal, letter.items) for letter in letters] == [("traces", 50)]
        assert "answered 400: no such tenant" in letters[0].reason
        assert counts["spans_exported"] == spans - 50
        assert counts["dead_letters"] == 1
        assert export_all(tmp_path / "s", receiver)["spans_exported"] == 0


def test_a_wrong_path_holds_the_cursor(tmp_path: Path) -> None:
    """404 is a wrong address: nothing is given up, a patient export waits, an impatient one says so."""
    spans = stored(tmp_path / "s", 5)
    with http_receiver(lambda path, message: Answer(404)) as receiver:
        export = StoreExport(Layout(tmp_path / "s"), settings(receiver.url), patience=30)
        export.open()
        with pytest.raises(ExportStalled, match="answered 404"):
            while export.round():
                pass

            export.settle()

        export.shut()

    with http_receiver() as receiver:
        assert export_all(tmp_path / "s", receiver)["spans_exported"] == spans


def test_a_dead_process_leaves_incomplete_spans(tmp_path: Path) -> None:
    """Runs of a process that was killed are exported as incomplete, with the ids they would have had."""
    child = os.fork()
    if not child:
        try:
            sink = JournalSink(tmp_path / "s", publish=False)
            Teller(sink).execution(2, finish=False)
            sink.flush(5)
        finally:
            os.kill(os.getpid(), 9)

    os.waitpid(child, 0)
    with http_receiver() as receiver:
        export_all(tmp_path / "s", receiver)

    root = next(span for span in receiver.spans if not span.parent_span_id)
    assert attributes(root)["flow.span.incomplete"] is True
    assert len(receiver.spans) == 3


def test_one_process_exports_and_the_next_takes_over(tmp_path: Path) -> None:
    """A cursor is held by one process at a time; when that ends another goes on."""
    stored(tmp_path / "s", 1)
    layout = Layout(tmp_path / "s")
    held = Cursor.hold(layout, "otlp")
    with pytest.raises(CursorBusy) as refused:
        Cursor.hold(layout, "otlp")

    assert refused.value.pid == os.getpid()
    held.close()
    Cursor.hold(layout, "otlp").close()


def test_a_damaged_state_file_costs_no_span(tmp_path: Path) -> None:
    """Without the saved mapper state the position still holds, and what comes later is exported."""
    sink = JournalSink(tmp_path / "s", publish=False)
    teller = Teller(sink)
    teller.execution()
    assert sink.flush(5)
    with http_receiver() as receiver:
        export_all(tmp_path / "s", receiver)
        (tmp_path / "s" / "cursors" / "otlp.state").write_bytes(b"\xff\x00garbage")
        teller.execution()
        sink.close(5)
        export_all(tmp_path / "s", receiver)
        assert len(receiver.copies()) == teller.spans
        assert set(receiver.copies().values()) == {1}


def test_the_export_reads_on_through_parts_and_day_files(tmp_path: Path) -> None:
    """Wherever the publisher has moved the events meanwhile, each is exported once."""
    from flowdeck_sinks.store._keeping import Timing
    from flowdeck_sinks.store.compaction import compact
    from flowdeck_sinks.store.publisher import publish

    store = tmp_path / "s"
    layout = Layout.create(store)
    at_once = Timing(visible_after_ms=0, keep_ms=0)

    def tidy(*, merge: bool = False) -> None:
        for _ in range(3):
            publish(layout, timing=at_once)
        if merge:
            for _ in range(3):
                compact(layout, force=True, timing=at_once)

    spans = stored(store, 30, segment_bytes=6000)
    with http_receiver() as receiver:
        assert export_all(store, receiver)["spans_exported"] == spans
        tidy()
        assert list(layout.parts.glob("*~*.parquet"))
        spans += stored(store, 30, segment_bytes=6000)
        tidy()  # never seen as a journal by the exporter
        spans += stored(store, 5)
        export_all(store, receiver)
        assert len(receiver.copies()) == spans
        spans += stored(store, 30, segment_bytes=6000)
        tidy(merge=True)
        assert list(layout.days.glob("*~*.parquet"))
        counts = export_all(store, receiver)
        assert counts["unreadable"] == ""
        assert len(receiver.copies()) == spans
        assert set(receiver.copies().values()) == {1}


def test_a_running_export_is_overtaken_by_the_publisher(tmp_path: Path) -> None:
    """While the collector is away the publisher moves what the export has not read yet; nothing is lost or repeated."""
    from flowdeck_sinks.store._keeping import Timing
    from flowdeck_sinks.store.publisher import publish

    store = tmp_path / "s"
    journal = JournalSink(store, segment_bytes=20_000, publish=False)
    teller = Teller(journal)
    for _ in range(20):
        teller.execution()

    journal.flush(5)
    with http_receiver() as receiver:
        export = StoreExport(Layout(store), settings(receiver.url))
        export.open()
        assert export.round()  # the first segment is open now
        for _ in range(200):
            teller.execution()

        journal.flush(5)
        for _ in range(3):
            publish(Layout(store), timing=Timing(visible_after_ms=0, keep_ms=0))

        for _ in range(10):
            teller.execution()

        journal.close(5)
        while export.round():
            pass

        export.settle()
        export.shut()
        assert len(receiver.copies()) == teller.spans
        assert set(receiver.copies().values()) == {1}


def test_a_program_that_ends_at_once_leaves_its_place(tmp_path: Path) -> None:
    """However short a program is, the next one exports what it could not."""
    for _ in range(5):
        journal = JournalSink(tmp_path / "s", publish=False)
        sink = OTLPSink(settings=settings("http://127.0.0.1:9"))
        sink.bind_store(journal)
        Teller(journal, sink).execution()
        sink.close(2)
        journal.close(2)

    with http_receiver() as receiver:
        export_all(tmp_path / "s", receiver)
        assert len(receiver.copies()) == 5 * 4
