"""Agents: session, workspace and actions under one name, and the samples of seed 001."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.workspace.conftest import Collector

from flowdeck import Runtime, TriggerFlow, TriggerFlowRuntimeData
from flowdeck.agents import SessionError
from flowdeck.errors import ActionNotFound, WorkspaceConfigurationError, WorkspacePolicyError
from flowdeck.events.lineage import RunContext, run_scope

pytestmark = pytest.mark.anyio


async def test_activation(host: Runtime, events: Collector) -> None:
    """A session is made, found again, left; the settings and the chat history follow; events tell."""
    agent = host.create_agent("helper")
    assert agent.deactivate_session().workspace is None
    assert agent.activate_session(session_id="s-1") is agent
    session = agent.activated_session
    assert session is not None
    assert agent.settings.get("runtime.session_id") == "s-1"
    await agent.record_turn("hi", "hello")
    agent.activate_session(session_id="s-2")
    assert agent.chat_history == []
    agent.activate_session(session_id="s-1")
    assert agent.activated_session is session
    assert [message["content"] for message in agent.chat_history] == ["hi", "hello"]
    agent.deactivate_session()
    assert (agent.activated_session, agent.chat_history, agent.settings.get("runtime.session_id")) == (None, [], None)
    assert list(agent.sessions) == ["s-1", "s-2"]
    assert agent.activate_session().activated_session.id.startswith("session_")  # type: ignore[union-attr]
    agent.deactivate_session()
    names = [record.event_type for record in events.records]
    assert names.count("session.activated") == 4
    assert names.count("session.deactivated") == 2
    activated = events.of("session.activated")[0]
    assert (activated.payload, activated.run) == ({"session_id": "s-1", "agent_name": "helper"}, None)
    with pytest.raises(SessionError):
        agent.activate_session(session_id="")


async def test_a_request_of_a_session(host: Runtime, events: Collector) -> None:
    """What is applied and appended is told in the request's run."""
    agent = host.create_agent("helper").activate_session(session_id="s-1")
    request = RunContext.create(run_kind="request", agent_id=agent.id, agent_name=agent.name)
    assert request.session_id == "s-1"
    assert agent.apply_session(request) == []
    await agent.record_turn("question", "", run=request)
    with run_scope(request):
        assert agent.apply_session() == [{"role": "user", "content": "question"}]

    applied, appended, again = (record for record in events.records if record.run is not None)
    assert applied.event_type == again.event_type == "session.applied_to_request"
    assert applied.payload == {"session_id": "s-1", "context_window_size": 0, "memo_size": 0}
    assert appended.payload == {
        "session_id": "s-1", "has_user_content": True, "has_assistant_content": False, "context_window_size": 1,
    }  # fmt: skip
    assert applied.run is request and again.run is request
    assert applied.source == "SessionExtension"
    agent.deactivate_session()
    assert agent.apply_session() == [] and (await agent.record_turn("a", "b")).chat_history == []


async def test_the_session_is_in_every_event_below(host: Runtime, events: Collector, tmp_path: Path) -> None:
    """Executions, chunks, actions, loops, sub flows and workspace events carry the session; before and after, none."""
    agent = host.create_agent("helper").use_workspace(tmp_path / "ws")

    @agent.action_func
    async def look(what: str) -> str:
        return what

    async def chunk(data: TriggerFlowRuntimeData) -> Any:
        await agent.workspace.ingest(content="x", collection="artifacts")
        return (await agent.actions.async_execute_action("look", {"what": "a"}))["data"]

    child = TriggerFlow(name="child")
    child.to(("step", chunk))
    flow = TriggerFlow(name="conversation")
    flow.to(("step", chunk)).to_sub_flow(child)

    async def run() -> None:
        with host.use():
            await flow.async_start(1)

    async def conversation() -> None:
        agent.activate_session(session_id="s-1")
        await run()

    await asyncio.create_task(conversation())
    in_session, events.records[:] = list(events.records), []
    with_run = [record for record in in_session if record.run is not None]
    assert {record.run.session_id for record in with_run} == {"s-1"}  # type: ignore[union-attr]
    kinds = {record.run.run_kind for record in with_run}  # type: ignore[union-attr]
    assert kinds == {"workflow_execution", "chunk_execution", "action"}
    assert [record.run.run_kind for record in in_session if record.event_type == "workspace.record_ingested"] == [  # type: ignore[union-attr]
        "chunk_execution", "chunk_execution",
    ]  # fmt: skip
    assert events.records == []
    await run()  # another task: the flow has no session, the agent's own actions still have
    sessions = {(record.run.run_kind, record.run.session_id) for record in events.records if record.run is not None}
    assert sessions == {("workflow_execution", None), ("chunk_execution", None), ("action", "s-1")}
    agent.deactivate_session()
    with agent.session_scope() as none:
        assert none is None


async def test_sessions_are_kept(host: Runtime, tmp_path: Path) -> None:
    """With a store a later agent goes on where another one was."""
    first = host.create_agent("a").use_session_store(tmp_path).activate_session(session_id="s-1")
    await first.record_turn("hi", "hello")
    second = host.create_agent("b").use_session_store(tmp_path).activate_session(session_id="s-1")
    assert [message["content"] for message in second.chat_history] == ["hi", "hello"]
    await second.record_turn("more", "sure")
    assert len(first.apply_session()) == 4


