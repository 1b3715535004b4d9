"""A chunk's calls of a workspace go through a port: a tape answers them, and nothing is written twice."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from flowdeck import Retry
from flowdeck.triggerflow import TriggerFlow, TriggerFlowRuntimeData
from flowdeck.workspace import Workspace
from flowdeck_evals.single import record_live, replay_tape

pytestmark = pytest.mark.anyio
LONG = "条款 four " * 2_000


def reviewing(workspace: Workspace) -> TriggerFlow:
    """A flow that does all a chunk can do with a workspace."""

    async def review(data: TriggerFlowRuntimeData) -> None:
        files = workspace.within(data)
        report = await files.ingest(content=LONG, collection="artifacts", scope={"task_id": "t"})
        note = await files.put({"verdict": "ok", "for": data.input}, collection="decisions", scope={"task_id": "t"})
        await files.link(note, report, "responds_to")
        await files.checkpoint("t", {"phase": "done", "report": report}, step_id="review")
        found = {
            "text": await files.get(report),
            "verdict": await files.get_data(note),
            "bytes": await files.get_bytes(note),
            "pieces": [piece async for piece in files.stream(report)],
            "record": await files.record(note["id"]),
            "search": await files.search("verdict", {"kind": "record"}, limit=3),
            "links": await files.links(target=report),
            "latest": await files.latest_checkpoint("t"),
            "history": await files.checkpoint_history("t", step_id="review"),
            "context": await files.build_context(goal="four", scope={"task_id": "t"}, budget={"tokens": 50}),
        }
        await data.async_set_state("found", found)

    flow = TriggerFlow(name="review")
    flow.to(review)
    return flow


async def test_a_tape_stands_for_the_workspace(workspace: Workspace) -> None:
    """Recorded once, the run repeats without the disk: same refs, texts and contexts, and nothing is written."""
    live = await record_live(reviewing(workspace), "x")
    assert live.evidence.error is None and len(await workspace.search()) == 3
    assert LONG[:5000] not in str([call.args for call in live.tape.calls])  # what is written is named by its hash
    await workspace.close()
    shutil.rmtree(workspace.root)
    again = await replay_tape(live.tape, reviewing(workspace))
    assert again.evidence.error is None and again.findings == []
    assert again.evidence.output == live.evidence.output and not workspace.root.exists()
    assert again.evidence.output["found"]["text"] == LONG


async def test_another_attempt_writes_once(workspace: Workspace) -> None:
    """A chunk that runs again finds the record it wrote; another content, or another call, is another record."""
    tried: list[Any] = []

    async def draft(data: TriggerFlowRuntimeData) -> None:
        files = workspace.within(data)
        tried.append([(await files.put("same", collection="c"))["id"] for _ in range(2)])
        await files.put(f"attempt {len(tried)}", collection="c")
        if len(tried) == 1:
            raise ConnectionError("once more")

    flow = TriggerFlow(name="draft")
    flow.to(draft, retry=Retry(attempts=2, on=(ConnectionError,)))
    execution = flow.create_execution(auto_close_timeout=0)
    await execution.async_start()
    assert tried[0] == tried[1] and len(set(tried[0])) == 2
    assert len(await workspace.search()) == 4
