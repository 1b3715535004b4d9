"""The byte tail: everything once, in order, whatever happens to the files."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from tests.sinks.support import in_child, numbers, plain, segments, until

from flowdeck.layout import Layout, StoreNotFound
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store.tail import JournalTail, RawBatch


def count_of(line: bytes) -> int:
    """Return the ``n`` of a plain event without decoding the line."""
    return int(line.split(b'"n":', 1)[1].split(b",", 1)[0])


def drain(tail: JournalTail) -> list[int]:
    """Return the ``n`` of every line that stands in the journal now."""
    seen: list[int] = []
    while batches := tail.poll():
        seen += [count_of(line) for batch in batches for line in batch.lines]
    return seen


def test_from_now_on_only_what_is_new(tmp_path: Path) -> None:
    """A tail from now skips what is written, in open and in sealed segments, and misses nothing after."""
    sealed = JournalSink(tmp_path / "store")
    sealed.accept(plain(0))
    sealed.close()
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(1))
    sink.flush(5)
    tail = JournalTail(tmp_path / "store")
    assert tail.poll() == []
    sink.accept(plain(2))
    sink.flush(5)
    (batch,) = tail.poll()
    assert batch.writer == sink.writer
    assert [count_of(line) for line in batch.lines] == [2]
    assert tail.poll() == []
    sink.close()
    tail.close()


def test_from_the_start_everything(tmp_path: Path) -> None:
    """A tail from the start returns the history of all writers, without headers, then follows."""
    for base in (0, 100):
        sink = JournalSink(tmp_path / "store", segment_bytes=3000)
        for n in range(base, base + 30):
            sink.accept(plain(n, 500))
            sink.flush(5)
        if not base:
            sink.close()
    with JournalTail(tmp_path / "store", from_start=True) as tail:
        assert drain(tail) == [*range(30), *range(100, 130)]
        sink.accept(plain(500))
        sink.flush(5)
        assert drain(tail) == [500]
        until(lambda: tail.poll() == [] and len(tail._open) == 1, "sealed segments are let go")
    sink.close()


def test_rotation_and_new_writers_are_followed(tmp_path: Path) -> None:
    """While it runs: segments rotate, writers come and go, every line arrives once and in its writer's order."""
    Layout.create(tmp_path / "store")
    tail = JournalTail(tmp_path / "store")
    seen: dict[str, list[int]] = {}

    def poll() -> None:
        for writer, lines in tail.poll():
            seen.setdefault(writer, []).extend(map(count_of, lines))

    writers = []
    for base in (0, 1000, 2000):
        sink = JournalSink(tmp_path / "store", segment_bytes=5000, wake_seconds=0.001)
        for n in range(base, base + 200):
            sink.accept(plain(n, 400))
            if n % 7 == 0:
                poll()
            if n % 50 == 0:
                sink.flush(5)
        sink.close()
        writers.append(sink.statistics()["writer"])
    poll()
    assert list(seen) == writers
    assert list(seen.values()) == [list(range(base, base + 200)) for base in (0, 1000, 2000)]
    tail.close()


def test_a_half_written_line_waits(tmp_path: Path) -> None:
    """A line is returned when its newline is there, and whole."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(0))
    sink.flush(5)
    tail = JournalTail(tmp_path / "store", from_start=True)
    assert drain(tail) == [0]
    (path,) = segments(tmp_path / "store")
    line = b'{"wseq":2,' + plain(1).encoded[1:]
    with path.open("ab", buffering=0) as file:
        file.write(line[:50])
        assert tail.poll() == []
        file.write(line[50:])
        assert tail.poll() == []
        file.write(b"\n")
        assert tail.poll() == [RawBatch(sink.writer, [line])]
    sink.close()
    tail.close()


def test_a_tail_begun_in_the_middle_of_a_line_skips_it(tmp_path: Path) -> None:
    """From now means whole lines from now: the rest of a line begun before is not one."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(0))
    sink.flush(5)
    (path,) = segments(tmp_path / "store")
    with path.open("ab", buffering=0) as file:
        file.write(b'{"half')
        tail = JournalTail(tmp_path / "store")
        file.write(b' a line"}\n{"next":1}\n')
    assert [line for batch in tail.poll() for line in batch.lines] == [b'{"next":1}']
    sink.close()
    tail.close()


