"""Workers killed with SIGKILL at random moments lose nothing and do nothing twice but what was under way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from tests.chaos.chaos_flow import EXPECTED, ITEMS, STEPS

from flowdeck.durable import ControlClient
from flowdeck.layout import Layout

HERE = Path(__file__).parent
CONCURRENCY = 32


def spawn(store: Path, effects: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "process_worker.py"), str(store), "process", "30"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FLOWDECK_EFFECTS": str(effects), "FLOWDECK_CHAOS_SECONDS": str(seconds)},
    )


def ask_for(store: Path, count: int) -> list[str]:
    """Ask for executions to be started, by nobody in particular."""
    names = [f"x{number:05d}" for number in range(count)]
    with ControlClient(store) as client:
        for name in names:
            assert client.put_inbox("start", name, "chaos", 1, "test", name).accepted

    return names


def check(store: Path, effects: Path, names: list[str], kills: int) -> int:
    """Check everything an execution left. Returns how many effects were repeated."""
    lines = [line.split() for line in effects.read_text().splitlines()]
    times = Counter((name, key) for name, key, _, _ in lines)
    keys = {key for _, key in times}
    assert len(keys) == STEPS * len(names), "a step is missing, or one ran under two keys"
    repeated = sum(count - 1 for count in times.values())
    assert repeated <= CONCURRENCY * 3 * max(kills, 1), f"{repeated} repetitions by {kills} kills"
    with ControlClient(store) as client:
        rows = {row.id: row for row in client.list_executions(limit=1_000_000)}
        assert set(names) <= set(rows), "executions were lost"
        assert {rows[name].status for name in names} == {"completed"}
        for name in names:
            points = client.history(name)
            assert all(a.seq < b.seq for a, b in pairwise(points))
            assert points[-1].seq == sum(len(point.codes) for point in points), "the log has a gap"
            assert "".join(point.codes for point in points).count("u") == ITEMS, "stream items were lost or repeated"
            state = client.stored_state(name)["runtime_data"]
            assert sorted(state.pop("seen")) == [1, 2, 3] and state == EXPECTED

    return repeated


def run_with_kills(tmp_path: Path, executions: int, kills: int, seconds: float) -> tuple[int, int]:
    """Run executions to their end, killing their workers on the way. Returns kills done and repetitions."""
    rng = random.Random()
    store, effects = Layout.create(tmp_path / "store").root, tmp_path / "effects"
    names = ask_for(store, executions)
    done = 0
    while True:
        worker = spawn(store, effects, seconds)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        if done < kills:
            try:
                worker.wait(rng.uniform(0.1, 0.6))
            except subprocess.TimeoutExpired:
                worker.send_signal(signal.SIGKILL)
                worker.communicate()
                done += 1
                continue

        out, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0 and out == "done {}\n", out
        return done, check(store, effects, names, done)


def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    """A few kills over a hundred executions; the full count is in the slow lane."""
    begun = time.monotonic()
    kills, _ = run_with_kills(tmp_path, 150, 5, 0.04)
    assert kills >= 1, f"nothing was killed in {time.monotonic() - begun} s"


@pytest.mark.slow
def test_sixty_kills_over_two_thousand_executions(tmp_path: Path) -> None:
    """Sixty random kills, two thousand executions, eighteen thousand steps: none lost, no gap, no second key."""
    kills, _ = run_with_kills(tmp_path, 2_000, 60, 0.25)
    assert kills == 60
