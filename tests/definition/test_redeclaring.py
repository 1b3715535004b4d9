"""A chain replayed, or a module reloaded, must not declare its steps twice."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from flowdeck.errors import DefinitionError
from flowdeck.triggerflow import TriggerFlow

MODULE = """
from flows_of_test import flow

def first(data):
    return [*data.input, {version}]

def inner(data):
    return data.input

flow.to(first).for_each().to(inner).end_for_each().match().case(lambda d: len(d.input) > 1).to(
    ("many", lambda d: d.set_state("many", d.input))
).case_else().to(("one", lambda d: d.set_state("one", d.input))).end_match()
flow.when({{"event": ["A", "B"]}}).to(("gate", lambda d: d.set_state("gate", d.input)))
flow.batch(("x", lambda d: 1), ("y", lambda d: 2)).collect("met", "left")
"""


def a(data: Any) -> Any:
    return data.input


def b(data: Any) -> Any:
    return data.input


def edges(flow: TriggerFlow) -> list[tuple[str, str]]:
    return [(op.key, trigger.id) for op in flow.operators() for trigger in op.listens]


def test_a_reloaded_module_changes_handlers_not_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reload the graph is the same, and new executions run the newest code."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "flows_of_test.py").write_text(
        "from flowdeck.triggerflow import TriggerFlow\nflow = TriggerFlow(name='shared')\n"
    )
    steps = tmp_path / "steps_of_test.py"
    steps.write_text(MODULE.format(version=1))
    module = importlib.import_module("steps_of_test")
    flow: TriggerFlow = module.flow
    before, fingerprint = edges(flow), flow.plan.fingerprint
    old = flow.create_execution(auto_close_timeout=0.0)
    steps.write_text(MODULE.format(version=22))
    importlib.reload(module)
    assert edges(flow) == before
    assert flow.plan.fingerprint == fingerprint
    assert old.start([0])["many"] == [0, 1]
    assert flow.start([0])["many"] == [0, 22]
    for name in ("steps_of_test", "flows_of_test"):
        sys.modules.pop(name)


def test_a_replayed_chain_adds_nothing() -> None:
    """The same function that builds a chain may run twice."""
    flow, child = TriggerFlow(name="f"), TriggerFlow(name="child")

    def declare() -> None:
        at = flow.to(a).for_each(concurrency=2).to(b).end_for_each()
        at = at.if_condition(lambda d: d.input).to(("yes", a)).else_condition().to(("no", b)).end_condition()
        at.to_sub_flow(child, capture={"input": "value"}).collect("c", "left")
        flow.when({"event": ["X", "Y"]}).to(("z", lambda d: None)).side_branch(a)

    declare()
    before = edges(flow)
    declare()
    assert edges(flow) == before


def test_one_callable_may_be_two_stages() -> None:
    """Two names make two steps of one function."""
    flow = TriggerFlow(name="f")
    flow.to(("one", a)).to(("two", a))
    assert [op.key for op in flow.operators()] == ["one", "two"]


def test_anonymous_lambdas_append_and_named_ones_do_not() -> None:
    """Each anonymous lambda is a step of its own, even from the same line; a name makes it one."""
    flow = TriggerFlow(name="f")
    for _ in range(2):
        flow.to(lambda d: 1)

    assert len(flow.operators()) == 2
    for _ in range(2):
        flow.to(("named", lambda d: 1))

    assert len(flow.operators()) == 3


@pytest.mark.filterwarnings("ignore::flowdeck.errors.CycleWarning")
def test_a_name_is_bound_to_one_piece_of_code() -> None:
    """Another handler under a taken name fails, and so does another value in the same closure."""
    flow = TriggerFlow(name="f")
    flow.to(("n", lambda d: 1))
    with pytest.raises(DefinitionError, match="chunk 'n' is bound to another handler already"):
        flow.to(("n", lambda d: 2))

    def make(k: int) -> Any:
        return lambda d: k

    flow.to(("m", make(1))).to(("m", make(1)))
    with pytest.raises(DefinitionError, match="chunk 'm' is bound"):
        flow.to(("m", make(2)))


def test_two_conditions_on_one_line_are_two(capsys: pytest.CaptureFixture[str]) -> None:
    """Cases count by their order in the chain, not by where they stand (defect 3)."""
    flow = TriggerFlow(name="f")
    at = flow.match(name="m")
    for limit in (10, 5):
        at = at.case(lambda d, limit=limit: d.input > limit).to((f"over {limit}", _store(limit)))

    at.case_else().to(("small", _store(0))).end_match()
    got = [flow.start(n)["over"] for n in (11, 6, 1)]
    assert got == [10, 5, 0]


def _store(limit: int) -> Any:
    return lambda d: d.set_state("over", limit)


def test_cases_may_also_be_opened_from_the_match_itself() -> None:
    """``m.case(..)`` twice from one position is two arms."""
    flow = TriggerFlow(name="f")
    m = flow.match(name="m")
    m.case(1).to(("one", _store(1)))
    m.case(2).to(("two", _store(2)))
    assert [flow.start(n).get("over") for n in (1, 2, 3)] == [1, 2, None]


def test_a_block_in_a_loop_needs_a_name() -> None:
    """A loop that opens a block on one line would silently merge them; it is told to name them."""
    flow = TriggerFlow(name="f")
    with pytest.raises(DefinitionError, match="for_each 'for_each' was declared on this line before, without 'b'"):
        for step in (a, b):
            flow.for_each().to(step).end_for_each()

    named = TriggerFlow(name="named")
    for step in (a, b):
        named.for_each(name=f"each {step.__name__}").to(step).end_for_each()

    assert len(named.operators()) == 6

    matching = TriggerFlow(name="m")
    with pytest.raises(DefinitionError, match="match 'match' was declared on this line before, with another case 0"):
        for value in (1, 2):
            matching.match().case(value).to(a).end_match()


def test_a_sub_flow_in_a_loop_needs_a_name() -> None:
    """Two children of one name on one line are told apart, or refused."""
    flow = TriggerFlow(name="f")
    with pytest.raises(DefinitionError, match=r"to_sub_flow\(x\): this line has declared it with another flow"):
        for child in (TriggerFlow(name="c1"), TriggerFlow(name="c2")):
            flow.to_sub_flow(child, name="x")

    fine = TriggerFlow(name="f")
    for child in (TriggerFlow(name="c1"), TriggerFlow(name="c2")):
        fine.to_sub_flow(child)

    assert [op.key for op in fine.operators()] == ["c1", "c2"]


def test_a_when_edge_declared_twice_does_not_swallow_emits() -> None:
    """Replaying a declaration deduplicates the edge, never the signals."""
    flow = TriggerFlow(name="f")
    for _ in range(2):
        flow.when("E").to(("log", lambda d: d.append_state("seen", d.input)))

    async def shout(data: Any) -> None:
        await data.async_emit("E", 1)
        await data.async_emit("E", 1)

    flow.to(shout)
    assert flow.start() == {"seen": [1, 1]}


def test_an_existing_execution_keeps_its_definition() -> None:
    """What is declared after an execution was created does not reach it."""
    flow = TriggerFlow(name="f")
    flow.to(("one", lambda d: d.set_state("one", 1)))
    execution = flow.create_execution(auto_close_timeout=0.0)
    flow.to(("two", lambda d: d.set_state("two", 2)))
    assert execution.start() == {"one": 1}
    assert flow.start() == {"one": 1, "two": 2}
