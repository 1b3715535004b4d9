from __future__ import annotations

import asyncio

import pytest
from tests.events.support import strict

from flowdeck.events import Fragment, RunContext, current_run, run_context, run_scope


def test_a_root_is_its_own_root() -> None:
    """A run without a parent has no parent id and is its own root."""
    root = RunContext.create(run_kind="workflow_execution", execution_id="e1", meta={"flow_name": "f"})

    assert root.root_run_id == root.run_id
    assert root.parent_run_id is None
    assert root.meta == {"flow_name": "f"}
    assert root.execution_id == "e1"


def test_a_child_inherits_ids_and_meta() -> None:
    """What a child is not given comes from its parent; its own meta lies over the parent's."""
    root = RunContext.create(
        run_kind="request", agent_id="a", agent_name="Ana", session_id="s", execution_id="e", meta={"x": 1, "y": 1}
    )
    child = root.create_child(run_kind="model_request", response_id="r", session_id="other", meta={"y": 2})
    grandchild = child.create_child(run_kind="action")

    assert (child.parent_run_id, child.root_run_id) == (root.run_id, root.run_id)
    assert (child.agent_id, child.agent_name, child.session_id) == ("a", "Ana", "other")
    assert (child.response_id, child.execution_id) == ("r", "e")
    assert child.meta == {"x": 1, "y": 2}
    assert (grandchild.parent_run_id, grandchild.root_run_id) == (child.run_id, root.run_id)
    assert grandchild.response_id == "r"


def test_the_fast_path_agrees_with_the_wire() -> None:
    """An attempt's encoded bytes say the same as its properties, and identity meta is kept."""
    root = RunContext.create(
        run_kind="workflow_execution",
        execution_id="e",
        session_id='quo"te',
        meta={"flow_name": "f", "task_id": "t1", "tenant_id": "ü", "private": "not inherited"},
    )
    attempt = RunContext.attempt(root, "chunk_execution", Fragment({"chunk_id": "op-1", "chunk_name": 'a"b'}))

    assert attempt.meta == {"task_id": "t1", "tenant_id": "ü", "chunk_id": "op-1", "chunk_name": 'a"b'}
    assert strict(attempt.encoded) == attempt.to_dict()
    assert attempt.encoded is attempt.encoded
    assert attempt.parent_run_id == root.run_id


@pytest.mark.parametrize("static", [{}, {"task_id": "own"}], ids=["empty", "overlapping"])
def test_odd_static_parts_are_still_valid(static: dict[str, str]) -> None:
    """An empty static part, or one that redefines an inherited key, has no duplicate keys on the wire."""
    root = RunContext.create(run_kind="workflow_execution", meta={"task_id": "t1"})
    attempt = RunContext.attempt(root, "chunk_execution", Fragment(static))

    assert strict(attempt.encoded)["meta"] == {"task_id": static.get("task_id", "t1")}


def test_siblings_share_only_what_they_should() -> None:
    """Two attempts under one parent have different run ids."""
    root = RunContext.create(run_kind="workflow_execution")
    static = Fragment({"chunk_id": "op"})
    first, second = (RunContext.attempt(root, "chunk_execution", static) for _ in range(2))

    assert first.run_id != second.run_id
    assert strict(first.encoded)["run_id"] == first.run_id
    assert strict(second.encoded)["root_run_id"] == root.run_id


def test_run_context_values_enter_new_runs() -> None:
    """task_id and its kin, set around the code, enter every run made inside and its children; blocks add up."""
    with run_context(task_id="t", tenant_id="n", shard=3):
        with run_context(task_id="inner", user_id="u"):
            run = RunContext.create(run_kind="workflow_execution", meta={"tenant_id": "explicit"})

        after = RunContext.create(run_kind="workflow_execution")

    outside = RunContext.create(run_kind="workflow_execution")

    assert run.meta == {"task_id": "inner", "tenant_id": "explicit", "user_id": "u", "shard": 3}
    assert after.meta == {"task_id": "t", "tenant_id": "n", "shard": 3}
    assert outside.meta == {}
    assert RunContext.attempt(run, "chunk_execution", Fragment({"a": 1})).meta["user_id"] == "u"


def test_what_a_run_was_given_wins_over_the_block_around_it() -> None:
    """A run's own task_id passes to its children; only a block opened inside it overrides."""
    with run_context(task_id="outer", tenant_id="n"):
        run = RunContext.create(run_kind="workflow_execution", meta={"task_id": "own"})
        attempt = RunContext.attempt(run, "chunk_execution", Fragment({"chunk_id": "c"}))
        nested = attempt.create_child(run_kind="workflow_execution")
        with run_context(user_id="u"):
            inner = attempt.create_child(run_kind="workflow_execution")

        with run_context(task_id="inner"):
            overridden = attempt.create_child(run_kind="workflow_execution")

    assert (nested.meta["task_id"], nested.meta["tenant_id"]) == ("own", "n")
    assert (inner.meta["task_id"], inner.meta["user_id"]) == ("own", "u")
    assert overridden.meta["task_id"] == "inner"


def test_run_scope_follows_the_context() -> None:
    """The current run is seen by tasks started inside, and gone afterwards."""
    root = RunContext.create(run_kind="workflow_execution")

    async def look() -> RunContext | None:
        return current_run.get()

    async def main() -> None:
        with run_scope(root):
            task = asyncio.create_task(look())

        assert await task is root
        assert current_run.get() is None

    asyncio.run(main())


def test_a_mapping_becomes_a_run() -> None:
    """The wire's own form is accepted, unknown keys are ignored."""
    run = RunContext.from_mapping(
        {"run_id": "r", "run_kind": "action", "root_run_id": "root", "parent_run_id": "p", "meta": {"a": 1}, "new": 1}
    )

    assert run.to_dict() == {
        "run_id": "r",
        "run_kind": "action",
        "root_run_id": "root",
        "parent_run_id": "p",
        "meta": {"a": 1},
    }


@pytest.mark.parametrize("bad", [{"run_id": 1}, {"meta": [1]}, {"session_id": b"x"}])
def test_a_bad_mapping_names_the_field(bad: dict[str, object]) -> None:
    """The error says which field is wrong."""
    with pytest.raises(ValueError, match=r"run\.\w+ must be"):
        RunContext.from_mapping(bad)


def test_secrets_in_run_meta_are_masked() -> None:
    """Lineage is redacted like everything else that is written."""
    run = RunContext.create(run_kind="workflow_execution", meta={"api_key": "sk-live"})

    assert b"sk-live" not in run.encoded
