"""Workers over PostgreSQL that are frozen past their lease, replaced and thawed, or killed, change nothing any more.

The same with commits that look at no token must fail, or this would prove nothing.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.chaos.chaos_flow import STEPS
from tests.chaos.test_kills import ask_for, check
from tests.chaos.test_zombies import violations
from tests.postgres.server import Server

HERE = Path(__file__).parent
FENCED = HERE.parent / "chaos" / "process_worker.py"
LEASE = 0.6


def spawn(url: str, effects: Path, script: Path, seconds: float = 0.3, lease: float = LEASE) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(script), url, "process", str(lease)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "FLOWDECK_EFFECTS": str(effects), "FLOWDECK_CHAOS_SECONDS": str(seconds)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def take_turns(
    url: str, effects: Path, executions: int, script: Path, rounds: int, head_start: float = 0.5
) -> list[str]:
    """Let workers freeze wherever they are, replace each other, and thaw."""
    names = ask_for(url, executions)  # type: ignore[arg-type]
    frozen: list[subprocess.Popen[str]] = []
    try:
        for _ in range(rounds):
            worker = spawn(url, effects, script)
            time.sleep(head_start)  # let it get into its work; how far is of no matter
            worker.send_signal(signal.SIGSTOP)
            frozen.append(worker)
            time.sleep(LEASE)  # its lease runs out

        last = spawn(url, effects, script)
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

    return names


def zombies(
    server: Server, folder: Path, executions: int, rounds: int, script: Path = FENCED, head_start: float = 0.5
) -> int:
    """Return how many executions were taken over, after everything was found right."""
    url, effects = server.url(), folder / "effects"
    names = take_turns(url, effects, executions, script, rounds, head_start)
    assert violations(url, names) == []  # type: ignore[arg-type]
    keys = Counter((line.split()[0], line.split()[1]) for line in effects.read_text().splitlines())
    assert len(keys) == STEPS * len(names)
    with server.admin() as connection:
        schema = url.rpartition("=")[2]
        found = connection.execute(f"SELECT count(*) FROM {schema}.durable WHERE token > 1".encode()).fetchone()
        assert found is not None
        return int(str(found[0]))


def test_a_frozen_worker_corrupts_nothing(server: Server, tmp_path: Path) -> None:
    """Whatever the thawed one tries, every run ends right, with one key for every step."""
    assert zombies(server, tmp_path, 30, 1) > 0, "nothing was taken over"


@pytest.mark.slow
def test_two_hundred_executions_through_three_frozen_workers(server: Server, tmp_path: Path) -> None:
    """The same at full size: 200 executions, three zombies."""
    assert zombies(server, tmp_path, 200, 3) > 0


@pytest.mark.slow
def test_without_the_fence_it_is_corrupted(server: Server, tmp_path: Path) -> None:
    """The control: commits that look at no token and no sequence lose exactly this game."""
    for attempt in range(3):
        url = server.url()
        names = take_turns(url, tmp_path / f"effects{attempt}", 200, HERE / "process_unfenced.py", 1)
        if violations(url, names):  # type: ignore[arg-type]
            return

    pytest.fail("an unfenced store came out clean three times: the tests above prove nothing")


def run_with_kills(
    url: str,
    folder: Path,
    executions: int,
    kills: int,
    seconds: float,
    script: Path = FENCED,
    lives: tuple[float, float] = (0.1, 0.6),
) -> int:
    """Run executions to their end, killing their workers after some seconds each. Returns kills done."""
    rng = random.Random()
    effects = folder / "effects"
    names = ask_for(url, executions)  # type: ignore[arg-type]
    done = 0
    while True:
        worker = spawn(url, effects, script, seconds, 30.0)
        if done < kills:
            try:
                worker.wait(rng.uniform(*lives))
            except subprocess.TimeoutExpired:
                worker.send_signal(signal.SIGKILL)
                worker.communicate()
                done += 1
                continue

        out, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0 and out == "done {}\n", out
        check(url, effects, names, done)  # type: ignore[arg-type]
        return done


def test_killed_workers_lose_nothing(server: Server, tmp_path: Path) -> None:
    """What a killed process of this machine held is taken up at once, long before its lease runs out."""
    assert run_with_kills(server.url(), tmp_path, 60, 2, 0.12) >= 1


@pytest.mark.slow
def test_twenty_kills_over_six_hundred_executions(server: Server, tmp_path: Path) -> None:
    """Twenty random kills, six hundred executions: none lost, no gap, no second key."""
    assert run_with_kills(server.url(), tmp_path, 600, 20, 0.2) == 20
