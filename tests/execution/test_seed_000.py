"""The daily report of seed 000 (interaction layer and proactive tasks), run as it is written.

Replaced at the outermost edge, because the seed leaves them to the application: ``notify_ui_or_im`` and
``save_task_result`` (lists), the scheduler (a call), and the model that would write the sections (a resource).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.execution.support import until

from flowdeck.compat import TriggerFlow, TriggerFlowRuntimeData
from flowdeck.errors import InterruptError

pytestmark = pytest.mark.anyio

JOB = """
async def run_daily_report_job(topic: str, task_id: str):
    execution = report_flow.create_execution(
        auto_close=False,
        runtime_resources={"task_id": task_id},
    )
    await execution.async_start({"topic": topic, "task_id": task_id})

    close_task = asyncio.create_task(execution.async_close())
    async for item in execution.get_async_runtime_stream(timeout=None):
        await notify_ui_or_im({
            "event_type": item.get("type", "workflow_event"),
            "task_id": task_id,
            "execution_id": execution.result.get_meta()["execution_id"],
            "stage": item.get("stage"),
            "status": item.get("status", "running"),
            "artifact_ref": item.get("artifact_ref"),
        })

    snapshot = await close_task
    await save_task_result(task_id, snapshot)
"""
FIELDS = {"event_type", "task_id", "execution_id", "stage", "status", "artifact_ref"}


class Application:
    """What the seed leaves to the application: the task table, and the channel to the people."""

    def __init__(self, flow: TriggerFlow) -> None:
        self.notified: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.names: dict[str, Any] = {
            "asyncio": asyncio,
            "report_flow": flow,
            "notify_ui_or_im": self.notify,
            "save_task_result": self.save,
        }
        exec(compile(JOB, "<seed 000>", "exec"), self.names)

    async def notify(self, event: dict[str, Any]) -> None:
        self.notified.append(json.loads(json.dumps(event)))  # it crosses a wire

    async def save(self, task_id: str, snapshot: dict[str, Any]) -> None:
        self.results[task_id] = json.loads(json.dumps(snapshot))

    async def run_daily_report_job(self, topic: str, task_id: str) -> None:
        await self.names["run_daily_report_job"](topic, task_id)


def report_flow(gate: asyncio.Event | None = None) -> TriggerFlow:
    """Collect sources, write a section for each side by side, put the report together; tell stages, not internals."""
    flow = TriggerFlow(name="daily_report")

    async def collect(data: TriggerFlowRuntimeData) -> list[str]:
        await data.async_put({"type": "task_started", "stage": "collect"})
        data.emit_nowait("Audit", data.require_resource("task_id"))
        return [f"{data.input['topic']}: {name}" for name in ("news", "prices")]

    async def summarize(data: TriggerFlowRuntimeData) -> str:
        section = f"# {data.input}"
        ref = f"workspace://artifacts/{data.input.split(': ')[1]}.md"
        item = {"type": "report_section_ready", "stage": "summarize", "status": "ready", "artifact_ref": ref}
        await data.async_put(item)
        return section

    async def publish(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("report", "\n".join(data.input))
        await data.async_put({"stage": "publish"})

    async def audit(data: TriggerFlowRuntimeData) -> None:
        if gate is not None:
            await gate.wait()

        await data.async_set_state("audited", data.input)
        await data.async_put({"type": "task_audited", "stage": "audit", "status": "ready"})

    flow.to(collect).for_each(concurrency=2).to(summarize).end_for_each().to(publish)
    flow.when("Audit").to(audit)
    return flow


async def test_the_job_tells_stages_and_keeps_the_result() -> None:
    """Every product event has the stable business fields; what is stored comes from the close snapshot."""
    app = Application(report_flow())
    await app.run_daily_report_job("chips", "task_20260610_001")
    assert all(set(event) == FIELDS for event in app.notified)
    assert {event["task_id"] for event in app.notified} == {"task_20260610_001"}
    assert len({event["execution_id"] for event in app.notified}) == 1
    assert [(e["event_type"], e["stage"], e["status"]) for e in app.notified[:1]] == [
        ("task_started", "collect", "running")
    ]
    told = sorted((e["event_type"], e["stage"], e["status"], e["artifact_ref"]) for e in app.notified[1:])
    assert told == sorted(
        [
            ("report_section_ready", "summarize", "ready", "workspace://artifacts/news.md"),
            ("report_section_ready", "summarize", "ready", "workspace://artifacts/prices.md"),
            ("task_audited", "audit", "ready", None),
            ("workflow_event", "publish", "running", None),
        ],
        key=lambda row: tuple(map(str, row)),
    )
    assert app.results == {
        "task_20260610_001": {"report": "# chips: news\n# chips: prices", "audited": "task_20260610_001"}
    }


async def test_people_see_stages_while_it_runs() -> None:
    """The stream is live: a stage is told although later work has not ended, and the job ends with that work."""
    gate = asyncio.Event()
    app = Application(report_flow(gate))
    job = asyncio.create_task(app.run_daily_report_job("chips", "t1"))
    await until(lambda: any(event["stage"] == "publish" for event in app.notified), "the stage")
    assert not job.done() and not app.results
    gate.set()
    await job
    assert app.notified[-1]["event_type"] == "task_audited" and app.results["t1"]["audited"] == "t1"


async def test_jobs_side_by_side_do_not_mix() -> None:
    """Ten jobs of one flow at once: everybody's events carry their own task and execution."""
    app = Application(report_flow())
    await asyncio.gather(*(app.run_daily_report_job(f"topic {n}", f"task {n}") for n in range(10)))
    owners = {(event["task_id"], event["execution_id"]) for event in app.notified}
    assert len(owners) == 10 == len(app.results)
    assert all(app.results[f"task {n}"]["report"].startswith(f"# topic {n}: news") for n in range(10))


async def test_an_approval_over_a_webhook() -> None:
    """The flow reaches an approval, the application keeps two ids, the approver's payload continues it (§"wait")."""
    flow = TriggerFlow(name="approvals")
    flow.to(("draft", lambda data: f"report on {data.input}")).to(("approval", _approval)).to(("send", _send))
    execution = flow.create_execution(auto_close=False)
    await execution.async_start("chips")
    (record,) = execution.get_pending_interrupts().values()
    row = {"execution_id": execution.id, "interrupt_id": record["id"], "state": json.dumps(execution.save())}

    worker = flow.create_execution(auto_close=False).load(json.loads(row["state"]))
    assert worker.id == row["execution_id"]
    await worker.async_continue_with(row["interrupt_id"], {"approved": True, "by": "kim"})
    with pytest.raises(InterruptError):  # the webhook is delivered twice
        await worker.async_continue_with(row["interrupt_id"], {"approved": True, "by": "kim"})

    close = asyncio.create_task(worker.async_close())
    items = [item async for item in worker.get_async_runtime_stream(timeout=None)]
    assert await close == {"sent": {"approved": True, "by": "kim"}}
    assert [item["type"] for item in items] == ["interrupt", "report_sent"]


async def _approval(data: TriggerFlowRuntimeData) -> Any:
    await data.async_put({"type": "waiting_for_approval", "stage": "approval", "status": "waiting"})
    return await data.async_pause_for(type="approval", payload={"draft": data.input}, resume_to="next")


async def _send(data: TriggerFlowRuntimeData) -> None:
    await data.async_set_state("sent", data.input)
    await data.async_put({"type": "report_sent", "stage": "send", "status": "ready"})
