"""A run as a tree with times."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.devtools.scene import START_US, TIMEOUT, RunScene
from tests.devtools.test_index import Recorder

from flowdeck_devtools.core.outline import Outline
from flowdeck_devtools.core.scope import parse_scope
from flowdeck_devtools.core.span import COUNTED, SpanNode, one_of
from flowdeck_devtools.core.trace import MAX_DEPTH, Trace
from flowdeck_devtools.core.wire import head


def traced(run: RunScene, lines: list[bytes]) -> Trace:
    trace = Trace(run.run["run_id"])
    for line in lines:
        trace.apply(line, head(line))
    return trace


def shape(node: SpanNode) -> object:
    """Name, status and children, for comparing trees."""
    return (node.name, node.role, node.status, [shape(child) for child in node.children])


def audit() -> tuple[Recorder, RunScene]:
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    run.step("discover", "discover", at=0.1, lasts=0.4)
    for index in range(3):
        run.step(f"for_each[{index}]/read", "read", at=0.6 + index, lasts=0.5, value={"name": f"pkg{index}"})
        run.step(f"for_each[{index}]/judge", "judge", at=1.2 + index, lasts=0.1)
    return tape, run


def test_scopes_make_the_groups_that_blocks_do_not_emit() -> None:
    """for_each and its items have rows, progress and the thing each is about."""
    tape, run = audit()
    root = traced(run, tape.lines).root
    discover, group = root.children
    assert (discover.name, group.name, group.role) == ("discover", "for_each", "group")
    assert [item.name for item in group.children] == ["[0]", "[1]", "[2]"]
    assert [item.subject for item in group.children] == ["pkg0", "pkg1", "pkg2"]
    assert [step.name for step in group.children[0].children] == ["read", "judge"]
    assert group.progress == (3, 3)
    assert (group.started_us, group.ended_us) == (START_US + 600_000, START_US + 3_300_000)
    assert group.status == "completed"


def test_attempts_of_a_step_share_a_row() -> None:
    """A retried attempt is no failure; the last attempt decides."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    first = run.start("read", "read", at=0.1)
    run.fail(first, at=0.2, error=TIMEOUT, will_retry=True)
    (node,) = traced(run, tape.lines).root.children
    assert (node.status, node.ended_us) == ("retried", None)
    run.end(run.start("read", "read", at=0.5, attempt=2), at=0.9)
    (node,) = traced(run, tape.lines).root.children
    assert (node.status, node.attempt_count, [attempt.status for attempt in node.attempts]) == (
        "completed",
        2,
        ["retried", "completed"],
    )
    assert (node.started_us, node.ended_us) == (START_US + 100_000, START_US + 900_000)


def test_waiting_lasts_from_the_question_to_the_answer() -> None:
    """The step that asked waits, and so do the groups above it, until somebody answers."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    ask = run.start("for_each[0]/ask", "ask", at=0.1)
    run.pause(ask, "i1", at=0.2)
    run.end(ask, at=0.3, paused=True)
    trace = traced(run, tape.lines)
    group = trace.root.children[0]
    node = group.children[0].children[0]
    assert (node.status, group.status, node.ended_us) == ("waiting", "waiting", None)
    run.resume("i1", at=9.0)
    trace = traced(run, tape.lines)
    group = trace.root.children[0]
    node = group.children[0].children[0]
    assert (node.status, group.status, node.waits[0].end_us) == ("completed", "completed", START_US + 9_000_000)
    assert node.ended_us == START_US + 9_000_000


def test_an_error_rises_to_its_ancestors_and_names_its_origin() -> None:
    """The run is failed because of the step; the step is where to look."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    run.fail(run.start("for_each[1]/read", "read", at=0.1), at=0.2, error=TIMEOUT)
    run.finish(at=0.3, status="failed", error=TIMEOUT)
    trace = traced(run, tape.lines)
    group = trace.root.children[0]
    assert (trace.root.status, group.status, group.children[0].status) == ("propagated", "failed", "failed")
    assert trace.first_error is group.children[0].children[0]
    assert Outline(trace).issues() == [trace.first_error]


