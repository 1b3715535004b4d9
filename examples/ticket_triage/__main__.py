"""Triage a ticket. While the model reads it, the supervisor hears of an outage, and knows which team has time."""

import asyncio

from .flow import flow, progress


async def main() -> None:
    execution = flow.create_execution(auto_close_timeout=0, task_id="ticket-4711")
    running = asyncio.create_task(execution.async_start("Since this morning no card goes through!"))
    async for event in progress.follow(execution):
        print(f"{event.status:9} {event.title or event.event_type}")
        if event.event_type == "ticket_taken":
            await execution.async_intervene({"hint": "outage in region EU"}, author="supervisor")
            await execution.async_intervene({"team": "night shift"}, author="supervisor", target="assign")

    state = await running
    print(state["ticket"])
    for item in execution.result.get_interventions():
        print(item["payload"], "->", item["insertion"]["operator_name"])


if __name__ == "__main__":
    asyncio.run(main())
