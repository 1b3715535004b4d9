"""The publisher killed at any moment, compaction included, while DuckDB 1.5 and 2.0 read: each row exactly once."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest
from tests.sinks.publishing import AT_ONCE, PYTHONS, SHORT, exact, kill, start_keeping, start_polling, start_writing

from flowdeck.layout import Layout
from flowdeck_sinks.store.compaction import compact
from flowdeck_sinks.store.parts import published_files, segment_files
from flowdeck_sinks.store.publisher import publish


def highest(layout: Layout) -> int:
    return max((file.level for file in published_files(layout)), default=0)


def storm(tmp_path: Path, seconds: float, seed: int) -> dict[str, int]:
    """Write, publish, compact, kill and read for ``seconds``; check every poll and the end; return what happened."""
    store = tmp_path / "store"
    layout = Layout.create(store)
    chance = random.Random(seed)
    counters = {}
    writers = []
    for number in range(2):
        path = tmp_path / f"counter-{number}"
        path.write_text("0")
        pid, writer = start_writing(store, path, per_second=400, seconds=seconds - 1.5)
        counters[writer] = path
        writers.append(pid)
    polls = [start_polling(python, layout, counters, seconds) for python in PYTHONS]
    end = time.monotonic() + seconds
    kills = compactions = 0
    while time.monotonic() < end - 0.5:
        keeper = start_keeping(store, SHORT)
        # Mostly too soon for a merge to end, now and then late enough, and some on a busy machine, too.
        if chance.random() < 0.04:
            until = min(end, time.monotonic() + 10)
            while time.monotonic() < until and highest(layout) <= compactions:
                time.sleep(0.05)
        else:
            time.sleep(chance.uniform(0.05, 0.9) if chance.random() < 0.75 else chance.uniform(0.9, 2.5))
        kill(keeper)
        kills += 1
        compactions = max(compactions, highest(layout))
    for pid in writers:
        os.waitpid(pid, 0)
    happened = {"kills": kills, "levels": compactions, "polls": 0, "vanished": 0}
    for poll in polls:
        out, _ = poll.communicate(timeout=60)
        told = json.loads(out)
        assert told["wrong"] == [], told
        assert told["polls"] > 5, told
        happened["polls"] += told["polls"]
        happened["vanished"] += told["vanished"]

    for writer, path in counters.items():
        count = int(path.read_text())
        assert exact(layout)[writer] == (count, count, count)
    time.sleep((SHORT.visible_after_ms + SHORT.keep_ms) / 1000)
    for _ in range(3):
        publish(layout, timing=AT_ONCE)
        compact(layout, force=True, timing=AT_ONCE)
    publish(layout, timing=AT_ONCE)
    assert segment_files(layout) == []
    assert len(published_files(layout)) == 1
    for writer, path in counters.items():
        count = int(path.read_text())
        assert exact(layout)[writer] == (count, count, count)
    assert [path.name for path in (*layout.parts.iterdir(), *layout.days.iterdir()) if "tmp" in path.name] == []
    return happened


def test_a_publisher_that_is_killed_all_the_time(tmp_path: Path) -> None:
    """Every poll of plain DuckDB, old and new: count = distinct = highest number, never behind what was flushed."""
    happened = storm(tmp_path, 7.0, seed=1)
    assert happened["kills"] >= 4
    assert happened["levels"] >= 1, "compaction ran under the kills"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_minute_of_kills(tmp_path: Path, seed: int) -> None:
    """The same for a minute each."""
    happened = storm(tmp_path, 60.0, seed=100 + seed)
    assert happened["kills"] >= 40
    assert happened["levels"] >= 2