def test_issues_are_walked_in_the_order_of_rows_and_around_the_end() -> None:
    """What failed by itself or waits, from wherever the cursor is, in both directions."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    for index in range(5):
        step = run.start(f"for_each[{index}]/read", "read", at=0.1)
        if index == 1:
            run.fail(step, at=0.2, error=TIMEOUT)
            continue
        if index == 3:
            run.pause(step, "i3", at=0.2)
        run.end(step, at=0.3)
    trace = traced(run, tape.lines)
    outline = Outline(trace)
    reads = [item.children[0] for item in trace.root.children[0].children]
    assert outline.issues() == [reads[1], reads[3]]
    steps = [(trace.root, 1, 1), (reads[1], 1, 3), (reads[2], 1, 3), (reads[3], 1, 1), (reads[4], 1, 1)]
    steps += [(trace.root, -1, 3), (reads[3], -1, 1), (reads[2], -1, 1), (reads[1], -1, 3)]
    for current, direction, expected in steps:
        assert outline.next_issue(current, direction) is reads[expected]
    assert Outline(traced(run, tape.lines[:3])).next_issue(None, 1) is None


@pytest.mark.parametrize("seed", range(30))
def test_the_order_of_lines_does_not_change_the_tree(seed: int) -> None:
    """Writers are read one after another, so a child may come before its parent."""
    tape, run = audit()
    ask = run.start("for_each[1]/ask", "ask", at=4.0)
    run.pause(ask, "i1", at=4.1)
    run.end(ask, at=4.2, paused=True)
    run.finish(at=9.0, status="cancelled")
    lines = list(tape.lines)
    random.Random(seed).shuffle(lines)
    expected, found = traced(run, tape.lines), traced(run, lines)

    def statuses(trace: Trace) -> dict[str, tuple[object, ...]]:
        return {key: (node.status, node.started_us, node.ended_us) for key, node in trace.nodes.items()}

    assert statuses(found) == statuses(expected)
    for trace in (expected, found):
        for node in trace.nodes.values():
            below = [inner.own_status for inner in trace.nodes.values() if node in inner.ancestors() and inner.attempts]
            assert {status: node.below(status) for status in COUNTED} == {one: below.count(one) for one in COUNTED}
            assert node.counts == sum(one_of(status) for status in below)  # and of no other status


def test_children_of_unknown_parents_find_their_place_later() -> None:
    """A placeholder takes the facts of its run when they come."""
    tape = Recorder()
    run = tape.execution("agent", at=0.0)
    base = {"root_run_id": run.run["run_id"], "execution_id": run.execution_id}
    child = {**base, "run_id": "m1", "run_kind": "model_request", "parent_run_id": "q1"}
    tape.emit("model.request_started", at=0.2, run=child)
    request = {**base, "run_id": "q1", "run_kind": "request", "parent_run_id": run.run["run_id"]}
    tape.emit("request.started", at=0.1, run=request)
    trace = traced(run, tape.lines)
    (node,) = trace.root.children
    assert (node.kind, [inner.kind for inner in node.children]) == ("request", ["model_request"])


def test_what_an_agent_does_in_a_chunk_has_names_of_its_own() -> None:
    """Its runs inherit the chunk's name and scope; a row says what it is, and why an action failed."""
    tape = Recorder()
    run = tape.execution("flow", at=0.0)
    inherited = {"root_run_id": run.run["run_id"], "execution_id": run.execution_id, "agent_name": "ann"}
    meta = {"chunk_name": "research", "action_name": "search"}
    above = run.run["run_id"]
    for kind, event in (
        ("agent_turn", "agent_turn.started"),
        ("request", "request.started"),
        ("action_loop", "action.loop_started"),
        ("action", "action.started"),
    ):
        lineage = {**inherited, "run_id": kind, "run_kind": kind, "parent_run_id": above, "meta": meta}
        tape.emit(event, at=0.1, run=lineage, scope="research")
        above = kind

    tape.emit("action.failed", at=0.2, run=lineage, payload={"record": {"error": "no such page"}}, scope="research")
    trace = traced(run, tape.lines)
    nodes = [trace.nodes[key] for key in ("agent_turn", "request", "action_loop", "action")]
    assert [node.name for node in nodes] == ["agent ann", "request", "actions", "search"]
    assert nodes[-1].error == {"message": "no such page"}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=25))
