"""Scopes and ordinals: the same places whatever the interleaving."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.execution.support import Data, World, turns

from flowdeck.execution.ports import PortCall, Ports
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio

Key = tuple[str, str, str, int]


class Notebook(Ports):
    """Ports that write down every call's identity."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    async def call(self, call: PortCall, fn: Callable[..., Awaitable[Any] | Any]) -> Any:
        self.keys.append((call.scope, call.port, call.name, call.ordinal))
        return await super().call(call, fn)


def cycling(rng: random.Random) -> TriggerFlow:
    """for_each -> emit -> when -> a cycle of emits, every handler taking a random number of turns."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> Any:
        for name in ("one", "two", "one"):
            await turns(rng.randrange(4))
            await data.call("tool", name, lambda: None)

        await data.async_emit("Visit", [data.input, data.input % 3])
        return data.input

    async def visit(data: Data) -> None:
        item, left = data.input
        await turns(rng.randrange(4))
        await data.call("tool", "visit", lambda: None)
        if left:
            await data.async_emit("Visit", [item, left - 1])

    flow.for_each(concurrency=rng.choice((None, 1, 3))).to(work).end_for_each().to(("sum", lambda d: sum(d.input)))
    flow.when("Visit").to(visit).side_branch(("beside", lambda d: None))
    return flow


async def test_two_hundred_shuffles_have_one_set_of_keys(world: World) -> None:
    """(scope, port, name, ordinal) identifies a call in every interleaving of one run."""
    seen: set[frozenset[Key]] = set()
    orders: set[tuple[Key, ...]] = set()
    world.center.remove_sink(world.recorder)
    for seed in range(200):
        world.services.ports = notebook = Notebook()
        await world.run(cycling(random.Random(seed)), list(range(6)))
        assert len(set(notebook.keys)) == len(notebook.keys), "no key twice"
        seen.add(frozenset(notebook.keys))
        orders.add(tuple(notebook.keys))

    assert len(seen) == 1
    assert len(orders) > 100, "the shuffles did shuffle"
    (keys,) = seen
    assert ("for_each[5]/visit#2", "tool", "visit", 0) in keys
    assert ("for_each[0]/work", "tool", "one", 1) in keys
    assert len(keys) == 6 * 3 + sum(n % 3 + 1 for n in range(6))


async def test_segments_are_encoded_and_siblings_numbered(world: World) -> None:
    """Names with meaning characters are percent-encoded; equal siblings get ~k; deep scopes are hashed."""
    flow = TriggerFlow(name="f")
    flow.to(("a/b[0]#1", lambda d: d.input)).for_each().to(("x", lambda d: 1)).end_for_each().for_each().to(
        ("y", lambda d: 1)
    ).end_for_each()
    await world.run(flow, [1])
    assert {r.scope for r in world.records("chunk.started")} == {"a%2Fb%5B0%5D%231", "for_each[0]/x", "for_each~1[0]/y"}

    deep = TriggerFlow(name="deep")
    at: Any = deep
    for n in range(70):
        at = at.for_each(name=f"d{n}")

    at.to(("leaf", lambda d: d.scope)).to(("see", lambda d: d.set_state("scope", d.input)))
    snapshot = await world.run(deep, 1)
    assert snapshot["scope"].startswith("~") and snapshot["scope"].endswith("/leaf")
    assert snapshot["scope"].count("/") < 65


async def test_a_loop_counts_its_activations(world: World) -> None:
    """Each round of a cycle is an activation in its lane; another lane counts for itself."""
    flow = TriggerFlow(name="f")
    flow.for_each().to(("step", lambda d: d.input - 1)).if_condition(lambda d: d.input > 0).to(
        "step"
    ).else_condition().to(("done", lambda d: d.input)).end_condition().end_for_each()
    await world.run(flow, [2, 1])
    scopes = [r.scope for r in world.records("chunk.started") if r.payload["chunk_name"] == "step"]
    assert sorted(map(str, scopes)) == ["for_each[0]/step", "for_each[0]/step#1", "for_each[1]/step"]
    await asyncio.sleep(0)
