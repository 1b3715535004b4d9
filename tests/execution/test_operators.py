"""What every operator passes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, passes, turns, until

from flowdeck.errors import UnencodableValue
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


async def test_parallel_branches_and_side_branches(world: World) -> None:
    """Two chains from one point both run; a side branch leaves the chain's value alone."""
    flow = TriggerFlow(name="f")
    flow.to(passes("add", lambda v: v + 1)).to(keep("added"))
    flow.to(passes("double", lambda v: v * 2)).side_branch(passes("beside", lambda v: None)).to(keep("doubled"))
    assert await world.run(flow, 5) == {"added": 6, "doubled": 10}
    assert world.chunks()["beside"] == 1


async def test_batch_is_keyed_by_chunk_name(world: World) -> None:
    """batch runs its members on the same value and passes their results by name, nothing too, as declared (A16)."""
    flow = TriggerFlow(name="f")
    flow.batch(passes("B", lambda v: v + 2), passes("A", lambda v: v + 1), passes("N", lambda v: None)).to(keep("out"))
    snapshot = await world.run(flow, 1)
    assert snapshot == {"out": {"A": 2, "B": 3, "N": None}}
    assert list(snapshot["out"]) == ["B", "A", "N"]


async def test_collect_meets_branches(world: World) -> None:
    """collect passes ``{branch: value}`` in declaration order once each branch of the name has one (A16)."""

    async def late(data: Data) -> int:
        await turns(5)
        return 2

    flow = TriggerFlow(name="f")
    flow.to(("b", late)).collect("c", "b")
    flow.to(passes("a", lambda v: 1)).collect("c", "a").to(keep("out"))
    snapshot = await world.run(flow)
    assert snapshot == {"out": {"b": 2, "a": 1}}
    assert list(snapshot["out"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("filled_and_update", [{"l": 1, "r": 2}, {"l": 3, "r": 2}]),
        ("filled_then_empty", [{"l": 1, "r": 2}]),
    ],
)
async def test_the_two_modes_of_collect(world: World, mode: str, expected: list[Any]) -> None:
    """filled_and_update passes again for every later arrival, filled_then_empty starts anew."""
    flow = TriggerFlow(name="f")
    flow.when("L").collect("c", "l", mode=mode)
    flow.when("R").collect("c", "r", mode=mode)
    flow.when({"collect": "c"}).to(("log", lambda d: d.append_state("out", d.input)))
    execution = world.execution(flow)
    await execution.async_emit("L", 1)
    await execution.async_emit("R", 2)
    await execution.async_emit("L", 3)
    assert (await execution.async_close())["out"] == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("and", [{"event": {"X": 1, "Y": 2}}]),
        ("or", [("event", "X", 1), ("event", "Y", 2)]),
        ("simple_or", [1, 2]),
    ],
)
async def test_the_modes_of_when(world: World, mode: str, expected: list[Any]) -> None:
    """and waits for each, or passes type, event and value of each arrival, simple_or the value (A16)."""
    flow = TriggerFlow(name="f")
    flow.when({"event": ["X", "Y"]}, mode=mode).to(("log", lambda d: d.append_state("out", d.input)))
    execution = world.execution(flow)
    await execution.async_emit("X", 1)
    await execution.async_emit("Y", 2)
    assert (await execution.async_close())["out"] == expected


async def test_a_gate_over_different_triggers(world: World) -> None:
    """A gate may wait for an event, a state key and flow data at once; it starts anew after it has passed."""
    flow = TriggerFlow(name="f")
    flow.when({"event": "E", "runtime_data": "k", "flow_data": "d"}).to(
        ("log", lambda d: d.append_state("out", d.input))
    )
    execution = world.execution(flow)
    for n in (1, 2):
        await execution.async_emit("E", n)
        await execution.async_set_state("k", n)
        assert len(execution.get_state("out", [])) == n - 1
        await flow.async_set_flow_data("d", n, no_warning=True)

    out = [{"event": {"E": n}, "runtime_data": {"k": n}, "flow_data": {"d": n}} for n in (1, 2)]
    assert (await execution.async_close())["out"] == out


