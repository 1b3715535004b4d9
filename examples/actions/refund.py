"""A planner looks an order up and wants to pay it back; paying needs a person's yes.

The answered action then runs, with a key that stays the same should it be called again after a crash.
"""

import asyncio

from flowdeck import runtime
from flowdeck.actions import ActionContext

actions = runtime.actions
ORDERS = {"o-17": {"amount": 40.0, "delivered": False}}


@actions.action_func
async def find_order(order: str) -> dict:
    """Look an order up."""
    return ORDERS[order]


@actions.action_func(approval_required=True, side_effect_level="write", replay_safe=False)
async def refund(order: str, amount: float, context: ActionContext) -> str:
    """Pay an order back."""
    return f"{amount} paid back for {order}, {context.idempotency_key.partition(':')[2]}"


def plan(context: dict, request: dict):
    """Stand-in for a model: it sees the request, the actions there are, and the records so far."""
    found = {record["action_id"]: record for record in context["records"]}
    if "find_order" not in found:
        return [{"action_id": "find_order", "action_input": {"order": context["input"]}}]

    if "refund" not in found and not found["find_order"]["data"]["delivered"]:
        amount = found["find_order"]["data"]["amount"]
        return [{"action_id": "refund", "action_input": {"order": context["input"], "amount": amount}}]

    return {"next_action": "response"}


async def main():
    loop = actions.create_loop(plan, max_rounds=4)
    execution = loop.create_execution()
    running = asyncio.create_task(execution.async_start("o-17"))
    async for item in execution.get_async_runtime_stream():
        if item["type"] == "interrupt" and item["action"] == "pause":
            asked = item["interrupt"]["payload"]
            print("asked:", asked["action_id"], asked["kwargs"])
            await execution.async_continue_with(item["interrupt"]["id"], {"approved": True}, actor="ann")

    state = await running
    for record in state["records"]:
        print(record["action_id"], record["status"], record["data"])


asyncio.run(main())
