"""collect -> for each topic: write a section (model) -> publish the report as an artifact of the workspace.

On the runtime stream are product events, in the product's own words. State keeps references, the workspace the texts.
"""

from pathlib import Path

from flowdeck import TriggerFlow, TriggerFlowRuntimeData, runtime
from flowdeck.interaction import EndRule, FieldRule, ProductMapper

from .model import MODEL

SECTION = {"title": (str, "at most five words", True), "text": (str, "two sentences", True)}

writer = runtime.create_agent("report-writer").use_model(MODEL)
writer.system("You write a daily report for busy people.", always=True)

flow = TriggerFlow(name="daily-report")
flow.set_contract(initial_input={"type": "object", "required": ["task_id"]})


def product_of(task_id: str) -> ProductMapper:
    """What users see of a report: which field of the model's answer is which event, and what is said at the end."""
    return ProductMapper(
        task_id=task_id,
        fields={"text": FieldRule("section_ready", stage="writing", title="A section is ready", publish="text")},
        end=EndRule("report_ended", titles={"completed": "Your report", "failed": "There is no report today"}),
    )


async def collect(data: TriggerFlowRuntimeData):
    """Read today's news. What fails is told twice: in the product's words, and as the error it is."""
    product = product_of(data.input["task_id"])
    data.put(product.event("report_started", "started", stage="collecting", title="Collecting the news").model_dump())
    await data.async_set_state("task_id", data.input["task_id"])
    try:
        return await data.call("files", "read_news", read_news)
    except OSError:
        told = product.event("news_missing", "failed", stage="collecting", title="Today's news could not be read")
        data.put(told.model_dump(exclude_none=True))
        raise


async def write_section(data: TriggerFlowRuntimeData):
    """Let the model write a section; the product learns of it the moment its text is complete."""
    product = product_of(data.get_state("task_id"))
    response = writer.input(data.input).instruct("Write the section.").output(SECTION).get_response(data=data)
    async for item in response.get_async_generator("instant"):
        event = product.of_instant(item)
        if event is not None:
            data.put(event.model_dump(exclude_none=True))

    return await response.async_get_data()


async def publish(data: TriggerFlowRuntimeData):
    """Keep the report and the evidence for it; state gets the reference."""
    if writer.workspace is None:
        writer.use_workspace(".examples/workspace")

    task_id = data.get_state("task_id")
    labels = {"scope": {"task_id": task_id}, "source": {"name": "daily-report"}}
    workspace = writer.workspace.within(data)
    text = "\n\n".join(["# Daily report", *(f"## {each['title']}\n\n{each['text']}" for each in data.input)])
    report = await workspace.ingest(
        content=text, collection="artifacts", kind="report", summary="the daily report", **labels
    )
    decision = await workspace.ingest(
        content="Published unchanged.", collection="decisions", summary="published without review", **labels
    )
    await workspace.link(decision, report, "responds_to")
    await workspace.checkpoint(task_id, {"phase": "published", "report": report["uri"]}, step_id="publish")
    await data.async_set_state("report", report["uri"])

    ready = product_of(task_id).event("report_ready", "ready", stage="publishing", artifact_ref=report["uri"])
    data.put(ready.model_dump(exclude_none=True))


def read_news() -> list[dict]:
    """Stand-in for a feed: a text file, ``topic: what happened`` on each line."""
    lines = Path(__file__).with_name("news.txt").read_text(encoding="utf-8").splitlines()
    return [{"topic": topic, "news": news.strip()} for topic, _, news in (line.partition(":") for line in lines)]


flow.to(collect).for_each(concurrency=2).to(write_section).end_for_each().to(publish)
