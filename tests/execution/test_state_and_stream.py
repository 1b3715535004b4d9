"""Execution state and the runtime stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, passes, turns

from flowdeck.errors import MissingResource, UnencodableValue
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


@dataclass
class Point:
    x: int
    when: datetime


async def test_state_by_dotted_keys(world: World) -> None:
    """Dotted keys nest, append creates the list, a missing key gives the default (A14)."""
    execution = world.execution(TriggerFlow(name="f"))
    await execution.async_set_state("a.b", 1)
    await execution.async_append_state("l", 1)
    await execution.async_append_state("l", 2)
    await execution.async_set_state("zero", 0)
    await execution.async_set_state("scalar", "s")
    await execution.async_append_state("scalar", "t")
    assert execution.get_state() == {"a": {"b": 1}, "l": [1, 2], "zero": 0, "scalar": ["s", "t"]}
    assert execution.get_state("a.c", "default") == "default"
    await execution.async_del_state("zero")
    await execution.async_del_state("a.b")
    await execution.async_del_state("never.there")
    assert await execution.async_close() == {"a": {}, "l": [1, 2], "scalar": ["s", "t"]}


async def test_set_state_replaces(world: World) -> None:
    """Setting a key replaces what stood there, whatever the types (defect 6)."""
    execution = world.execution(TriggerFlow(name="f"))
    for value in ({"a": 1}, {"b": 2}, [1], [2], 3, {"c": 4}):
        await execution.async_set_state("k", value)
        assert execution.get_state("k") == value


async def test_state_is_copied_in_and_out(world: World) -> None:
    """Neither the object that was set nor the one that was got is the one inside."""
    execution = world.execution(TriggerFlow(name="f"))
    mine = {"list": [1]}
    await execution.async_set_state("k", mine)
    mine["list"].append(2)
    execution.get_state("k")["list"].append(3)
    assert execution.get_state("k") == {"list": [1]}


async def test_state_keeps_its_types(world: World) -> None:
    """Tagged types go in and come out as they are."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    execution = world.execution(TriggerFlow(name="f"))
    value = {"point": Point(1, now), "set": {1, 2}, "tuple": (1, b"x"), 3: "int key"}
    await execution.async_set_state("k", value)
    assert execution.get_state("k") == value
    assert isinstance(execution.get_state("k.tuple"), tuple)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), "k"),
        ({"a": [1, {"conn": object()}]}, r"k\.a\[1\]\.conn"),
        (lambda: 1, "k"),
        ({object(): 1}, r"k\.<object.*>"),
        ((i for i in ()), "k"),
    ],
)
async def test_a_live_object_is_no_state(world: World, value: Any, path: str) -> None:
    """What cannot be stored is refused with its key path, and nothing changes."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        with pytest.raises(UnencodableValue, match=rf"{path}: .* cannot be stored in execution state") as caught:
            await data.async_set_state("k", value)

        assert isinstance(caught.value, TypeError)
        with pytest.raises(UnencodableValue):
            await data.async_append_state("k", value)

    flow.to(work)
    assert await world.run(flow) == {}


async def test_a_value_that_contains_itself(world: World) -> None:
    """A cycle in a value is an error, not a stack overflow."""
    loop: list[Any] = []
    loop.append(loop)
    execution = world.execution(TriggerFlow(name="f"))
    with pytest.raises(UnencodableValue, match="contains itself"):
        await execution.async_set_state("k", loop)


async def test_a_key_through_a_scalar(world: World) -> None:
    """A dotted key that leads through something that is no dict is an error."""
    execution = world.execution(TriggerFlow(name="f"))
    await execution.async_set_state("a", 1)
    with pytest.raises(TypeError, match="cannot set 'a.b': 'a' holds int"):
        await execution.async_set_state("a.b", 2)


async def test_the_state_namespace(world: World) -> None:
    """data.state is a mapping-like view."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        data.state["a"] = {"b": 1}
        data.state.append("l", 1)
        await data.state.async_append("l", 2)
        await data.state.async_set("gone", 1)
        await data.state.async_del("gone")
        assert "a.b" in data.state and "gone" not in data.state
        assert (data.state["a.b"], data.state.get("none", 5), len(data.state)) == (1, 5, 2)
        assert list(data.state) == data.state.keys() == ["a", "l"]
        assert data.state.to_dict() == dict(data.state.items()) == {"a": {"b": 1}, "l": [1, 2]}
        data.state["a"]["b"] = 9
        assert data.state["a"] == {"b": 1}
        with pytest.raises(KeyError):
            data.state["none"]

        del data.state["l"]
        assert data.state.values() == [{"b": 1}]

    flow.to(work)
    assert await world.run(flow) == {"a": {"b": 1}}


async def test_sync_writes_run_their_handlers_before_the_chunk_completes(world: World) -> None:
    """A sync handler cannot wait, so its completion does."""
    order: list[str] = []
    flow = TriggerFlow(name="f")
    flow.to(("set", lambda d: d.set_state("k", 1))).to(("next", lambda d: order.append("next")))

    async def seen(data: Data) -> None:
        await turns(3)
        order.append("seen")

    flow.when({"runtime_data": "k"}).to(seen)
    await world.run(flow)
    assert order == ["seen", "next"]


