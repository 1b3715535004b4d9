"""extract_terms -> assess_risk (those of examples/document_review) -> ask a person -> publish."""

from examples.document_review.flow import assess_risk, extract_terms

from flowdeck import TriggerFlow, TriggerFlowRuntimeData

APPROVAL = {
    "type": "object",
    "properties": {"approved": {"type": "boolean", "title": "Accept the contract?"}, "note": {"type": "string"}},
    "required": ["approved"],
}

flow = TriggerFlow(name="review")


async def ask(data: TriggerFlowRuntimeData):
    """Ask a person, and show what to decide on."""
    risk = data.get_state("risk")
    question = {"question": f"The risk is {risk['level']}. Accept the contract?", "stage": "approval", "risk": risk}
    return await data.async_pause_for(
        type="approval", payload=question, schema=APPROVAL, interrupt_id="approval", resume_to="next"
    )


async def publish(data: TriggerFlowRuntimeData):
    """Tell the outcome, in the product's words."""
    verdict = "accepted" if data.input["approved"] else "rejected"
    await data.async_set_state("verdict", verdict)
    data.put({"event_type": "review_ended", "status": "completed", "stage": "publish", "title": f"Contract {verdict}"})


flow.to(extract_terms).to(assess_risk).to(ask).to(publish)
