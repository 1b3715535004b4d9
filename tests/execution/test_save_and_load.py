"""A run saved to JSON and taken up again, at any moment, in any process."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.execution.simulation import Faults, Simulation, build, model
from tests.execution.support import Data, World, keep, passes, turns

from flowdeck.errors import HandlerDiverged, MissingResource, SnapshotError, UnencodableValue
from flowdeck.execution.execution import TriggerFlowExecution
from flowdeck.triggerflow import TriggerFlow

FLOWS = int(os.environ.get("FLOWDECK_SIM_SEEDS", "20000")) // 200


@pytest.mark.parametrize("shard", range(4))
def test_a_save_at_every_input_gives_the_same_end(shard: int) -> None:
    """Whatever the flow: saved and loaded before any of its inputs, it ends as if it had never been.

    The flows have blocks of every kind in each other, gates, retries, questions, answers that come early and expiries.
    """
    saves = 0
    for seed in range(shard, FLOWS, 4):
        flow = build(seed)
        expected = model(flow)
        uninterrupted = Simulation(flow, seed)
        uninterrupted.run()
        for index in range(1, uninterrupted.steps + 1):
            simulation = Simulation(flow, seed, Faults(crash_at=index))
            assert simulation.run() == expected, f"flow {seed}, saved before input {index}"
            saves += simulation.crashes

    assert saves > FLOWS


# -- through the public API ------------------------------------------------------------------------------------------

api = pytest.mark.anyio


def ask(name: str = "ask", **options: Any) -> tuple[str, Any]:
    async def pause(data: Data) -> Any:
        if data.is_resume and data.resume.interrupt and data.resume.interrupt["resume_to"] == "self":
            return [data.input, data.resume.value]

        return await data.async_pause_for(payload=data.input, **options)

    return (name, pause)


def joined(flow: TriggerFlow) -> Any:
    return flow.to(passes("start"))


def in_batch() -> TriggerFlow:
    flow = TriggerFlow(name="batch")
    joined(flow).batch(ask("a"), passes("b"), ask("c")).to(keep("out"))
    return flow


def in_for_each() -> TriggerFlow:
    flow = TriggerFlow(name="for_each")
    flow.to(passes("split", lambda v: [v, v + 1])).for_each(concurrency=1).to(ask(resume_to="self")).to(
        ask("again")
    ).end_for_each().to(keep("out"))
    return flow


def in_collect() -> TriggerFlow:
    flow = TriggerFlow(name="collect")
    flow.to(ask("a")).collect("c", "a")
    flow.to(passes("b")).collect("c", "b").to(keep("out"))
    return flow


def in_when() -> TriggerFlow:
    flow = TriggerFlow(name="when")
    flow.to(("emit", lambda d: d.emit("X", d.input) or d.input)).to(ask()).to(("y", lambda d: d.emit("Y", d.input)))
    flow.when({"event": ["X", "Y"]}).to(keep("out"))
    return flow


def in_match() -> TriggerFlow:
    flow = TriggerFlow(name="match")
    flow.match(mode="hit_all").case(lambda d: True).to(ask("a")).case(lambda d: True).to(ask("b")).end_match().to(
        keep("out")
    )
    return flow


def in_sub_flow() -> TriggerFlow:
    child = TriggerFlow(name="child")
    child.for_each().to(ask()).end_for_each().to(keep("inner"))
    flow = TriggerFlow(name="sub_flow")
    flow.to(passes("split", lambda v: [v, v + 1])).to_sub_flow(child).to(keep("out"))
    return flow


def in_emit() -> TriggerFlow:
    flow = TriggerFlow(name="emit")

    async def work(data: Data) -> Any:
        await data.async_emit("Ask", data.input)
        await data.async_append_state("log", "emitted")
        return data.input

    flow.to(work).to(keep("out"))
    flow.when("Ask").to(ask()).to(keep("answer"))
    return flow


async def finish(execution: TriggerFlowExecution, world: World, make: Any, *, reload: bool) -> dict[str, Any]:
    """Answer everything that is asked, going through JSON before every answer if ``reload``."""
    count = 0
    while pending := execution.get_pending_interrupts():
        interrupt_id, record = next(iter(pending.items()))
        if reload:
            saved = json.loads(json.dumps(execution.save()))
            execution = world.execution(make()).load(saved)
            assert list(execution.get_pending_interrupts()) == list(pending)

        count += 1
        await execution.async_continue_with(interrupt_id, [record["payload"], count])

    return await execution.async_close()


@api
@pytest.mark.parametrize(
    "make", [in_batch, in_for_each, in_collect, in_when, in_match, in_sub_flow, in_emit], ids=lambda m: m.__name__[3:]
)
async def test_a_join_survives_the_process(world: World, make: Any) -> None:
    """A pause inside any block is saved with the block: a new flow object in a new process completes it (15, 2)."""
    ends: list[Any] = []
    for reload in (False, True):
        execution = world.execution(make())
        await execution.async_start(1)
        ends.append(await finish(execution, world, make, reload=reload))

    assert ends[0] == ends[1]
    assert ends[0]["out"] is not None


@api
async def test_the_same_run_goes_on(world: World) -> None:
    """A loaded run has its old id, run and interrupt; nothing is declared or started again (A5)."""
    flow = TriggerFlow(name="f")
    flow.to(ask()).to(("commit", lambda d: d.set_state("decision", d.input)))
    execution = world.execution(flow)
    await execution.async_start("T")
    saved = json.loads(json.dumps(execution.save()))
    before = len(world.types())
    fresh = world.execution(flow)
    assert fresh.load(saved) is fresh
    assert (fresh.id, fresh.get_status()) == (execution.id, "waiting")
    assert fresh.run_context.run_id == execution.run_context.run_id
    assert fresh.get_pending_interrupts() == execution.get_pending_interrupts()
    assert flow._executions[execution.id] is fresh
    assert len(world.types()) == before, "saving and loading alone emit nothing"
    await fresh.async_continue_with(next(iter(fresh.get_pending_interrupts())), {"ok": 1})
    assert await fresh.async_close() == {"decision": {"ok": 1}}, "and no $interventions"
    after = world.types()[before:]
    assert "triggerflow.execution_started" not in after and "triggerflow.definition_declared" not in after
    assert after[0] == "triggerflow.execution_recovered"
    assert {r.epoch for r in world.recorder.records[-5:]} == {2}


@api
async def test_the_loading_executions_own_settings_count(world: World) -> None:
    """auto_close belongs to the handle, not to the saved state (defect 18)."""
    flow = TriggerFlow(name="f")
    flow.to(ask()).to(keep("out"))
    execution = world.execution(flow, auto_close=True, auto_close_timeout=1.0)
    running = asyncio.create_task(execution.async_start())
    await turns()
    fresh = world.execution(flow, auto_close=False).load(execution.save())
    await fresh.async_continue_with(next(iter(fresh.get_pending_interrupts())), 1)
    await world.clock.advance(100)
    assert fresh.is_open()
    await fresh.async_close()
    await execution.async_cancel()
    await running


def half_written(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tmp"))


@api
async def test_files(world: World, tmp_path: Path) -> None:
    """save() writes .json, .yaml and .yml, making parents; load() takes paths, texts and dicts."""
    flow = TriggerFlow(name="f")
    flow.to(ask()).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start("ä")
    state = execution.save()
    sources: list[Any] = [state, json.dumps(state)]
    for name in ("deep/run.json", "run.yaml", "run.yml"):
        path = tmp_path / name
        assert execution.save(path) == state
        sources += [path, str(path), path.read_text(encoding="utf-8")]

    for source in sources:
        fresh = world.execution(flow).load(source)
        await fresh.async_continue_with(next(iter(fresh.get_pending_interrupts())), 1)
        assert await fresh.async_close() == {"out": 1}

    assert half_written(tmp_path) == []


@api
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda s: None, TypeError, "takes a dict, a path"),
        (lambda s: [1], TypeError, "takes a dict, a path"),
        (lambda s: "{", SnapshotError, "neither JSON nor YAML"),
        (lambda s: {}, SnapshotError, "has no 'format'"),
        (lambda s: {**s, "format": 99}, SnapshotError, "format 99; this version reads up to 2. Upgrade"),
        (lambda s: {k: v for k, v in s.items() if k != "core"}, SnapshotError, "incomplete: core missing"),
        (lambda s: {**s, "runtime_data": {"x": 1}}, SnapshotError, "was altered: its sha256 does not match"),
    ],
)
async def test_a_state_that_cannot_be_loaded(world: World, change: Any, error: type[Exception], text: str) -> None:
    """Every reason is a named error."""
    flow = TriggerFlow(name="f")
    flow.to(ask())
    execution = world.execution(flow)
    await execution.async_start()
    with pytest.raises(error, match=text):
        world.execution(flow).load(change(execution.save()))

    await execution.async_close(pending_interrupts="cancel")


@api
async def test_a_definition_that_has_lost_a_step(world: World) -> None:
    """The operators the run stands in are listed when they are gone; other changes are fine."""
    flow, other, grown = (TriggerFlow(name=name) for name in ("f", "f", "f"))
    flow.to(passes("first")).to(ask("second")).to(keep("out"))
    other.to(passes("first"))
    grown.to(passes("zero")).to(passes("first")).to(ask("second")).to(passes("new")).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start()
    saved = execution.save()
    with pytest.raises(SnapshotError, match="has lost operators the saved run stands in: second"):
        world.execution(other).load(saved)

    fresh = world.execution(grown).load(saved)
    await fresh.async_continue_with(next(iter(fresh.get_pending_interrupts())), 1)
    assert await fresh.async_close() == {"out": 1}
    assert world.chunks()["new"] == 1
    await execution.async_close(pending_interrupts="cancel")


@api
async def test_resources_have_to_be_injected_again(world: World) -> None:
    """Only their names are saved; what is missing is listed."""
    flow = TriggerFlow(name="f")
    flow.to(ask()).to(("use", lambda d: d.set_state("used", d.require_resource("db")())))
    execution = world.execution(flow, runtime_resources={"db": lambda: "old", "log": print})
    await execution.async_start()
    saved = execution.save()
    with pytest.raises(MissingResource, match="needs runtime resource\\(s\\) 'db', 'log'"):
        world.execution(flow).load(saved)

    fresh = world.execution(flow, runtime_resources={"log": print}).load(saved, runtime_resources={"db": lambda: "new"})
    await fresh.async_continue_with(next(iter(fresh.get_pending_interrupts())))
    assert await fresh.async_close() == {"used": "new"}
    await execution.async_close(pending_interrupts="cancel")


@api
async def test_a_live_signal_value_cannot_be_saved(world: World) -> None:
    """A value that is no data may flow, but not be saved; the error names the operator."""
    flow = TriggerFlow(name="f")
    flow.to(("make", lambda d: {"conn": object()})).to(ask("second", interrupt_id="x"))
    flow.to(passes("x"))

    async def pause(data: Data) -> Any:
        return await data.async_pause_for()

    flow.to(("make2", lambda d: {"conn": object()})).to(("third", pause))
    execution = world.execution(flow)
    with pytest.raises(Exception, match="payload"):
        await execution.async_start()

    flow2 = TriggerFlow(name="f2")
    flow2.to(("make", lambda d: {"conn": object()})).to(("third", pause))
    execution = world.execution(flow2)
    await execution.async_start()
    with pytest.raises(UnencodableValue, match=r"third.*\.conn"):
        execution.save()

    await execution.async_close(pending_interrupts="cancel")


@api
async def test_what_was_running_runs_again(world: World) -> None:
    """Handlers that ran when the state was saved start over; what they had committed is not done twice."""
    calls: list[int] = []
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> str:
        calls.append(data.attempt)
        token = await data.step("token", lambda: len(calls))
        await data.async_append_state("log", "first")
        await data.async_emit("E", "e")
        await data.async_put_into_stream("item")
        await gate.wait()
        await data.async_append_state("log", "second")
        return f"token {token}"

    flow.to(work).to(keep("out"))
    flow.when("E").to(("e", lambda d: d.append_state("log", d.input)))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await turns()
    saved = json.loads(json.dumps(execution.save()))
    gate.set()
    fresh = world.execution(flow).load(saved)
    await fresh.async_recover()
    assert await fresh.async_close() == {"log": ["first", "e", "second"], "out": "token 1"}
    assert calls[-1] == 2 and calls.count(1) == 1
    await running
    await execution.async_close()


@api
async def test_starting_a_loaded_run_takes_it_up(world: World) -> None:
    """async_start on a loaded run starts nothing again; it lets what was running go on."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> Any:
        await gate.wait()
        return data.input

    flow.to(work).to(keep("out"))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start("first"))
    await turns()
    saved = execution.save()
    gate.set()
    await running
    fresh = world.execution(flow, auto_close=True, auto_close_timeout=0.0).load(saved)
    assert await fresh.async_start("second") == {"out": "first"}
    await execution.async_close()