async def test_gates_belong_to_their_execution(world: World) -> None:
    """What one execution has gathered is no other execution's."""
    flow = TriggerFlow(name="f")
    flow.when({"event": ["X", "Y"]}).to(keep("out"))
    one, two = world.execution(flow), world.execution(flow)
    await one.async_emit("X", 1)
    await two.async_emit("Y", 2)
    assert await one.async_close() == await two.async_close() == {}


async def test_when_a_chunk_is_done(world: World) -> None:
    """A chunk, and the name of one, stand for its completion."""
    flow = TriggerFlow(name="f")
    chunk = flow.chunk(passes("a", lambda v: v + 1))
    flow.to(chunk)
    flow.when(chunk).to(keep("by chunk"))
    flow.when("a").to(keep("by name"))
    assert await world.run(flow, 1) == {"by chunk": 2, "by name": 2}


async def test_a_state_change_triggers_exactly_its_key(world: World) -> None:
    """set_state runs the handlers of that key and waits for them; emit=False does not (A16)."""
    flow = TriggerFlow(name="f")
    flow.when({"runtime_data": "k"}).to(("log", lambda d: d.append_state("seen", d.input)))

    async def work(data: Data) -> None:
        await data.async_set_state("k", 3)
        assert data.get_state("seen") == [3]
        await data.async_set_state("k", 4, emit=False)
        await data.async_set_state("other", 5)
        await data.async_append_state("k", 6)
        await data.async_del_state("k")

    flow.to(work)
    assert await world.run(flow) == {"other": 5, "seen": [3, [4, 6], None]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [([1, 2, 3, 4], [2, 4, 6, 8]), ((1, 2), [2, 4]), (range(3), [0, 2, 4]), (7, [14]), ([], []), ("ab", ["abab"])],
)
async def test_for_each_takes_sequences(world: World, value: Any, expected: list[Any]) -> None:
    """A sequence is taken apart, anything else is one element, an empty one goes on with [] (A17, deviation)."""
    flow = TriggerFlow(name="f")
    flow.for_each().to(passes("double", lambda v: v * 2)).end_for_each().to(keep("out"))
    assert await world.run(flow, value) == {"out": expected}


async def test_for_each_draws_a_generator_out(world: World) -> None:
    """A generator, sync or async, is drawn out once; its items are the elements."""

    def count() -> Iterator[int]:
        yield from (1, 2)

    async def acount() -> AsyncIterator[int]:
        for n in (3, 4):
            await asyncio.sleep(0)
            yield n

    flow = TriggerFlow(name="f")
    flow.for_each().to(passes("double", lambda v: v * 2)).end_for_each().to(keep("out"))
    assert await world.run(flow, count()) == {"out": [2, 4]}
    assert await world.run(flow, acount()) == {"out": [6, 8]}
    scopes = [r.scope for r in world.records("chunk.started") if r.payload["chunk_name"] == "double"]
    assert scopes == ["for_each[0]/double", "for_each[1]/double"] * 2


async def test_a_generator_that_raises_fails_the_for_each(world: World) -> None:
    """What a generator raises is the failure of the operator that draws it out; the core stays sound."""

    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    flow = TriggerFlow(name="f")
    flow.to(("make", lambda d: broken())).for_each(name="items").to(keep("never")).end_for_each()
    execution = world.execution(flow)
    with pytest.raises(LookupError, match="no more"):
        await execution.async_start()

    assert [p["chunk_name"] for p in world.payloads("chunk.failed")] == ["items"]
    assert await execution.async_close() == {}
    assert not execution._core.tasks and not execution._core.groups


async def test_an_undrawn_generator_cannot_be_saved(world: World) -> None:
    """A snapshot taken while a generator is drawn out names the operator that holds it."""
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[int]:
        await gate.wait()
        yield 1

    flow = TriggerFlow(name="f")
    flow.for_each(name="items").to(keep("x")).end_for_each()
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start(slow()))
    await turns()
    with pytest.raises(UnencodableValue, match="value at items"):
        execution.save()

    gate.set()
    await running
    assert await execution.async_close() == {"x": 1}


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_the_concurrency_of_a_block(world: World, limit: int) -> None:
    """for_each(concurrency=) limits the elements in flight, whatever order they end in."""
    running = peak = 0

    async def work(data: Data) -> Any:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await turns(5 - data.input)
        running -= 1
        return data.input

    flow = TriggerFlow(name="f")
    flow.for_each(concurrency=limit).to(work).to(passes("next")).end_for_each().to(keep("out"))
    assert await world.run(flow, [0, 1, 2, 3, 4]) == {"out": [0, 1, 2, 3, 4]}
    assert peak == limit


