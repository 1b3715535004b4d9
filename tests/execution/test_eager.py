"""A branch that starts inside the call that causes it is a task like any other."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest

from flowdeck.execution import eager
from flowdeck.execution.eager import start_now
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio

mark: ContextVar[str] = ContextVar("mark", default="outside")


@pytest.fixture(autouse=True)
def _a_fresh_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many branches other tests have started decides nothing here."""
    monkeypatch.setattr(eager._local.starter, "left", eager._TURNS)


def start(branch: Any) -> None:
    start_now(branch, asyncio.get_running_loop(), copy_context())


async def test_a_branch_that_never_suspends_has_ended_when_the_call_returns() -> None:
    """No turn of the loop passes, and the caller is its own current task again."""
    seen: list[Any] = []

    async def branch() -> None:
        mark.set("inside")
        seen.append(asyncio.current_task())

    start(branch())
    start(branch())
    assert len(seen) == 2 and seen[0] is not asyncio.current_task() and asyncio.current_task() is not None
    assert mark.get() == "outside"


async def test_only_a_branch_that_works_is_a_task_of_the_loop() -> None:
    """A program that awaits ``asyncio.all_tasks()`` before it ends does not wait for an idle host."""
    go = asyncio.Event()

    async def branch(wait: bool) -> None:
        if wait:
            await go.wait()

    before = asyncio.all_tasks()
    start(branch(False))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    start(branch(True))
    (working,) = asyncio.all_tasks() - before
    assert "flowdeck branch" in repr(working)
    go.set()
    await asyncio.wait_for(working, 5)
    assert asyncio.all_tasks() == before


async def test_the_current_task_is_the_same_from_the_first_instruction_to_the_last() -> None:
    """Timeouts and cancel scopes opened before the first suspension still work after it."""
    seen: list[Any] = []
    ended = asyncio.Event()

    async def branch() -> None:
        mark.set("inside")
        seen.append(asyncio.current_task())
        with anyio.move_on_after(0.01) as scope:
            await asyncio.Event().wait()

        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.append("timeout")

        await asyncio.sleep(0)
        seen.extend((scope.cancelled_caught, asyncio.current_task(), mark.get()))
        ended.set()

    start(branch())
    first = seen[0]
    start(branch())
    assert seen[1] is not first, "a host that is taken is not used again"
    await asyncio.wait_for(ended.wait(), 5)
    await asyncio.sleep(0.05)
    assert seen.count("timeout") == 2 and seen.count(True) == 2 and seen.count("inside") == 2
    assert seen.count(first) == 2


async def test_a_cancellation_before_the_first_turn_reaches_what_the_branch_waits_for() -> None:
    """The branch was started and is cancelled in the same turn: its future is cancelled and its clean-up runs."""
    seen: list[str] = []
    inner: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    tasks: list[Any] = []

    async def branch() -> None:
        tasks.append(asyncio.current_task())
        try:
            await inner
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    start(branch())
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]

    assert seen == ["cancelled"] and inner.cancelled()


async def test_a_branch_that_cancels_its_own_task_spoils_no_other() -> None:
    """The host it leaves behind is not used again."""
    ended: list[str] = []

    async def suicidal() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def patient() -> None:
        await asyncio.sleep(0)
        ended.append("patient")

    start(suicidal())
    start(patient())
    for _ in range(5):
        await asyncio.sleep(0)

    assert ended == ["patient"]


async def test_nested_and_frequent_starts_are_scheduled() -> None:
    """A branch started inside a branch gets a task of its own; so does one in 65, so that others get a turn."""
    order: list[str] = []

    async def inner() -> None:
        order.append("inner")

    async def outer() -> None:
        start(inner())
        order.append("outer")

    start(outer())
    assert order == ["outer"]
    await asyncio.sleep(0)
    assert order == ["outer", "inner"]

    async def count() -> None:
        order.append("count")

    for _ in range(200):
        start(count())

    assert 190 <= order.count("count") < 200
    await asyncio.sleep(0)
    assert order.count("count") == 200


def test_a_host_outlives_its_loop_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """A loop that is closed with an idle host leaves no "Task was destroyed" behind, and the next loop works."""

    async def branch() -> None:
        pass

    async def main() -> None:
        start(branch())

    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        for _ in range(2):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(main())
            loop.close()
            gc.collect()

    assert "destroyed" not in caplog.text, sys.version


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager task factories came with Python 3.12")
async def test_a_flow_runs_on_a_loop_with_an_eager_task_factory() -> None:
    """Branches that cause branches do not recurse through the factory, and none is lost."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    try:
        flow = TriggerFlow(name="f")

        def again(data: Any) -> None:
            if data.input < 2_000:
                data.emit_nowait("Again", data.input + 1)
            else:
                data.set_state("deep", data.input)

        flow.when("Again").to(again)
        flow.to(("first", lambda data: data.emit_nowait("Again", 0)))
        flow.to(("list", lambda data: list(range(2_000)))).for_each().to(
            ("each", lambda data: data.input)
        ).end_for_each().to(("count", lambda data: data.set_state("count", len(data.input))))
        async with asyncio.timeout(20):
            assert await flow.async_start() == {"deep": 2_000, "count": 2_000}
    finally:
        loop.set_task_factory(None)
