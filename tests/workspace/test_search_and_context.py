"""Finding records again, and packing them for a goal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.workspace.conftest import Collector

from flowdeck import Runtime
from flowdeck.errors import WorkspaceConfigurationError, WorkspaceError
from flowdeck.workspace import RecallProfile, Workspace
from flowdeck.workspace.text import estimate_tokens, goal_terms, query_expression

pytestmark = pytest.mark.anyio


async def put(workspace: Workspace, content: str, **labels: Any) -> dict[str, Any]:
    return await workspace.put(content, **{"collection": "artifacts", **labels})


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("report", "ab"), ("REPORT", "ab"), ("risk report", "a"), ('"risk report"', "a"), ('"report risk"', ""),
        ("repo*", "ab"), ("repo", ""), ("resume", "b"), ("审批", "c"), ("审批意见", "c"), ("批意", "c"), ("意", "c"),
        ("见", "c"), ("意审", ""), ("审批 report", ""), ("ＲＥＰＯＲＴ", "ab"), ("fix: report.", "b"),
        ("カタ", "d"), ("한국", "d"), ("c-3po", "d"), ("risk AND report", ""), ("%", "e"),
        ('unbalanced " report', ""), ('risk" report', "a"),
    ],
)  # fmt: skip
async def test_search(workspace: Workspace, query: str, found: str) -> None:
    """Words, phrases, beginnings and parts of Chinese, Japanese and Korean runs are found; nothing else is."""
    texts = {
        "a": "Risk report, first draft",
        "b": "fix the report: RÉSUMÉ",
        "c": "根据最新审批意见修订。",
        "d": "カタカナ 한국어 C-3PO",
    }
    for name, text in texts.items():
        await put(workspace, text, kind=name, summary="text")

    await put(workspace, "empty", kind="e", summary="100 %")
    assert "".join(sorted(ref["kind"] for ref in await workspace.search(query))) == found


async def test_search_orders_and_filters(workspace: Workspace) -> None:
    """Without a query the newest come first; filters are equal values; a limit ends the list."""
    first = await put(workspace, "one", scope={"task_id": "a", "n": 1}, meta={"x": [1]})
    second = await put(workspace, "two two", collection="decisions", kind="d", scope={"task_id": "a", "n": "1"})
    third = await put(workspace, "two", scope={"task_id": "b"})
    assert await workspace.search() == [third, second, first]
    assert await workspace.search(limit=1) == [third]
    assert await workspace.search(filters={"scope.task_id": "a"}) == [second, first]
    assert await workspace.search(filters={"scope.task_id": "a", "scope.n": 1}) == [first]
    assert await workspace.search(filters={"meta.x": [1]}) == [first]
    assert await workspace.search("two", {"collection": "decisions", "kind": "d"}) == [second]
    assert (await workspace.search("two"))[0] == second
    with pytest.raises(WorkspaceConfigurationError, match="filter 'task_id': expected collection"):
        await workspace.search(filters={"task_id": "a"})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.text(max_size=40)
    | st.lists(st.sampled_from(['"', "*", "审", "a", " ", "(", "NEAR", ":", "-", "\0", "^"])).map("".join)
)
async def test_no_query_fails(workspace: Workspace, query: str) -> None:
    """Whatever a person types, a search answers."""
    await workspace.search(query)
    await workspace.build_context(goal=query, budget={"chars": 10})


async def test_links(workspace: Workspace, events: Collector) -> None:
    """Links are found from either end, oldest first, and need no record to be there."""
    decision, evidence = await put(workspace, "approve"), await put(workspace, "clause")
    made = await workspace.link(decision, evidence["uri"], "responds_to", {"by": "lead"})
    other = await workspace.link(decision["id"], "rec_later", "supersedes")
    assert (made["source_id"], made["target_id"], made["id"][:5]) == (decision["id"], evidence["id"], "link_")
    assert await workspace.links(decision) == [made, other]
    assert await workspace.links(evidence) == await workspace.links(relation="responds_to") == [made]
    assert await workspace.links(source=decision, target="rec_later") == [other]
    assert [each["problems"] for each in await workspace.audit("none")] == [["no such target"]]
    assert len(events.of("workspace.linked")) == 2


async def test_checkpoints(workspace: Workspace, events: Collector) -> None:
    """The newest checkpoint of a run is found, its history newest first, by step as well."""
    assert await workspace.latest_checkpoint("t") is None
    made = [await workspace.checkpoint("t", {"phase": n}, step_id=f"s{n % 2}") for n in range(3)]
    await workspace.checkpoint("u", {"phase": 9})
    assert await workspace.latest_checkpoint("t") == made[2]
    assert await workspace.checkpoint_history("t") == made[::-1]
    assert await workspace.checkpoint_history("t", step_id="s1") == [made[1]]
    assert await workspace.get_data(made[2]) == {"phase": 2}
    assert (made[2]["collection"], made[2]["kind"], made[2]["scope"]) == (
        "checkpoints", "checkpoint", {"run_id": "t", "step_id": "s0"},
    )  # fmt: skip
    assert made[2]["summary"] == "Checkpoint for t step s0"
    assert (made[2]["source"], made[2]["meta"]) == ({"type": "workspace", "name": "checkpoint"}, {"checkpoint": True})
    via_profile = await workspace.ingest(
        content={"p": 1}, collection="any", scope={"run_id": "v", "step_id": "x"}, profile="checkpoint"
    )
    assert await workspace.latest_checkpoint("v") == via_profile
    assert len(events.of("workspace.checkpointed")) == 5


async def test_scenario_a23(workspace: Workspace) -> None:
    """Behaviour, scenario A23: one item, one candidate, four characters a token; checkpoints lie in their own scope."""
    ref = await workspace.ingest(
        content="the risk report",
        collection="artifacts",
        kind="draft_report",
        summary="risk report",
        scope={"task_id": "t"},
    )
    await workspace.checkpoint("t", {"phase": "x", "ref": ref}, step_id="risk-review")
    context = await workspace.build_context(goal="risk report", scope={"task_id": "t"}, budget={"tokens": 12000})
    assert context["items"] == [
        {"ref": ref, "kind": "draft_report", "summary": "risk report", "content": "the risk report", "use": "evidence"}
    ]
    told = context["diagnostics"]
    assert (told["candidate_count"], told["char_budget"], told["used_chars"]) == (1, 48000, 15)
    assert (told["planner"], told["model_assisted"], told["builder"]) == ("rule", False, "default")
    assert (context["goal"], context["profile"], context["omitted"]) == ("risk report", "auto", [])


async def test_what_a_goal_is_about_comes_first(workspace: Workspace) -> None:
    """Rare words of the goal count more than common ones; with no match at all the newest of the scope are taken."""
    old = await put(workspace, "the indemnity clause, reviewed", scope={"t": 1})
    for number in range(300):
        await put(workspace, f"the note {number}", scope={"t": 1})

    await put(workspace, "the indemnity clause of another tenant", scope={"t": 2})
    context = await workspace.build_context(goal="Note the indemnity clause!", scope={"t": 1}, budget={"items": 3})
    assert context["items"][0]["ref"] == old
    assert len(context["items"]) == 3
    assert context["omitted"][0]["count"] == context["diagnostics"]["candidate_count"] - 3
    context = await workspace.build_context(goal="完全不同", scope={"t": 1}, budget={"items": 2})
    assert [item["content"] for item in context["items"]] == ["the note 299", "the note 298"]
    assert {item["ref"]["scope"]["t"] for item in context["items"]} == {1}


async def test_budgets(workspace: Workspace) -> None:
    """The budget is never exceeded, but by the first item's 200 characters; Chinese counts a token a character."""
    for number in range(12):
        await put(workspace, f"report {number} " + "x" * 1500)

    context = await workspace.build_context(goal="report", budget={"chars": 3000})
    assert [len(item["content"]) for item in context["items"]] == [1212, 1212]
    assert context["items"][0]["content"].endswith("\n[truncated]")
    assert context["omitted"] == [{"reason": "budget", "count": 10}]
    context = await workspace.build_context(goal="report", budget={"chars": 50})
    assert [len(item["content"]) for item in context["items"]] == [212]
    for _ in range(6):
        await put(workspace, "审" * 1000)

    context = await workspace.build_context(goal="审", budget={"tokens": 2500})
    assert context["diagnostics"]["used_tokens"] == 2000
    assert len(context["items"]) == 2
    for bad in ({"tokens": 0}, {"chars": "many"}, {"token": 5}, {"items": True}):
        with pytest.raises(WorkspaceConfigurationError, match="budget"):
            await workspace.build_context(goal="x", budget=bad)