def test_a_killed_writers_torn_line_is_skipped_and_counted(tmp_path: Path) -> None:
    """The cut line of a killed writer is not returned; the rest is, and the segment is let go."""
    store = tmp_path / "store"
    child = os.fork()
    if not child:
        sink = JournalSink(store)
        for n in range(10):
            sink.accept(plain(n))
        sink.flush(5)
        os.write(sink._journal.log._segment.descriptor, b'{"wseq":11,"eve')  # type: ignore[union-attr]
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(child, 0)
    tail = JournalTail(store, from_start=True)
    assert drain(tail) == list(range(10))
    assert tail.torn == 1
    assert tail._open == {}


def test_a_removed_segment_does_not_stop_the_tail(tmp_path: Path) -> None:
    """Unlinking followed files, or the whole store, loses nothing already written; a new store is picked up."""
    store = tmp_path / "store"
    sink = JournalSink(store)
    sink.accept(plain(0))
    sink.flush(5)
    tail = JournalTail(store)
    sink.accept(plain(1))
    sink.flush(5)
    for path in segments(store):
        path.unlink()
    assert drain(tail) == [1]
    shutil.rmtree(store)
    assert tail.poll() == []
    sink.accept(plain(2))
    sink.flush(5)
    assert next(count_of(line) for batch in tail.poll() for line in batch.lines if b"test.event" in line) == 2
    sink.close()
    tail.close()


def test_a_long_history_comes_in_pieces(tmp_path: Path) -> None:
    """One poll returns about what it is asked for; the rest follows."""
    sink = JournalSink(tmp_path / "store", segment_bytes=100_000)
    for n in range(2000):
        sink.accept(plain(n, 1000))
        if n % 100 == 99:
            sink.flush(5)
    sink.close()
    tail = JournalTail(tmp_path / "store", from_start=True)
    first = tail.poll(max_bytes=50_000)
    taken = sum(len(batch.lines) for batch in first)
    assert 0 < taken < 1200
    assert taken + len(drain(tail)) == 2000
    assert tail.lines == 2000


def test_a_missing_store_is_one_clear_error(tmp_path: Path) -> None:
    """Tailing what is not there says so."""
    with pytest.raises(StoreNotFound, match="No Flowdeck store"):
        JournalTail(tmp_path / "none")


def test_another_process_is_followed_live(tmp_path: Path) -> None:
    """What another process emits is seen within a wake and a poll."""
    store = tmp_path / "store"
    Layout.create(store)
    tail = JournalTail(store)
    child = os.fork()
    if not child:
        sink = JournalSink(store)
        for n in range(300):
            sink.accept(plain(n))
            time.sleep(0.001)
        sink.close()
        os._exit(0)

    seen: list[int] = []
    until(lambda: seen.extend(drain(tail)) or len(seen) == 300, "all events are seen")  # type: ignore[func-returns-value]
    os.waitpid(child, 0)
    assert seen == list(range(300)) == numbers(store)


def test_following_is_cheap(tmp_path: Path) -> None:
    """Ten thousand events a second cost a few percent of a core to follow."""
    store = tmp_path / "store"
    sink = JournalSink(store)

    def follow() -> float:
        tail = JournalTail(store)
        for n in range(10_000):
            sink.accept(plain(n, 800))
            if n % 1000 == 999:
                sink.flush(5)
        begun = time.process_time()
        seen = 0
        for _ in range(33):  # a second of 30 ms polls
            seen += sum(len(batch.lines) for batch in tail.poll(max_bytes=300_000))
        cost = time.process_time() - begun
        assert seen == 10_000
        return cost

    assert min(in_child(follow) for _ in range(3)) < 0.05
    sink.close()
