"""A power cut in the middle of writing: ``state.db`` and its log are cut anywhere, and what opens is a prefix."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.chaos.chaos_flow import flow

from flowdeck.durable import ControlClient, SqliteStore, open_control
from flowdeck.events.center import EventCenter
from flowdeck.execution.replica import replay
from flowdeck.execution.services import Services
from flowdeck.layout import Layout, WriterLock

CUTS = 100


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]], int]:
    """A store with executions in all stages, copied while it was in use: nothing was checkpointed at the end."""
    folder = tmp_path_factory.mktemp("torn")
    layout = Layout.create(folder / "store")
    lock = WriterLock(layout)
    store = SqliteStore(open_control(layout.root, lock.writer), "full")
    services = Services(center=EventCenter(), store=store)

    async def run() -> None:
        await asyncio.gather(
            *(
                flow.create_execution(services=services, execution_id=f"e{i}", auto_close_timeout=0.0).async_start(1)
                for i in range(12)
            )
        )

    asyncio.run(run())
    copy = folder / "copy"
    copy.mkdir()
    for name in ("state.db", "state.db-wal"):
        shutil.copy(layout.root / name, copy / name)

    points = {f"e{i}": [point.seq for point in store.history(f"e{i}")] for i in range(12)}
    store.close(5.0)
    lock.release()
    return copy, points, (copy / "state.db-wal").stat().st_size


def test_a_cut_log_leaves_a_prefix(written: tuple[Path, dict[str, list[int]], int], tmp_path: Path) -> None:
    """Cut at any byte, the file opens; every execution stands at one of its commits, and can be replayed there."""
    source, points, size = written
    rng = random.Random()
    seen: set[int] = set()
    for cut in [0, 31, 32, *(rng.randrange(size) for _ in range(CUTS)), size]:
        folder = tmp_path / str(cut)
        shutil.copytree(source, folder, dirs_exist_ok=True)
        os.truncate(folder / "state.db-wal", cut)
        try:
            seen.add(_check(folder, points))
        except Exception as exc:
            raise AssertionError(f"cut at byte {cut} of {size}: {type(exc).__name__}: {exc}") from exc

        shutil.rmtree(folder)

    assert len(seen) > 10, "the cuts did not matter"
    assert max(seen) == sum(found[-1] for found in points.values()), "what was acknowledged is not all there"


def _check(folder: Path, points: dict[str, list[int]]) -> int:
    with closing(sqlite3.connect(folder / "state.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        if db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'durable'").fetchone()[0] == 0:
            return 0

        there = [row[0] for row in db.execute("SELECT execution_id FROM durable")]

    total = 0
    store = SqliteStore(open_control(folder / "state.db", "reader"), "process")
    for name in there:
        stored = store.load(name)
        assert stored.seq == 0 or stored.seq in points[name], f"{name} stands between two commits, at {stored.seq}"
        replay(stored.header, stored.plans, stored.definition, stored.snapshot, stored.batches)
        total += stored.seq

    store.close(1.0)
    with ControlClient(folder / "state.db") as client:
        client.list_executions()

    return total