async def test_nested_blocks_keep_their_lanes(world: World) -> None:
    """for_each in for_each: values come back nested, scopes name both indices."""
    flow = TriggerFlow(name="f")
    flow.for_each(name="rows").for_each(name="cells").to(passes("neg", lambda v: -v)).end_for_each().end_for_each().to(
        keep("out")
    )
    assert await world.run(flow, [[1, 2], [3]]) == {"out": [[-1, -2], [-3]]}
    scopes = {r.scope for r in world.records("chunk.started") if r.payload["chunk_name"] == "neg"}
    assert scopes == {"rows[0]/cells[0]/neg", "rows[0]/cells[1]/neg", "rows[1]/cells[0]/neg"}


def matching(mode: str, *, otherwise: bool) -> TriggerFlow:
    flow = TriggerFlow(name="f")
    at = flow.match(mode=mode)
    at = (
        at.case(lambda d: d.input > 10)
        .to(("big", lambda d: "big"))
        .case(lambda d: d.input > 5)
        .to(("mid", lambda d: "mid"))
    )
    if otherwise:
        at = at.case_else().to(("small", lambda d: "small"))

    at.end_match().to(keep("out"))
    return flow


@pytest.mark.parametrize(
    ("mode", "otherwise", "value", "expected"),
    [
        ("hit_first", True, 11, "big"),
        ("hit_first", True, 6, "mid"),
        ("hit_first", True, 1, "small"),
        ("hit_first", False, 1, 1),
        ("hit_all", True, 11, ["big", "mid"]),
        ("hit_all", True, 6, ["mid"]),
        ("hit_all", True, 1, "small"),
        ("hit_all", False, 1, 1),
    ],
)
async def test_match(world: World, mode: str, otherwise: bool, value: int, expected: Any) -> None:
    """hit_first takes the first case, hit_all every one as a list; without a hit the value passes (A17)."""
    assert await world.run(matching(mode, otherwise=otherwise), value) == {"out": expected}


async def test_if_elif_else(world: World) -> None:
    """if_condition and its kin are a match."""
    flow = TriggerFlow(name="f")
    flow.if_condition(lambda d: d.input > 10).to(("a", lambda d: "A")).elif_condition(lambda d: d.input > 5).to(
        ("b", lambda d: "B")
    ).else_condition().to(("c", lambda d: "C")).end_condition().to(keep("out"))
    assert [(await world.run(flow, n))["out"] for n in (11, 6, 1)] == ["A", "B", "C"]


async def test_what_counts_as_a_hit(world: World) -> None:
    """A condition hits with True or with something equal to the value; a plain value is compared."""

    async def slowly_true(data: Data) -> bool:
        await asyncio.sleep(0)
        return bool(data.input == "async")

    flow = TriggerFlow(name="f")
    flow.match().case("plain").to(("a", lambda d: 1)).case(lambda d: "equal").to(("b", lambda d: 2)).case(
        slowly_true
    ).to(("c", lambda d: 3)).case(lambda d: 1).to(("d", lambda d: 4)).end_match().to(keep("out"))
    values = ["plain", "equal", "async", 1, "none of them", False]
    got = [(await world.run(flow, value))["out"] for value in values]
    assert got == [1, 2, 3, 4, "none of them", False]


async def test_a_condition_that_raises_fails_the_match(world: World) -> None:
    """The error of a condition is raised to the caller, and its match is the chunk that failed."""
    flow = TriggerFlow(name="f")
    flow.match(name="choose").case(lambda d: d.input / 0).to(keep("never")).end_match()
    execution = world.execution(flow)
    with pytest.raises(ZeroDivisionError):
        await execution.async_start(1)

    (failed,) = world.payloads("chunk.failed")
    assert (failed["chunk_name"], failed["operator_kind"]) == ("choose", "match_route")
    assert await execution.async_close() == {}


