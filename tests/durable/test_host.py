"""Durable executions over a real ``state.db``: parked ones leave the memory, and come back when they are needed."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.execution.support import left_behind

from flowdeck import Runtime
from flowdeck.durable import ControlClient
from flowdeck.durable.using import DurableStore
from flowdeck.durable.worker import FULL_SECONDS, LIVENESS_SECONDS, Worker
from flowdeck.errors import ExecutionBusy, PendingInterruptsError
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services
from flowdeck.layout import Layout, StoreError, StoreTooNew
from flowdeck.triggerflow import TriggerFlow, TriggerFlowRuntimeData
from flowdeck.web.desk import come_to_rest

pytestmark = pytest.mark.anyio
Data = TriggerFlowRuntimeData
HERE = Path(__file__).parent


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(services=Services(center=EventCenter()))


@pytest.fixture
async def used(runtime: Runtime, tmp_path: Path) -> AsyncIterator[DurableStore]:
    with runtime.use_store(tmp_path / "store", durability="process") as durable:
        yield durable


def asking(**options: Any) -> TriggerFlow:
    flow = TriggerFlow(name="asking")
    flow.to(("ask", lambda data: data.pause_for(type="ok", payload=data.input, **options))).to(
        ("keep", lambda data: data.set_state("out", data.input))
    )
    return flow


class Heard:
    """A sink that keeps what it is told."""

    name = "heard"

    def __init__(self, center: EventCenter) -> None:
        self.records: list[Any] = []
        center.add_sink(self, min_level="DEBUG")

    def accept(self, record: Any) -> None:
        self.records.append(record)

    def flush(self, timeout: float) -> bool:
        return True

    def close(self, timeout: float) -> None:
        pass

    def statistics(self) -> dict[str, int | float | str]:
        return {}


async def eventually(holds: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.005)

    return value


async def park(runtime: Runtime, flow: TriggerFlow, count: int, **options: Any) -> list[str]:
    """Start executions that pause, keep no handle, and return their ids."""

    async def one(number: int) -> str:
        execution = flow.create_execution(services=runtime.services, auto_close_timeout=0.0, **options)
        execution.auto_close = False
        await execution.async_start(number)
        execution.auto_close = True
        await execution._log.settled()  # type: ignore[union-attr]
        return execution.id

    return [*await asyncio.gather(*(one(number) for number in range(count)))]


async def test_parked_executions_leave_the_memory(runtime: Runtime, used: DurableStore) -> None:
    """No object, no task and no connection is held for what waits; an answer brings it back and it ends."""
    flow = asking()
    before = len(asyncio.all_tasks())
    names = await park(runtime, flow, 200)
    gc.collect()
    assert used.host is not None
    await eventually(lambda: gc.collect() is not None and all(h.weak() is None for h in used.host.hosted.values()))
    assert len(used.host.hosted) == 200 and len(asyncio.all_tasks()) == before
    assert len(flow._executions) == 0
    with ControlClient(used.path.parent) as client:  # type: ignore[union-attr]
        sent = client.answer(f"{names[7]}/{names[7]}-i1", "yes", "ann")
        await eventually(lambda: client.wait_outcome(sent.row_id or 0, 0.0).outcome == "applied")
        row = await eventually(lambda: (r := client.get_execution(names[7])) and r.finished_us and r)
        assert row.status == "completed"
        assert client.stored_state(names[7])["runtime_data"] == {"out": "yes"}
        assert client.get_execution(names[8]).status == "waiting"  # type: ignore[union-attr]


async def test_a_held_handle_stays_usable(runtime: Runtime, used: DurableStore) -> None:
    """Who keeps the handle of a parked execution can go on with it as ever."""
    execution = asking().create_execution(services=runtime.services, auto_close=False)
    await execution.async_start(1)
    gc.collect()
    (interrupt_id,) = execution.get_pending_interrupts()
    await execution.async_continue_with(interrupt_id, "mine")
    assert await execution.async_close() == {"out": "mine"}


async def test_an_answer_reaches_the_object_that_is_held(runtime: Runtime, used: DurableStore) -> None:
    """An answer from outside goes to the handle, not to a second object made from the store."""
    execution = asking().create_execution(services=runtime.services, auto_close=False)
    await execution.async_start(1)
    with ControlClient(used.path.parent) as client:  # type: ignore[union-attr]
        client.answer(f"{execution.id}-i1", "outside", "ann")
        await eventually(lambda: execution.get_state("out") == "outside")

    assert execution._epoch == 1
    await execution.async_close()


async def test_a_dropped_execution_expires(runtime: Runtime, used: DurableStore) -> None:
    """Its time is kept by one timer for all; it is brought back for it."""
    flow = asking(expires_in=0.3, on_expire={"value": "late"})
    (name,) = await park(runtime, flow, 1)
    gc.collect()
    with ControlClient(used.path.parent) as client:  # type: ignore[union-attr]
        await eventually(lambda: (r := client.get_execution(name)) and r.finished_us)
        assert client.stored_state(name)["runtime_data"] == {"out": "late"}


async def test_a_start_key_starts_once(runtime: Runtime, used: DurableStore) -> None:
    """The second start under a key gets the first execution; after its end, its result."""
    flow = asking()
    first = await flow.async_start_execution(1, start_key="order 17", services=runtime.services, auto_close=False)
    again = await flow.async_start_execution(2, start_key="order 17", services=runtime.services, auto_close=False)
    other = await flow.async_start_execution(3, start_key="order 18", services=runtime.services, auto_close=False)
    assert again is first and other.id != first.id
    (interrupt_id,) = first.get_pending_interrupts()
    await first.async_continue_with(interrupt_id, "done")
    await first.async_close()
    flow.remove_execution(first)
    ended = await flow.async_start_execution(4, start_key="order 17", services=runtime.services)
    assert ended.id == first.id and ended.is_closed() and ended.get_state("out") == "done"
    await other.async_cancel()


async def test_who_looks_while_another_takes_it_up_gets_the_same(
    runtime: Runtime, used: DurableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second claim would fence the first one out, and its answer with it."""
    flow, host = asking(interrupt_id="q"), used.host
    assert host is not None
    execution_id = (await flow.async_start_execution(1, start_key="k", timeout=0.0, services=runtime.services)).id
    await eventually(lambda: gc.collect() >= 0 and host.hosted[execution_id].execution is None)
    look, slow = host.store.get_execution, threading.Event()

    def late(execution_id: str) -> Any:
        row = look(execution_id)
        if not slow.is_set():
            slow.set()
            assert first.wait(10)

        return row

    first = threading.Event()
    monkeypatch.setattr(host.store, "get_execution", late)
    second = asyncio.create_task(host.reopen(flow, execution_id))
    await asyncio.to_thread(slow.wait, 10)
    execution = await host.reopen(flow, execution_id)
    assert execution is not None
    first.set()
    assert await second is execution
    await execution.async_continue_with("q", "yes")
    assert (await execution.async_close())["out"] == "yes"


