"""What the control plane costs: registering executions, parking them, answering across processes, and waiting idle.

Run it with ``python -m benchmarks.control_plane``. The bare limit is SQLite alone: the same rows, one transaction.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.harness import Figure, figure, measure, table
from flowdeck.durable import ControlClient, StateControl, open_control
from flowdeck.durable._batch import Batch, Opened, StatusChanged
from flowdeck.durable.statedb import connect
from flowdeck.layout import Layout

EXECUTIONS = 10_000
ANSWERS = 100
IDLE_SECONDS = 5.0
OWNER = Path(__file__).parent.parent / "tests" / "durable" / "process_owner.py"


class Execution:
    """An execution that takes nothing."""

    def __init__(self, execution_id: str) -> None:
        self.id = execution_id

    def deliver(self, row: object) -> None: ...


@contextmanager
def control() -> Iterator[StateControl]:
    with tempfile.TemporaryDirectory() as folder:
        opened = open_control(Layout.create(Path(folder) / "store").root, "w1")
        try:
            yield opened
        finally:
            opened.close(30.0)


def info(number: int) -> dict[str, object]:
    name = f"{number:032x}"
    return {"flow_name": "bench", "run_id": name, "root_run_id": name, "definition": "f" * 16, "started_us": number}


def registering() -> list[Figure]:
    """Open and finish 10,000 executions: in the caller's thread, and in all threads together."""
    names = [f"{number:032x}" for number in range(EXECUTIONS)]
    details = [info(number) for number in range(EXECUTIONS)]
    caller: list[float] = []
    with control() as plane:

        def run() -> None:
            begun = time.thread_time()
            for name, detail in zip(names, details, strict=True):
                plane.opened(Execution(name), detail)
                plane.status(name, "running")
                plane.finished(name, "completed")
            caller.append(time.thread_time() - begun)
            if not plane.flush(60.0):
                raise RuntimeError("not written within a minute")

        total = measure(run, 1, 5)
        if plane.statistics()["dropped"]:
            raise RuntimeError("changes were dropped: the figure would be too good")

        batch = Batch()
        for name, detail in zip(names, details, strict=True):
            batch.add(Opened(name, "w1", detail, 1, None))
            batch.add(StatusChanged(name, "w1", "completed", 2))

        def bare() -> None:
            with closing(connect(plane.path, 5.0)) as connection:
                batch.write(connection)

        limit = figure("bare SQLite, the same rows", measure(bare, 1, 5), EXECUTIONS, "us")

    return [
        limit,
        figure("open + run + finish, caller's thread", caller, EXECUTIONS, "us"),
        figure("open + run + finish, all threads", total, EXECUTIONS, "us", limit=limit.median),
    ]


def parking() -> list[Figure]:
    """Disk of 10,000 executions that wait for an answer, after a checkpoint."""
    with control() as plane:
        for number in range(EXECUTIONS):
            name = f"{number:032x}"
            plane.opened(Execution(name), info(number))
            plane.interrupt_opened(name, {"id": f"{name}-i1", "type": "approval", "payload": {"n": number}})
            plane.status(name, "waiting")
        plane.flush(60.0)
        with closing(sqlite3.connect(plane.path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = plane.path.stat().st_size / EXECUTIONS

    return [Figure("disk of a parked execution", size, size, size, "B", 2_000)]


def answering() -> list[Figure]:
    """Wall time from ``answer`` in this process to ``deliver`` in another, and the CPU of an owner that only waits."""
    with tempfile.TemporaryDirectory() as folder:
        store = Layout.create(Path(folder) / "store").root
        with (
            subprocess.Popen(
                [sys.executable, str(OWNER), str(store), str(ANSWERS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            ) as owner,
            ControlClient(store) as client,
        ):
            assert owner.stdin is not None and owner.stdout is not None
            owner.stdout.readline()

            def cpu() -> tuple[float, float]:
                assert owner.stdin is not None and owner.stdout is not None
                print(file=owner.stdin, flush=True)
                used, at = json.loads(owner.stdout.readline())
                return used, at

            first = cpu()
            time.sleep(IDLE_SECONDS)
            second = cpu()
            idle = (second[0] - first[0]) / (second[1] - first[1]) * 100

            delays = []
            for number in range(ANSWERS):
                begun = time.time_ns()
                client.answer(f"e1-i{number}", number, "bench")
                delays.append((json.loads(owner.stdout.readline())[2] - begun) / 1e6)
            owner.kill()

    delays.sort()
    p99 = delays[int(ANSWERS * 0.99) - 1]
    return [
        Figure("answer -> owner, p50", delays[ANSWERS // 2], delays[0], delays[-1], "ms", 100),
        Figure("answer -> owner, p99", p99, delays[0], delays[-1], "ms", 250),
        Figure("owner waiting idle, % of a core", idle, idle, idle, "%", 1),
    ]


def main() -> int:
    print(table([*registering(), *parking(), *answering()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
