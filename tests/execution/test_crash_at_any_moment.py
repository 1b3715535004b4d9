"""The real driver, killed and taken up again at random moments, ends where an undisturbed run ends."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.execution.support import Data, World, turns

from flowdeck.definition.retry import Retry
from flowdeck.execution.control import InboxRow
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

pytestmark = pytest.mark.anyio

SEEDS = int(os.environ.get("FLOWDECK_SIM_SEEDS", "20000")) // 400
RELOADS = 12

Step = Callable[..., tuple[str, Any]]


class Steps:
    """Chunks that take a random number of turns."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    async def dawdle(self) -> None:
        await turns(self.rng.randrange(4))

    def step(self, name: str) -> tuple[str, Any]:
        async def run(data: Data) -> Any:
            await self.dawdle()
            await data.async_append_state(f"log.{name}", json.dumps(data.input))
            await self.dawdle()
            return [name, data.input]

        return (name, run)

    def ask(self, name: str, **options: Any) -> tuple[str, Any]:
        async def run(data: Data) -> Any:
            await self.dawdle()
            if data.is_resume and options.get("resume_to") == "self" and data.signal_source == "interrupt":
                return [name, data.input, data.resume.value]

            signal = await data.async_pause_for(payload=data.input, **options)
            await self.dawdle()
            return signal

        return (name, run)

    def emit(self, name: str, event: str) -> tuple[str, Any]:
        async def run(data: Data) -> Any:
            await self.dawdle()
            await data.async_emit(event, data.input)
            await data.async_append_state(f"log.{name}", json.dumps(data.input))
            data.emit_nowait(event, [name, data.input])
            await self.dawdle()
            return data.input

        return (name, run)


def blocks(s: Steps) -> TriggerFlow:
    flow = TriggerFlow(name="blocks")
    flow.to(("split", lambda d: [d.input, d.input + 1, d.input + 2])).for_each(concurrency=2).to(s.ask("ask")).batch(
        s.step("left"), s.ask("right", resume_to="self")
    ).end_for_each().to(s.step("out"))
    return flow


def gates(s: Steps) -> TriggerFlow:
    flow = TriggerFlow(name="gates")
    flow.to(s.step("a")).collect("c", "a")
    flow.to(s.ask("b")).collect("c", "b").to(s.step("met"))
    flow.to(("x", lambda d: d.emit("X", 1))).to(s.ask("later")).to(("y", lambda d: d.emit("Y", 2)))
    flow.when({"event": ["X", "Y"]}).to(s.step("gate"))
    return flow


def emits(s: Steps) -> TriggerFlow:
    flow = TriggerFlow(name="emits")
    flow.to(s.emit("first", "E")).to(s.step("after"))
    flow.when("E").match(mode="hit_all").case(lambda d: True).to(s.ask("asked")).case(lambda d: True).to(
        s.step("beside")
    ).end_match().to(s.step("matched"))
    return flow


def children(s: Steps) -> TriggerFlow:
    grandchild = TriggerFlow(name="grandchild")
    grandchild.to(s.ask("deep")).to(s.step("deepest"))
    child = TriggerFlow(name="child")
    child.to(s.step("in")).for_each().to(s.ask("inner")).to_sub_flow(grandchild).end_for_each().to(s.step("all"))
    flow = TriggerFlow(name="children")
    flow.for_each(concurrency=1).to_sub_flow(
        child, capture={"runtime_data": {"log.got": "value"}}, write_back={"value": "result.log"}
    ).end_for_each().to(s.step("out"))
    return flow


def retries(s: Steps) -> TriggerFlow:
    flow = TriggerFlow(name="retries")

    async def flaky(data: Data) -> Any:
        await s.dawdle()
        if await data.step("tries", lambda: 0) == 0 and data.attempt < 2:
            raise ConnectionError("again")

        return data.input

    flow.for_each().to(flaky, retry=Retry(attempts=20)).to(s.ask("ask")).end_for_each().to(s.step("out"))
    return flow


def clocks(s: Steps) -> TriggerFlow:
    flow = TriggerFlow(name="clocks")

    async def flaky(data: Data) -> Any:
        await s.dawdle()
        if data.attempt == 1:
            raise ConnectionError("again")

        return data.input

    default = {"value": ["answer", 1]}
    flow.to(flaky, retry=Retry(attempts=30, backoff=2.0)).batch(
        s.ask("in time", expires_in=5, on_expire=default), s.ask("both", expires_in=60, on_expire=default)
    ).to(s.step("out"))
    flow.to(s.ask("nobody", type="unanswered", expires_in=30, on_expire={"event": "Late"}))
    flow.to(s.ask("silent", type="unanswered", expires_in=7)).to(s.step("never"))
    flow.when("Late").to(s.step("late"))
    return flow


def meetings(s: Steps) -> TriggerFlow:
    flow = TriggerFlow(name="meetings")
    flow.to(("split", lambda d: [1, 2])).for_each(concurrency=1).match(mode="hit_all").case(lambda d: True).to(
        s.ask("asked")
    ).case(lambda d: d.input == 2).to(s.step("two")).end_match().end_for_each().collect("c", "fan")
    flow.batch(s.step("x"), s.ask("y", resume_to="self")).collect("c", "batch").to(s.step("met"))
    return flow


def answer(payload: Any) -> Any:
    return ["answer", payload]


def settled(state: Any) -> Any:
    """Logs are compared as sets of lines: their order is the interleaving's."""
    if isinstance(state, dict):
        return {key: settled(value) for key, value in state.items()}

    return sorted(map(str, state)) if isinstance(state, list) else state


