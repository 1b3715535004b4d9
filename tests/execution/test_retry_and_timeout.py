"""Attempts: retries, their waits, and time limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, turns

from flowdeck.definition.retry import Retry
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


async def test_every_attempt_is_a_run_of_its_own(world: World) -> None:
    """Attempts share scope and idempotency key, and differ in run and number."""
    keys: set[str] = set()
    flow = TriggerFlow(name="f")

    async def flaky(data: Data) -> int:
        keys.add(data.idempotency_key)
        if data.attempt < 3:
            raise ConnectionError("again")

        return data.attempt

    flow.to(flaky, retry=Retry(attempts=3)).to(keep("out"))
    assert await world.run(flow) == {"out": 3}
    assert len(keys) == 1
    started = [r for r in world.records("chunk.started") if r.payload["chunk_name"] == "flaky"]
    assert [r.attempt for r in started] == [1, 2, 3]
    assert len({r.run.run_id for r in started if r.run is not None}) == 3
    assert {r.scope for r in started} == {"flaky"}
    failed = world.payloads("chunk.failed")
    assert [(p["will_retry"], p["retry_delay_s"]) for p in failed] == [(True, 0.0), (True, 0.0)]


async def test_the_waits_grow(world: World) -> None:
    """backoff, factor and max_backoff say when the next attempt starts."""
    times: list[float] = []
    flow = TriggerFlow(name="f")

    async def bad(data: Data) -> None:
        times.append(world.clock.time_us() / 1e6 - begun)
        raise ValueError("no")

    flow.to(bad, retry=Retry(attempts=4, backoff=1.0, factor=3.0, max_backoff=5.0))
    begun = world.clock.time_us() / 1e6
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await world.clock.advance(100)
    with pytest.raises(ValueError, match="no"):
        await running

    assert times == [pytest.approx(t) for t in (0, 1, 4, 9)]
    await execution.async_close()


async def test_only_the_errors_it_names(world: World) -> None:
    """An error that ``on`` does not list is final."""
    calls: list[int] = []
    flow = TriggerFlow(name="f")
    flow.to(("bad", lambda d: calls.append(1) or 1 / 0), retry=Retry(attempts=5, on=(ConnectionError,)))
    with pytest.raises(ZeroDivisionError):
        await world.execution(flow).async_start()

    assert calls == [1]


async def test_an_attempt_is_a_fresh_run_of_the_handler(world: World) -> None:
    """What a failed attempt did stays and is done again by the next; data.step results are found again."""
    fetched: list[int] = []
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> str:
        page = await data.step("page", lambda: fetched.append(1) or "page")
        await data.async_set_state("attempt", data.attempt)
        await data.async_append_state("tries", data.attempt)
        await data.async_put_into_stream(data.attempt)
        await data.async_emit("Tried", data.attempt)
        if data.attempt < 3:
            raise ConnectionError("again")

        return str(page)

    flow.to(work, retry=Retry(attempts=3)).to(keep("out"))
    flow.when("Tried").to(("log", lambda d: d.append_state("log", d.input)))
    execution = world.execution(flow)
    await execution.async_start()
    snapshot = await execution.async_close()
    assert snapshot == {"attempt": 3, "tries": [1, 2, 3], "log": [1, 2, 3], "out": "page"}
    assert fetched == [1]
    assert [i async for i in execution.get_async_runtime_stream(timeout=None)] == [1, 2, 3]


async def test_a_failed_emit_is_tried_again(world: World) -> None:
    """An attempt that failed because a handler of its emit failed emits anew."""
    flow = TriggerFlow(name="f")
    calls: list[int] = []

    async def emits(data: Data) -> str:
        await data.async_emit("E")
        return "done"

    async def flaky(data: Data) -> None:
        calls.append(1)
        if len(calls) < 2:
            raise ConnectionError("again")

    flow.to(emits, retry=Retry(attempts=2)).to(keep("out"))
    flow.when("E").to(flaky)
    execution = world.execution(flow)
    await execution.async_start()
    assert await execution.async_close() == {"out": "done"}
    assert execution.get_status() == "completed"


async def test_what_a_failed_attempt_still_awaited_is_stopped(world: World) -> None:
    """A retry does not leave the emits of the last attempt running."""
    stopped: list[str] = []
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> str:
        if data.attempt == 1:
            waiting = asyncio.create_task(data.async_emit("Slow"))
            await turns(3)
            waiting.cancel()
            raise ConnectionError("again")

        return "done"

    async def slow(data: Data) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("slow")

    flow.to(work, retry=Retry(attempts=2)).to(keep("out"))
    flow.when("Slow").to(slow)
    assert await world.run(flow, concurrency=1) == {"out": "done"}
    assert stopped == ["slow"]


async def test_a_retried_pause_finds_its_interrupt(world: World) -> None:
    """An attempt that fails after pausing does not leave an orphan: the next one gets the same interrupt."""
    flow = TriggerFlow(name="f")

    async def ask(data: Data) -> Any:
        signal = await data.async_pause_for(type="approval")
        if data.attempt == 1:
            raise ConnectionError("after the pause")

        return signal

    flow.to(ask, retry=Retry(attempts=2)).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start()
    (interrupt_id,) = execution.get_pending_interrupts()
    await execution.async_continue_with(interrupt_id, 1)
    assert await execution.async_close() == {"out": 1}


async def test_a_wait_for_the_next_attempt_can_be_cancelled(world: World) -> None:
    """Cancelling a run that backs off ends it at once."""
    flow = TriggerFlow(name="f")
    flow.to(("bad", lambda d: 1 / 0), retry=Retry(attempts=2, backoff=1000.0))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await turns()
    assert execution.get_status() == "running"
    await execution.async_cancel()
    await running
    assert execution.get_status() == "cancelled"
    assert world.chunks("chunk.started") == {"bad": 1}


async def test_jitter_uses_chance(world: World) -> None:
    """A wait grows by up to its fraction of jitter."""
    retry = Retry(attempts=3, backoff=10.0, jitter=0.5)
    assert retry.delay(1, ValueError(), lambda: 0.0) == 10.0
    assert retry.delay(2, ValueError(), lambda: 1.0) == 30.0
    assert retry.delay(3, ValueError(), lambda: 1.0) is None


async def test_a_timeout_fails_the_attempt(world: World) -> None:
    """timeout= limits one attempt, by the execution's clock; the error names the chunk."""
    flow = TriggerFlow(name="f")

    async def slow(data: Data) -> str:
        if data.attempt == 1:
            await asyncio.Event().wait()

        return "fast"

    flow.to(slow, timeout=5.0, retry=Retry(attempts=2, on=(TimeoutError,))).to(keep("out"))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await world.clock.advance(5)
    await running
    assert await execution.async_close() == {"out": "fast"}
    (failed,) = world.records("chunk.failed")
    assert failed.error is not None and failed.error.message == "chunk 'slow' took longer than 5.0 s"


async def test_a_timeout_of_the_handlers_own_is_its_own(world: World) -> None:
    """A TimeoutError the handler raises itself is not taken for ours."""
    flow = TriggerFlow(name="f")

    async def mine(data: Data) -> None:
        raise TimeoutError("mine")

    flow.to(mine, timeout=5.0)
    with pytest.raises(TimeoutError, match="^mine$"):
        await world.execution(flow).async_start()


async def test_a_swallowed_timeout_is_no_timeout(world: World) -> None:
    """A handler that swallows the cancellation and returns has returned."""
    flow = TriggerFlow(name="f")

    async def stubborn(data: Data) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"

        return "never"

    flow.to(stubborn, timeout=1.0).to(keep("out"))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await world.clock.advance(1)
    await running
    assert await execution.async_close() == {"out": "late"}
