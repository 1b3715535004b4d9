"""Who starts work when nobody asks: each owner opens a task once, and makes up for a message that was lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from apscheduler.triggers.date import DateTrigger
from examples.proactive.chat import Chat, make_callback
from examples.proactive.chat_server import make_chat_server
from examples.proactive.flow import compensation, report
from examples.proactive.heartbeat import GIVE_UP_AFTER, REMIND_AFTER, beat
from examples.proactive.office import Office, Task
from examples.proactive.polling import poll_once
from examples.proactive.scheduler import report_of_today, schedule
from examples.proactive.webhook import make_app
from examples.proactive.worker import LEASE, Queue, work_once

from flowdeck import Runtime
from flowdeck.errors import InterruptError
from flowdeck.web.webhooks import sign_standard

SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def stored(tmp_path: Path) -> Iterator[None]:
    runtime = Runtime()
    for flow in (report, compensation):  # the runs of another test are not ours
        for execution in list(flow._executions):
            flow.remove_execution(execution)

    with runtime.use():
        used = runtime.use_store(tmp_path / "store", durability="process")
        yield
        used.close(5.0)


class Channel:
    """Takes messages, unless it is down."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.down = False

    async def tell(self, task: Task, kind: str) -> None:
        if self.down:
            raise ConnectionError("down")

        self.said.append((task.task_id, kind if kind == "reminder" else task.status))


