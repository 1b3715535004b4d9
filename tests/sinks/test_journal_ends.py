"""How a journal fills, waits and ends: lossless types, several sinks, SIGTERM, deadlines, size of segments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.sinks.support import Encoded, dropped, in_child, numbers, plain, segments, until, written
from tests.sinks.test_journal_faults import break_disk, mend_disk, needs_dev_full

from flowdeck.layout import Layout, live_writers
from flowdeck_sinks.journal import JournalSink

PROGRAM = """
import os, signal, sys, time
from flowdeck_sinks.journal import JournalSink
from tests.sinks.support import plain
{before}
sinks = [JournalSink(store, wake_seconds=30) for store in sys.argv[1:]]
for n in range(100):
    for sink in sinks:
        sink.accept(plain(n))
{after}
print("ready", flush=True)
{then}
"""


def start(*stores: Path, before: str = "", after: str = "", then: str = "time.sleep(60)") -> subprocess.Popen[str]:
    """Start a process whose sinks hold 100 events in memory; it runs ``then`` when this returns."""
    program = PROGRAM.format(before=before, after=after, then=then)
    child = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, stores)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_sigterm_nobody_handles_still_flushes(tmp_path: Path) -> None:
    """The events of every sink are on disk, the locks are free, and the process died of the signal."""
    child = start(tmp_path / "one", tmp_path / "two")
    child.terminate()
    assert child.wait(10) == -signal.SIGTERM
    for store in (tmp_path / "one", tmp_path / "two"):
        assert numbers(store) == list(range(100))
        assert live_writers(Layout(store)) == []


def test_a_handler_of_the_users_stays(tmp_path: Path) -> None:
    """Set before or after the sink, the application's own handler is called, and ours never."""
    for moment in ("before", "after"):
        setting = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"
        child = start(tmp_path / moment, **{moment: setting})
        child.terminate()
        assert child.wait(10) == 7
        assert numbers(tmp_path / moment) == list(range(100))


def test_sigterm_in_an_event_loop(tmp_path: Path) -> None:
    """A program that waits in asyncio ends like any other."""
    child = start(tmp_path / "store", before="import asyncio", then="asyncio.run(asyncio.sleep(60))")
    child.terminate()
    assert child.wait(10) == -signal.SIGTERM
    assert numbers(tmp_path / "store") == list(range(100))


def test_sigterm_on_a_disk_that_refuses_does_not_hang(tmp_path: Path) -> None:
    """The deadline holds: the process ends although its events cannot be written."""
    child = start(tmp_path / "store", after="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))")
    begun = time.monotonic()
    child.terminate()
    assert child.wait(10) == -signal.SIGTERM
    assert time.monotonic() - begun < 6
    assert child.stderr is not None
    assert child.stderr.read().count("events lost at close") == 1


def test_a_worker_that_is_terminated(tmp_path: Path) -> None:
    """multiprocessing's terminate() is a SIGTERM too: the child's events are kept."""
    before = (
        "import multiprocessing\n"
        "def work(sink, told):\n"
        "    [sink.accept(plain(n)) for n in range(1000, 1010)]; told.set(); time.sleep(60)\n"
    )
    then = (
        "context = multiprocessing.get_context('fork'); told = context.Event()\n"
        "child = context.Process(target=work, args=(sinks[0], told)); child.start(); told.wait()\n"
        "child.terminate(); child.join()\n"
    )
    parent = start(tmp_path / "store", before=before, then=then)
    assert parent.wait(20) == 0, parent.stderr.read() if parent.stderr else ""
    assert sorted(numbers(tmp_path / "store")) == [*range(100), *range(1000, 1010)]


def test_several_sinks_in_one_process(tmp_path: Path) -> None:
    """Two sinks on one store are two writers; each is gapless, and closing one leaves the other."""
    one, two = JournalSink(tmp_path / "store"), JournalSink(tmp_path / "store")
    for n in range(100):
        (one if n % 2 else two).accept(plain(n))
    one.close()
    two.accept(plain(100))
    two.close()
    assert one.statistics()["writer"] != two.statistics()["writer"]
    assert sorted(numbers(tmp_path / "store")) == list(range(101))
    assert sorted(event["wseq"] for event in written(tmp_path / "store")) == sorted([*range(1, 51), *range(1, 52)])


