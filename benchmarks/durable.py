"""What durability costs: durable steps, pauses and bytes on the disk, beside a bare group-commit loop and peers.

Run it with ``python -m benchmarks.durable``. Peers run in interpreters of their own, when they are there
(``benchmarks/.envs/<peer>``, see ``benchmarks/peers``): LangGraph with its AsyncSqliteSaver, DBOS with SQLite. Rates
are wall clock, because they wait for the disk; everything of one run happens on the same disk within a minute, the bare
limit before and after. Costs are CPU time of all threads.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sqlite3
import statistics
import string
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, table
from flowdeck import Runtime
from flowdeck.durable.recovery import restore
from flowdeck.durable.sqlite import SqliteStore
from flowdeck.durable.using import DurableStore
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow

CONCURRENT = 32
STEPS = 10
SECONDS = 3.0
PARKED = 10_000
ENVS = Path(__file__).parent / ".envs"


@contextmanager
def durable(durability: str = "full") -> Iterator[tuple[Runtime, DurableStore, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(services=Services(center=EventCenter()))
        with runtime.use_store(Path(folder) / "store", durability=durability) as used:
            yield runtime, used, Path(folder) / "store"


def chain(steps: int = STEPS, size: int = 0) -> TriggerFlow:
    """A chain; with ``size`` each step keeps a text of so many bytes in the state."""
    flow = TriggerFlow(name=f"chain-{steps}-{size}")
    at: Any = flow
    for number in range(steps):

        async def step(data: Any, number: int = number) -> int:
            if size:
                await data.async_set_state(f"part{number}", text(size))

            return number

        at = at.to((f"s{number}", step))

    return flow


def text(size: int) -> str:
    return "".join(random.choices(string.ascii_letters + " ", k=size))


def asking() -> TriggerFlow:
    flow = TriggerFlow(name="asking")
    flow.to(("ask", lambda data: data.pause_for(type="approval", payload={"q": "ok?"}))).to(("after", lambda data: 1))
    return flow


# -- rates -----------------------------------------------------------------------------------------------------------


def steps_per_second(durability: str, concurrent: int) -> tuple[float, float]:
    """Return durable steps per second, and CPU microseconds of one."""

    async def run() -> tuple[float, float]:
        flow = chain()
        with durable(durability) as (runtime, _, _):

            async def work(until: float) -> int:
                done = 0
                while time.monotonic() < until:
                    await flow.create_execution(services=runtime.services, auto_close_timeout=0.0).async_start(1)
                    done += STEPS

                return done

            await work(0)
            await asyncio.gather(*(work(time.monotonic() + 0.2) for _ in range(concurrent)))
            gc.collect()
            cpu, begun = time.process_time(), time.monotonic()
            counts = await asyncio.gather(*(work(begun + SECONDS) for _ in range(concurrent)))
            return sum(counts) / (time.monotonic() - begun), (time.process_time() - cpu) / sum(counts) * 1e6

    return asyncio.run(run())


def bare_rows_per_second(batch: int, size: int = 60) -> float:
    """SQLite alone: a fence and a row for each step, ``batch`` steps in a transaction, FULL."""
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(f"{folder}/bare.db")) as db:
        db.isolation_level = None
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE fence (id TEXT PRIMARY KEY, token INTEGER, seq INTEGER)")
        db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, name TEXT, seq INTEGER, body BLOB)")
        names = [f"{n:032x}" for n in range(batch)]
        db.executemany("INSERT INTO fence VALUES (?, 1, 0)", [(name,) for name in names])
        body = os.urandom(size)
        rows, begun, seq = 0, time.monotonic(), 0
        while time.monotonic() - begun < SECONDS / 2:
            db.execute("BEGIN IMMEDIATE")
            for name in names:
                db.execute("UPDATE fence SET seq = ? WHERE id = ? AND token = 1 AND seq = ?", (seq + 1, name, seq))
                db.execute("INSERT INTO log (name, seq, body) VALUES (?, ?, ?)", (name, seq, body))

            db.execute("COMMIT")
            rows += batch
            seq += 1

        return rows / (time.monotonic() - begun)


def peer(name: str, script: str) -> dict[str, float] | None:
    """Run a script in a peer's interpreter; ``None`` when the peer is not there, or fails."""
    python = ENVS / name / "bin" / "python"
    if not python.exists():
        return None

    done = subprocess.run(
        [str(python), "-c", script, str(STEPS), str(CONCURRENT), str(SECONDS)],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "LANGSMITH_TRACING": "false"},
        cwd=tempfile.gettempdir(),
    )
    try:
        found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return found
    except (IndexError, ValueError):
        return None


