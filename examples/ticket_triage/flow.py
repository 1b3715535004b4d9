"""summarise (model) -> classify (model) -> assign, and a page as soon as the model has written its severity.

Mode "auto": a hint without a target becomes visible before the next step, one with a target before the step it names.
Nothing in the flow says where hints may come.
"""

from flowdeck import TriggerFlow, TriggerFlowRuntimeData, runtime
from flowdeck.interaction import FieldRule, ProductMapper

from .model import MODEL

SUMMARY = {"summary": (str, "one sentence", True), "product": (str, "what it is about")}
CLASS = {"severity": (str, "low, medium or high", True), "labels": [(str, "a short label")]}

agent = runtime.create_agent("triage").use_model(MODEL)
agent.system("You triage support tickets.", always=True)
progress = ProductMapper(fields={"summary": FieldRule("ticket_understood", stage="triage", publish="summary")})

flow = TriggerFlow(name="ticket-triage")
flow.set_contract(initial_input=str)
flow.intervention_mode = "auto"


async def summarise(data: TriggerFlowRuntimeData):
    """Let the model summarise; the product sees a field as an event of its own, and never the parser's paths."""
    data.put({"event_type": "ticket_taken", "status": "started", "stage": "triage", "title": "We have your ticket"})
    response = agent.input(data.input).instruct("Summarise the ticket.").output(SUMMARY).get_response(data=data)
    async for item in response.get_async_generator("instant"):
        event = progress.of_instant(item)
        if event is not None:
            data.put(event.model_dump(exclude_none=True))

    return await response.async_get_data()


async def classify(data: TriggerFlowRuntimeData):
    """Let the model classify; a complete field is a signal while the model still writes the next."""
    hints = [item["payload"]["hint"] for item in data.interventions]
    request = agent.input(data.input).info({"hints": hints}).instruct("Classify the ticket.").output(CLASS)
    found = await request.get_response(data=data).async_emit_signals(data, {"severity": "SeverityKnown"})
    for item in data.interventions:
        await data.async_mark_intervention_consumed(item["id"], status="applied", note="told to the model")

    return {**data.input, **found}


async def assign(data: TriggerFlowRuntimeData):
    """Take the team of the product, unless a supervisor has said otherwise for this step."""
    said = data.get_latest_intervention(target="assign")
    team = said["payload"]["team"] if said else data.input["product"]
    await data.async_set_state("ticket", {**data.input, "team": team})


async def page(data: TriggerFlowRuntimeData):
    if data.input["value"] == "high":
        await data.async_set_state("paged", True)


flow.to(summarise).to(classify).to(assign)
flow.when("SeverityKnown").to(page)