async def undisturbed(world: World, make: Callable[[Steps], TriggerFlow], value: Any) -> dict[str, Any]:
    execution = world.execution(make(Steps(random.Random(0))))
    await execution.async_start(value)
    while pending := execution.get_pending_interrupts():
        for interrupt_id, record in pending.items():
            await execution.async_continue_with(interrupt_id, answer(record["payload"]))

    return await execution.async_close()


async def disturbed(
    world: World, make: Callable[[Steps], TriggerFlow], value: Any, seed: int
) -> tuple[dict[str, Any], int]:
    rng = random.Random(seed)
    execution = world.execution(make(Steps(rng)), concurrency=rng.choice((None, 1, 2)))
    work: list[asyncio.Task[Any]] = [asyncio.create_task(execution.async_start(value))]
    reloads = 0
    while True:
        await turns(rng.randrange(8))
        if reloads < RELOADS and rng.random() < 0.3:
            reloads += 1
            started = execution.get_status() != "created"
            saved = json.dumps(execution.save())
            await kill(execution, work)
            execution = world.execution(make(Steps(rng))).load(json.loads(saved))
            work = [asyncio.create_task(execution.async_recover() if started else execution.async_start(value))]

        pending = execution.get_pending_interrupts()
        if pending and rng.random() < 0.6:
            interrupt_id = rng.choice(list(pending))
            reply = answer(pending[interrupt_id]["payload"])
            if rng.random() < 0.5:
                work.append(asyncio.create_task(execution.async_continue_with(interrupt_id, reply)))
            else:
                for n in (1, 2):  # through the inbox, and once more
                    execution.deliver(InboxRow(n, execution.id, "resume", interrupt_id, reply, f"k{n}", "sim", 0))

            await turns(1)

        for done in [each for each in work if each.done()]:
            done.result()
            work.remove(done)

        if not work and not pending and execution.is_idle():
            snapshot = await execution.async_close()
            core = execution._core
            assert not core.tasks and not core.groups and not core.joins and set(core.blocks) == {0}
            assert core.running == 0 and not execution._frames and all(place == 0 for _, place in core.gates)
            return snapshot, reloads


async def kill(execution: TriggerFlowExecution, work: list[asyncio.Task[Any]]) -> None:
    for each in work:
        each.cancel()

    await asyncio.gather(*work, return_exceptions=True)
    await execution.async_cancel()


Make = Callable[[Steps], TriggerFlow]


async def settle(world: World, execution: TriggerFlowExecution, work: list[asyncio.Task[Any]]) -> bool:
    """Answer what is asked, or let time pass. Returns whether the run has come to its end."""
    pending = execution.get_pending_interrupts()
    asked = [each for each in pending.values() if each["type"] != "unanswered"]
    if asked:
        reply = answer(asked[0]["payload"])
        work.append(asyncio.create_task(execution.async_continue_with(asked[0]["id"], reply)))
    elif all(each.done() for each in work) and execution.is_idle() and not pending:
        return True
    elif world.clock.next_due_us is not None:
        await world.clock.advance(1)

    await turns(1)
    return False


async def interrupted(world: World, make: Make, value: Any, moment: int, seed: int) -> tuple[dict[str, Any], bool]:
    """Run with one save, kill and load after ``moment`` turns. Returns the end, and whether it had come before."""
    steps = Steps(random.Random(seed))
    execution = world.execution(make(steps))
    work: list[asyncio.Task[Any]] = [asyncio.create_task(execution.async_start(value))]
    ended = False
    for _ in range(moment):
        ended = await settle(world, execution, work)
        if ended:
            break

    started = execution.get_status() != "created"
    saved = json.dumps(execution.save())
    await kill(execution, work)
    execution = world.execution(make(steps)).load(json.loads(saved))
    work = [asyncio.create_task(execution.async_recover() if started else execution.async_start(value))]
    await turns(1)
    while not await settle(world, execution, work):
        pass

    for each in work:
        each.result()

    return await execution.async_close(), ended


@pytest.mark.parametrize("make", [blocks, gates, emits, children, clocks, meetings], ids=lambda make: make.__name__)
async def test_a_save_at_every_turn_gives_the_same_end(world: World, make: Make) -> None:
    """Saved and loaded after any number of turns, through the public API, a run ends as it would have anyway."""
    world.center.remove_sink(world.recorder)
    value = [1, 2] if make is children else 1
    ends: dict[str, Any] = {}
    saves = 0
    for seed in range(3):
        for moment in range(2_000):
            async with asyncio.timeout(30):
                end, ended = await interrupted(world, make, value, moment, seed)

            ends.setdefault(json.dumps(settled(end), sort_keys=True), (seed, moment))
            assert len(ends) == 1, f"{make.__name__}: another end with a save at another moment: {ends}"
            saves += 1
            if ended:
                break

    assert ended and saves > 30


@pytest.mark.parametrize("make", [blocks, gates, emits, children, retries], ids=lambda make: make.__name__)
async def test_a_run_survives_being_killed(world: World, make: Make) -> None:
    """Saved and loaded at random moments, with random answers in between, the state comes out the same."""
    world.center.remove_sink(world.recorder)
    value = [1, 2] if make in (children, retries) else 1
    expected = settled(await undisturbed(world, make, value))
    kills = 0
    for seed in range(SEEDS):
        async with asyncio.timeout(30):
            try:
                got, reloads = await disturbed(world, make, value, seed)
                kills += reloads
                assert settled(got) == expected
            except Exception as exc:
                raise AssertionError(f"{make.__name__}, seed {seed}: {exc}") from exc

    assert kills >= SEEDS, "hardly any run was killed"