async def test_a_start_key_needs_a_store(runtime: Runtime) -> None:
    """Without a store nothing could be remembered."""
    with pytest.raises(ValueError, match="use_store"):
        await asking().async_start_execution(1, start_key="k", services=runtime.services)


async def test_exit_durability_commits_at_rest(runtime: Runtime, tmp_path: Path) -> None:
    """With durability="exit" handlers do not wait, and what is committed is the run as it parked or ended."""
    with runtime.use_store(tmp_path / "store", durability="exit") as used:
        execution = asking().create_execution(services=runtime.services, auto_close=False)
        await execution.async_start(1)
        await eventually(lambda: used.store.get_execution(execution.id))
        points = used.store.history(execution.id)
        assert len(points) == 1 and points[0].codes.endswith("D")

    worker = Worker(tmp_path / "store", [asking()], Services(center=EventCenter()), durability="process")
    with ControlClient(tmp_path / "store") as client:
        client.answer(f"{execution.id}-i1", "later", "ann")

    report = await worker.run(once=True)
    assert report.taken_up == 1
    with ControlClient(tmp_path / "store") as client:
        assert client.stored_state(execution.id)["runtime_data"] == {"out": "later"}


async def test_a_restarted_process_goes_on_with_its_own(runtime: Runtime, tmp_path: Path) -> None:
    """Closing the store lets go; the next process takes up what is asked of it."""
    flow = asking()
    with runtime.use_store(tmp_path / "store", durability="process"):
        (name,) = await park(runtime, flow, 1)

    with ControlClient(tmp_path / "store") as client:
        assert client.answer(f"{name}/{name}-i1", "after", "ann").accepted

    worker = Worker(tmp_path / "store", [asking()], Services(center=EventCenter()), durability="process")
    report = await worker.run(once=True)
    assert (report.taken_up, report.ended, report.refused) == (1, 1, {})


