"""extract_terms (model) -> intervention point "before_risk" -> assess_risk (model).

What people add while the model reads becomes visible at the point, never in the middle of a step.
"""

from flowdeck import TriggerFlow, TriggerFlowRuntimeData, runtime

from .model import MODEL

TERMS = {"terms": [{"clause": (str, "its number"), "says": (str, "in one sentence")}]}
RISK = {"level": (str, "low, medium or high", True), "because": [(str, "the clause, and what is wrong with it")]}

reviewer = runtime.create_agent("reviewer").use_model(MODEL)
reviewer.system("You review contracts for the buyer.", always=True)

flow = TriggerFlow(name="document-review")
flow.set_contract(initial_input={"type": "object", "required": ["document"]})


async def extract_terms(data: TriggerFlowRuntimeData):
    """Let the model list the terms that matter."""
    data.put({"event_type": "reading", "status": "started", "stage": "terms", "title": "Reading the contract"})
    request = reviewer.input(data.input["document"]).instruct("List the terms a buyer should know.").output(TERMS)
    return await request.async_start(data=data)


async def assess_risk(data: TriggerFlowRuntimeData):
    """Let the model judge the terms, together with what people have added."""
    supplements = data.get_interventions(status="inserted", target="before_risk")
    said = [item["payload"]["text"] for item in supplements]
    request = reviewer.input(data.input["terms"]).info({"supplements": said}).instruct("Assess the risk.").output(RISK)
    risk = await request.async_start(data=data)

    for item in supplements:
        await data.async_mark_intervention_consumed(item["id"], status="applied")

    await data.async_set_state("risk", risk)
    title = f"The risk is {risk['level']}"
    data.put({"event_type": "review_ready", "status": "ready", "stage": "risk", "title": title})


(
    flow
    .to(extract_terms)
    .intervention_point(name="before_risk", target="before_risk")
    .to(assess_risk)
)  # fmt: skip
