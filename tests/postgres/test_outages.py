"""The server goes away under running executions: connections are cut, it crashes, it crashes while it recovers."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.chaos.test_kills import ask_for, check
from tests.postgres.server import Server
from tests.postgres.test_zombies import FENCED, spawn

from flowdeck.durable import ControlClient

PATIENCE = 30.0
"""So long after the server is back everything has ended."""


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that is not shared: it is crashed."""
    made = Server()
    yield made
    made.close()


def cut(server: Server, seconds: float, every: float = 0.2) -> int:
    """Terminate all connections again and again. Returns how many."""
    count, end = 0, time.monotonic() + seconds
    tick = threading.Event()
    while time.monotonic() < end:
        with contextlib.suppress(psycopg.OperationalError), server.admin() as connection:
            found = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchone()
            count += int(str(found[0])) if found else 0

        tick.wait(every)

    return count


def crash(server: Server, times: int) -> None:
    """Crash the server, and again while it recovers from that."""
    for number in range(times):
        server.stop("immediate")
        server.begin_starting()
        if number % 2:
            time.sleep(0.05)  # in its recovery
            server.kill() if number % 4 == 3 else server.stop("immediate")

        server.wait_ready()
        time.sleep(0.7)


def finish(url: str, effects: Path, names: list[str], workers: list[subprocess.Popen[str]]) -> None:
    """Everything is terminal within the patience, and right."""
    end = time.monotonic() + PATIENCE
    tick = threading.Event()
    with ControlClient(url) as client:
        while left := [row.id for row in client.list_executions(open_only=True, limit=100_000)]:
            assert time.monotonic() < end, f"{len(left)} executions are not terminal {PATIENCE} s after: {left[:5]}"
            tick.wait(0.1)

        while [row for row in client.list_inbox(pending_only=True) if row.kind == "start"]:
            assert time.monotonic() < end, "starts were forgotten"
            tick.wait(0.1)

    for worker in workers:
        out, _ = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0 and out == "done {}\n", out

    check(url, effects, names, 1_000)  # repetitions are counted by outage elsewhere; here: none lost, no gap


def outage(
    server: Server,
    folder: Path,
    executions: int,
    seconds: float,
    crashes: int,
    script: Path = FENCED,
    head_start: float = 0.0,
) -> int:
    url, effects = server.url(), folder / "effects"
    names = ask_for(url, executions)  # type: ignore[arg-type]
    workers = [spawn(url, effects, script, seconds / 8 + 0.05, 5.0) for _ in range(2)]
    try:
        time.sleep(head_start)  # let them get into their work; how far is of no matter
        cuts = cut(server, seconds)
        crash(server, crashes)
        finish(url, effects, names, workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()

    return cuts


def test_cut_connections_and_a_crash_are_survived(own_server: Server, tmp_path: Path) -> None:
    """Connections cut every 200 ms, then a crash of the server: nothing is lost, stuck or done under a second key."""
    assert outage(own_server, tmp_path, 30, 2.0, 1) > 0


@pytest.mark.slow
def test_twenty_seconds_of_cuts_and_crashes_in_recovery(own_server: Server, tmp_path: Path) -> None:
    """The same at full size: 20 s of cuts, ten crashes, half of them while the server recovers from the last."""
    assert outage(own_server, tmp_path, 300, 20.0, 10) > 20


@pytest.mark.slow
def test_cuts_and_crashes_under_dbos(own_server: Server, tmp_path: Path) -> None:
    """The same with DBOS in between, whose connections are cut, too."""
    pytest.importorskip("dbos", reason="the package dbos is not installed")
    script = Path(__file__).parent / "process_dbos.py"
    assert outage(own_server, tmp_path, 200, 10.0, 3, script, 2.5) > 20