async def test_a_worker_sleeps_over_what_it_cannot_take(runtime: Runtime, tmp_path: Path) -> None:
    """A due execution of a flow it does not serve does not keep a worker awake."""
    with runtime.use_store(tmp_path / "store", durability="process"):
        await park(runtime, asking(expires_in=3600.0), 1)

    with closing(sqlite3.connect(tmp_path / "store" / "state.db", isolation_level=None)) as connection:
        assert connection.execute("UPDATE durable SET wake_us = 1").rowcount == 1

    other = Worker(tmp_path / "store", [TriggerFlow(name="other")], Services(center=EventCenter()))
    try:
        assert await other._round() == 0
        assert other._pause() == LIVENESS_SECONDS
    finally:
        await other._let_go()


async def test_a_worker_without_a_free_place_does_not_spin(runtime: Runtime, tmp_path: Path) -> None:
    """What is due meanwhile is looked at again when there may be a place, not all the time."""
    with runtime.use_store(tmp_path / "store", durability="process"):
        await park(runtime, asking(expires_in=3600.0), 1)

    with closing(sqlite3.connect(tmp_path / "store" / "state.db", isolation_level=None)) as connection:
        connection.execute("UPDATE durable SET wake_us = 1")

    full = Worker(tmp_path / "store", [asking(expires_in=3600.0)], Services(center=EventCenter()), concurrency=1)
    full._active = lambda: 1  # type: ignore[method-assign]
    try:
        assert await full._round() == 0
        assert full._pause() == FULL_SECONDS
    finally:
        await full._let_go()


@pytest.mark.parametrize("how", ["expires", "is answered", "is joined"])
async def test_a_run_that_rests_again_says_so(used: DurableStore, runtime: Runtime, how: str) -> None:
    """Two questions are open; one goes or comes: who waits until the run rests is told, or waits for ever."""
    flow = TriggerFlow(name="two")
    for name in ("one", "two"):
        expiry = {"expires_in": 0.05} if (name, how) == ("one", "expires") else {}
        flow.to((name, lambda data, name=name, expiry=expiry: data.pause_for(interrupt_id=name, **expiry)))

    execution = flow.create_execution(services=runtime.services, auto_close=False)
    await execution.async_start()
    if how == "is answered":
        execution.continue_nowait("one", 1)
    elif how == "is joined":
        execution.pause_for(interrupt_id="three", resume_to={"event": "Later"})

    expected = {"expires": ["two"], "is answered": ["two"], "is joined": ["one", "two", "three"]}[how]
    await eventually(lambda: list(execution.get_pending_interrupts()) == expected)

    await execution._log.committed()
    await asyncio.sleep(0)
    assert execution.stream.resting
    assert await come_to_rest(execution, 5.0)


