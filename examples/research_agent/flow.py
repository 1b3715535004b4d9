"""research (an agent with tools) -> keep (workspace).

The model calls the tools until it knows enough, then answers. The answer's text is an artifact, the documents it stands
on are evidence, linked with it; state keeps references. The session remembers the conversation, not the documents.
"""

from pathlib import Path
from typing import Annotated

from flowdeck import TriggerFlow, TriggerFlowRuntimeData, runtime

from .model import MODEL

ARCHIVE = Path(__file__).with_name("archive")
ANSWER = {"answer": (str, "two sentences", True), "sources": [(str, "the name of a document")]}

agent = runtime.create_agent("researcher").use_model(MODEL).use_planning("native_tool_calls")
agent.system("You answer from the archive, and name your sources.", always=True)

flow = TriggerFlow(name="research-agent")
flow.set_contract(initial_input={"type": "object", "required": ["question", "task_id"]})


@agent.action_func
def search(words: Annotated[str, "words that must all be there"]) -> list[str]:
    """Find documents of the archive; returns their names."""
    wanted = words.lower().split()
    return sorted(p.stem for p in ARCHIVE.glob("*.txt") if all(word in p.read_text().lower() for word in wanted))


@agent.action_func
def read(name: Annotated[str, "a name that search has returned"]) -> str:
    """Read a document of the archive."""
    known = {path.stem: path for path in ARCHIVE.glob("*.txt")}
    return known[name].read_text() if name in known else f"Error: there is no document {name!r}; search for it first"


async def research(data: TriggerFlowRuntimeData):
    """Let the agent work: it calls its tools in rounds, then answers."""
    await data.async_set_state("task_id", data.input["task_id"])
    request = agent.input(data.input["question"]).output(ANSWER).validate(known_sources)
    return await request.async_start(data=data)


def known_sources(answer: dict, context) -> dict:
    """Refuse an answer that names a document nobody has; the model is told, and asked again."""
    unknown = set(answer["sources"]) - {path.stem for path in ARCHIVE.glob("*.txt")}
    return {"ok": not unknown, "reason": f"there is no document {', '.join(unknown)}"}


async def keep(data: TriggerFlowRuntimeData):
    """Write the answer and its evidence down, each with where it comes from."""
    if agent.workspace is None:
        agent.use_workspace(".examples/workspace")

    workspace = agent.workspace.within(data)
    scope = {"task_id": data.get_state("task_id")}
    answer = await workspace.ingest(
        content=data.input["answer"], collection="artifacts", kind="answer", summary="what the archive says",
        source={"name": "research"}, scope=scope,
    )  # fmt: skip
    for name in data.input["sources"]:
        text = await data.call("files", "read", read, name)
        evidence = await workspace.ingest(
            content=text, collection="evidence", kind="document", summary=name, source={"name": name}, scope=scope
        )
        await workspace.link(answer, evidence, "based_on")

    await data.async_set_state("answer", {"text": data.input["answer"], "ref": answer["uri"]})


flow.to(research).to(keep)