async def test_actions_belong_to_their_agent(host: Runtime) -> None:
    """Neither the runtime nor another agent sees them; the runtime's are taken over by id, as a copy."""
    agent, other = host.create_agent("a"), host.create_agent("b")

    @agent.action_func(tags="math")
    def double(x: int) -> int:
        return 2 * x

    @host.actions.action_func
    def shared(x: int) -> int:
        return x

    agent.use_actions(["shared", lambda_free], tags="t")
    assert (await agent.action.async_execute_action("double", {"x": 4}))["data"] == 8
    assert agent.actions.require("double").tags == ["agent-a", "math"]
    assert agent.actions.require("shared").tags == ["agent-a", "t"]
    assert host.actions.require("shared").tags == []
    assert host.actions.get("double") is None and other.tool.get("double") is None
    assert agent.actions.get("lambda_free") is not None
    with pytest.raises(ActionNotFound):
        agent.use_actions("nobody")

    with pytest.raises(ValueError, match="nobody"):
        agent.use_actions("nobody")

    with pytest.raises(TypeError):
        agent.use_actions(7)


def lambda_free(x: int) -> int:
    """A plain function."""
    return x


async def test_agents_share_a_workspace(host: Runtime, tmp_path: Path) -> None:
    """A workspace is handed on as it is; references lead from one open workspace to another."""
    first = host.create_agent("a").use_workspace(tmp_path / "one")
    second = host.create_agent("b").use_workspace(first.workspace)
    assert second.workspace is first.workspace
    third = host.create_agent("c").use_workspace(tmp_path / "two")
    ref = await first.workspace.ingest(content="evidence", collection="observations")
    assert await third.workspace.get(ref["uri"]) == "evidence"
    with pytest.raises(FileNotFoundError):
        await third.workspace.get(ref["id"])

    with pytest.raises(WorkspaceConfigurationError):
        host.create_agent().use_workspace(tmp_path / "none", create=False)

    reader = host.create_agent().use_workspace(tmp_path / "one", mode="readonly")
    with pytest.raises(WorkspacePolicyError):
        await reader.workspace.checkpoint("t", {})


async def test_seed_001(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples of seed 001, minimal code form, steps 1 to 5, through the compatible API."""
    from flowdeck.compat import Agently, TriggerFlow

    monkeypatch.chdir(tmp_path)
    session_id, task_id, markdown_report = "s-1", "t-17", "# 第一版\n" + "风险条款 " * 4000
    agent = Agently.create_agent("review-worker")
    agent.activate_session(session_id=session_id)
    agent.use_workspace(f"./.agently/runs/{task_id}")

    async def write_report(data: TriggerFlowRuntimeData) -> None:
        report_ref = await agent.workspace.ingest(
            content=markdown_report,
            collection="artifacts",
            kind="draft_report",
            summary="第一版审查报告",
            scope={"task_id": task_id},
        )
        await data.async_set_state("draft_report_ref", report_ref, emit=False)
        checkpoint_ref = await agent.workspace.checkpoint(
            task_id,
            {"phase": "risk_review_done", "draft_report_ref": report_ref, "risk_level": "medium"},
            step_id="risk-review",
        )
        await data.async_set_state("checkpoint_ref", checkpoint_ref, emit=False)

    async def wait_for_approval(data: TriggerFlowRuntimeData) -> Any:
        if data.is_resume:
            await data.async_set_state("approval", data.resume.value)
            return data.resume.value

        return await data.async_pause_for(
            type="approval",
            payload={"task_id": task_id, "report_ref": data.get_state("draft_report_ref")},
            resume_to="self",
        )

    flow = TriggerFlow(name="review")
    flow.to(write_report).to(wait_for_approval)
    execution = flow.create_execution(auto_close=False)
    await execution.async_start(None)
    saved = execution.save()
    assert len(str(saved)) < 20_000 < len(markdown_report)  # the report's body is not in the state
    await execution.async_close(pending_interrupts="cancel")
    agent.deactivate_session()

    # Somebody answers later, in another process: the handle is loaded, the task's workspace opened again.
    later = flow.create_execution(auto_close=False)
    later.load(saved)
    worker = Agently.create_agent("review-worker").use_workspace(f"./.agently/runs/{task_id}")
    (interrupt_id,) = later.get_pending_interrupts()
    await later.async_continue_with(interrupt_id, {"approved": True, "note": "修订"})
    state = await later.async_close()
    assert state["approval"] == {"approved": True, "note": "修订"}
    assert await worker.workspace.get(state["draft_report_ref"]) == markdown_report
    latest = await worker.workspace.latest_checkpoint(task_id)
    assert latest == state["checkpoint_ref"]
    assert (await worker.workspace.get_data(latest))["phase"] == "risk_review_done"
    assert later.run_context.session_id == "s-1"
    context_pack = await worker.workspace.build_context(
        goal="根据最新审批意见修订审查报告。",
        scope={"task_id": task_id},
        budget={"tokens": 12000},
        profile="document_review",
    )
    assert [item["ref"] for item in context_pack["items"]] == [state["draft_report_ref"]]
    assert context_pack["items"][0]["content"].startswith("# 第一版")
    # "each artifact has source, summary, scope and necessary links": the sample gives neither source nor link.
    assert [each["problems"] for each in await worker.workspace.audit()] == [["no source", "no link"]]