@needs_dev_full
def test_results_wait_where_observation_is_dropped(tmp_path: Path) -> None:
    """With a full queue an eval event waits for the disk; what is mere observation is dropped and counted."""
    sink = JournalSink(tmp_path / "store", queue_bytes=50_000, wake_seconds=0.002)
    sink.accept(plain(0))
    assert sink.flush(5)
    real = break_disk(sink)
    for n in range(1, 200):
        sink.accept(plain(n, 1000))
    lost = int(sink.statistics()["dropped"])
    assert lost > 100
    result = plain(900, 1000)
    result.event_type = "eval.round"
    waiting = threading.Thread(target=sink.accept, args=(result,))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive(), "it waits"
    mend_disk(sink, real)
    waiting.join(10)
    assert not waiting.is_alive()
    sink.close()
    assert numbers(sink.store)[-1] == 900
    assert sum(report["count"] for report in dropped(sink.store)) == lost


@pytest.mark.parametrize(
    ("lossless", "event_type", "waits"),
    [
        (("eval.", "audit."), "audit.entry", True),
        ("audit.", "audited", False),
        (True, "any", True),
        (False, "eval.x", False),
    ],
)
def test_which_events_wait_can_be_chosen(
    tmp_path: Path, lossless: bool | tuple[str, ...], event_type: str, waits: bool
) -> None:
    """All, none, or those whose type begins with one of the given prefixes."""
    sink = JournalSink(tmp_path / "store", queue_bytes=10, lossless=lossless, lossless_seconds=0.05, wake_seconds=30)
    sink._io.acquire()  # the writer cannot go on: the queue stays full
    sink.accept(plain(1))
    begun = time.monotonic()
    sink.accept(Encoded(plain(2).encoded, event_type))
    waited = time.monotonic() - begun
    sink._io.release()
    sink.close()
    assert (waited >= 0.05) is waits
    assert numbers(sink.store) == [1]
    assert dropped(sink.store)[0]["count"] == 1


def test_who_waits_for_room_waits_no_more_at_the_end_of_the_process(tmp_path: Path) -> None:
    """What an exporter reports when it is closed must not wait for a disk that does not answer."""
    sink = JournalSink(tmp_path / "store", queue_bytes=10, lossless=True, wake_seconds=30)
    sink._io.acquire()  # the writer cannot go on: the queue stays full
    sink.accept(plain(1))
    waiting = threading.Thread(target=sink.accept, args=(plain(2),), daemon=True)
    waiting.start()
    sink._write_out(0.05)
    waiting.join(10)
    assert not waiting.is_alive()
    sink.accept(plain(3))
    sink._io.release()
    sink.close()
    assert numbers(sink.store) == [1]
    assert dropped(sink.store)[0]["count"] == 2


def test_segments_keep_to_their_size(tmp_path: Path) -> None:
    """However much is written at once, a segment ends at its size, unless one line alone is larger."""
    sink = JournalSink(tmp_path / "store", segment_bytes=20_000)
    for n in range(1000):
        sink.accept(plain(n, 50_000 if n == 500 else 1000))
    sink.close()
    sizes = [path.stat().st_size for path in segments(sink.store)]
    assert numbers(sink.store) == list(range(1000))
    assert len(sizes) > 50
    assert sorted(sizes)[-2] <= 20_000
    assert 50_000 < max(sizes) < 51_000


@needs_dev_full
def test_a_full_disk_at_close_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line says how many events were lost, those dropped before the close included."""
    sink = JournalSink(tmp_path / "store", queue_bytes=20_000)
    sink.accept(plain(0))
    sink.flush(5)
    os.close(break_disk(sink))
    for n in range(1, 101):
        sink.accept(plain(n, 1000))
    until(lambda: sink.statistics()["failure"], "the refusal is noticed")
    sink.close(5)
    assert caplog.text.count("lost at close") == 1
    assert "100 events lost at close" in caplog.text
    assert sink.statistics()["told"] == sink.statistics()["dropped"] == 100


def test_a_crash_between_line_and_newline_repeats_nothing(tmp_path: Path) -> None:
    """A line that lacks only its newline when the file is full is taken back before it is written again."""

    def work(limit: int) -> list[int]:
        import resource

        sink = JournalSink(tmp_path / f"store-{limit}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for n in range(3):
            sink.accept(plain(n, 400))
        sink.close()
        return []

    probe = JournalSink(tmp_path / "probe")
    probe.accept(plain(0, 400))
    probe.accept(plain(1, 400))
    probe.close()
    size = segments(probe.store)[0].stat().st_size
    for limit in range(size - 3, size + 2):  # the header differs by a digit or two: one of these ends at a line's end
        in_child(lambda limit=limit: work(limit))
        events = [event["wseq"] for event in written(tmp_path / f"store-{limit}")]
        assert events == [1, 2, 3]
