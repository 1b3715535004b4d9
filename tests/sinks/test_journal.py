"""The journal sink: what it writes, in which order, and what it does at its limits."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.sinks.support import (
    Encoded,
    Story,
    dropped,
    in_child,
    numbers,
    plain,
    raw_lines,
    segments,
    until,
    written,
)

from flowdeck.layout import Layout, is_locked, is_writer_alive, live_writers
from flowdeck_sinks.journal import JournalSink, create_sink


def test_events_arrive_in_order_with_gapless_numbers(tmp_path: Path) -> None:
    """Every event is one line, in the order of accept, numbered from 1 without a gap."""
    sink = JournalSink(tmp_path / "store")
    for n in range(5000):
        sink.accept(plain(n, 300))
    assert sink.flush(10)
    assert numbers(sink.store) == list(range(5000))
    assert [event["wseq"] for event in written(sink.store)] == list(range(1, 5001))
    statistics = sink.statistics()
    assert (statistics["accepted"], statistics["written"], statistics["dropped"]) == (5000, 5000, 0)
    assert statistics["queued_bytes"] == 0
    sink.close()


def test_real_events_keep_every_field(tmp_path: Path) -> None:
    """The line is the record's own encoding with wseq in front."""
    sink = JournalSink(tmp_path / "store")
    story = Story(sink)
    run = story.execution("e1", task_id="t9")
    story.tell(run, "triggerflow.execution_started", {"initial_value": "äöü\n"})
    sink.close()
    (event,) = written(sink.store)
    assert event["wseq"] == 1
    assert event["payload"] == {"initial_value": "äöü\n"}
    assert event["run"]["execution_id"] == "e1"
    assert event["run"]["meta"]["task_id"] == "t9"
    assert event["meta"]["seq"] == 1


def test_a_segment_begins_with_a_header(tmp_path: Path) -> None:
    """The first line says who writes, from where, and in which format."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(1))
    sink.flush(5)
    path, line = next(raw_lines(sink.store))
    header = json.loads(line)
    assert header["flowdeck"] == "journal"
    assert header["writer"] == sink.writer
    assert header["pid"] == os.getpid()
    assert (header["format"], header["schema"], header["first_wseq"]) == (1, 1, 1)
    assert {"host", "boot_id", "library", "started_us"} <= header.keys()
    assert path.name == f"{sink.writer}-000001.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    sink.close()


def test_an_event_is_on_disk_within_a_wake(tmp_path: Path) -> None:
    """Nobody has to flush: an event reaches the file by itself, soon, also after a pause."""
    sink = JournalSink(tmp_path / "store")
    waits = []
    for n in range(5):
        begun = time.monotonic()
        sink.accept(plain(n))
        until(lambda n=n: len(numbers(sink.store)) == n + 1, "the event is on disk")  # type: ignore[misc]
        waits.append(time.monotonic() - begun)
    # The fastest of five: a busy machine may delay some, none may be early enough to mean a write per event.
    assert min(waits) < 0.1
    sink.close()


def test_an_idle_sink_sleeps(tmp_path: Path) -> None:
    """Between events the writer thread is parked, not polling."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(1))
    sink.flush(5)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "flowdeck-journal"]
    wakes = Path(f"/proc/self/task/{thread.native_id}/status")
    if not wakes.exists():
        pytest.skip("counting a thread's wakes needs /proc")

    def count() -> int:
        (line,) = [line for line in wakes.read_text().splitlines() if line.startswith("voluntary_ctxt_switches")]
        return int(line.split()[1])

    until(lambda: sink._wake_at == -1, "the writer is parked")
    before = count()
    time.sleep(0.3)  # the time in which a poller would show itself
    assert count() - before <= 2
    sink.close()


def test_a_segment_is_sealed_by_size(tmp_path: Path) -> None:
    """Beyond the size a new segment begins; none is reopened, none but the last is locked, nothing is lost."""
    sink = JournalSink(tmp_path / "store", segment_bytes=20_000)
    for n in range(400):
        sink.accept(plain(n, 1000))
        if n % 10 == 9:
            sink.flush(5)
    paths = segments(sink.store)
    assert 15 <= len(paths) <= 40
    assert all(path.stat().st_size < 40_000 for path in paths)
    assert [is_locked(path) for path in paths] == [False] * (len(paths) - 1) + [True]
    assert numbers(sink.store) == list(range(400))
    firsts = [json.loads(path.read_bytes().split(b"\n")[0])["first_wseq"] for path in paths]
    assert firsts == [json.loads(path.read_bytes().split(b"\n")[1])["wseq"] for path in paths]
    sink.close()


