"""Declaring a flow: what each method adds, and which mistakes it names."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from flowdeck.definition.plan import compile_plan
from flowdeck.definition.retry import Retry
from flowdeck.errors import BlockError, DefinitionError
from flowdeck.triggerflow import TriggerFlow


def a(data: Any) -> Any:
    return data.input


def b(data: Any) -> Any:
    return data.input


def kinds(flow: TriggerFlow) -> dict[str, int]:
    found: dict[str, int] = {}
    for op in flow.operators():
        found[op.kind] = found.get(op.kind, 0) + 1

    return found


def test_the_decorator_returns_the_chunk() -> None:
    """``@flow.chunk("name")`` and ``@flow.chunk`` both leave a chunk that ``to`` and ``when`` take."""
    flow = TriggerFlow(name="f")

    @flow.chunk("first")
    def one(data: Any) -> Any:
        return data.input

    @flow.chunk
    def two(data: Any) -> Any:
        return data.input

    assert (one.name, two.name) == ("first", "two")
    flow.to(one).to("two")
    flow.when(one).to(a)
    assert [op.name for op in flow.operators(one.trigger)] == ["two", "a"]
    with pytest.raises(DefinitionError, match="a chunk needs a name"):
        flow.chunk("")


def test_a_named_function_has_the_same_id_everywhere() -> None:
    """Ids do not depend on the process or the order: they come from name and place."""
    one, two = TriggerFlow(name="one"), TriggerFlow(name="two")
    one.to(a).to(b)
    two.to(b).to(a)
    assert one.chunk(a).id == two.chunk(a).id
    assert one.chunk(a).trigger == f"Chunk[a]-{one.chunk(a).id}"
    assert one.chunk(("x", a)).id != one.chunk(a).id


def test_declared_emits_appear_in_the_definition() -> None:
    """declare_emits records events for readers of the definition, in whatever order it is called."""
    flow = TriggerFlow(name="f")
    chunk = flow.chunk(a)
    flow.to(chunk)
    assert chunk.declare_emits("Done", "Failed").declare_emits("Done") is chunk
    (described,) = flow.describe()["operators"]
    assert [e["trigger_event"] for e in described["emit_signals"] if e["role"] == "declared_emit"] == ["Done", "Failed"]
    with pytest.raises(TypeError, match="chunk 'a': declare_emits takes event names, got 3"):
        chunk.declare_emits(3)  # type: ignore[arg-type]


def test_the_definition_shows_a_sub_flow_and_its_bindings() -> None:
    """describe() has the bindings as they were written."""
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(TriggerFlow(name="child"), capture={"input": "value.a"}, concurrency=2)
    (described,) = flow.describe()["operators"]
    assert (described["kind"], described["name"], described["group_id"]) == ("sub_flow", "child", None)
    child = described["options"].pop("sub_flow_config")
    assert (child["name"], child["operators"]) == ("child", [])
    assert described["options"] == {
        "sub_flow_name": "child",
        "capture": {"input": "value.a"},
        "write_back": None,
        "concurrency": 2,
    }


def test_an_unnamed_child_is_called_sub_flow() -> None:
    """A flow without a name gets none by chance: the operator's key must be the same in every process."""
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(TriggerFlow())
    flow.to_sub_flow(TriggerFlow())
    assert [op.key for op in flow.operators()] == ["sub_flow", "sub_flow~1"]


def test_a_plan_is_what_was_declared_by_then() -> None:
    """Later declarations, and newer handlers, do not reach a compiled plan."""
    flow = TriggerFlow(name="f")
    flow.match(name="m").case(lambda d: True).to(a).end_match()
    plan = compile_plan(flow._blueprint)
    (route,) = [op for op in plan.ops if op.operator_kind == "match_route"]
    before = route.cases[0].condition
    flow.to(b)
    assert len(plan.ops) == len(flow.operators()) - 1
    assert flow.plan is flow.plan
    assert route.cases[0].condition is before


