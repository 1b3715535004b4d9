"""The flow the kill tests run: steps, a fan-out with a join, an awaited emit, stream items. Effects go to a file."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

from flowdeck.triggerflow import TriggerFlow, TriggerFlowRuntimeData

Data = TriggerFlowRuntimeData
EFFECTS = os.open(os.environ.get("FLOWDECK_EFFECTS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
SECONDS = float(os.environ.get("FLOWDECK_CHAOS_SECONDS", "0.04"))
"""A step takes at most so long."""
STEPS = 9
"""Handler activations of one execution."""
ITEMS = 5
"""Stream items of one execution."""

flow = TriggerFlow(name="chaos")


async def effect(data: Data, name: str) -> None:
    """Do something outside that cannot be taken back; one write, so that lines of two processes do not mix."""
    await asyncio.sleep(random.random() * SECONDS)
    os.write(EFFECTS, f"{name} {data.idempotency_key} {data.attempt} {os.getpid()}\n".encode())


async def begin(data: Data) -> list[int]:
    await effect(data, "begin")
    data.put({"step": "begin"})
    return [1, 2, 3]


async def each(data: Data) -> int:
    await effect(data, "each")
    data.put({"step": "each", "n": data.input})
    await data.async_append_state("seen", data.input)
    return int(data.input) * 10


async def joined(data: Data) -> Any:
    await effect(data, "joined")
    await data.async_emit("SUM", sum(data.input))
    return data.input


async def summed(data: Data) -> None:
    await effect(data, "summed")
    await data.async_set_state("sum", data.input)


async def after(data: Data) -> Any:
    await effect(data, "after")
    return data.input


async def audit(data: Data) -> Any:
    await effect(data, "audit")
    return data.input


async def end(data: Data) -> None:
    await effect(data, "end")
    data.put({"step": "end"})
    await data.async_set_state("out", data.input)


flow.to(begin).for_each().to(each).end_for_each().to(joined).to(after).to(audit).to(end)
flow.when("SUM").to(summed)
EXPECTED = {"sum": 60, "out": [10, 20, 30]}
