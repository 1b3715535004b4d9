"""Older names of the compatible API work, and say what to write instead."""

from __future__ import annotations

import asyncio
import json
import warnings
from typing import Any

import pytest
from tests.execution.support import World

from flowdeck.compat import TriggerFlow, TriggerFlowRuntimeData

Data = TriggerFlowRuntimeData


def run(flow: TriggerFlow, value: Any = None) -> tuple[World, dict[str, Any]]:
    world = World()
    return world, asyncio.run(world.run(flow, value))


def test_runtime_data_is_state() -> None:
    """Every name of the runtime_data family does what the state's does, in chunks and outside, and warns."""

    async def work(data: Data) -> None:
        data.set_runtime_data("a.b", 1)
        await data.async_set_runtime_data("c", 2)
        data.append_runtime_data("l", 1)
        await data.async_append_runtime_data("l", 2)
        await data.async_set_runtime_data("gone", 1)
        data.del_runtime_data("gone")
        await data.async_set_runtime_data("gone", 1)
        await data.async_del_runtime_data("gone")
        assert data.get_runtime_data("a.b") == 1
        assert data.get_runtime_data("nothing", "default", inherit=False) == "default"

    flow = TriggerFlow(name="f")
    flow.to(work)
    world = World()
    execution = world.execution(flow)

    async def main() -> dict[str, Any]:
        await execution.async_start()
        await execution.async_set_runtime_data("late", True)
        assert execution.get_runtime_data() == {"a": {"b": 1}, "c": 2, "l": [1, 2], "late": True}
        return await execution.async_close()

    with pytest.warns(DeprecationWarning) as caught:
        assert asyncio.run(main())["l"] == [1, 2]

    texts = {str(warning.message) for warning in caught}
    assert "set_runtime_data() is deprecated; use set_state()" in texts
    assert {w.filename for w in caught} == {__file__}


def test_signals_and_layers() -> None:
    """The signal is at hand by attribute and by key; layers are the indexed places around the chunk."""
    seen: dict[str, Any] = {}

    def look(data: Data) -> Any:
        seen[data.input] = (data.layer_mark, data.upper_layer_mark, data.signal.layer_marks)
        return data.input

    def last(data: Data) -> None:
        info, signal = data.signal_info, data.signal
        assert (info.event, info["type"], info.source, info.meta) == (data.event, "event", "chunk", {})
        assert info.to_dict() == {
            "event": data.event, "type": "event", "source": "chunk", "meta": {}, "value": data.input,
        }  # fmt: skip
        assert (signal.id, signal.trigger_event, signal.value) == (data.signal_id, data.event, data.input)
        assert data.layer_mark is data.upper_layer_mark is None
        with pytest.raises(AttributeError, match="a signal has id, trigger_event"):
            signal.nonsense
        with pytest.warns(DeprecationWarning, match=r"layer_in\(\) changes nothing"):
            data.layer_in()
        with pytest.warns(DeprecationWarning, match=r"layer_out\(\) changes nothing"):
            data.layer_out()

    flow = TriggerFlow(name="f")
    flow.for_each(name="out").for_each(name="in").to(look).end_for_each().end_for_each().to(last)
    world, _ = run(flow, [["a"], ["b", "c"]])
    assert not [r for r in world.recorder.records if r.event_type == "chunk.failed"]
    assert seen["a"] == ("out[0]/in[0]", "out[0]", ["out[0]", "out[0]/in[0]"])
    assert seen["c"] == ("out[1]/in[1]", "out[1]", ["out[1]", "out[1]/in[1]"])


def test_layer_marks_of_an_emit_change_nothing() -> None:
    """_layer_marks= is taken everywhere a signal is emitted, with a warning: branches are kept apart anyway."""
    heard: list[Any] = []

    async def shout(data: Data) -> None:
        await data.async_emit("Heard", 1, _layer_marks=["x"])
        data.emit_nowait("Heard", 2, ["x"])
        data.emit("Heard", 3, _layer_marks=["x"])

    flow = TriggerFlow(name="f")
    flow.to(shout)
    flow.when("Heard").to(lambda data: heard.append(data.input))
    world = World()
    execution = world.execution(flow)

    async def main() -> None:
        await execution.async_start()
        await execution.async_emit("Heard", 4, _layer_marks=["x"])
        execution.emit_nowait("Heard", 5, _layer_marks=["x"])
        await execution.async_close()

    with pytest.warns(DeprecationWarning, match="_layer_marks= changes nothing") as caught:
        asyncio.run(main())

    assert sorted(heard) == [1, 2, 3, 4, 5]
    assert {warning.filename for warning in caught} == {__file__}


