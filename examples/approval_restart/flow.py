"""draft (model) -> ask a person -> send.

The question survives the process. ``draft`` and ``ask`` may run again, they change nothing outside. ``send`` is
declared ``replay_safe=False``: after a crash in it a person is asked whether it may run again. The mail service is a
live object: only its name is stored, and whoever takes the run up has to give it.
"""

from pathlib import Path

from flowdeck import TriggerFlow, TriggerFlowRuntimeData, runtime

from .model import MODEL

LETTER = {"subject": (str, "at most six words", True), "body": (str, "two sentences", True)}
APPROVAL = {
    "type": "object",
    "properties": {"approved": {"type": "boolean", "title": "Send it?"}, "note": {"type": "string"}},
    "required": ["approved"],
}

writer = runtime.create_agent("writer").use_model(MODEL)
writer.system("You write to customers.", always=True)

flow = TriggerFlow(name="approval-restart")
flow.set_contract(initial_input={"type": "object", "required": ["to", "about"]})


async def draft(data: TriggerFlowRuntimeData):
    letter = await writer.input(data.input["about"]).instruct("Write the letter.").output(LETTER).async_start(data=data)
    await data.async_set_state("letter", {"to": data.input["to"], **letter})


async def ask(data: TriggerFlowRuntimeData):
    payload = {"question": "Send this letter?", **data.get_state("letter")}
    return await data.async_pause_for(type="approval", payload=payload, schema=APPROVAL, resume_to="next")


async def send(data: TriggerFlowRuntimeData):
    letter = data.get_state("letter")
    if data.input["approved"]:
        await data.call("mail", "send", data.get_resource("mail").send, letter, data.idempotency_key)

    await data.async_set_state("sent", data.input["approved"])


class Mail:
    """Stand-in for a mail service: a line in a file. By the key a real one knows what it has taken already."""

    def send(self, letter: dict[str, str], key: str) -> None:
        with Path("outbox.txt").open("a", encoding="utf-8") as outbox:
            outbox.write(f"{key} to {letter['to']}: {letter['subject']}\n")


flow.set_runtime_resource("mail", Mail())
flow.to(draft).to(ask).to(send, replay_safe=False)
