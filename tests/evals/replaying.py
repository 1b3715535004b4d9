"""A flow that asks the world, people, the clock and chance, and how to record and replay it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowdeck import Retry, TriggerFlow, TriggerFlowRuntimeData
from flowdeck_evals.single import Single, record_live

__all__ = ["RULES", "orders", "recorded"]

RULES: Sequence[Mapping[str, Any]] = ({"on": "approve", "answer": {"yes": True}, "by": "ada"},)


def orders(shuffle: Callable[[], int] = lambda: 0, fetch: Any = None) -> TriggerFlow:
    """Return a flow over six orders, three at a time: price (tried twice), id, chance, approval.

    Args:
        shuffle: how many turns of the event loop a branch gives away, asked at every step.
        fetch: the world behind ``web.price``; raises at its first call for order 4.
    """
    tried: set[int] = set()

    async def price(order: Mapping[str, Any]) -> Any:
        await asyncio.sleep(random.random() / 200)
        if order["id"] == 4 and 4 not in tried:
            tried.add(4)
            raise ConnectionError("no route to the shop")

        return ("EUR", order["id"] % 2 + random.random())

    async def turn() -> None:
        for _ in range(shuffle()):
            await asyncio.sleep(0)

    async def take(data: TriggerFlowRuntimeData) -> list[int]:
        return list(range(data.input))

    async def quote(data: TriggerFlowRuntimeData) -> Any:
        await turn()
        first = await data.call("web", "price", fetch or price, {"id": data.input})
        await turn()
        # The same arguments everywhere: only the place tells these calls apart.
        second = await data.call("web", "rate", lambda: random.random())
        return [first, second, data.now(), data.new_id(), data.random.random()]

    async def ask(data: TriggerFlowRuntimeData) -> Any:
        await turn()
        await data.async_set_state(f"quotes.{data.scope}", data.input)
        return await data.async_pause_for(type="approve", payload={"price": data.input[0][1]})

    async def book(data: TriggerFlowRuntimeData) -> Any:
        await turn()
        return data.input

    async def total(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("booked", data.input)

    flow = TriggerFlow(name="orders")
    (
        flow.to(take)
        .for_each(concurrency=3)
        .to(quote, retry=Retry(attempts=2, on=(ConnectionError,)))
        .to(ask)
        .to(book)
        .end_for_each()
        .to(total)
    )
    return flow


def recorded(number: int = 6, **options: Any) -> Single:
    """Return one real run of :func:`orders`, approved by ada, with its tape."""
    return asyncio.run(record_live(orders(), number, human=RULES, **options))
