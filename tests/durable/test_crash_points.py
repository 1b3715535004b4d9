"""Killed at every single commit, written or lost, a run ends as if nothing had happened (crash points 1-8)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.durable.crashing import Process, finish
from tests.execution.support import Data, World
from tests.execution.test_crash_at_any_moment import (
    Steps,
    answer,
    blocks,
    children,
    emits,
    gates,
    retries,
    settled,
    undisturbed,
)

from flowdeck.durable.memory import Shelf
from flowdeck.execution.replica import replay
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio

EVERY = 1
FLOWS = [blocks, gates, emits, children, retries]


def stored_state(process: Process, execution_id: str) -> dict[str, Any]:
    """Return the state of a finished execution as the store has it."""
    stored = process.store.load(execution_id)
    replica = replay(stored.header, stored.plans, stored.definition, stored.snapshot, stored.batches)
    assert replica.root.status == "completed"
    return replica.root.core.data


@pytest.mark.parametrize("written", [False, True], ids=["lost", "written"])
@pytest.mark.parametrize("make", FLOWS, ids=lambda make: make.__name__)
async def test_a_run_killed_at_any_commit_ends_the_same(
    world: World, make: Callable[[Steps], TriggerFlow], written: bool
) -> None:
    """The state is that of an undisturbed run, wherever it was killed; then it is killed again at the next commits."""
    world.center.remove_sink(world.recorder)
    value = [1, 2] if make in (children, retries) else 1
    expected = settled(await undisturbed(world, make, value))
    kills, at = 0, 1
    while True:
        shelf = Shelf()
        lives = 0
        flow = make(Steps(random.Random(at)))
        process = Process(world, shelf, "life 0", at, written=written)
        execution = process.start(flow, value)
        async with asyncio.timeout(30):
            while (state := await finish(process, answer)) is None:
                await process.kill()
                kills += 1
                lives += 1
                process = Process(world, shelf, f"life {lives}", at % 4 + 1 if lives < 6 else 0, written=written)
                flow = make(Steps(random.Random(at + lives)))
                if execution.id in shelf.held and shelf.held[execution.id].finished:
                    state = stored_state(process, execution.id)  # the last commit was written
                    break

                if execution.id in shelf.held:
                    process.take_up(flow, execution.id)
                else:
                    execution = process.start(flow, value)  # nothing was committed: whoever asked asks again

        assert settled(state) == expected, f"{make.__name__}, killed at commit {at}"
        if lives == 0:
            break

        at += EVERY

    assert kills > 10


async def test_what_was_committed_is_not_done_again(world: World) -> None:
    """Each step runs once; the one that was running runs again, with the same key and the next attempt."""
    runs: list[tuple[str, str, int]] = []

    def step(name: str) -> tuple[str, Any]:
        async def run(data: Data) -> Any:
            runs.append((name, data.idempotency_key, data.attempt))
            await data.async_set_state(name, data.input)
            await asyncio.sleep(0)
            return data.input

        return (name, run)

    flow = TriggerFlow(name="chain")
    flow.to(step("a")).to(step("b")).to(step("c"))
    for at in range(1, 9):
        for written in (False, True):
            runs.clear()
            shelf = Shelf()
            process = Process(world, shelf, "first", at, written=written)
            execution = process.start(flow, 1)
            if await finish(process, answer) is None:
                await process.kill()
                if execution.id not in shelf.held or shelf.held[execution.id].finished:
                    continue

                process = Process(world, shelf, "second")
                process.take_up(flow, execution.id)
                assert await finish(process, answer) == {"a": 1, "b": 1, "c": 1}

            count = Counter(name for name, _, _ in runs)
            assert sum(count.values()) <= 4, (at, written, runs)
            for name in "abc":
                keys = {key for each, key, _ in runs if each == name}
                attempts = [attempt for each, _, attempt in runs if each == name]
                assert keys == {f"{execution.id}:t{'abc'.index(name) + 1}"}
                assert attempts in ([1], [1, 2], [2]), (at, written, runs)


async def test_a_recovered_run_keeps_id_lineage_and_trace(world: World) -> None:
    """Execution id, run ids and trace stay; the epoch rises, so every event after the crash is a new one."""
    flow = TriggerFlow(name="lineage")
    flow.to(("ask", lambda data: data.pause_for(type="ok")))
    shelf = Shelf()
    first = Process(world, shelf, "first")
    execution = first.start(flow, 1, task_id="T1", trace_id="ab" * 16)
    await asyncio.gather(*first.work)
    run = execution.run_context
    await first.kill()
    again = Process(world, shelf, "second")
    taken = again.take_up(flow, execution.id)
    await asyncio.gather(*again.work)
    assert taken.id == execution.id
    assert (taken.run_context.run_id, taken.run_context.root_run_id) == (run.run_id, run.root_run_id)
    assert taken.run_context.meta["task_id"] == "T1" and taken.run_context.meta["trace_id"] == "ab" * 16
    recovered = world.records("triggerflow.execution_recovered")[-1]
    assert recovered.payload == {"epoch": 2}
    await taken.async_cancel()