@pytest.mark.parametrize("effect", ["returns", "sets state", "emits", "answers"])
async def test_what_a_handler_left_behind_does_can_be_read_back(
    used: DurableStore, runtime: Runtime, effect: str
) -> None:
    """Its task is over for the log, too: the run it was left in can be read, and goes on."""
    go_on, ask = asyncio.Event(), asyncio.Event()
    story: list[str] = []

    async def then(data: Data) -> None:
        if effect == "sets state":
            await data.async_set_state("late", 1)
        elif effect == "emits":
            await data.async_emit("Work")
        elif effect == "answers":
            await data.async_continue_with("one", 5)

        story.append("ends")

    flow = left_behind(go_on, ask, then, lambda data: None)
    flow.when("Work").to(("work", lambda data: None))
    execution = flow.create_execution(services=runtime.services, auto_close=False)
    started = asyncio.create_task(execution.async_start())
    await asyncio.sleep(0.05)
    try:
        closing_ = asyncio.create_task(execution.async_close(timeout=0.1))
        await asyncio.sleep(0.05)
        ask.set()
        with pytest.raises(PendingInterruptsError), pytest.warns(RuntimeWarning):
            await closing_
    finally:
        go_on.set()

    await started
    await eventually(lambda: story)

    await asyncio.to_thread(used.flush)
    state = used.store.client.stored_state(execution.id)
    assert state["status"] == execution.get_status()
    assert state["runtime_data"] == ({"late": 1} if effect == "sets state" else {})


async def test_a_worker_starts_what_is_asked_for(tmp_path: Path) -> None:
    """A start is an inbox row with a dedup key; asked twice, it is started once."""
    Layout.create(tmp_path / "store")
    flow = TriggerFlow(name="started")
    flow.to(("keep", lambda data: data.set_state("got", data.input)))
    with ControlClient(tmp_path / "store") as client:
        assert client.put_inbox("start", "s1", "started", {"n": 1}, "ann", "k").outcome is None
        assert client.put_inbox("start", "s1", "started", {"n": 1}, "ann", "k").outcome == "duplicate"
        worker = Worker(tmp_path / "store", [flow], Services(center=EventCenter()), durability="process")
        report = await worker.run(once=True)
        assert (report.started, report.ended) == (1, 1)
        assert client.stored_state("s1")["runtime_data"] == {"got": {"n": 1}}
        assert [row.outcome for row in client.list_inbox()] == ["applied"]


async def test_a_started_run_that_asks_holds_no_task(tmp_path: Path) -> None:
    """A worker that was asked for a start is done when the run waits for a person: with --once it ends."""
    Layout.create(tmp_path / "store")
    center = EventCenter()
    told = Heard(center)
    with ControlClient(tmp_path / "store") as client:
        for number in range(3):
            client.put_inbox("start", f"s{number}", "asking", number, "ann", "k")

        worker = Worker(tmp_path / "store", [asking()], Services(center=center), durability="process")
        report = await asyncio.wait_for(worker.run(once=True), 20)
        assert (report.started, report.ended, report.parked) == (3, 0, 3)
        assert {row.status for row in client.list_executions()} == {"waiting"}
        starts = [r.payload for r in told.records if r.event_type == "triggerflow.inbox_applied"]
        assert {(each["kind"], each["actor"], each["outcome"]) for each in starts} == {("start", "ann", "applied")}
        assert sorted(each.get("payload", 0) for each in starts) == [0, 1, 2]
        (first, *_) = client.list_interrupts(execution_id="s0")
        client.answer(first.id, "yes", "ann")
        again = Worker(tmp_path / "store", [asking()], Services(center=EventCenter()), durability="process")
        assert (await again.run(once=True)).ended == 1
        assert client.stored_state("s0")["runtime_data"] == {"out": "yes"}


async def test_a_handle_given_at_the_start_closes_by_itself_after_a_crash(runtime: Runtime, used: DurableStore) -> None:
    """What is committed while the start settles says already that the run closes by itself."""
    seen: list[bool] = []
    flow = TriggerFlow(name="settling")
    flow.to(lambda data: seen.append(used.store.load(data.execution_id).header["settings"][0]))
    execution = await flow.async_start_execution(1, timeout=0.0, services=runtime.services)
    await execution.wait_closed()
    assert seen == [True]


