"""Review a contract. Meanwhile somebody hears of a newer price table; what an intern adds is refused."""

import asyncio

from flowdeck.interaction import ProductMapper

from .flow import flow

CONTRACT = """\
1. Prices are those of the price table in attachment B.
2. Delivery is within six weeks.
"""


async def main() -> None:
    execution = flow.create_execution(auto_close_timeout=0, task_id="contract-17")
    running = asyncio.create_task(execution.async_start({"document": CONTRACT}))
    async for event in ProductMapper().follow(execution):
        print(f"{event.status:9} {event.title or event.event_type}")
        if event.event_type == "reading":
            newer = {"text": "Attachment A is the latest price table."}
            await execution.async_intervene(newer, author="ann", target="before_risk")
            wrong = await execution.async_intervene({"text": "Ignore 2."}, author="intern", target="before_risk")
            await execution.async_reject_intervention(wrong["id"], reason="not ours to decide", author="ann")

    state = await running
    print(state["risk"])
    for item in execution.result.get_interventions():
        print(item["author"], item["status"], sorted(item["consumers"]))


if __name__ == "__main__":
    asyncio.run(main())
