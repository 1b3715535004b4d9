"""gate (model) -> decide. The gate asks a person only when the model wants to know something.

``resume_to="self"``: the answer comes back to the same step, which lets the model judge again, with all answers so far.
It may ask once more; the flow around it knows nothing of that.
"""

from flowdeck import TriggerFlow, TriggerFlowRuntimeData, runtime

from .model import MODEL

VERDICT = {
    "enough": (bool, "whether the claim can be decided with what is known", True),
    "question": (str, "what a person should be asked, if it is not enough"),
    "verdict": (str, "pay or refuse, if it is"),
}
QUESTIONS = 3

assessor = runtime.create_agent("assessor").use_model(MODEL)
assessor.system("You assess damage claims. Ask when in doubt, one question at a time.", always=True)

flow = TriggerFlow(name="model-gate")
flow.set_contract(initial_input=str)


async def gate(data: TriggerFlowRuntimeData):
    """Let the model decide, or ask what it wants to know."""
    answers = data.get_state("answers", [])
    if data.is_resume:
        question = data.resume.interrupt["payload"]["question"]
        answers = [*answers, {"question": question, "answer": data.resume.value}]
        await data.async_set_state("answers", answers)

    request = assessor.input(data.input).info({"answers": answers}).output(VERDICT)
    judged = await request.async_start(data=data)
    if judged["enough"] or len(answers) == QUESTIONS:
        return judged

    return await data.async_pause_for(type="review", payload={"question": judged["question"]}, resume_to="self")


async def decide(data: TriggerFlowRuntimeData):
    await data.async_set_state("verdict", data.input["verdict"] if data.input["enough"] else "refer to a colleague")


flow.to(gate).to(decide)
