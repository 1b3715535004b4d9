"""What flows behind HTTP cost: ``python -m benchmarks.web [--quick]``.

Requests are counted as CPU time of the application alone: called as ASGI, with neither a server nor a client, beside a
bare FastAPI application of the same routes. Streams go through a real uvicorn on loopback; the memory of idle clients
is that of a server process of its own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from benchmarks.harness import Figure, table
from flowdeck import Runtime, TriggerFlow, TriggerFlowRuntimeData
from flowdeck.durable import ExecutionRow
from flowdeck.web import FlowService
from flowdeck.web.access import OPEN
from flowdeck.web.desk import come_to_rest

QUICK = "--quick" in sys.argv
ROUNDS, CALLS = (3, 100) if QUICK else (7, 400)
FIRST_ITEMS = 100 if QUICK else 500
IDLE_CLIENTS = 1_000


def make_three() -> TriggerFlow:
    """Three steps, one value of state."""
    flow = TriggerFlow(name="three")

    async def add(data: TriggerFlowRuntimeData) -> int:
        return int(data.input) + 1

    async def keep(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("n", data.input)

    async def also_add(data: TriggerFlowRuntimeData) -> int:
        return int(data.input) + 1

    flow.to(add).to(also_add).to(keep)
    return flow


def make_late() -> TriggerFlow:
    """Puts the moment of the put on the stream, a while after the start; then waits to be cancelled."""
    flow = TriggerFlow(name="late")

    async def put(data: TriggerFlowRuntimeData) -> None:
        await asyncio.sleep(0.05)
        data.put({"at": time.monotonic()})

    async def ask(data: TriggerFlowRuntimeData) -> Any:
        return await data.async_pause_for(type="approval", payload={}, resume_to="next")

    flow.to(put).to(ask)
    return flow


# -- requests ----------------------------------------------------------------------------------------------------------


class Start(BaseModel):
    input: int
    task_id: str | None = None


def bare() -> FastAPI:
    """The same routes over a dictionary: what FastAPI itself costs."""
    app = FastAPI()
    done: dict[str, dict[str, Any]] = {}

    @app.post("/three/runs")
    async def start(body: Start, wait: float = 10.0) -> dict[str, Any]:
        run = {"execution_id": f"{len(done):032x}", "status": "completed", "result": {"n": body.input + 2}}
        done[run["execution_id"]] = run
        return run

    @app.get("/three/runs/{execution_id}/result")
    async def result(execution_id: str, wait: float = 0.0) -> dict[str, Any]:
        if execution_id not in done:
            raise HTTPException(404)

        return done[execution_id]

    return app


async def call(app: Any, method: str, path: str, body: bytes = b"") -> Any:
    sent: list[dict[str, Any]] = []
    received = iter([{"type": "http.request", "body": body, "more_body": False}])
    headers = [(b"host", b"x"), (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": headers, "server": ("x", 80), "client": ("x", 1), "state": {},
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200, sent
    return json.loads(b"".join(each.get("body", b"") for each in sent[1:]))


async def start_and_result(app: Any) -> None:
    run = await call(app, "POST", "/three/runs", b'{"input": 1}')
    got = await call(app, "GET", f"/three/runs/{run['execution_id']}/result")
    assert got["result"] == {"n": 3}


async def cpu(app: Any) -> list[float]:
    """CPU milliseconds of a start and a result, per round."""
    for _ in range(20):
        await start_and_result(app)

    rounds = []
    for _ in range(ROUNDS):
        gc.collect()
        began = time.process_time()
        for _ in range(CALLS):
            await start_and_result(app)

        rounds.append((time.process_time() - began) / CALLS * 1_000)

    return rounds


async def engine_alone(service: FlowService) -> list[float]:
    """CPU milliseconds of the run itself, per round."""
    flow = service.desk.flows["three"]
    rounds = []
    for _ in range(ROUNDS + 1):
        gc.collect()
        began = time.process_time()
        for _ in range(CALLS):
            run, _ = await service.desk.start(flow, 1, OPEN)
            assert not isinstance(run, ExecutionRow)
            await come_to_rest(run, 10.0)

        rounds.append((time.process_time() - began) / CALLS * 1_000)

    return rounds[1:]


async def requests() -> list[Figure]:
    plain = await cpu(bare())
    floor = statistics.median(plain)
    figures = [_figure("FastAPI's own: start + result", plain)]
    memory = FlowService(make_three(), runtime=Runtime())
    figures.append(_over("start + result, in memory", await cpu(memory.app()), floor, 1.5))
    with tempfile.TemporaryDirectory() as folder:
        stored = FlowService(make_three(), runtime=Runtime(), store=Path(folder) / "store")
        async with stored.lifespan():
            engine = await engine_alone(stored)
            whole = await cpu(stored.app())
            figures.append(_figure("the same run without HTTP, durable (five commits)", engine))
            figures.append(_over("start + result, durable", whole, floor, None))
            name = "start + result, durable, over FastAPI's own and the run's"
            figures.append(_figure(name, [each - floor - statistics.median(engine) for each in whole], 1.5))

    return figures


def _figure(name: str, rounds: list[float], target: float | None = None) -> Figure:
    values = sorted(rounds)
    return Figure(name, statistics.median(values), values[0], values[-1], "ms", target)


def _over(name: str, rounds: list[float], floor: float, target: float | None) -> Figure:
    return _figure(f"{name}, over FastAPI's own", [each - floor for each in rounds], target)


# -- streams -----------------------------------------------------------------------------------------------------------


async def read_until(reader: asyncio.StreamReader, mark: bytes) -> bytes:
    return await asyncio.wait_for(reader.readuntil(mark), 30)


async def request(port: int, head: str, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return reader, writer


async def started(port: int, flow: str) -> str:
    reader, writer = await request(port, f"POST /{flow}/runs?wait=0", b'{"input": 1}')
    head = await read_until(reader, b"\r\n\r\n")
    writer.close()
    return head.lower().partition(b"location: ")[2].split(b"\r\n")[0].decode()


async def first_item(port: int) -> float:
    """Milliseconds from the put to the client that was already there."""
    place = await started(port, "late")
    reader, writer = await request(port, f"GET {place}/events")
    line = (await read_until(reader, b'"at":'), await read_until(reader, b"}"))[1]
    late = time.monotonic() - float(line.rstrip(b"}"))
    writer.close()
    return late * 1_000


async def first_items() -> list[Figure]:
    service = FlowService(make_late(), runtime=Runtime())
    config = uvicorn.Config(service.app(), port=0, log_level="error")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)

    port = server.servers[0].sockets[0].getsockname()[1]
    latencies: list[float] = []
    for _ in range(FIRST_ITEMS // 10):
        latencies += await asyncio.gather(*(first_item(port) for _ in range(10)))

    service.stop()
    server.should_exit = True
    await serving
    latencies.sort()
    at = lambda share: latencies[int(len(latencies) * share)]  # noqa: E731
    return [
        Figure("first SSE item after its put, p50 (wall)", at(0.5), latencies[0], latencies[-1], "ms"),
        Figure("first SSE item after its put, p99 (wall)", at(0.99), latencies[0], latencies[-1], "ms", 50.0),
    ]


def serve() -> None:
    """The server process of the idle clients."""
    FlowService(make_late(), runtime=Runtime()).run(port=int(sys.argv[2]), log_level="error")


def resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


async def idle() -> list[Figure]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not sys.platform.startswith("linux") or hard < IDLE_CLIENTS + 200:
        print(f"idle clients: not measurable here (needs /proc and {IDLE_CLIENTS + 200} open files)")
        return []

    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE_CLIENTS + 200), hard))
    port = 18_700
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.web", "--serve", str(port))
    try:
        for _ in range(200):
            try:
                place = await started(port, "late")
                break
            except OSError:
                await asyncio.sleep(0.05)

        await first_item(port)
        before = resident(process.pid)
        clients = []
        for _ in range(IDLE_CLIENTS // 50):
            made = await asyncio.gather(*(request(port, f"GET {place}/events") for _ in range(50)))
            await asyncio.gather(*(read_until(reader, b"event: waiting") for reader, _ in made))
            clients += made

        await asyncio.sleep(1.0)
        grown = resident(process.pid) - before
        for _, writer in clients:
            writer.close()
    finally:
        process.kill()
        await process.wait()

    return [Figure(f"RSS of {IDLE_CLIENTS:,} idle SSE clients", grown, grown, grown, "MB", 60.0)]


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve()
        return

    figures = asyncio.run(requests())
    figures += asyncio.run(first_items())
    figures += asyncio.run(idle())
    print(table(figures))


if __name__ == "__main__":
    main()