async def test_document_review_follows_links_within_its_scope(workspace: Workspace) -> None:
    """A review gets the evidence its decisions are linked with, but never another task's."""
    decision = await put(workspace, "decision on the liability cap", collection="decisions", scope={"t": 1})
    evidence = await put(workspace, "page 4 says ten percent", collection="observations", scope={"t": 1})
    foreign = await put(workspace, "page 9", collection="observations", scope={"t": 2})
    link = await workspace.link(decision, evidence, "responds_to")
    await workspace.link(decision, foreign, "responds_to")
    context = await workspace.build_context(goal="liability", scope={"t": 1}, profile="document_review")
    assert [item["ref"]["id"] for item in context["items"]] == [decision["id"], evidence["id"]]
    assert link in context["items"][0]["links"]
    context = await workspace.build_context(goal="liability", scope={"t": 1})
    assert [item["ref"]["id"] for item in context["items"]] == [decision["id"]]


async def test_registered_profiles(host: Runtime, workspace: Workspace, events: Collector) -> None:
    """Every stage can be replaced; a name nobody registered is refused with those there are."""
    ref = await put(workspace, "alpha")
    await put(workspace, "beta")

    async def plan(goal: str, **more: Any) -> dict[str, Any]:
        return {"query": "alpha"}

    host.workspace.register_recall_profile("planned", planner=plan)
    host.workspace.register_recall_profile("fixed", retriever=lambda plan, workspace: [ref])
    host.workspace.register_recall_profile("short", profile=RecallProfile(excerpt_chars=2))
    host.workspace.register_recall_profile(
        "own", profile="software_dev", context_builder=lambda **given: {"items": [], "mine": 1}
    )
    for name in ("planned", "fixed"):
        context = await workspace.build_context(goal="beta", profile=name)
        assert [item["content"] for item in context["items"]] == ["alpha"]

    assert (await workspace.build_context(goal="beta", profile="short"))["items"][0]["content"] == "be\n[truncated]"
    assert await workspace.build_context(goal="beta", profile="own") == {"items": [], "mine": 1}
    for name in ("auto", "software_dev", "document_review"):
        assert (await workspace.build_context(goal="beta", profile=name))["profile"] == name

    with pytest.raises(
        WorkspaceConfigurationError, match="'none' is not registered; there are auto, software_dev, document"
    ):
        await workspace.build_context(goal="x", profile="none")

    class Upper:
        async def ingest(self, workspace: Workspace, **request: Any) -> dict[str, Any]:
            return await workspace.put(**{**request, "content": request["content"].upper()})

    host.workspace.register_profile("upper", Upper())
    assert await workspace.get(await workspace.ingest(content="abc", collection="x", profile="upper")) == "ABC"
    with pytest.raises(
        WorkspaceConfigurationError, match="'slow' is not registered; there are fast, checkpoint, upper"
    ):
        await workspace.ingest(content="abc", collection="x", profile="slow")

    assert events.of("workspace.context_built")[0].payload["record_ids"] == [ref["id"]]