async def test_a_condition_can_read_resources_and_state(world: World) -> None:
    """A condition gets the same data object as a handler."""
    flow = TriggerFlow(name="f")
    flow.to(("set", lambda d: d.set_state("limit", 3) or d.input)).if_condition(
        lambda d: d.input > d.get_state("limit") * d.require_resource("factor")
    ).to(keep("over")).end_condition()
    assert await world.run(flow, 7, runtime_resources={"factor": 2}) == {"limit": 3, "over": 7}


async def test_a_loop_by_emits(world: World) -> None:
    """A chunk may emit the event that leads to it; every round is an activation of its own."""
    flow = TriggerFlow(name="f")

    async def count(data: Data) -> None:
        if data.input < 3:
            await data.async_emit("Again", data.input + 1)
        else:
            await data.async_set_state("done", data.input)

    flow.to(count)
    flow.when("Again").to(count)
    assert await world.run(flow, 0) == {"done": 3}
    assert [r.scope for r in world.records("chunk.started")] == ["count", "count#1", "count#2", "count#3"]


async def test_an_awaited_emit_waits_for_the_subtree(world: World) -> None:
    """async_emit returns when everything behind the signal has finished; emit_nowait at once."""
    flow = TriggerFlow(name="f")
    order: list[str] = []

    async def work(data: Data) -> None:
        await data.async_emit("E")
        order.append("emitted")
        data.emit_nowait("F")
        order.append("left")

    async def slow(data: Data) -> None:
        await turns(3)
        order.append(data.trigger_event[:1])

    flow.to(work)
    flow.when("E").to(("e1", slow)).to(("e2", slow))
    flow.when("F").to(("f", slow))
    await world.run(flow)
    assert order == ["E", "C", "emitted", "left", "F"]


async def test_an_event_nobody_listens_to(world: World) -> None:
    """Emitting it, from inside or outside, is no error and waits for nothing."""
    flow = TriggerFlow(name="f")

    async def shout(data: Data) -> None:
        await data.async_emit("Nobody", 1)

    flow.to(shout)
    execution = world.execution(flow)
    await execution.async_start()
    async with asyncio.timeout(5):
        await execution.async_emit("Nobody", 1)

    await execution.async_close()


async def test_the_executions_concurrency_limits_every_handler(world: World) -> None:
    """concurrency=2 holds for nested work too, and an awaited emit lends its place, so nothing locks up (defect 4)."""
    running = peak = 0

    async def inner(data: Data) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await turns(3)
        running -= 1

    async def outer(data: Data) -> None:
        await data.async_emit("Inner", data.input)

    flow = TriggerFlow(name="f")
    flow.for_each().to(outer).end_for_each()
    flow.when("Inner").to(inner)
    await world.run(flow, list(range(8)), concurrency=2)
    assert peak == 2
    assert world.chunks()["inner"] == 8


async def test_a_limit_can_be_changed_while_it_runs(world: World) -> None:
    """set_concurrency lets waiting handlers in at once."""
    gate = asyncio.Event()

    async def work(data: Data) -> None:
        await gate.wait()

    flow = TriggerFlow(name="f")
    flow.for_each().to(work).end_for_each()
    execution = world.execution(flow, concurrency=1)
    running = asyncio.create_task(execution.async_start([1, 2, 3]))
    await until(lambda: world.chunks("chunk.started")["work"] == 1)
    await turns()
    assert world.chunks("chunk.started")["work"] == 1
    execution.set_concurrency(None)
    await until(lambda: world.chunks("chunk.started")["work"] == 3)
    gate.set()
    await running
    await execution.async_close()


async def test_context_variables_stay_in_their_branch(world: World) -> None:
    """What a handler sets in its context is seen by what it awaits, not by the next step or a sibling."""
    from contextvars import ContextVar

    var: ContextVar[str] = ContextVar("var", default="unset")
    seen: dict[str, str] = {}

    async def sets(data: Data) -> None:
        var.set("mine")
        await asyncio.sleep(0)
        seen["same"] = var.get()

    async def reads(data: Data) -> None:
        seen[data._op.name] = var.get()

    flow = TriggerFlow(name="f")
    flow.to(sets).to(("next", reads))
    flow.to(("sibling", reads))
    await world.run(flow)
    assert seen == {"same": "mine", "next": "unset", "sibling": "unset"}