def test_circles_of_parents_never_hang_or_lose_a_node(edges: list[tuple[int, int, bool]]) -> None:
    """Hostile lineage gives some tree, in which every run can be reached once."""
    tape = Recorder()
    run = tape.execution("hostile", at=0.0)
    for at, (child, parent, chunk) in enumerate(edges):
        lineage = {
            "run_id": f"n{child}",
            "run_kind": "chunk_execution" if chunk else "action",
            "parent_run_id": f"n{parent}",
            "root_run_id": run.run["run_id"],
        }
        tape.emit("chunk.started" if chunk else "action.started", at=at, run=lineage, scope=f"s{child}/a[{parent}]")
    trace = traced(run, tape.lines)
    outline = Outline(trace)
    outline.fold_all(False)
    outline.refresh(0.0)
    keys = [row.node.key for row in outline.rows]
    assert len(keys) == len(set(keys))
    merged = {row.merged.key for row in outline.rows if row.merged is not None}
    assert set(keys) | merged == set(trace.nodes)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_very_deep_trace_stays_shallow_and_loses_nothing(backwards: bool) -> None:
    """Five thousand levels are drawn to a limit, whichever end is seen first."""
    tape = Recorder()
    run = tape.execution("deep", at=0.0)
    parent = run.run["run_id"]
    for number in range(5_000):
        lineage = {"run_id": f"d{number}", "run_kind": "action", "parent_run_id": parent}
        tape.emit("action.started", at=1.0, run={**lineage, "root_run_id": run.run["run_id"]})
        parent = f"d{number}"
    trace = traced(run, tape.lines[::-1] if backwards else tape.lines)
    outline = Outline(trace)
    outline.refresh(0.0)
    assert len(outline.rows) == 5_001
    assert max(row.depth for row in outline.rows) <= MAX_DEPTH


def test_a_line_counts_once_however_often_it_is_read() -> None:
    """Ring and live end may both deliver it: writer and wseq tell."""
    tape, run = audit()
    trace = Trace(run.run["run_id"])
    lines = [("w1", line, head(line)) for line in tape.lines]
    trace.extend(lines)
    trace.extend(lines)
    assert trace.events == len(lines)


def test_items_of_a_large_group_are_folded_until_opened() -> None:
    """Forty items are forty rows; opening one shows its steps, and errors can be revealed."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    for index in range(40):
        run.step(f"for_each[{index}]/read", "read", at=0.1, lasts=0.1)
        run.step(f"for_each[{index}]/judge", "judge", at=0.3, lasts=0.1)
    trace = traced(run, tape.lines)
    outline = Outline(trace)
    outline.refresh(0.0)
    assert len(outline.rows) == 42
    outline.reveal(trace.root.children[0].children[7].children[0])
    outline.refresh(1.0)
    assert len(outline.rows) == 44


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("read", [("read", None, 0)]),
        ("for_each[3]/classify#1", [("for_each", "3", 0), ("classify", None, 1)]),
        ("a%2Fb[x%5D]/c", [("a/b", "x]", 0), ("c", None, 0)]),
        ("~ab12/x", [("~ab12", None, 0), ("x", None, 0)]),
        ("", [("", None, 0)]),
    ],
)
def test_scopes_are_parsed_into_segments(scope: str, expected: list[tuple[str, str | None, int]]) -> None:
    """Name, member and activation, percent-decoded."""
    assert [(part.name, part.member, part.activation) for part in parse_scope(scope)] == expected


@given(st.text(max_size=60))
def test_any_text_is_a_scope(scope: str) -> None:
    """What does not parse is a name; paths are prefixes of the scope."""
    for part in parse_scope(scope):
        assert scope.startswith(part.path)
        assert scope.startswith(part.group_path)
