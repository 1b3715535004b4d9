"""Targets of the evals tests: callables and flows, found as ``tests.evals.targets_for_tests:NAME``."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from flowdeck import TriggerFlow, TriggerFlowRuntimeData


async def echo(value: Any) -> Any:
    return value


async def wrong(value: Any) -> Any:
    return "wrong"


async def boom(value: Any) -> Any:
    raise ValueError("no such order")


async def hang(value: Any) -> Any:
    await asyncio.Event().wait()


async def deaf(value: Any) -> Any:
    """Ignore every cancellation."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def leaves(value: Any) -> Any:
    raise SystemExit(0)


def blocking(value: Any) -> Any:
    time.sleep(value)
    return value


async def slow(value: Any) -> Any:
    """Take its place for a moment, and tell the file it is given that it ran."""
    with open(os.environ["EVALS_TEST_LOG"], "a") as file:  # noqa: ASYNC230, PTH123
        file.write(f"{value}\n")

    await asyncio.sleep(0.005)
    return value


def sick_check(round: Any) -> bool:
    raise RuntimeError("the check is broken")


def false_check(round: Any) -> bool:
    return False


flow = TriggerFlow(name="evals-shop")


async def price(data: TriggerFlowRuntimeData) -> dict[str, Any]:
    return {"total": data.input["n"] * 2}


async def keep(data: TriggerFlowRuntimeData) -> None:
    await data.async_set_state("total", data.input["total"])


flow.to(price).to(keep)

worldly = TriggerFlow(name="evals-worldly")


async def get(data: TriggerFlowRuntimeData) -> None:
    await data.async_set_state("got", await data.call("web", "get", lambda value: value, data.input))


worldly.to(get)

deaf_flow = TriggerFlow(name="evals-deaf")
deaf_flow.to(deaf)

asking = TriggerFlow(name="evals-asking")


async def ask(data: TriggerFlowRuntimeData) -> Any:
    return await data.async_pause_for(type="approval", payload={"amount": 5}, resume_to="next")


asking.to(ask).to(keep)