def test_a_segment_is_sealed_by_age(tmp_path: Path) -> None:
    """An idle sink seals a segment with events when it is old enough, and opens no empty one."""
    sink = JournalSink(tmp_path / "store", segment_seconds=0.2)
    sink.accept(plain(1))
    sink.flush(5)
    (path,) = segments(sink.store)
    until(lambda: not is_locked(path), "the segment is sealed")
    assert segments(sink.store) == [path]
    sink.accept(plain(2))
    sink.flush(5)
    assert len(segments(sink.store)) == 2
    sink.close()


def test_a_sink_without_events_writes_no_segment(tmp_path: Path) -> None:
    """Observing nothing leaves nothing behind but the store."""
    sink = JournalSink(tmp_path / "store")
    assert live_writers(sink.layout) == [sink.writer]
    sink.close()
    assert segments(sink.store) == []
    assert live_writers(sink.layout) == []


def test_a_full_queue_drops_the_newest_and_says_so(tmp_path: Path) -> None:
    """What does not fit is counted, the count is an event, and the numbers show the gap."""
    sink = JournalSink(tmp_path / "store", queue_bytes=100_000, wake_seconds=0.2)
    with sink._io:  # the disk stands still
        for n in range(200):
            sink.accept(plain(n, 1000))
    assert sink.flush(10)
    sink.accept(plain(500))
    sink.close()
    kept = numbers(sink.store)
    lost = 201 - len(kept)
    assert 90 <= lost <= 110
    assert kept == [*range(200 - lost), 500]
    reports = dropped(sink.store)
    assert sum(report["count"] for report in reports) == lost
    assert {report["reason"] for report in reports} == {"queue_full"}
    assert sum(report["bytes"] for report in reports) > lost * 900
    wseq = [event["wseq"] for event in written(sink.store)]
    assert wseq[-1] - len(wseq) == lost
    assert sink.statistics()["dropped"] == lost


def test_one_event_larger_than_the_queue_is_taken(tmp_path: Path) -> None:
    """A single event beyond the bound is written when nothing else waits."""
    sink = JournalSink(tmp_path / "store", queue_bytes=10_000)
    sink.accept(plain(1, 50_000))
    sink.flush(5)
    assert numbers(sink.store) == [1]
    sink.close()


def test_lossless_waits_instead_of_dropping(tmp_path: Path) -> None:
    """With lossless=True a burst far beyond the queue arrives whole."""
    sink = JournalSink(tmp_path / "store", queue_bytes=50_000, lossless=True)
    for n in range(3000):
        sink.accept(plain(n, 1000))
    sink.close()
    assert numbers(sink.store) == list(range(3000))
    assert dropped(sink.store) == []


def test_lossless_waiting_is_bounded(tmp_path: Path) -> None:
    """When the disk never takes anything, lossless gives up after its time and counts."""
    sink = JournalSink(tmp_path / "store", queue_bytes=5_000, lossless=True, lossless_seconds=0.1)
    with sink._io:
        for n in range(7):
            sink.accept(plain(n, 1000))
    sink.close()
    kept = numbers(sink.store)
    assert kept == list(range(len(kept)))
    assert 1 <= len(kept) <= 6
    assert sink.statistics()["dropped"] == 7 - len(kept)
    assert sum(report["count"] for report in dropped(sink.store)) == 7 - len(kept)


