"""collect -> ask whether to publish -> publish; and what is done when nobody answers.

The flows know nothing of schedules, queues or chats: those own the trigger, the flows own the work.
"""

from flowdeck import TriggerFlow, TriggerFlowRuntimeData

APPROVAL = {"type": "object", "properties": {"publish": {"type": "boolean"}}, "required": ["publish"]}

report = TriggerFlow(name="report")
compensation = TriggerFlow(name="report-compensation")


async def collect(data: TriggerFlowRuntimeData):
    """Stand-in for the work; the reference stays in the state."""
    data.put({"event_type": "report_started", "status": "started", "stage": "collecting", "title": "Collecting"})
    await data.async_set_state("report", f"workspace://reports/{data.input['topic']}.md")


async def ask(data: TriggerFlowRuntimeData):
    """Wait for a person, however long it takes and whatever restarts meanwhile."""
    payload = {"question": "Publish the report?", "artifact_ref": data.get_state("report")}
    return await data.async_pause_for(
        type="approval", payload=payload, schema=APPROVAL, interrupt_id="publish", resume_to="next"
    )


async def publish(data: TriggerFlowRuntimeData):
    """Do what the person said."""
    await data.async_set_state("published", data.input["publish"])


async def withdraw(data: TriggerFlowRuntimeData):
    """Undo what was prepared for a report that nobody wanted."""
    await data.async_set_state("withdrawn", data.input["task_id"])


report.to(collect).to(ask).to(publish)
compensation.to(withdraw)
