"""kill -9: what is lost is young, what is there is whole."""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import time
from itertools import pairwise
from pathlib import Path

import pytest
from tests.sinks.support import numbers, plain, raw_lines, segments, until

from flowdeck.layout import Layout, is_locked, is_writer_alive
from flowdeck_sinks.journal import JournalSink

LIMIT_MS = 25.0
CAPACITY = 200_000


def run_and_kill(store: Path, after: float) -> tuple[float, float, int]:
    """Kill a process that emits; return the age of the oldest lost event, the longest stall (both ms), the lost count.

    Every accept leaves its time in shared memory, which survives the kill. A stall is a time in which the machine gave
    the emitting process nothing: its writer thread had nothing either.
    """
    shared = mmap.mmap(-1, 8 * CAPACITY)
    child = os.fork()
    if not child:
        sink = JournalSink(store)
        for n in range(CAPACITY):
            sink.accept(plain(n, 500))
            shared[8 * n : 8 * n + 8] = struct.pack("q", time.monotonic_ns())
            if n % 5 == 4:
                time.sleep(0.001)  # about 4,000 events a second
        os._exit(1)

    until(lambda: shared[:8] != bytes(8), "the child emits")
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    times = [moment for (moment,) in struct.iter_unpack("q", shared[:]) if moment]
    kept = numbers(store)
    assert kept == list(range(len(kept))), "a prefix of what was accepted, in order"
    lost = len(times) - len(kept)
    if lost <= 0:
        return 0.0, 0.0, 0

    recent = times[max(0, len(kept) - 50) :]
    stall = max(later - earlier for earlier, later in pairwise(recent))
    return (times[-1] - times[len(kept)]) / 1e6, stall / 1e6, lost


def check_kill(store: Path, after: float) -> None:
    age, stall, lost = run_and_kill(store, after)
    assert age <= LIMIT_MS + stall, f"lost {lost} events of {age:.1f} ms (longest stall {stall:.1f} ms)"
    damaged = []
    for path, line in raw_lines(store):
        try:
            json.loads(line)
        except ValueError:
            damaged.append(path)
    assert len(damaged) <= 1, "at most the last line is torn"
    for path in segments(store):
        assert not is_locked(path)
        assert not is_writer_alive(Layout(store), path.name.rpartition("-")[0])


@pytest.mark.parametrize("kill", range(5))
def test_a_kill_loses_at_most_twenty_five_milliseconds(tmp_path: Path, kill: int) -> None:
    """A killed process leaves every event but those of the last wake, and nothing corrupt."""
    check_kill(tmp_path / "store", 0.15 + 0.037 * kill)


@pytest.mark.slow
@pytest.mark.parametrize("kill", range(100))
def test_a_hundred_kills(tmp_path: Path, kill: int) -> None:
    """The same, at a hundred different moments."""
    check_kill(tmp_path / "store", 0.1 + 0.0137 * kill)


def test_a_successor_starts_fresh(tmp_path: Path) -> None:
    """After a kill the next process writes its own segment and leaves the torn one alone."""
    check_kill(tmp_path / "store", 0.1)
    before = {path: path.read_bytes() for path in segments(tmp_path / "store")}
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(7))
    sink.close()
    for path, content in before.items():
        assert path.read_bytes() == content
    assert numbers(tmp_path / "store")[-1] == 7
