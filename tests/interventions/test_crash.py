"""Interventions over saves, loads and crashes at any moment."""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Any

import pytest
from tests.execution.support import Data, World, passes, turns

from flowdeck.errors import SnapshotError
from flowdeck.execution.snapshot import ROWS_FORMAT, _digest
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::flowdeck.errors.InterventionTargetWarning")]

SEEDS = int(os.environ.get("FLOWDECK_SIM_SEEDS", "20000")) // 250
CRASHES = 8


async def test_a_re_run_after_a_crash_sees_what_it_saw(world: World) -> None:
    """What came after its dispatch stays invisible to it, so it repeats its effects; the next chunk sees it."""
    views: list[tuple[str, list[Any]]] = []
    hold = asyncio.Event()

    async def decide(data: Data) -> None:
        views.append(("decide", [i["payload"] for i in data.interventions]))
        await data.async_emit("Small" if not data.interventions else "Large")
        await hold.wait()

    flow = TriggerFlow(name="rerun")
    flow.to(("decide", decide)).to(
        ("next", lambda data: views.append(("next", [i["payload"] for i in data.interventions])))
    )
    flow.when("Small").to(passes("small"))
    flow.when("Large").to(passes("large"))
    execution = world.execution(flow, intervention_mode="auto")
    start = asyncio.create_task(execution.async_start())
    await turns()
    await execution.async_intervene("late")
    saved = execution.save()
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)

    restored = world.execution(flow)
    restored.load(json.loads(json.dumps(saved)))
    hold.set()
    await restored.async_recover()
    await restored.async_close()
    assert views == [("decide", []), ("decide", []), ("next", ["late"])]
    assert world.chunks()["small"] == 1 and world.chunks()["large"] == 0


async def test_a_mark_is_not_repeated_by_a_re_run(world: World) -> None:
    """One event, and the time of the first."""
    hold = asyncio.Event()

    async def take(data: Data) -> None:
        for item in data.interventions:
            await data.async_mark_intervention_consumed(item["id"])

        await hold.wait()

    flow = TriggerFlow(name="mark")
    flow.to(("take", take))
    execution = world.execution(flow, intervention_mode="auto")
    await execution.async_intervene("x")
    start = asyncio.create_task(execution.async_start())
    await turns()
    first = execution.get_interventions()[0]["consumers"]
    saved = execution.save()
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    await world.clock.advance(5)
    restored = world.execution(flow)
    restored.load(saved)
    hold.set()
    await restored.async_recover()
    assert restored.get_interventions()[0]["consumers"] == first
    assert len(world.payloads("triggerflow.intervention_consumed")) == 1
    await restored.async_close()


async def test_a_saved_state_without_the_key_loads(world: World) -> None:
    """States of before this feature keep the mode their execution is created with; the format number is the same."""
    flow = TriggerFlow(name="old")
    flow.to(("ask", lambda data: data.pause_for()))
    execution = world.execution(flow)
    await execution.async_start()
    saved = execution.save()
    assert saved["format"] == ROWS_FORMAT == 1
    assert "interventions" not in saved["core"], "nothing is written where nothing is used"
    restored = world.execution(flow, intervention_mode="auto")
    restored.load(saved)
    assert restored.intervention_mode == "auto"
    assert (await restored.async_intervene("x"))["version"] == 1


async def test_an_explicit_none_survives_a_load(world: World) -> None:
    """Although the flow has points, which would make a new execution ``planned``."""
    flow = TriggerFlow(name="none")
    flow.to(("ask", lambda data: data.pause_for())).intervention_point(name="p")
    execution = world.execution(flow, intervention_mode=None)
    await execution.async_start()
    restored = world.execution(flow)
    restored.load(execution.save())
    assert restored.intervention_mode is None


async def test_a_closed_run_loads_with_its_ledger(world: World) -> None:
    """The rebuilt snapshot and the result have it."""
    flow = TriggerFlow(name="closed")
    flow.intervention_point(name="p", target="t")
    execution = world.execution(flow)
    await execution.async_intervene("x", target="t")
    await execution.async_start()
    snapshot = await execution.async_close()
    restored = world.execution(flow)
    restored.load(execution.save())
    assert await restored.async_close() == snapshot
    assert restored.result.get_interventions() == execution.result.get_interventions()


async def test_typed_payloads_survive(world: World) -> None:
    """What may be stored in state may be stored here, and comes back as the same type."""
    from datetime import datetime
    from decimal import Decimal

    flow = TriggerFlow(name="typed")
    flow.to(("ask", lambda data: data.pause_for())).intervention_point(name="p", target="t")
    execution = world.execution(flow)
    payload = {"when": datetime(2026, 1, 2, 3), "sum": Decimal("1.10"), "pair": (1, 2)}
    await execution.async_intervene(payload, target="t")
    await execution.async_start()
    restored = world.execution(flow)
    restored.load(json.loads(json.dumps(execution.save())))
    assert restored.get_interventions()[0]["payload"] == payload