async def test_resources_are_live_and_never_saved(world: World) -> None:
    """The execution's value goes before the flow's; a missing one is named with what there is."""
    flow = TriggerFlow(name="f")
    live = object()
    flow.set_runtime_resource("a", "flow")
    flow.update_runtime_resources(b=live)

    async def work(data: Data) -> None:
        assert data.require_resource("a") == "execution"
        assert data.get_resource("b") is live
        data.set_resource("c", 1)
        assert sorted(data.resources) == ["a", "b", "c"]
        with pytest.raises(MissingResource, match=r"'zzz' was not injected \(there are: a, b, c\)") as caught:
            data.require_resource("zzz")

        assert isinstance(caught.value, KeyError)

    flow.to(work)
    execution = world.execution(flow, runtime_resources={"a": "execution"})
    await execution.async_start()
    assert execution.save()["resource_keys"] == ["a", "b", "c"]
    assert flow.get_runtime_resource("a") == "flow" and flow.get_runtime_resource("c") is None
    await execution.async_close()


async def test_items_can_be_read_late_and_twice(world: World) -> None:
    """Every reader gets every item, also after the close (A15)."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        for n in range(3):
            await data.async_put_into_stream(n)

    flow.to(work)
    execution = world.execution(flow)
    await execution.async_start()
    await execution.async_close()
    for _ in range(2):
        assert [i async for i in execution.get_async_runtime_stream(timeout=None)] == [0, 1, 2]

    assert [i async for i in flow.get_async_runtime_stream(services=world.services)] == [0, 1, 2]


async def test_stop_ends_the_stream(world: World) -> None:
    """stop_stream is idempotent; what comes after it is not seen (A15)."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        await data.async_put_into_stream(1)
        await data.async_stop_stream()
        data.stop_stream()
        await data.async_put_into_stream(2)

    flow.to(work)
    execution = world.execution(flow)
    await execution.async_start()
    assert [i async for i in execution.get_async_runtime_stream(timeout=None)] == [1]
    await execution.async_close()
    assert world.types("triggerflow.stream_closed") == ["triggerflow.stream_closed"]


async def test_reading_starts_an_unstarted_run(world: World) -> None:
    """Iterating starts the execution; without auto close the reader ends at its timeout (defect 5)."""
    flow = TriggerFlow(name="f")
    flow.to(("put", lambda d: d.put_into_stream(d.input)))
    execution = world.execution(flow)
    stream = execution.get_async_runtime_stream("in", timeout=5.0)
    assert await anext(stream) == "in"
    waiting = asyncio.create_task(anext(stream, "end"))
    await turns()
    with pytest.warns(UserWarning, match="no item for 5.0 s"):
        await world.clock.advance(5)
        assert await waiting == "end"

    assert execution.is_open() and execution.is_idle()
    await execution.async_close()


async def test_the_reader_of_a_failing_flow_gets_the_error(world: World) -> None:
    """Items come first, then what failed."""
    flow = TriggerFlow(name="f")
    flow.to(("put", lambda d: d.put_into_stream(1))).to(("bad", lambda d: 1 / 0))
    seen: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        async for item in flow.get_async_runtime_stream(services=world.services):
            seen.append(item)

    assert seen == [1]


def test_a_synchronous_reader() -> None:
    """get_runtime_stream yields live from a thread."""
    world = World()
    flow = TriggerFlow(name="f")
    flow.for_each().to(("put", lambda d: d.put_into_stream(d.input))).end_for_each()
    assert list(flow.get_runtime_stream([1, 2], services=world.services)) == [1, 2]


async def test_the_product_pattern(world: World) -> None:
    """Start, close in a task, read to the end, await the close."""
    flow = TriggerFlow(name="f")
    flow.to(("put", lambda d: d.put_into_stream(1))).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start()
    closing = asyncio.create_task(execution.async_close())
    assert [i async for i in execution.get_async_runtime_stream(timeout=None)] == [1]
    assert await closing == {"out": None}


async def test_a_bounded_stream_says_what_it_let_go(world: World) -> None:
    """Beyond the limit the oldest items go; a reader that was behind gets one gap item."""
    flow = TriggerFlow(name="f")
    flow.to(passes("x"))
    execution = world.execution(flow)
    execution._stream.limit = 10
    await execution.async_start()
    for n in range(25):
        await execution.async_put_into_stream(n)

    await execution.async_close()
    first, *rest = [i async for i in execution.get_async_runtime_stream(timeout=None)]
    assert first == {"type": "stream", "action": "gap", "missed": rest[0]}
    assert rest == list(range(rest[0], 25))


async def test_a_synchronous_reader_on_the_executions_own_loop(world: World) -> None:
    """It would wait for itself, so it is refused with the mend; what has ended can be read."""
    flow = TriggerFlow(name="f")
    flow.to(("put", lambda data: data.put("item")))
    execution = world.execution(flow)
    await execution.async_start()
    with pytest.raises(RuntimeError, match="async for with get_async_runtime_stream"):
        list(execution.get_runtime_stream())

    await execution.async_close()
    assert list(execution.get_runtime_stream()) == ["item"]