async def test_audit(workspace: Workspace) -> None:
    """Artifacts without source, summary, scope or link are named with what they lack (seed 001)."""
    whole = await put(workspace, "a", summary="s", scope={"t": 1}, source={"name": "writer"})
    bare = await put(workspace, "b")
    await workspace.link(whole, "rec_x", "part_of")
    await put(workspace, "c", collection="dialogue")
    found = {each["id"]: each["problems"] for each in await workspace.audit()}
    assert found.pop(bare["id"]) == ["no source", "no summary", "no scope", "no link"]
    assert list(found.values()) == [["no such target"]]
    assert len(await workspace.audit(None)) == 3


def test_text_rules() -> None:
    """Runs become pairs, words are quoted, tokens are counted by script."""
    assert goal_terms("the 修订报告 now!") == ['"修订"', '"订报"', '"报告"', '"now"']
    assert goal_terms("To be") == ['"to"', '"be"']
    assert query_expression('a"b" "c d" 审批意') == '"a" AND "b" AND "c d" AND "审批 批意"'
    assert query_expression(" ..\"' ") is None
    assert estimate_tokens("审批ab cd") == 2 + 2


async def test_recall_does_not_grow_with_the_workspace(workspace: Workspace) -> None:
    """Ten times the records cost a context hardly more: no list of matches is ever read to its end."""

    async def fill(count: int) -> None:
        for number in range(count):
            await put(workspace, f"risk report {number} 审批意见", scope={"t": 1})

    async def cost() -> float:
        times: list[float] = []
        for _ in range(5):
            began = time.process_time()
            await workspace.build_context(goal="risk report on 审批意见", scope={"t": 1}, budget={"items": 5})
            times.append(time.process_time() - began)

        return min(times)

    await fill(300)
    small = await cost()
    await fill(2700)
    assert await cost() < 4 * small + 0.005


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda w: w.search(5), "expected a text or None"),
        (lambda w: w.search("x", "t-1"), "filters must be a mapping"),
        (lambda w: w.put("x", collection="a", scope="t-1"), "scope must be a mapping"),
        (lambda w: w.build_context(goal=None), "expected a text"),
        (lambda w: w.build_context(goal="x", budget=[1]), "expected a mapping such as"),
        (lambda w: w.build_context(goal="x", scope="t-1"), "scope must be a mapping"),
    ],
)
async def test_arguments_of_the_wrong_kind(workspace: Workspace, call: Callable[..., Any], problem: str) -> None:
    """Each is an error of the workspace that names the argument."""
    with pytest.raises(WorkspaceError, match=problem):
        await call(workspace)