async def test_an_active_run_says_that_it_lives(runtime: Runtime, tmp_path: Path) -> None:
    """While a handler runs, a heartbeat event tells it from one that is stuck or gone; a parked run has none."""
    told = Heard(runtime.services.center)
    go = asyncio.Event()
    flow = TriggerFlow(name="long")

    async def work(data: Data) -> None:
        await go.wait()

    flow.to(work).to(lambda data: data.pause_for(type="ok"))

    def beats() -> list[Any]:
        return [r.payload for r in told.records if r.event_type == "triggerflow.execution_heartbeat"]

    with runtime.use_store(tmp_path / "store", durability="process", lease=0.15):
        execution = flow.create_execution(services=runtime.services, auto_close=False)
        running = asyncio.ensure_future(execution.async_start(1))
        await eventually(lambda: len(beats()) >= 2)
        assert {(beat["running"], beat["waiting"]) for beat in beats()} == {(1, 0)}
        assert beats()[-1]["age_s"] > 0 and beats()[-1]["seq"] >= 1
        go.set()
        await running
        log = execution._log
        assert log is not None
        await eventually(lambda: log._resting)
        count = len(beats())
        await asyncio.sleep(0.12)
        assert len(beats()) == count


async def test_two_workers_on_one_file_share_the_work(tmp_path: Path) -> None:
    """Each execution is run by one of them, once."""
    Layout.create(tmp_path / "store")
    ran: list[str] = []

    def made() -> TriggerFlow:
        flow = TriggerFlow(name="shared")

        async def step(data: Data) -> None:
            ran.append(data.execution_id)
            await asyncio.sleep(0.005)

        flow.to(step)
        return flow

    with ControlClient(tmp_path / "store") as client:
        for number in range(40):
            client.put_inbox("start", f"s{number}", "shared", None, None, "k")

    workers = [
        Worker(tmp_path / "store", [made()], Services(center=EventCenter()), durability="process", concurrency=4)
        for _ in range(2)
    ]
    await asyncio.gather(*(worker.run(once=True) for worker in workers))
    assert sorted(ran) == sorted(f"s{number}" for number in range(40))


async def test_a_worker_without_the_resources_says_so(runtime: Runtime, tmp_path: Path) -> None:
    """The refusal names the keys; with @flow.resources it goes on."""
    flow = asking()
    with runtime.use_store(tmp_path / "store", durability="process"):
        (name,) = await park(runtime, flow, 1, runtime_resources={"db": 1})

    with ControlClient(tmp_path / "store") as client:
        client.answer(f"{name}/{name}-i1", 1, "ann")
        assert client.durable_info(name).resource_keys == ["db"]  # type: ignore[union-attr]

    poor = Worker(tmp_path / "store", [asking()], Services(center=EventCenter()), durability="process")
    report = await poor.run(once=True)
    assert "'db'" in report.refused[name]
    rich_flow = asking()

    @rich_flow.resources
    def given() -> dict[str, Any]:
        return {"db": 2}

    rich = Worker(tmp_path / "store", [rich_flow], Services(center=EventCenter()), durability="process")
    assert (await rich.run(once=True)).ended == 1


async def test_a_changed_flow_is_shown_as_blocked(runtime: Runtime, tmp_path: Path) -> None:
    """The list says blocked_version, with the missing names; the right definition takes it up later."""
    with runtime.use_store(tmp_path / "store", durability="process"):
        (name,) = await park(runtime, asking(), 1)

    changed = TriggerFlow(name="asking")
    changed.to(("other", lambda data: None))
    with ControlClient(tmp_path / "store") as client:
        client.answer(f"{name}/{name}-i1", 1, "ann")
        worker = Worker(tmp_path / "store", [changed], Services(center=EventCenter()), durability="process")
        report = await worker.run(once=True)
        assert "operator 'ask'" in report.refused[name]
        row, info = client.get_execution(name), client.durable_info(name)
        assert row is not None and row.status == "blocked_version"
        assert info is not None and "operator 'ask'" in (info.blocked or "")
        right = Worker(tmp_path / "store", [asking()], Services(center=EventCenter()), durability="process")
        assert (await right.run(once=True)).ended == 1


