"""A document is being reviewed; while it is, a person adds what the reviewer of the risks must know.

Mode "planned": additions become visible at the intervention point, never in the middle of a step.
"""

import asyncio

from flowdeck import TriggerFlow, TriggerFlowRuntimeData

flow = TriggerFlow(name="document_review")


async def extract_terms(data: TriggerFlowRuntimeData):
    return {"document": data.input, "terms": ["price table", "delivery"]}


async def assess_with_model(question: dict):
    """Stand-in for a model: it flags whatever the supplements speak of."""
    flagged = [text for text in question["supplements"] if "price" in text]
    return {"risk": "high" if flagged else "low", "because": flagged}


async def risk_assessment(data: TriggerFlowRuntimeData):
    supplements = data.get_interventions(status="inserted", target="before_risk")
    result = await assess_with_model(
        {
            "terms": data.input,
            "supplements": [item["payload"]["text"] for item in supplements],
        }
    )
    for item in supplements:
        await data.async_mark_intervention_consumed(item["id"], status="applied")

    await data.async_set_state("assessment", result)


(
    flow
    .to(extract_terms)
    .intervention_point(name="before_risk", target="before_risk")
    .to(risk_assessment)
)  # fmt: skip


async def main():
    execution = flow.create_execution(auto_close=False)
    await execution.async_intervene(
        {"text": "Attachment A is the latest price table."},
        author="reviewer",
        target="before_risk",
    )
    wrong = await execution.async_intervene({"text": "Ignore delivery."}, author="intern", target="before_risk")
    await execution.async_reject_intervention(wrong["id"], reason="not ours to decide", author="reviewer")
    await execution.async_start("contract.pdf")
    snapshot = await execution.async_close()

    print(snapshot["assessment"])
    for item in execution.result.get_interventions():
        print(item["author"], item["status"], sorted(item["consumers"]))


if __name__ == "__main__":
    asyncio.run(main())