@pytest.mark.parametrize(
    ("declare", "error", "text"),
    [
        (lambda f: f.to("nobody"), NotImplementedError, "flow 'f' has no chunk named 'nobody'"),
        (lambda f: f.to(3), DefinitionError, r"to\(3\): expected a handler"),
        (lambda f: f.to(("a", 3)), DefinitionError, "expected a handler"),
        (lambda f: f.to((1, a)), DefinitionError, r"expected \(name, handler\)"),
        (lambda f: f.to(a, retry=3), DefinitionError, r"to\(a\): retry= takes a flowdeck.Retry"),
        (lambda f: f.to(a, timeout=0), DefinitionError, r"to\(a\): timeout= must be more than 0"),
        (lambda f: f.to(("a", a)).to(("a", b)), DefinitionError, "chunk 'a' is bound to another handler"),
        (lambda f: f.when({}), DefinitionError, "at least one trigger"),
        (lambda f: f.when({"signal": "X"}), DefinitionError, "'signal' is no trigger type"),
        (lambda f: f.when({"runtime_data": f.chunk(a)}), TypeError, "a chunk cannot be a 'runtime_data' trigger"),
        (lambda f: f.when(3), DefinitionError, "expected a name or a chunk, got 3"),
        (lambda f: f.when("A", mode="xor"), DefinitionError, 'mode must be "and", "or" or "simple_or"'),
        (lambda f: f.batch(), DefinitionError, "at least one chunk"),
        (lambda f: f.batch(a, a), DefinitionError, "a stands in it twice"),
        (lambda f: f.batch(a, concurrency=0), DefinitionError, "batch: concurrency=0"),
        (lambda f: f.for_each(concurrency=-1), DefinitionError, "for_each: concurrency=-1"),
        (lambda f: f.to(a).end_for_each(), NotImplementedError, r"end_for_each\(\): no for_each is open"),
        (lambda f: f.match().end_match(), BlockError, "'match' has no case"),
        (lambda f: f.match(mode="any"), DefinitionError, 'mode must be "hit_first" or "hit_all"'),
        (lambda f: f.to(a).case(1), NotImplementedError, r"case\(\): no match is open"),
        (lambda f: f.match(name="m").case_else(), NotImplementedError, "a case must come first in 'm'"),
        (lambda f: f.to(a).case_else(), NotImplementedError, r"case_else\(\): no match is open"),
        (lambda f: f.to(a).end_match(), NotImplementedError, r"end_match\(\): no match is open"),
        (
            lambda f: f.for_each(name="items").match().case(1).end_for_each(),
            BlockError,
            "the innermost open block is 'match', close it first",
        ),
        (lambda f: f.collect("c", mode="once"), DefinitionError, r"collect\('c'\): unknown mode 'once'"),
        (lambda f: TriggerFlow("f"), DefinitionError, "write name='f'"),
    ],
)
def test_a_mistake_is_named_where_it_is_made(declare: Any, error: type[Exception], text: str) -> None:
    """Definition errors are raised at definition time and name the operator."""
    flow = TriggerFlow(name="f")
    with pytest.raises(error, match=text) as caught:
        declare(flow)

    assert isinstance(caught.value, DefinitionError | TypeError)


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"backoff": -1.0}, {"jitter": 2.0}, {"factor": 0.0}])
def test_a_wrong_retry_is_refused(wrong: dict[str, Any]) -> None:
    """Retry checks its numbers when it is made."""
    with pytest.raises(ValueError, match="Retry"):
        Retry(**wrong)


def test_a_cycle_without_a_chunk_is_refused() -> None:
    """A value that would go round inside the core for ever is a definition error, not a stack overflow."""
    flow = TriggerFlow(name="f")
    flow.to(a).collect("c", "one")
    flow.when({"collect": "c"}).collect("c", "two")
    with pytest.raises(DefinitionError, match=r"flow 'f': collect:c~1 -> collect:c~1 is a cycle without a chunk"):
        flow.create_execution()


@pytest.mark.filterwarnings("ignore::flowdeck.errors.CycleWarning")
def test_a_cycle_through_a_chunk_is_a_loop() -> None:
    """The same callable again is the same chunk, so it closes a loop."""
    flow = TriggerFlow(name="f")
    flow.to(a).to(b).to(a)
    assert kinds(flow) == {"chunk": 2}
    assert compile_plan(flow._blueprint).by_key["b"].next == (0,)


class Step:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, data: Any) -> Any:
        return self.n

    def run(self, data: Any) -> Any:
        return self.n


def factory(n: int) -> Any:
    def step(data: Any) -> Any:
        return n

    return step


@pytest.mark.parametrize(
    "make",
    [factory, Step, lambda n: Step(n).run, lambda n: partial(a, n)],
    ids=["closure", "callable", "method", "partial"],
)
def test_two_of_a_kind_are_two_steps(make: Any) -> None:
    """Closures of one factory, callable objects, bound methods and partials are told apart."""
    flow = TriggerFlow(name="f")
    flow.to(make(1)).to(make(2)).to(make(3))
    names = [op.name for op in flow.operators()]
    assert names == [names[0], f"{names[0]}~1", f"{names[0]}~2"]
