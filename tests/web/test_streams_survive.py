"""Event streams through random disconnects and a server that is killed: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.web.server import events_of, free_socket

ITEMS = 80


class Server:
    """A server process on a port of its own, killed and started again over one store."""

    def __init__(self, store: Path) -> None:
        listening = free_socket()
        self.port = listening.getsockname()[1]
        listening.close()
        self.store = store
        self.base = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.web.served_flows", str(self.store), str(self.port)]
        self.process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(self.base + "/openapi.json", timeout=5)
                return
            except httpx.TransportError:
                assert time.monotonic() < deadline and self.process.poll() is None, "the server did not come up"
                time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Reader:
    """One client that follows a run to its end, through whatever happens to its connections."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.numbers: list[int] = []
        self.last: str | None = None
        self.connections = 0
        self.ended = ""

    async def follow(self, client: httpx.AsyncClient, path: str) -> None:
        while not self.ended:
            headers = {} if self.last is None else {"last-event-id": self.last}
            self.connections += 1
            try:
                async with client.stream("GET", path, headers=headers) as response:
                    assert response.status_code == 200, await response.aread()
                    await self._read(response)
            except httpx.TransportError:
                await asyncio.sleep(0.05 + 0.1 * self.chance.random())

    async def _read(self, response: httpx.Response) -> None:
        block: list[str] = []
        async for line in response.aiter_lines():
            block.append(line)
            if line:
                continue

            for event in events_of(iter(block)):
                if event.event == "message":
                    self.numbers.append(event.data["n"])

                self.last = event.id
                if event.event in ("closed", "failed"):
                    self.ended = event.event
                    return

            block = []
            if self.chance.random() < 0.02:
                return


async def follow_all(server: Server, clients: int, kills: int) -> list[Reader]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.base, limits=limits, timeout=30) as client:
        started = await client.post("/counter/runs?wait=0", json={"input": ITEMS})
        path = f"/counter/runs/{started.json()['execution_id']}/events"
        readers = [Reader(seed) for seed in range(clients)]
        work = asyncio.gather(*(reader.follow(client, path) for reader in readers))
        for kill in range(1, kills + 1):
            while sum(len(reader.numbers) >= ITEMS * kill // (kills + 2) for reader in readers) < clients // 2:
                assert not work.done(), work
                await asyncio.sleep(0.01)

            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

        await asyncio.wait_for(work, 600)
        return readers


def run_it(store: Path, clients: int, kills: int) -> None:
    server = Server(store)
    server.start()
    try:
        readers = asyncio.run(follow_all(server, clients, kills))
    finally:
        server.kill()

    assert {reader.ended for reader in readers} == {"closed"}
    wrong = [reader.numbers for reader in readers if reader.numbers != list(range(ITEMS))]
    assert wrong == [], f"{len(wrong)} of {clients} readers, e.g. {wrong[0]}"
    cut = sum(reader.connections - 1 for reader in readers)
    assert cut >= clients // 2, f"only {cut} connections were cut; half of the clients were reading when it was killed"


def test_fifty_readers_lose_and_repeat_nothing_over_disconnects_and_a_killed_server(tmp_path: Path) -> None:
    run_it(tmp_path / "store", 50, 1)


@pytest.mark.slow
def test_two_thousand_readers_lose_and_repeat_nothing(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5_000:
        pytest.skip(f"needs 5,000 open files; this process may have {hard} (ulimit -n)")

    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5_000), hard))
    run_it(tmp_path / "store", 2_000, 2)