class Desk:
    """An office with a channel and a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.channel = Channel()
        self.now = time.time()
        self.office = Office(path / "tasks.db", self.channel.tell, lambda: self.now)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_scheduler_writes_one_report_a_day_and_tells_late_what_was_lost(desk: Desk) -> None:
    desk.channel.down = True
    scheduler = schedule(desk.office, DateTrigger(datetime.now()))
    scheduler.start()
    task_id = f"daily-{date.today().isoformat()}"
    for _ in range(200):
        if (task := desk.office.task(task_id)) is not None and task.status == "waiting":
            break
        await asyncio.sleep(0.02)

    scheduler.shutdown()
    assert desk.channel.said == []
    desk.channel.down = False
    await report_of_today(desk.office)
    assert desk.channel.said == [(task_id, "waiting")]
    assert len(desk.office.tasks()) == 1 and len(report._executions) == 1


async def test_polling_opens_each_record_once_and_does_not_run_ahead(desk: Desk) -> None:
    records = [{"number": n, "topic": f"t{n}"} for n in range(1, 4)]

    async def fetch(after: int) -> list[dict[str, Any]]:
        return [each for each in records if each["number"] > after]

    desk.channel.down = True
    assert await poll_once(desk.office, fetch) == 3
    desk.channel.down = False
    unbegun = "INSERT INTO tasks (task_id, topic, status, changed) VALUES ('record-00000004', 't4', 'new', 0)"
    desk.office._db.execute(unbegun)  # by a process that died then
    assert await poll_once(desk.office, fetch) == 0
    assert sorted(desk.channel.said) == [(f"record-{n:08}", "waiting") for n in (1, 2, 3, 4)]


async def test_a_queue_gives_the_job_of_a_dead_worker_to_the_next_and_it_is_done_once(
    desk: Desk, tmp_path: Path
) -> None:
    queue = Queue(tmp_path / "queue.db")
    job = queue.put("prices")
    assert queue.take(desk.now) == (job, "prices")  # by a worker that dies now
    assert not await work_once(desk.office, queue)
    desk.now += LEASE + 1
    desk.channel.down = True
    assert await work_once(desk.office, queue)
    desk.channel.down = False
    assert not await work_once(desk.office, queue) and queue.dead() == []
    assert desk.channel.said == [(job, "waiting")]


async def test_a_heartbeat_reminds_once_then_gives_up_and_undoes(desk: Desk) -> None:
    await desk.office.open_task("late", "prices")
    desk.now += REMIND_AFTER
    desk.channel.down = True
    await beat(desk.office)
    desk.channel.down = False
    for _ in range(2):
        await beat(desk.office)
    assert desk.channel.said == [("late", "waiting"), ("late", "reminder")]
    desk.now += GIVE_UP_AFTER
    desk.channel.down = True
    await beat(desk.office)
    desk.channel.down = False
    await beat(desk.office)
    assert desk.channel.said[2:] == [("late", "cancelled")]
    undone = list(compensation._executions.values())
    assert [each.result.get_state()["withdrawn"] for each in undone] == ["late"]
    with pytest.raises(InterruptError):
        await desk.office.continue_with("late", "publish", {"publish": True})


async def test_a_task_whose_opener_died_is_begun_by_the_next_and_a_new_office_continues_it(
    desk: Desk, tmp_path: Path
) -> None:
    desk.office._db.execute("INSERT INTO tasks (task_id, topic, status, changed) VALUES ('t1', 'prices', 'new', 0)")
    assert not await desk.office.open_task("t1", "prices")
    other = Office(tmp_path / "tasks.db", desk.channel.tell)
    await other.continue_with("t1", "publish", {"publish": True})
    task = other.task("t1")
    assert task is not None and (task.status, task.result) == ("completed", "workspace://reports/prices.md")
    assert desk.channel.said == [("t1", "waiting"), ("t1", "completed")]


async def test_of_two_answers_one_counts_whenever_the_second_comes(desk: Desk) -> None:
    """Also while the run that the first one continued is being closed."""
    for turns in range(0, 60, 6):
        task_id = f"t{turns}"
        await desk.office.open_task(task_id, "prices")
        first = asyncio.create_task(desk.office.continue_with(task_id, "publish", {"publish": True}))
        for _ in range(turns):
            await asyncio.sleep(0)
        second = desk.office.continue_with(task_id, "publish", {"publish": False})
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert sorted(map(type, outcomes), key=str) == [type(None), InterruptError], (turns, outcomes)
        assert desk.channel.said[-2:] == [(task_id, "waiting"), (task_id, "completed")]


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The application on this loop, where its runs live."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    server.config.load()
    serving = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


async def test_a_signed_delivery_opens_one_task_however_often_it_comes(desk: Desk) -> None:
    body = json.dumps({"order": "o-17"}).encode()
    stamp = str(int(time.time()))
    signed = {
        "webhook-id": "d1", "webhook-timestamp": stamp, "webhook-signature": sign_standard(SECRET, "d1", stamp, body)
    }  # fmt: skip
    desk.channel.down = True
    async with served(make_app(desk.office, SECRET)) as base, httpx.AsyncClient(base_url=base) as client:
        assert (await client.post("/hooks/orders", content=body)).status_code == 401
        for _ in range(2):
            assert (await client.post("/hooks/orders", content=body, headers=signed)).json() == {"task_id": "order-d1"}
        desk.channel.down = False
        assert (await client.get("/tasks/order-d1")).json()["status"] == "waiting"
        assert (await client.get("/tasks/nope")).status_code == 404

    assert desk.channel.said == [("order-d1", "waiting")]
    task = desk.office.task("order-d1")
    assert task is not None and task.tenant_id == "orders"


async def test_a_button_in_a_chat_continues_the_run_and_a_second_press_is_told_so(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        office = Office(tmp_path / "tasks.db", lambda task, kind: chat.tell(task, kind))
        callback = await stack.enter_async_context(served(make_callback(office)))
        server = await stack.enter_async_context(served(make_chat_server(callback)))
        chat = Chat(server)
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=server))
        await client.post("/down?is_down=true")
        await office.open_task("chat", "prices")
        assert (await client.get("/messages")).json() == []
        await client.post("/down?is_down=false")
        await office.catch_up()
        message = (await client.get("/messages")).json()[0]
        assert [button["label"] for button in message["buttons"]] == ["Publish", "Discard"]
        replies = await asyncio.gather(client.post("/messages/0/press/0"), client.post("/messages/0/press/1"))
        assert sorted(reply.json()["reply"][:9] for reply in replies) == ["Not possi", "Thank you"]
        assert (await client.get("/messages")).json()[1]["text"] == "The report on prices is done."
