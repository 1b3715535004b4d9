"""A worker frozen with SIGSTOP past its lease, replaced, and thawed again: it changes nothing any more.

The same with a store that does not look at tokens must fail, or this test would prove nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.chaos.chaos_flow import EXPECTED, STEPS
from tests.chaos.test_kills import ask_for

from flowdeck.durable import ControlClient
from flowdeck.layout import Layout

HERE = Path(__file__).parent
LEASE = 0.6


def spawn(store: Path, effects: Path, script: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), str(store), "process", str(LEASE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "FLOWDECK_EFFECTS": str(effects), "FLOWDECK_CHAOS_SECONDS": "0.3"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def freeze(worker: subprocess.Popen[str], store: Path) -> None:
    """Stop the process at a moment in which it does not hold the database's write lock."""
    for _ in range(200):
        worker.send_signal(signal.SIGSTOP)
        try:
            with contextlib.closing(sqlite3.connect(store / "state.db", timeout=0.05, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
                return
        except sqlite3.OperationalError:
            worker.send_signal(signal.SIGCONT)
            time.sleep(0.002)

    raise AssertionError("it always held the lock")


def violations(store: Path, names: list[str]) -> list[str]:
    """Return what is wrong with the executions: gaps, wrong states, wrong ends."""
    found = []
    with ControlClient(store) as client:
        for name in names:
            row = client.get_execution(name)
            if row is None or row.status != "completed":
                found.append(f"{name}: {row and row.status}")
                continue

            try:
                points = client.history(name)
                if points[-1].seq != sum(len(point.codes) for point in points):
                    found.append(f"{name}: its log has a gap or overlaps")

                state = client.stored_state(name)["runtime_data"]
                if sorted(state.pop("seen")) != [1, 2, 3] or state != EXPECTED:
                    found.append(f"{name}: {state}")
            except Exception as error:
                found.append(f"{name}: {type(error).__name__}: {error}")

    return found


def take_turns(tmp_path: Path, executions: int, script: str, rounds: int) -> tuple[Path, Path, list[str]]:
    """Let two workers freeze and replace each other."""
    store, effects = Layout.create(tmp_path / "store").root, tmp_path / "effects"
    names = ask_for(store, executions)
    frozen: list[subprocess.Popen[str]] = []
    try:
        for _ in range(rounds):
            worker = spawn(store, effects, script)
            time.sleep(0.5)  # let it get into its work; how far is of no matter
            freeze(worker, store)
            frozen.append(worker)
            time.sleep(LEASE)  # its lease runs out

        last = spawn(store, effects, script)
        time.sleep(0.4)
        for worker in frozen:
            worker.send_signal(signal.SIGCONT)

        for worker in [last, *frozen]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.communicate(timeout=60)
    finally:
        for worker in frozen:
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            worker.communicate()

    return store, effects, names


def test_a_frozen_worker_corrupts_nothing(tmp_path: Path) -> None:
    """Whatever the thawed ones try, every run ends right, with one key for every step."""
    store, effects, names = take_turns(tmp_path, 50, "process_worker.py", 1)
    assert violations(store, names) == []
    keys = Counter((line.split()[0], line.split()[1]) for line in effects.read_text().splitlines())
    assert len(keys) == STEPS * len(names)
    with contextlib.closing(sqlite3.connect(store / "state.db")) as db:
        assert db.execute("SELECT count(*) FROM durable WHERE token > 1").fetchone()[0] > 0, "nothing was taken over"


def test_without_the_fence_it_is_corrupted(tmp_path: Path) -> None:
    """The control: a store that takes commits without looking at token and sequence loses exactly this game."""
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        store, _, names = take_turns(folder, 50, "process_unfenced.py", 1)
        if violations(store, names):
            return

    pytest.fail("an unfenced store came out clean three times: the test above proves nothing")
