"""Servers: two over one store, one inside another application, one that is stopped, and clients that do not behave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from tests.web.served_flows import make_bulk, make_quick, make_review
from tests.web.server import following, free_socket, serving, serving_app
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from flowdeck import Runtime
from flowdeck.web import FlowService
from flowdeck.web.serving import bounded_protocol

HTTP = ("h11", "httptools")


@contextlib.contextmanager
def server_process(store: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """``served_flows`` as a process of its own."""
    listening = free_socket()
    port = listening.getsockname()[1]
    listening.close()
    command = [sys.executable, "-m", "tests.web.served_flows", str(store), str(port)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(base + "/openapi.json", timeout=5)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline and process.poll() is None, "the server did not come up"
                time.sleep(0.05)

        yield process, base
    finally:
        process.kill()
        process.wait()


def test_a_second_server_reads_and_answers_what_the_first_runs_and_ctrl_c_ends_open_streams(tmp_path: Path) -> None:
    """Elsewhere: status, questions, answers and starts by key work, following names the owner. Stopping takes < 2 s."""
    store = tmp_path / "store"
    with server_process(store) as (process, first), httpx.Client(base_url=first, timeout=10) as one:
        service = FlowService(make_review(), store=store, runtime=Runtime())
        with serving(service) as second, httpx.Client(base_url=second, timeout=10) as other:
            key = {"idempotency-key": "k"}
            run = one.post("/review/runs", json={"input": "doc"}, headers=key).json()["execution_id"]
            seen = other.get(f"/review/runs/{run}").json()
            assert (seen["status"], [each["interrupt_id"] for each in seen["interrupts"]]) == ("waiting", ["approve"])
            assert seen["interrupts"] == one.get(f"/review/runs/{run}/interrupts").json()
            assert [each["execution_id"] for each in other.get("/review/interrupts").json()] == [run]
            again = other.post("/review/runs", json={"input": "doc"}, headers=key)
            assert (again.status_code, again.json()["execution_id"]) == (202, run)
            changed = other.post("/review/runs", json={"input": "another"}, headers=key)
            assert (changed.status_code, changed.json()["title"]) == (422, "Idempotency key used before")
            refused = other.get(f"/review/runs/{run}/events")
            assert (refused.status_code, refused.json()["title"]) == (409, "Run elsewhere")
            assert refused.json()["owner"] in refused.json()["detail"]
            place = f"/review/runs/{run}/interrupts/approve"
            assert other.post(place, json={"value": 3}).status_code == 422
            assert other.post(place, json={"value": {"ok": True}}).json()["outcome"] == "applied"
            assert one.post(place, json={"value": {"ok": True}}).status_code == 409
            assert one.get(f"/review/runs/{run}/result?wait=5").status_code == 200
            ended = other.get(f"/review/runs/{run}/result?wait=5").json()
            assert other.post("/review/runs", json={"input": "another"}, headers=key).status_code == 422
            assert ended["result"] == {"answer": {"ok": True}}
            with following(other, f"/review/runs/{run}/events") as events:
                assert [event.event for event in events] == ["message"] * 4 + ["closed"]

        waiting = one.post("/review/runs", json={"input": "doc"}).json()["execution_id"]
        with (
            following(one, f"/review/runs/{waiting}/events") as events,
            connect(first.replace("http", "ws", 1) + "/socket") as ws,
        ):
            assert [next(events).event for _ in range(3)][-1] == "waiting"
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert list(events) == []
            with pytest.raises(ConnectionClosed) as closed:
                ws.recv(5)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
            assert process.wait(10) == 0
            assert time.monotonic() - began < 2.0


def test_a_key_that_comes_again_needs_only_how_the_run_began(tmp_path: Path) -> None:
    """Whatever has become of its inputs; where that cannot be read either, the key gives the run without a check."""
    store = tmp_path / "store"
    first, second = (FlowService(make_review(), store=store, runtime=Runtime()) for _ in range(2))
    key = {"idempotency-key": "k"}
    with serving(first) as base:
        run = httpx.post(f"{base}/review/runs?wait=5", json={"input": "doc"}, headers=key).json()["execution_id"]

    def spoil(table: str) -> None:
        with contextlib.closing(sqlite3.connect(store / "state.db")) as connection, connection:
            assert connection.execute(f"UPDATE {table} SET body = x'c1'").rowcount

    with serving(second) as base, httpx.Client(base_url=base, timeout=10) as client:
        spoil("inputs")
        again = client.post("/review/runs", json={"input": "doc"}, headers=key)
        assert (again.status_code, again.json()["execution_id"]) == (202, run)
        assert client.post("/review/runs", json={"input": "another"}, headers=key).status_code == 422
        spoil("headers")
        again = client.post("/review/runs", json={"input": "another"}, headers=key)
        assert (again.status_code, again.json()["execution_id"]) == (202, run)


def test_a_run_that_was_taken_over_is_not_told_as_closed(tmp_path: Path) -> None:
    """Who follows it is told to connect again, and finds it where it is now; the answer that was given counts."""
    service = FlowService(make_review(), store=tmp_path / "store", runtime=Runtime())
    with serving(service) as base, httpx.Client(base_url=base, timeout=10) as client:
        run = client.post("/review/runs", json={"input": "doc"}).json()["execution_id"]
        with following(client, f"/review/runs/{run}/events") as events:
            assert [next(events).event for _ in range(3)][-1] == "waiting"
            with contextlib.closing(sqlite3.connect(tmp_path / "store" / "state.db")) as other, other:
                other.execute("UPDATE durable SET token = token + 1")  # as a claim of another process does
                other.execute("UPDATE executions SET writer = 'gone'")

            place = f"/review/runs/{run}/interrupts/approve"
            assert client.post(place, json={"value": {"ok": True}}).status_code in (200, 202)
            seen = list(events)
            assert seen[-1].event == "dropped" and "taken over" in seen[-1].data["reason"]

        until = time.monotonic() + 10
        while client.get(f"/review/runs/{run}").json()["status"] != "completed" and time.monotonic() < until:
            time.sleep(0.05)

        with following(client, f"/review/runs/{run}/events", seen[-1].id) as events:
            assert [event.event for event in events] == ["reset", "message", "message", "closed"]


def test_a_run_that_a_living_process_took_over_ends_its_streams_here(tmp_path: Path) -> None:
    """The host looks after each beat; who comes back is told where the run is, and can still see and answer it."""
    service, other = FlowService(make_review(), store=tmp_path / "store", runtime=Runtime()), Runtime()
    with serving(service) as base, httpx.Client(base_url=base, timeout=10) as client, other.use():
        holder = other.use_store(tmp_path / "store")
        run = client.post("/review/runs", json={"input": "doc"}).json()["execution_id"]
        with following(client, f"/review/runs/{run}/events") as events:
            assert [next(events).event for _ in range(3)][-1] == "waiting"
            holder.store.claim(run, force=True)
            service.desk._durable.host.look_around()
            assert [event.event for event in events] == ["dropped"]

        refused = client.get(f"/review/runs/{run}/events")
        assert (refused.status_code, refused.json()["owner"]) == (409, holder.store.owner)
        assert client.get(f"/review/runs/{run}").json()["interrupts"][0]["interrupt_id"] == "approve"
        holder.close(5.0)


def test_a_router_below_a_prefix_opens_its_store_and_tells_where_the_run_is(tmp_path: Path) -> None:
    """``include_router`` is all it takes; a mounted router whose lifespan nobody enters says so."""
    service = FlowService(make_quick(), store=tmp_path / "store", runtime=Runtime())
    app = FastAPI(lifespan=service.lifespan)
    app.include_router(service.router, prefix="/flows")
    with serving_app(app) as base, httpx.Client(base_url=base, timeout=10) as client:
        started = client.post("/flows/quick/runs", json={"input": 2})
        assert started.json()["result"] == {"n": 2}
        assert client.get(started.headers["location"]).json() == started.json()

    closed = FastAPI()
    closed.mount("/flows", FlowService(make_quick(), store=tmp_path / "store", runtime=Runtime()).app())
    with serving_app(closed) as base:
        refused = httpx.post(base + "/flows/quick/runs", json={"input": 2})
        assert refused.status_code == 503 and "lifespan" in refused.json()["detail"]


def test_a_request_that_waits_for_a_run_does_not_hold_up_the_end() -> None:
    """It is answered with where the run stands."""
    service = FlowService(make_quick(), runtime=Runtime())
    with ThreadPoolExecutor() as pool, serving(service) as base:
        waiting = pool.submit(httpx.post, base + "/quick/runs?wait=60", json={"input": "hang"}, timeout=10)
        runs = service.desk.flows["quick"]._executions
        deadline = time.monotonic() + 10
        while not (found := list(runs.values())) or not found[0].stream._waiters:
            assert time.monotonic() < deadline
            time.sleep(0.01)

        loop = found[0]._driver.loop
        assert loop is not None
        loop.call_soon_threadsafe(service.stop)
        assert (waiting.result(5).status_code, waiting.result().json()["status"]) == (202, "running")


# -- clients that do not behave ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def bounded(service: FlowService, http: str, unread: float, headers: float = 10.0) -> Iterator[int]:
    """A server as ``FlowService.run`` makes it, with short times; gives its port."""
    base = uvicorn.Config(service.app(), http=http)
    base.load()
    protocol = bounded_protocol(unread, headers, base.http_protocol_class)
    with serving_app(service.app(), send_buffer=32_768, http=protocol) as address:
        yield int(address.rpartition(":")[2])


@pytest.mark.parametrize("http", HTTP)
def test_a_client_that_does_not_finish_its_headers_is_cut_off_and_others_are_served(http: str) -> None:
    with bounded(FlowService(make_quick(), runtime=Runtime()), http, 1.0, headers=0.4) as port:
        slow = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(20)]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for each in slow:
                each.sendall(b"POST /quick/runs HTTP/1.1\r\nHost: x\r\nX-Slow: ")

            assert client.post("/quick/runs", json={"input": 1}).status_code == 200
            for each in slow:
                with contextlib.suppress(ConnectionError):
                    while each.recv(1024):
                        pass

                each.close()

            # one that has been served stays welcome
            assert client.post("/quick/runs", json={"input": 1}).status_code == 200


def test_a_body_that_comes_too_slowly_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowdeck.web.bodies.BODY_SECONDS", 0.3)
    with (
        serving(FlowService(make_quick(), runtime=Runtime())) as base,
        socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), 5) as slow,
    ):
        slow.sendall(b"POST /quick/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")


def unread_stream(port: int, path: str) -> socket.socket:
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    slow.settimeout(10)
    slow.connect(("127.0.0.1", port))
    slow.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return slow


def wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


def rest_of(slow: socket.socket) -> bytes:
    content = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := slow.recv(65_536):
            content += part

    return bytes(content)


@pytest.mark.parametrize("http", HTTP)
def test_slow_readers_are_dropped_with_a_reason_and_take_no_memory(http: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is held for who does not read; a late one finds out why it was dropped, and goes on where it was."""
    service = FlowService(make_bulk(), runtime=Runtime(), stall=0.5)
    with bounded(service, http, 1.6) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        run = client.post("/bulk/runs?wait=20", json={"input": 3_000}).json()["execution_id"]
        path = f"/bulk/runs/{run}/events"
        before = resident()
        with caplog.at_level(logging.INFO, "flowdeck.web"):
            slow = [unread_stream(port, path) for _ in range(20)]
            late = unread_stream(port, path)
            wait_for(lambda: caplog.text.count("was let go") == 21)

        told = rest_of(late)
        assert b"event: dropped" in told and b"nothing was read for 0.5 s" in told
        assert b"event: closed" not in told
        grown = resident() - before
        assert grown < 20 * 1_000_000, f"{grown:,} bytes for 20 readers of 3 MB each"
        last = [line[4:] for line in told.decode().split("\n") if line.startswith("id: ")][-1]
        with following(client, path, last) as events:
            rest = [event.id for event in events]
        assert rest[0] == f"1:{int(last.partition(':')[2]) + 1}" and rest[-1] == "1:3000:end"
        until = time.monotonic() + 5
        while service.desk.flows["bulk"]._executions[run].stream._waiters and time.monotonic() < until:
            time.sleep(0.05)
        for each in slow:
            assert b"event: closed" not in rest_of(each)
            each.close()


