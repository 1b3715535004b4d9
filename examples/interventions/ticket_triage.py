"""Tickets are triaged; a supervisor's hint reaches the classifier although the run was under way when it came.

Mode "auto": what has no target becomes visible before the next chunk, what has one before the operator it names.
"""

import asyncio

from flowdeck import TriggerFlow, TriggerFlowRuntimeData

flow = TriggerFlow(name="ticket_triage")


async def normalise(data: TriggerFlowRuntimeData):
    # Somebody adds context from outside while this chunk runs. It does not see it; the chunks behind it do.
    await data.execution.async_intervene({"hint": "outage in region EU"}, author="supervisor")
    await data.execution.async_intervene({"team": "payments"}, author="supervisor", target="assign")
    return data.input.strip().lower()


async def classify(data: TriggerFlowRuntimeData):
    hints = [item["payload"]["hint"] for item in data.interventions]
    for item in data.interventions:
        await data.async_mark_intervention_consumed(item["id"], status="applied", note="raised the priority")

    return {"ticket": data.input, "priority": "high" if hints else "normal", "hints": hints}


async def assign(data: TriggerFlowRuntimeData):
    team = data.get_latest_intervention({"payload": {"team": "support"}}, target="assign")["payload"]["team"]
    await data.async_set_state("ticket", {**data.input, "team": team})


flow.to(normalise).to(classify).to(assign)


async def main():
    execution = flow.create_execution(auto_close=False, intervention_mode="auto")
    await execution.async_start("  Card payments fail ")
    snapshot = await execution.async_close()

    print(snapshot["ticket"])
    for item in execution.result.get_interventions():
        print(item["payload"], "->", item["insertion"]["operator_name"], sorted(item["consumers"]))


if __name__ == "__main__":
    asyncio.run(main())
