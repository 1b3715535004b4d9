"""The input log is the truth: replayed, it gives the state that the live execution has, at every committed point."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.execution.support import Data, World, turns
from tests.execution.test_crash_at_any_moment import Steps, answer, blocks, children, emits, gates, retries

from flowdeck.durable.memory import MemoryStore
from flowdeck.durable.store import Commit, Done
from flowdeck.execution.core import Core
from flowdeck.execution.execution import TriggerFlowExecution
from flowdeck.execution.recording import INPUTS, READS, RecordedCore
from flowdeck.execution.replica import replay
from flowdeck.execution.snapshot import dump_core
from flowdeck.execution.state import RUNNING
from flowdeck.execution.values import encode
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio

SEEDS = 12


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class CheckingStore(MemoryStore):
    """Compares the replayed with the live state after every commit."""

    def __init__(self) -> None:
        super().__init__()
        self.executions: dict[str, TriggerFlowExecution] = {}
        self.checks = 0
        self.snapshots = False

    def hosts(self, execution: Any) -> None:
        self.executions[execution.id] = execution

    def submit(self, commit: Commit, done: Done) -> None:
        super().submit(commit, done)
        live = self.executions[commit.execution_id]
        stored = self.load(commit.execution_id)
        replica = replay(stored.header, stored.plans, stored.definition, stored.snapshot, stored.batches)
        same(replica.dump(0), live, commit.execution_id)
        self.checks += 1


def same(replayed: dict[str, Any], live: TriggerFlowExecution, what: str) -> None:
    assert comparable(replayed["core"]) == comparable(dump_core(live._core)), what
    assert replayed["runtime_data"] == encode(live._core.data)
    assert replayed["lifecycle_state"] == live._lifecycle
    frames = {each["task"]: each for each in replayed.get("sub_flow_frames", []) if "task" in each}
    assert set(frames) == set(live._frames)
    for num, frame in live._frames.items():
        assert frames[num]["projected_interrupts"] == frame.roots
        same(frames[num]["child_saved_state"], frame.child, f"{what}, child {num}")


def comparable(core: dict[str, Any]) -> dict[str, Any]:
    """Leave out what events advance, the sequence numbers after the last input and the count of stream items, and the
    interrupt of a running task: it is set before the task parks, and that is an input."""
    _, _, *counters = core["counters"]
    tasks = [[*fields[:19], None, *fields[20:]] if fields[7] == RUNNING else fields for fields in core["tasks"]]
    return {**core, "counters": counters[:-2], "flags": core["flags"][1:], "tasks": tasks}


async def run(world: World, store: MemoryStore, make: Callable[[Steps], TriggerFlow], seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    world.services.store = store
    execution = world.execution(make(Steps(rng)), concurrency=rng.choice((None, 1, 2)))
    work = [asyncio.create_task(execution.async_start([1, 2] if make in (children, retries) else 1))]
    while True:
        await turns(rng.randrange(6))
        pending = execution.get_pending_interrupts()
        if pending and rng.random() < 0.6:
            interrupt_id = rng.choice(list(pending))
            reply = answer(pending[interrupt_id]["payload"])
            work.append(asyncio.create_task(execution.async_continue_with(interrupt_id, reply)))
            await turns(1)

        for done in [each for each in work if each.done()]:
            done.result()
            work.remove(done)

        if not work and not pending and execution.is_idle():
            return await execution.async_close()


def lends(s: Steps) -> TriggerFlow:
    flow = TriggerFlow(name="lends")

    async def through_the_handle(data: Data) -> Any:
        await s.dawdle()
        await data.execution.async_emit("Work", data.input)
        return data.input

    flow.to(("split", lambda d: [1, 2, 3])).for_each(concurrency=1).to(("sender", through_the_handle)).to(
        s.ask("ask")
    ).end_for_each().to(s.step("out"))
    flow.when("Work").to(s.step("work"))
    return flow


@pytest.mark.parametrize("make", [blocks, gates, emits, children, retries, lends], ids=lambda make: make.__name__)
async def test_a_replayed_log_gives_the_live_state_at_every_commit(
    world: World, make: Callable[[Steps], TriggerFlow]
) -> None:
    """Tasks, joins, groups, gates, interrupts, data and sub flows are the same, whatever the interleaving."""
    world.center.remove_sink(world.recorder)
    checks = 0
    for seed in range(SEEDS):
        store = CheckingStore()
        try:
            async with asyncio.timeout(30):
                await run(world, store, make, seed)
        except Exception as exc:
            raise AssertionError(f"{make.__name__}, seed {seed}: {exc}") from exc

        checks += store.checks

    assert checks > SEEDS * 8


def test_every_input_of_the_core_is_recorded() -> None:
    """A new input of the core has to be added to the log, or a recovery would not know of it."""
    methods = {name for name, member in inspect.getmembers(Core, inspect.isfunction) if not name.startswith("_")}
    assert methods - READS == INPUTS
    assert all(name in vars(RecordedCore) for name in INPUTS)


async def test_a_plain_core_has_no_gate(world: World) -> None:
    """Without a store nothing of this exists."""
    flow = TriggerFlow(name="plain")
    flow.to(("one", lambda d: 1))
    execution = world.execution(flow)
    assert type(execution._core) is Core
    assert execution._driver.gate is None
    await execution.async_start()
    await execution.async_close()


async def test_a_state_change_that_was_refused_is_refused_again(world: World) -> None:
    """An input that raised is part of the log, and raises in the replay, too."""
    store = CheckingStore()
    world.services.store = store

    async def spoil(data: Data) -> None:
        await data.async_set_state("a", 1)
        with pytest.raises(TypeError):
            await data.async_set_state("a.b.c", 2)

        await data.async_set_state("ok", True)

    flow = TriggerFlow(name="refused")
    flow.to(spoil)
    assert (await world.run(flow)) == {"a": 1, "ok": True}
    assert store.checks