async def test_an_altered_ledger_is_refused(world: World) -> None:
    """By the checksum; and one that was altered with it, by name."""
    flow = TriggerFlow(name="altered")
    flow.to(passes("a"))
    execution = world.execution(flow, intervention_mode="auto")
    await execution.async_intervene("x")
    saved = execution.save()
    saved["core"]["interventions"][3][0][2] = "y"
    with pytest.raises(SnapshotError, match="altered"):
        world.execution(flow).load(saved)

    for broken in ([], ["planned"], "text", ["planned", 1, 1, [[1]]], ["sometimes", 0, 0, []]):
        saved["core"]["interventions"] = broken
        saved["sha256"] = _digest({k: v for k, v in saved.items() if k != "sha256"})
        with pytest.raises(SnapshotError, match="interventions"):
            world.execution(flow).load(saved)


# -- crashes at any moment ---------------------------------------------------------------------------------------------


class Story:
    """One random run: a flow whose chunks write down what they see, and interventions that come at any time."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.planned = self.rng.random() < 0.5
        self.asks_policy = not self.planned and self.rng.random() < 0.5
        self.started: dict[str, list[Any]] = {}
        """What each activation saw, by its idempotency key."""
        self.count = 0
        self.flow = self._declare()

    def step(self, name: str, result: Any = None) -> tuple[str, Any]:
        async def run(data: Data) -> Any:
            view = [(i["id"], sorted(i["consumers"])) for i in data.interventions]
            assert self.started.setdefault(data.idempotency_key, view) == view, "a re-run sees what its first run saw"
            await turns(self.rng.randrange(3))
            for item in data.interventions:
                if not item["consumers"]:
                    await data.async_mark_intervention_consumed(item["id"])

            await data.async_append_state("log", [name, data.input, len(view)])
            await turns(self.rng.randrange(3))
            return data.input if result is None else result

        return (name, run)

    async def policy(self, context: dict[str, Any]) -> Any:
        await turns(self.rng.randrange(3))
        return [item["id"] for item in context["pending_interventions"] if self.rng.random() < 0.5]

    def _declare(self) -> TriggerFlow:
        rng = self.rng
        flow = TriggerFlow(name="story")
        at = flow.to(self.step("begin", ["x", "y", "z"]))
        if self.planned:
            at = at.intervention_point(name="p1", target="one")

        at = at.for_each(concurrency=rng.choice((None, 1, 2)), name="each").to(self.step("member"))
        if self.planned:
            at = at.intervention_point(name="p2", target="two")

        at = at.to(self.step("after")).end_for_each().batch(self.step("left"), self.step("right"), name="both")
        at = at.match(name="which").case(lambda data: bool(data.interventions)).to(self.step("arm")).end_match()
        at.to(("keep", lambda data: data.set_state("end", data.input)))
        return flow

    def target(self) -> str | None:
        aims = (
            ("one", "two", "lost", None) if self.planned else (None, "after", "each", "batch_collect", "which", "lost")
        )
        return self.rng.choice(aims)

    async def add(self, execution: TriggerFlowExecution) -> None:
        self.count += 1
        await execution.async_intervene(self.count, target=self.target())


@pytest.mark.filterwarnings("ignore:.*'START' refused:RuntimeWarning")
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_run_that_crashes_anywhere_delivers_every_intervention_once(world: World, seed: int) -> None:
    """Nothing is lost, seen twice or seen early; the result is that of a run nobody disturbed."""
    story = Story(seed)
    options: dict[str, Any] = {"intervention_mode": "planned" if story.planned else "auto"}
    if story.asks_policy:
        options["intervention_policy"] = story.policy

    execution = world.execution(story.flow, **options)
    await story.add(execution)
    work = asyncio.create_task(execution.async_start("in"))
    for _ in range(story.rng.randrange(CRASHES)):
        await turns(story.rng.randrange(12))
        if execution._core.started and execution.is_open() and story.rng.random() < 0.5:
            await story.add(execution)

        if work.done():
            break

        saved = json.loads(json.dumps(execution.save()))
        started = saved["status"] != "created"
        await execution.async_cancel()
        await asyncio.gather(work, return_exceptions=True)
        execution = world.execution(story.flow, **options)
        execution.load(saved)
        work = asyncio.create_task(execution.async_recover() if started else execution.async_start("in"))

    await work
    snapshot = await execution.async_close()

    assert execution.get_status() == "completed", execution._core.error
    log = sorted(json.dumps(entry[:2]) for entry in snapshot["log"])
    members = [["member", v] for v in "xyz"] + [["after", v] for v in "xyz"]
    ends = [["left", ["x", "y", "z"]], ["right", ["x", "y", "z"]]]
    pair = {"left": ["x", "y", "z"], "right": ["x", "y", "z"]}
    expected = [["begin", "in"], *members, *ends] + ([["arm", pair]] if len(log) == 10 else [])
    assert log == sorted(json.dumps(entry) for entry in expected)
    assert snapshot["end"] == pair

    items = list(snapshot["$interventions"].values())
    assert [item["version"] for item in items] == list(range(1, story.count + 1))
    assert sorted(item["payload"] for item in items) == list(range(1, story.count + 1))
    for item in items:
        assert item["status"] in ("inserted", "expired")
        assert (item["insertion"] is not None) == (item["status"] == "inserted")
        if item["target"] == "lost" and not story.asks_policy:
            assert item["status"] == "expired"

    if story.planned:
        for item in items:
            if item["insertion"]:
                assert item["insertion"]["operator_name"] == {"one": "p1", "two": "p2"}[item["target"]]