def test_threads_share_a_sink(tmp_path: Path) -> None:
    """Events of many threads all arrive, each thread's in its order, and the byte count comes back to zero."""
    sink = JournalSink(tmp_path / "store")

    def work(base: int) -> None:
        for n in range(2000):
            sink.accept(plain(base + n))

    threads = [threading.Thread(target=work, args=(base,)) for base in range(0, 8000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sink.flush(10)
    assert sink.statistics()["queued_bytes"] == 0
    sink.close()
    seen = numbers(sink.store)
    assert sorted(seen) == list(range(8000))
    for base in range(0, 8000, 2000):
        assert [n for n in seen if base <= n < base + 2000] == list(range(base, base + 2000))
    assert [event["wseq"] for event in written(sink.store)] == list(range(1, 8001))


def test_two_sinks_write_one_store(tmp_path: Path) -> None:
    """Two sinks in one process are two writers; neither touches the other's segments or numbers."""
    first, second = JournalSink(tmp_path / "store"), JournalSink(tmp_path / "store")
    assert first.writer != second.writer
    for n in range(1000):
        (first if n % 2 else second).accept(plain(n))
    first.close()
    assert live_writers(second.layout) == [second.writer]
    second.close()
    assert sorted(numbers(first.store)) == list(range(1000))
    for writer in (first.writer, second.writer):
        own = [json.loads(line) for path, line in raw_lines(first.store) if path.name.startswith(writer)]
        assert [event["wseq"] for event in own if "wseq" in event] == list(range(1, 501))


def test_a_large_payload_becomes_a_blob(tmp_path: Path) -> None:
    """Above 256 KiB the event keeps reference, size and preview; the same payload is stored once."""
    sink = JournalSink(tmp_path / "store")
    story = Story(sink)
    text = "ä" * 300_000
    story.tell(story.execution("e1"), "my.large", {"text": text})
    story.tell(story.execution("e2"), "my.large", {"text": text})
    story.tell(story.execution("e3"), "my.small", {"text": "x" * 200_000})
    sink.close()
    first, second, small = written(sink.store)
    assert len(small["payload"]["text"]) == 200_000
    assert first["payload"] == second["payload"]
    reference = first["payload"]
    content = (sink.layout.blobs / reference["$blob"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == reference["$blob"]
    assert json.loads(content) == {"text": text}
    assert reference["size"] == len(content)
    assert content.decode().startswith(reference["preview"])
    assert len(reference["preview"]) == 1024
    assert len(list(sink.layout.blobs.iterdir())) == 1
    assert first["run"]["execution_id"] == "e1"
    assert sink.statistics()["blobs"] == 2


def test_no_field_can_make_a_line_too_long(tmp_path: Path) -> None:
    """Huge errors, metas and event types neither poison the store nor lose the envelope."""
    sink = JournalSink(tmp_path / "store", queue_bytes=1 << 28)
    story = Story(sink)
    run = story.execution("e1", note="n" * 300_000)
    story.tell(
        run, "my.large", None, meta={"mine": "m" * 2_000_000, "small": 1},
        error={"type": "Huge", "message": "x", "details": {"body": "d" * 2_000_000}},
    )  # fmt: skip
    story.tell(run, "my.wide", None, meta={f"k{n}": "v" * 100_000 for n in range(50)})
    sink.accept(Encoded(plain(1).encoded.replace(b"test.event", b"t" * 17_000_000)))
    story.tell(run, "my.last")
    sink.close()
    large, wide, last, report = written(sink.store)
    assert large["run"]["execution_id"] == "e1"
    assert large["run"]["meta"]["flow_name"] == "audit"
    assert large["run"]["meta"]["note"]["size"] == 300_002
    assert (large["meta"]["seq"], large["meta"]["small"]) == (1, 1)
    assert large["meta"]["mine"]["size"] == 2_000_002
    assert (large["error"]["type"], large["error"]["message"]) == ("Huge", "x")
    assert large["error"]["details"]["body"]["size"] == 2_000_002
    assert wide["meta"]["seq"] == 2
    assert json.loads((sink.layout.blobs / wide["meta"]["$blob"]).read_bytes())["k49"] == "v" * 100_000
    assert last["event_type"] == "my.last"
    assert (report["payload"]["count"], report["payload"]["reason"]) == (1, "too_large")
    assert all(len(line) < 1_000_000 for _, line in raw_lines(sink.store))


def test_after_close_events_are_counted_not_written(tmp_path: Path) -> None:
    """A closed sink takes nothing, raises nothing, and counts what came."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(1))
    sink.close()
    sink.close()
    sink.accept(plain(2))
    assert sink.flush(1)
    assert numbers(sink.store) == [1]
    assert sink.statistics()["dropped"] == 1
    assert not is_writer_alive(sink.layout, str(sink.statistics()["writer"]))
    assert not any(is_locked(path) for path in segments(sink.store))


def test_exit_writes_what_is_queued(tmp_path: Path) -> None:
    """A program that just ends loses nothing, and its writer is gone."""
    program = (
        "import sys; from flowdeck_sinks.journal import JournalSink; from tests.sinks.support import plain\n"
        "sink = JournalSink(sys.argv[1], wake_seconds=5)\n"
        "for n in range(1000): sink.accept(plain(n))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "store")], check=True, timeout=30)
    assert numbers(tmp_path / "store") == list(range(1000))
    assert live_writers(Layout(tmp_path / "store")) == []
    assert list(Layout(tmp_path / "store").writers.iterdir()) == []


def test_a_worker_process_writes_what_is_queued(tmp_path: Path) -> None:
    """Children of multiprocessing end without atexit and still lose nothing."""
    program = (
        "import sys, multiprocessing; from flowdeck_sinks.journal import JournalSink\n"
        "from tests.sinks.support import plain\n"
        "def work(n): sink.accept(plain(n))\n"
        "sink = JournalSink(sys.argv[1], wake_seconds=5)\n"
        "sink.accept(plain(0))\n"
        "context = multiprocessing.get_context('fork')\n"
        "children = [context.Process(target=work, args=(n,)) for n in (1, 2)]\n"
        "[child.start() for child in children]; [child.join() for child in children]\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "store")], check=True, timeout=30)
    assert sorted(numbers(tmp_path / "store")) == [0, 1, 2]
    assert len(segments(tmp_path / "store")) == 3


def test_a_forked_child_is_a_writer_of_its_own(tmp_path: Path) -> None:
    """After a fork both sides go on: own writer, own segment, own numbers; nothing twice, nothing lost."""
    sink = JournalSink(tmp_path / "store", wake_seconds=0.2)
    sink.accept(plain(0))
    sink.flush(5)
    sink.accept(plain(1))  # queued while forking: the parent's alone

    def child() -> tuple[str, int, int]:
        sink.accept(plain(100))
        sink.accept(plain(101))
        assert sink.flush(5)
        writer, accepted = sink.writer, sink.statistics()["accepted"]
        assert is_writer_alive(sink.layout, writer)
        sink.close()
        return writer, int(accepted), os.getpid()

    writer, accepted, pid = in_child(child)
    sink.accept(plain(2))
    sink.close()
    assert writer != sink.statistics()["writer"]
    assert accepted == 2
    by_writer: dict[str, list[int]] = {}
    for path, line in raw_lines(sink.store):
        event = json.loads(line)
        if "payload" in event:
            by_writer.setdefault(path.name.rpartition("-")[0], []).append(event["payload"]["n"])
        elif path.name.startswith(writer):
            assert event["pid"] == pid
    assert by_writer == {str(sink.statistics()["writer"]): [0, 1, 2], writer: [100, 101]}


def test_a_parent_with_a_living_child_still_ends(tmp_path: Path) -> None:
    """A forked child that never uses the sink does not keep the parent's segment locked."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(1))
    sink.flush(5)
    (path,) = segments(sink.store)

    def child() -> bool:
        return is_locked(path)

    assert in_child(child)
    reading, writing = os.pipe()
    waiting = os.fork()
    if not waiting:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        sink.close()
        until(lambda: not is_locked(path), "the segment is sealed")  # the child lets go as its first act
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(waiting, 0)


def test_fsync_can_be_asked_for(tmp_path: Path) -> None:
    """With fsync=True events arrive all the same."""
    sink = JournalSink(tmp_path / "store", fsync=True)
    sink.accept(plain(1))
    assert sink.flush(10)
    sink.close()
    assert numbers(sink.store) == [1]


def test_a_broken_event_does_not_stop_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A record that is not bytes is counted with the batch it came in; later events are written."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(Encoded("text, not bytes"))  # type: ignore[arg-type]
    sink.flush(5)
    sink.accept(plain(1))
    sink.close()
    assert numbers(sink.store) == [1]
    assert dropped(sink.store)[0]["reason"] == "internal_error"
    assert "could not be written" in caplog.text


def test_the_entry_point_makes_a_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """create_sink resolves the default store and passes options on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWDECK_STORE", raising=False)
    sink = create_sink(None, lossless=True)
    assert sink.store == tmp_path / ".flowdeck"
    sink.close()