def test_no_layer_mark_reaches_a_product_route() -> None:
    """What products read, the runtime stream and the close snapshot, has no layer marks, nor a signal's in a record."""

    async def ask(data: Data) -> Any:
        data.put({"type": "progress", "n": data.input})
        return await data.async_pause_for(type="human", payload={"n": data.input})

    flow = TriggerFlow(name="f")
    flow.for_each(name="each item").to(ask).end_for_each().to(("keep", lambda d: d.set_state("kept", d.input)))
    world = World()
    execution = world.execution(flow)

    async def main() -> tuple[list[Any], Any]:
        await execution.async_start([1, 2])
        for interrupt in list(execution.get_pending_interrupts()):
            await execution.async_continue_with(interrupt, "yes")

        snapshot = await execution.async_close()
        return [item async for item in execution.get_async_runtime_stream(timeout=None)], snapshot

    items, snapshot = asyncio.run(main())
    assert [item["type"] for item in items].count("interrupt") == 4
    assert "layer" not in json.dumps([items, snapshot])
    assert "each item[" not in json.dumps([snapshot, *(item for item in items if item["type"] != "interrupt")])


def test_small_names() -> None:
    """async_seal, async_unseal, async_stop_stream, wait_for_result and flow data on an execution are there."""
    flow = TriggerFlow(name="f")
    flow.to(lambda data: data.input)
    heard: list[Any] = []
    flow.when({"flow_data": "k"}).to(("hear", lambda data: heard.append(data.input)))
    world = World()
    execution = world.execution(flow)

    async def main() -> None:
        with pytest.warns(DeprecationWarning, match="wait_for_result= changes nothing"):
            await execution.async_start(1, wait_for_result=True)

        assert (await execution.async_seal()).is_sealed()
        assert (await execution.async_unseal(reason="why")).is_open()
        await execution.async_set_flow_data("k", 3, no_warning=True)
        assert execution.get_flow_data("k") == flow.get_flow_data("k") == 3
        await execution.async_stop_stream()
        await execution.async_close()

    asyncio.run(main())
    assert heard == [3]
    assert execution.set_settings("a.b", 1).settings.get("a.b") == 1


def test_options_that_do_nothing_here() -> None:
    """owner_id and lease_ttl are taken with a warning."""
    flow = TriggerFlow(name="f")
    flow.to(lambda data: None)
    with pytest.warns(DeprecationWarning, match="owner_id= and lease_ttl= changes nothing"):
        flow.create_execution(owner_id="worker-1", lease_ttl=3.0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.create_execution(owner_id=None, execution_environments=[])


def test_a_separator_that_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    """``____`` with log_info emits triggerflow.annotation, with print_info prints; the chain is not changed by it."""
    flow = TriggerFlow(name="f")
    chain = flow.to(("one", lambda data: 7)).____("after", "one", log_info=True, show_value=True, step=1)
    chain.____("\x1b[31mplain", print_info=True, show_value=True).____("nothing").to(
        ("keep", lambda data: data.set_state("kept", data.input))
    )
    world, snapshot = run(flow)
    assert snapshot == {"kept": 7}
    assert capsys.readouterr().out == " [31mplain 7\n"
    assert world.payloads("triggerflow.annotation") == [{"ANNOTATIONS": ["after", "one", "step=1"], "VALUE": 7}]
    assert not world.recorder.problems
    loaded = TriggerFlow()
    for name in ("one", "keep"):
        loaded.chunk(name)(flow.chunks[name].handler)

    loaded.load_flow_config(flow.get_flow_config())
    assert run(loaded)[0].payloads("triggerflow.annotation") == world.payloads("triggerflow.annotation")
