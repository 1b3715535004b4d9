"""A shop whose paying action may kill its process: ``process_payer.py <store> <book> start|go-on [--once]``.

``start`` approves the payment itself; the action notes its idempotency key in the book and dies in the middle.
``go-on`` takes the run up again and lets it end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from flowdeck import runtime
from flowdeck.actions import ActionContext

STORE, BOOK, WHAT = sys.argv[1:4]
ONCE = "--once" in sys.argv


@runtime.actions.action_func(approval_required=True, side_effect_level="write", replay_safe=not ONCE)
def pay(amount: int, context: ActionContext) -> dict[str, Any]:
    with Path(BOOK).open("a") as book:
        book.write(f"{context.idempotency_key} {amount} {context.attempt}\n")

    if WHAT == "start":
        runtime.flush()  # a killed process may lose what its journal has not written yet
        os.kill(os.getpid(), signal.SIGKILL)

    return {"paid": amount}


def plan(context: dict[str, Any], request: dict[str, Any]) -> Any:
    return [{"action_id": "pay", "action_input": {"amount": 5}}] if context["round_index"] == 0 else None


loop = runtime.actions.create_loop(plan)
shop = loop.flow


async def start() -> None:
    execution = loop.create_execution(execution_id="order-1")
    task = asyncio.create_task(execution.async_start("buy"))
    async for item in execution.get_async_runtime_stream():
        if item.get("type") == "interrupt":
            break

    [interrupt_id] = execution.get_pending_interrupts()
    await execution.async_continue_with(interrupt_id, {"approved": True}, actor="ann")
    await task


async def go_on(used: Any) -> None:
    execution = await used.host.take_up("order-1", flow=shop)
    while not execution.is_closed():
        for interrupt_id, interrupt in execution.get_pending_interrupts().items():
            assert interrupt["type"] == "replay_unsafe", interrupt["type"]
            print("asked", flush=True)
            value = {"paid": 5, "seen": "by hand"}
            await execution.async_continue_with(interrupt_id, {"action": "skip", "value": value})

        await asyncio.sleep(0.001)

    state = await execution.async_close()
    print(json.dumps({"records": state["records"], "status": execution.get_status()}))


def main() -> None:
    runtime.observe(store=STORE)
    used = runtime.use_store(STORE)
    asyncio.run(start() if WHAT == "start" else go_on(used))


if __name__ == "__main__":
    main()