def test_a_websocket_that_nobody_reads_is_closed_with_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    """What is held for it is bounded; the reason is the last thing it finds, and its position is good for going on."""
    service = FlowService(make_bulk(), runtime=Runtime(), stall=0.5)
    with serving_app(service.app(), send_buffer=32_768) as base, httpx.Client(base_url=base, timeout=20) as client:
        run = client.post("/bulk/runs?wait=20", json={"input": 3_000}).json()["execution_id"]
        address = base.replace("http", "ws", 1) + "/socket"
        follow = {"id": 1, "op": "follow", "flow": "bulk", "execution_id": run}
        frames: list[dict[str, Any]] = []
        slow = socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        with (
            caplog.at_level(logging.INFO, "flowdeck.web"),
            connect(address, sock=slow, max_queue=1, compression=None, close_timeout=2) as ws,
        ):
            ws.send(json.dumps(follow))
            wait_for(lambda: "was let go" in caplog.text)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    frames.append(json.loads(ws.recv(5)))

        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
        assert "nothing was read" in closed.value.rcvd.reason
        assert 0 < len(frames) < 3_000
        with connect(address) as ws:
            ws.send(json.dumps({**follow, "after": frames[-1]["position"]}))
            while frames[-1]["type"] != "closed":
                frames.append(json.loads(ws.recv(5)))

        assert [each["data"]["n"] for each in frames if each["type"] == "item"] == list(range(3_000))