LANGGRAPH = """
import asyncio, json, sys, tempfile, time, uuid
from typing import TypedDict
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

steps, concurrent, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
class S(TypedDict): n: int
def build(saver):
    g = StateGraph(S)
    for i in range(steps):
        async def s(state, i=i): return {"n": i}
        g.add_node(f"s{i}", s)
    g.add_edge(START, "s0")
    for i in range(steps - 1): g.add_edge(f"s{i}", f"s{i+1}")
    g.add_edge(f"s{steps-1}", END)
    return g.compile(checkpointer=saver)
async def main():
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncSqliteSaver.from_conn_string(folder + "/c.db") as saver:
            await saver.conn.execute("PRAGMA synchronous = FULL")
            graph = build(saver)
            async def work(until):
                done = 0
                while time.monotonic() < until:
                    config = {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 100}
                    await graph.ainvoke({"n": 0}, config, durability="sync")
                    done += steps
                return done
            await work(time.monotonic() + 0.2)
            begun = time.monotonic()
            counts = await asyncio.gather(*(work(begun + seconds) for _ in range(concurrent)))
            print(json.dumps({"rate": sum(counts) / (time.monotonic() - begun)}))
asyncio.run(main())
"""

DBOS = """
import asyncio, json, os, sys, tempfile, time
from dbos import DBOS
steps, concurrent, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
folder = tempfile.mkdtemp()
DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{folder}/d.db", "log_level": "ERROR"})
@DBOS.step()
async def step(n): return n
@DBOS.workflow()
async def chain():
    for i in range(steps): await step(i)
async def main():
    DBOS.launch()
    async def work(until):
        done = 0
        while time.monotonic() < until:
            await chain(); done += steps
        return done
    await work(time.monotonic() + 0.2)
    begun = time.monotonic()
    counts = await asyncio.gather(*(work(begun + seconds) for _ in range(concurrent)))
    print(json.dumps({"rate": sum(counts) / (time.monotonic() - begun)}), flush=True)
    os._exit(0)
asyncio.run(main())
"""


# -- costs -----------------------------------------------------------------------------------------------------------