@api
async def test_a_re_run_that_does_something_else(world: World) -> None:
    """A re-run that leaves out a committed emit has diverged; the error says where and what to do."""
    gate = asyncio.Event()
    first = True
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        if first:
            await data.async_emit("E")

        await gate.wait()

    flow.to(work)
    flow.when("E").to(passes("e"))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await turns()
    saved = execution.save()
    gate.set()
    first = False
    fresh = world.execution(flow).load(saved)
    with pytest.raises(HandlerDiverged, match="did not repeat 1 committed effect"):
        await fresh.async_recover()

    assert fresh.get_status() == "failed"
    (diverged,) = world.payloads("triggerflow.handler_diverged")
    assert diverged["chunk_name"] == "work"
    (failed,) = world.records("triggerflow.execution_failed")
    assert failed.error is not None and failed.error.type == HandlerDiverged.__name__
    assert failed.error.message is not None and "data.step()" in failed.error.message
    await fresh.async_close()
    await running
    await execution.async_close()


@api
async def test_a_closed_state(world: World) -> None:
    """Loading a closed run gives a closed one with its snapshot."""
    flow = TriggerFlow(name="f")
    flow.to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start(1)
    await execution.async_close(reason="done")
    fresh = world.execution(flow).load(execution.save())
    assert fresh.is_closed()
    assert await fresh.async_close() == fresh.result.get_state() == {"out": 1}
    assert fresh.result.get_meta() == execution.result.get_meta()