def resident() -> int:
    """Bytes of memory this process has."""
    import resource

    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_clients_that_come_and_go_leave_nothing_behind() -> None:
    """After 200 visits of a waiting run there are no more tasks and waiters than before."""
    service = FlowService(make_review(), runtime=Runtime())
    with serving(service) as base:

        async def visit() -> tuple[int, int]:
            async with httpx.AsyncClient(base_url=base, timeout=10) as client:
                started = await client.post("/review/runs", json={"input": "doc"})
                run = started.json()["execution_id"]
                execution = service.desk.flows["review"]._executions[run]
                loop = execution._driver.loop
                assert loop is not None

                async def one() -> None:
                    async with client.stream("GET", f"/review/runs/{run}/events") as response:
                        async for line in response.aiter_lines():
                            if line == "event: waiting":
                                return

                before = len(asyncio.all_tasks(loop))
                for _ in range(10):
                    await asyncio.gather(*(one() for _ in range(20)))

                for _ in range(100):
                    if len(asyncio.all_tasks(loop)) <= before and not execution.stream._waiters:
                        break
                    await asyncio.sleep(0.05)

                return len(asyncio.all_tasks(loop)) - before, len(execution.stream._waiters)

        assert asyncio.run(visit()) == (0, 0)


def test_a_failed_branch_does_not_end_the_stream_while_another_asks() -> None:
    """``failed`` is the end; until then the other branch's question stays open, and the failure is told with it."""
    service = FlowService(make_two_questions(), runtime=Runtime())
    with serving(service) as base, httpx.Client(base_url=base, timeout=10) as client:
        run = client.post("/two/runs", json={"input": 1}).json()["execution_id"]
        with following(client, f"/two/runs/{run}/events") as events:
            assert [next(events).event for _ in range(3)][-1] == "waiting"
            client.post(f"/two/runs/{run}/interrupts/a", json={"value": "boom"})
            seen = []
            for event in events:
                seen.append(event)
                if event.event != "message":
                    break

            if seen[-1].event == "waiting":
                assert seen[-1].data["interrupt_ids"] == ["b"] and "error" in seen[-1].data
                client.post(f"/two/runs/{run}/interrupts/b", json={"value": 1})
                seen += list(events)

            assert seen[-1].event == "failed"

        assert client.get(f"/two/runs/{run}/result?wait=5").status_code == 500


def make_two_questions() -> Any:
    from flowdeck import TriggerFlow, TriggerFlowRuntimeData

    flow = TriggerFlow(name="two")

    def asks(name: str) -> Any:
        async def ask(data: TriggerFlowRuntimeData) -> Any:
            return await data.async_pause_for(type="q", payload={}, resume_to="next", interrupt_id=name)

        ask.__name__ = f"ask_{name}"
        return ask

    async def use(data: TriggerFlowRuntimeData) -> None:
        if data.input == "boom":
            raise RuntimeError("no")

    flow.to(asks("a")).to(use)
    flow.to(asks("b")).to(use)
    return flow


def test_json_of_frames_is_one_line() -> None:
    from flowdeck.web.feed import encode_item

    assert b"\n" not in encode_item({"text": "a\nb\r\u2028"}) and json.loads(encode_item({1: "x"})) == {"1": "x"}