def pause_and_resume_us(durability: str = "full", rounds: int = 7, each: int = 100, pause: bool = True) -> list[float]:
    """Create, start, pause, make anew from the store, answer, end, with five commits and a claim: CPU microseconds of
    all threads, per execution. Without the ``pause`` the same two steps in one go, with four commits."""

    async def run() -> list[float]:
        flow = asking() if pause else chain(2)
        out = []
        with durable(durability) as (runtime, used, _):
            store = used.store
            assert isinstance(store, SqliteStore)

            async def once() -> None:
                first = flow.create_execution(services=runtime.services, auto_close=False)
                await first.async_start(1)
                if not pause:
                    await first.async_close()
                    return

                claim = await store.claim_soon(first.id)
                again = restore(flow, claim, runtime.services, {})
                await again.async_continue_with(next(iter(again._core.open)), True, actor="ann")
                await again.async_close()

            for _ in range(20):
                await once()

            for _ in range(rounds):
                gc.collect()
                begun = time.process_time()
                for _ in range(each // 10):
                    await asyncio.gather(*(once() for _ in range(10)))

                out.append((time.process_time() - begun) / each * 1e6)

        return out

    return asyncio.run(run())


def bare_commits_us(rounds: int = 7, each: int = 100, commits: int = 5, size: int = 250) -> list[float]:
    """The same number of commits of the same size, ten in a transaction, FULL: CPU microseconds per execution."""
    out = []
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(f"{folder}/bare.db")) as db:
        db.isolation_level = None
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, body BLOB)")
        body = os.urandom(size)
        for _ in range(rounds):
            begun = time.process_time()
            for _ in range(each * commits // 10):
                db.execute("BEGIN IMMEDIATE")
                for _ in range(10):
                    db.execute("INSERT INTO log (body) VALUES (?)", (body,))

                db.execute("COMMIT")

            out.append((time.process_time() - begun) / each * 1e6)

    return out


def disk_ratio() -> float:
    """``state.db`` after executions of ten steps that keep 2 kB each, over their final states."""

    async def run(runtime: Runtime) -> None:
        flow = chain(10, 2_000)
        for _ in range(10):
            await asyncio.gather(
                *(
                    flow.create_execution(services=runtime.services, auto_close_timeout=0.0).async_start(1)
                    for _ in range(10)
                )
            )

    with durable("process") as (runtime, used, folder):
        asyncio.run(run(runtime))
        used.flush()
        return _checkpointed(folder) / (100 * 10 * 2_000)


def parked_bytes() -> tuple[float, float]:
    """``state.db`` over 10,000 parked executions, and what each holds in memory, in bytes."""

    async def run(runtime: Runtime, used: DurableStore, folder: Path) -> tuple[float, float]:
        flow = asking()

        async def one() -> None:
            await flow.create_execution(services=runtime.services, auto_close=False).async_start(1)

        for _ in range(PARKED // 100):
            await asyncio.gather(*(one() for _ in range(100)))

        used.flush()
        before = _rss()
        gc.collect()
        assert used.host is not None
        held = [h for h in used.host.hosted.values() if h.weak() is not None]
        print(f"  {len(used.host.hosted)} parked, {len(held)} in memory, {len(asyncio.all_tasks())} task(s)")
        return _checkpointed(folder) / PARKED, (before - start) / PARKED

    start = _rss()
    with durable("process") as (runtime, used, folder):
        return asyncio.run(run(runtime, used, folder))


def _rss() -> int:
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else ():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024

    return 0


def _checkpointed(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return (folder / "state.db").stat().st_size


def rate(name: str, value: float, target: float | None = None, limit: float | None = None) -> Figure:
    return Figure(name, value, value, value, "/s", target, True, limit)


def cost(name: str, values: list[float], target: float | None = None, limit: float | None = None) -> Figure:
    return Figure(name, statistics.median(values), min(values), max(values), "us", target, False, limit)


def main() -> None:
    figures: list[Figure] = []
    bare = bare_rows_per_second(CONCURRENT)
    ours, cpu = steps_per_second("full", CONCURRENT)
    bare = max(bare, bare_rows_per_second(CONCURRENT))
    figures.append(rate("durable steps, FULL, 32 concurrent", ours, 3_000, bare))
    figures.append(cost("  CPU of one", [cpu]))
    figures.append(
        rate("durable steps, FULL, one at a time", steps_per_second("full", 1)[0], None, bare_rows_per_second(1))
    )
    figures.append(rate("durable steps, process, 32 concurrent", steps_per_second("process", CONCURRENT)[0]))
    for name, script in (("langgraph", LANGGRAPH), ("dbos", DBOS)):
        found = peer(name, script)
        if found is not None:
            figures.append(rate(f"{name}, its SQLite, 32 concurrent", found["rate"]))
            figures.append(Figure(f"  Flowdeck over {name}", ours / found["rate"], 0, 0, "x", 10, True))

    bare_us = bare_commits_us()
    figures.append(
        cost("durable pause, fresh load, resume, FULL", pause_and_resume_us(), 400, statistics.median(bare_us))
    )
    figures.append(cost("  the same run without the pause", pause_and_resume_us(pause=False)))
    figures.append(Figure("state.db over 10 steps x 2 kB", disk_ratio(), 0, 0, "x", 2.0))
    disk, memory = parked_bytes()
    figures.append(Figure("state.db per parked execution", disk, 0, 0, "B", 2_000))
    figures.append(Figure("memory per parked execution", memory, 0, 0, "B", 4_000))
    print(table(figures))


if __name__ == "__main__":
    main()