@api
async def test_require_idle(world: World) -> None:
    """save(require_idle=True) refuses while something runs."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")
    flow.to(("wait", lambda d: gate.wait()))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await turns()
    with pytest.raises(RuntimeError, match="is not idle"):
        execution.save(require_idle=True)

    gate.set()
    await running
    execution.save(require_idle=True)
    await execution.async_close()


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.integers(), inner, max_size=2)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(value=_values)
def test_any_value_comes_through(value: Any) -> None:
    """State, payload, answer and signal values come through JSON as they were."""

    async def main() -> None:
        world = World()
        flow = TriggerFlow(name="f")
        flow.to(("set", lambda d: d.set_state("k", d.input) or d.input)).to(ask()).to(keep("answer"))
        execution = world.execution(flow)
        await execution.async_start(value)
        fresh = world.execution(flow).load(json.loads(json.dumps(execution.save())))
        (record,) = fresh.get_pending_interrupts().values()
        assert record["payload"] == record["source_signal"]["value"] == value
        await fresh.async_continue_with(record["id"], value)
        assert await fresh.async_close() == {"k": value, "answer": value}

    asyncio.run(main())


@api
async def test_a_migration_makes_an_older_state_fit(world: World) -> None:
    """load() asks @flow.migrate, a function from dict to dict, when the definition has lost a step."""
    flow, renamed = TriggerFlow(name="f"), TriggerFlow(name="f")
    flow.to(ask("old")).to(keep("out"))
    renamed.to(ask("new")).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start()
    saved = execution.save()
    with pytest.raises(SnapshotError, match=r"lost operators.*old.*@flow\.migrate"):
        world.execution(renamed).load(saved)

    @renamed.migrate
    def rename(state: dict[str, Any]) -> dict[str, Any]:
        core = state["core"]
        return {**state, "core": {**core, "ops": ["new" if key == "old" else key for key in core["ops"]]}}

    fresh = world.execution(renamed).load(json.dumps(saved))
    await fresh.async_continue_with(next(iter(fresh.get_pending_interrupts())), 1)
    assert await fresh.async_close() == {"out": 1}

    broken = TriggerFlow(name="f")
    broken.to(ask("newer"))
    broken.migrate(lambda state: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(SnapshotError, match="must return a dict, the state; it returned NoneType"):
        world.execution(broken).load(saved)

    broken.migrations[:] = [lambda state: {**state, "core": {**state["core"], "ops": ["newer"], "tasks": [[1]]}}]
    with pytest.raises(SnapshotError, match=r"does not hold together \(TypeError"):
        world.execution(broken).load(saved)

    await execution.async_close(pending_interrupts="cancel")


@api
async def test_texts_and_orders_survive_files(world: World, tmp_path: Path) -> None:
    """Every text, and the order of a dict's keys, comes back from a file of any name."""
    flow = TriggerFlow(name="f")
    flow.to(ask())
    value = {"z": "a\x85b\u2028c", "a": "12:30:45", "=": "<<", "n": "null", "lone": "\ud800", "nul": "\x00", "é": "中"}
    execution = world.execution(flow)
    await execution.async_start(value)
    await execution.async_set_state("v", value)
    for name in ("run.json", "run.yaml", "run.state", "run"):
        execution.save(tmp_path / name)
        for path in (tmp_path / name, str(tmp_path / name)):
            fresh = world.execution(flow).load(path)
            assert list(fresh.get_state("v").items()) == list(value.items()), name

    (tmp_path / "note.json").write_text('"hello"', encoding="utf-8")
    with pytest.raises(SnapshotError, match=r"note\.json: a saved execution is expected"):
        world.execution(flow).load(tmp_path / "note.json")

    with pytest.raises(SnapshotError, match="'hello' is no file here"):
        world.execution(flow).load("hello")

    await execution.async_close(pending_interrupts="cancel")


@api
async def test_a_value_too_deep_to_load_is_not_saved(world: World) -> None:
    """Nesting is refused by save(), with the operator's name, not by the load() of another process."""
    flow = TriggerFlow(name="f")
    flow.to(("deep", lambda data: data.pause_for()))
    fits: Any = "x]"
    for _ in range(190):
        fits = [fits]

    for value, ok in ((fits, True), ([fits] * 3, True), ([[[[[[[[[[[[fits]]]]]]]]]]]], False)):
        execution = world.execution(flow)
        await execution.async_start(value)
        if ok:
            world.execution(flow).load(json.dumps(execution.save()))
        else:
            with pytest.raises(UnencodableValue, match="at deep.*more than 200 deep"):
                execution.save()

        await execution.async_close(pending_interrupts="cancel")
