"""Interventions in durable runs: the log of inputs has them in order, and a refused start too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.durable.test_replica import CheckingStore
from tests.execution.support import World, passes, turns
from tests.interventions.test_crash import Story

from flowdeck.errors import ContractError
from flowdeck.execution.replica import replay
from flowdeck.triggerflow import TriggerFlow

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::flowdeck.errors.InterventionTargetWarning")]

SEEDS = 15


async def test_the_replayed_log_has_the_live_ledger_at_every_commit(world: World) -> None:
    """Also where operators wait to be asked about, in both modes and with a policy."""
    world.center.remove_sink(world.recorder)
    checks = 0
    for seed in range(SEEDS):
        story, store = Story(seed), CheckingStore()
        world.services.store = store
        options: dict[str, Any] = {"intervention_mode": "planned" if story.planned else "auto"}
        if story.asks_policy:
            options["intervention_policy"] = story.policy

        execution = world.execution(story.flow, **options)
        await story.add(execution)
        work = asyncio.create_task(execution.async_start("in"))
        while not work.done():
            await turns(story.rng.randrange(6))
            if execution.is_open() and story.rng.random() < 0.4:
                await story.add(execution)

            pending = execution.get_pending_interventions()
            if pending and story.rng.random() < 0.1:
                await execution.async_reject_intervention(story.rng.choice(pending)["id"], reason="chance")

        await work
        snapshot = await execution.async_close()
        assert execution.get_status() == "completed", f"seed {seed}: {execution._core.error}"
        stored = store.load(execution.id)
        replayed = replay(stored.header, stored.plans, stored.definition, stored.snapshot, stored.batches)
        assert replayed.root.core.snapshot_data() == snapshot
        checks += store.checks

    assert checks > SEEDS * 8


async def test_a_start_that_the_contract_refuses_is_in_the_log(world: World) -> None:
    """A recovery finds the run failed, not one that waits to be started."""
    store = CheckingStore()
    world.services.store = store
    flow = TriggerFlow(name="refused").set_contract(initial_input=int)
    flow.to(passes("a"))
    execution = world.execution(flow)
    with pytest.raises(ContractError):
        await execution.async_start("x")

    await execution.async_close()
    assert store.checks