# -- bad files -------------------------------------------------------------------------------------------------------


async def test_a_locked_file_makes_runs_wait_not_fail(runtime: Runtime, used: DurableStore) -> None:
    """While another program holds the write lock no handler starts; when it lets go, the run goes on."""
    flow = TriggerFlow(name="locked")
    ran: list[int] = []
    flow.to(("step", lambda data: ran.append(1)))
    await flow.create_execution(services=runtime.services, auto_close_timeout=0.0).async_start()
    ran.clear()
    with closing(sqlite3.connect(str(used.path), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        work = asyncio.create_task(
            flow.create_execution(services=runtime.services, auto_close_timeout=0.0).async_start()
        )
        await asyncio.sleep(0.4)
        assert not ran and not work.done()
        db.execute("COMMIT")

    await asyncio.wait_for(work, 20)
    assert ran == [1]


async def test_a_newer_file_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    """What a newer version wrote is not touched."""
    with runtime.use_store(tmp_path / "store"):
        pass

    with closing(sqlite3.connect(tmp_path / "store" / "state.db")) as db:
        db.execute("PRAGMA user_version = 99")

    with pytest.raises(StoreTooNew):
        runtime.use_store(tmp_path / "store")


async def test_a_read_only_folder_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    """The error names the folder and what it needs."""
    folder = tmp_path / "file"
    folder.write_text("not a directory")
    with pytest.raises(StoreError, match="file"):
        runtime.use_store(folder)


async def test_an_unknown_durability_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    """The message lists what there is."""
    with pytest.raises(ValueError, match="'exit', 'process', 'full'"):
        runtime.use_store(tmp_path / "store", durability="maximum")


# -- another process -------------------------------------------------------------------------------------------------


async def test_another_living_process_keeps_its_execution(runtime: Runtime, tmp_path: Path) -> None:
    """Two owners of one file: the second cannot take what the first holds, and says who does."""
    with runtime.use_store(tmp_path / "store", durability="process"):
        (name,) = await park(runtime, asking(), 1)
        other = Worker(tmp_path / "store", [asking()], Services(center=EventCenter()), durability="process")
        with pytest.raises(ExecutionBusy, match="living process"):
            await other.run_one(name)


def _answer_many(tmp_path: Path, count: int) -> tuple[list[float], float]:
    """Answer parked executions of another process. Returns the seconds each took, and the owner's idle CPU share."""
    script = HERE / "process_parked.py"
    owner = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "store"), str(count)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert owner.stdout is not None and owner.stdin is not None
    try:
        names = json.loads(owner.stdout.readline())
        took = []
        with ControlClient(tmp_path / "store") as client:
            for name in names:
                begun = time.monotonic()
                sent = client.answer(f"{name}/{name}-i1", "yes", "ann")
                assert sent.row_id is not None
                assert client.wait_outcome(sent.row_id, 10.0).outcome == "applied"
                took.append(time.monotonic() - begun)

        owner.stdin.write("idle\n")
        owner.stdin.flush()
        idle = float(owner.stdout.readline())
    finally:
        owner.kill()
        owner.communicate()

    return took, idle


def test_an_answer_wakes_a_parked_execution_of_another_process(tmp_path: Path) -> None:
    """It is made anew from the store and has applied the answer within a quarter of a second; waiting costs little."""
    took, idle = _answer_many(tmp_path, 40)
    took.sort()
    assert took[int(len(took) * 0.5)] < 0.25, took[-5:]
    assert idle < 0.10, f"{idle:.1%} of a core while nothing happens"
