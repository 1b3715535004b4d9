"""Export, import, run: an imported flow is the flow it was written from."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from tests.definition import flow_parts
from tests.definition.flow_parts import Spec, build, flow_specs, register
from tests.execution.support import World

from flowdeck.errors import ConfigError, InterventionTargetWarning
from flowdeck.triggerflow import TriggerFlow, TriggerFlowRuntimeData

Data = TriggerFlowRuntimeData
PEER_CONFIG = Path(__file__).parent / "data" / "peer_config.json"


def what_happens(flow: TriggerFlow, value: Any) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Run a flow in virtual time, with two interventions if it takes any; return its close snapshot, where they became
    visible included, and all that its steps were told to be."""
    world = World()

    async def run() -> dict[str, Any]:
        execution = world.execution(flow)
        for target in ("t", None) if flow.plan.points else ():
            await execution.async_intervene(f"for {target}", target=target)

        await execution.async_start(value)
        return await execution.async_close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InterventionTargetWarning)
        snapshot = asyncio.run(run())

    snapshot["seen at"] = [
        (item["payload"], item["status"], (item["insertion"] or {}).get("scope"))
        for item in snapshot.pop("$interventions", {}).values()
    ]
    assert not world.recorder.problems
    steps = [
        (r.event_type, r.scope, r.payload.get("chunk_id"), r.payload.get("chunk_name"), r.payload.get("operator_kind"))
        for r in world.recorder.records
        if r.event_type.startswith("chunk.")
    ]
    return snapshot, steps


@settings(max_examples=35, deadline=None)
@given(spec=flow_specs())
def test_an_imported_flow_runs_as_the_original(spec: Spec) -> None:
    """For any flow of named parts: the same definition, the same fingerprint, the same steps, the same result."""
    flow = build(spec)
    # A function found by its own name is a registered one where the flow is loaded.
    config = json.loads(flow.get_json_flow().replace('"inspected"', '"registered"'))
    loaded = register(TriggerFlow(name="other")).load_flow_config(config)
    assert loaded.get_flow_config() == config
    assert yaml.safe_load(loaded.get_yaml_flow()) == config
    assert (loaded.name, loaded.plan.fingerprint) == (flow.name, flow.plan.fingerprint)
    assert loaded.to_mermaid(mode="detailed") == flow.to_mermaid(mode="detailed")
    for value in (3, [1, 2]):
        assert what_happens(loaded, value) == what_happens(flow, value)


@settings(max_examples=30, deadline=None)
@given(spec=flow_specs(2))
def test_a_saved_blueprint_runs_as_the_original(spec: Spec) -> None:
    """save_blueprint and load_blueprint keep the definition with its callables; later steps do not reach the copy."""
    flow = build(spec)
    saved = flow.save_blueprint()
    before = flow.describe()
    flow.to(("one more", flow_parts.note))
    assert TriggerFlow(blueprint=saved).describe() == before
    loaded = TriggerFlow(name="other").load_blueprint(saved)
    assert loaded.describe() == before
    assert what_happens(loaded, [1, 2]) == what_happens(build(spec), [1, 2])


pytestmark = pytest.mark.filterwarnings("ignore:end:DeprecationWarning")


def everything() -> TriggerFlow:
    """One of each kind of step."""
    flow = TriggerFlow(name="everything")
    child = TriggerFlow(name="child", skip_exceptions=True)
    child.to(flow_parts.grow).to(("child note", flow_parts.note))
    (
        flow.to(flow_parts.spread)
        .for_each(concurrency=2)
        .to(("each", flow_parts.grow), timeout=5.0, replay_safe=False)
        .end_for_each()
        .to_sub_flow(child, capture={"input": {"n": "value"}}, write_back={"runtime_data": {"a.b": "result.notes"}})
        .if_condition(flow_parts.even)
        .to(("yes", flow_parts.note))
        .else_condition()
        .to(("no", flow_parts.note))
        .end_condition()
        .end()
    )
    flow.chunk("talks")(flow_parts.shout).declare_emits("Shouted")
    flow.to("talks")
    return flow


def test_files_in_both_formats(tmp_path: Path) -> None:
    """get_json_flow and get_yaml_flow write files, with their folders; the loaders read a path or the text."""
    flow = everything()
    as_json = flow.get_json_flow(tmp_path / "made" / "for it" / "flow.json")
    as_yaml = flow.get_yaml_flow(str(tmp_path / "flow.yaml"), encoding="utf-16")
    assert (tmp_path / "made" / "for it" / "flow.json").read_text() == as_json
    config = json.loads(as_json.replace('"inspected"', '"registered"'))
    for loaded in (
        register(TriggerFlow()).load_json_flow(tmp_path / "made" / "for it" / "flow.json"),
        register(TriggerFlow()).load_json_flow(as_json),
        register(TriggerFlow()).load_yaml_flow(str(tmp_path / "flow.yaml"), encoding="utf-16"),
        register(TriggerFlow()).load_yaml_flow(as_yaml),
        register(TriggerFlow()).load_yaml_flow(as_json),
    ):
        assert loaded.get_flow_config() == config


def test_no_path_of_the_machine_is_exported() -> None:
    """A config says in which file and line a handler stood, never where the file was."""
    text = everything().get_json_flow()
    assert "flow_parts.py" in text
    assert str(Path.cwd()) not in text
    assert os.sep + "flow_parts.py" not in text


def test_a_config_is_the_same_in_every_process() -> None:
    """Ids, keys and order do not depend on the process, so a config can be kept under version control."""
    script = (
        "from tests.definition.test_config_round_trip import everything; print(everything().get_json_flow(), end='')"
    )
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert made.stdout == everything().get_json_flow()


def test_the_executions_of_a_flow_are_not_changed_by_a_load() -> None:
    """An execution works on the definition it was created with, also when the flow loads another one."""
    flow = TriggerFlow(name="before").register_chunk_handler(flow_parts.note)
    flow.to(("first", flow_parts.mark))
    other = TriggerFlow(name="after")
    other.to(flow_parts.note)
    world = World()
    execution = world.execution(flow)
    position = flow.process
    flow.load_flow_config(other.get_flow_config())
    position.to(("added", flow_parts.mark))

    async def run() -> dict[str, Any]:
        await execution.async_start(4)
        return await execution.async_close()

    assert asyncio.run(run()) == {"marked": 4}
    assert flow.name == "after"
    assert what_happens(flow, 5)[0] == {"notes": [["note", 5]], "marked": 5, "seen at": []}


def test_a_saved_run_goes_on_in_an_imported_flow() -> None:
    """Keys and fingerprint survive the export, so a run saved by the original can be loaded by the copy."""
    flow = TriggerFlow(name="asks")

    async def ask(data: Data) -> Any:
        return await data.async_pause_for(type="human", payload=data.input)

    flow.for_each().to(ask).to(("keep", flow_parts.note)).end_for_each()
    loaded = TriggerFlow().register_chunk_handler(ask).register_chunk_handler(flow_parts.note, name="keep")
    loaded.load_json_flow(flow.get_json_flow())
    world = World()

    async def run() -> dict[str, Any]:
        first = world.execution(flow)
        await first.async_start([1, 2])
        saved = first.save()
        second = world.execution(loaded).load(saved)
        for k, interrupt in enumerate(second.get_pending_interrupts()):
            await second.async_continue_with(interrupt, k)

        return await second.async_close()

    assert asyncio.run(run()) == {"notes": [["for_each[0]/keep", 0], ["for_each[1]/keep", 1]]}


def test_a_config_of_the_compatible_api_runs() -> None:
    """A file that Agently 4.1.3.1 wrote is read, and the run comes to what it came to there."""

    def double(data: Data) -> Any:
        return data.input * 2

    def inc(data: Data) -> Any:
        return data.input + 1

    def total(data: Data) -> Any:
        return sum(data.input.values()) if isinstance(data.input, dict) else sum(data.input)

    def is_big(data: Data) -> bool:
        return bool(data.input > 20)

    async def keep(data: Data) -> Any:
        await data.async_set_state("kept", data.input)
        return data.input

    async def tell(data: Data) -> Any:
        await data.async_emit("Left", data.input)
        await data.async_emit("Right", data.input + 1)
        return data.input

    async def gathered(data: Data) -> None:
        await data.async_set_state("gathered", data.input)

    async def met(data: Data) -> None:
        await data.async_set_state("met", data.input)

    flow = TriggerFlow()
    for handler in (double, inc, total, keep, tell, gathered, met):
        flow.register_chunk_handler(handler)

    for name, handler in {"plus": inc, "twice": double, "sum up": total, "big": inc, "three": double}.items():
        flow.register_chunk_handler(handler, name=name)

    flow.register_chunk_handler(double, "small").register_chunk_handler(inc, "child step")
    flow.register_chunk_handler(keep, "child keep").register_condition_handler(is_big)
    flow.load_json_flow(PEER_CONFIG)
    snapshot, steps = what_happens(flow, [1, 2, 3])
    assert snapshot == {
        "kept": 38,
        "met": {"left": 38, "right": 39},
        "gathered": {"event": {"Left": 38, "Right": 39}},
        "from_child": 39,
        "seen at": [],
    }
    assert len([step for step in steps if step[0] == "chunk.completed" and step[3] == "double"]) == 3
    again = TriggerFlow(blueprint=flow.save_blueprint())
    assert again.load_flow_config(flow.get_flow_config()).get_flow_config() == flow.get_flow_config()


def test_adding_to_a_flow() -> None:
    """replace=False adds the operators of a config; what stands in both alike is taken once."""
    flow = register(TriggerFlow(name="whole"))
    flow.to(("grow 1", flow_parts.grow)).to(("note 2", flow_parts.note))
    other = TriggerFlow(name="more")
    other.to(("grow 1", flow_parts.grow)).to(("mark 3", flow_parts.mark))
    flow.load_flow_config(other.get_flow_config(), replace=False)
    flow.load_flow_config(other.get_flow_config(), replace=False)
    assert (flow.name, [op.name for op in flow.operators()]) == ("more", ["grow 1", "note 2", "mark 3"])
    assert what_happens(flow, 1)[0] == {"notes": [["note 2", 2]], "marked": 2, "seen at": []}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("note 2", lambda op: op.update(listen_signals=[{"trigger_event": "Other"}])),
        ("note 2", lambda op: op["options"].update(retry={"attempts": 3})),
        ("note 2", lambda op: op["options"].update(timeout=2.0)),
        ("case", lambda op: op["condition_ref"].update(name="large")),
        ("child", lambda op: op["options"].update(write_back={"runtime_data": {"elsewhere": "result"}})),
        ("child", lambda op: op["options"]["sub_flow_config"]["operators"][0]["options"].update(replay_safe=False)),
    ],
)
def test_adding_what_conflicts(name: str, change: Any) -> None:
    """An id that stands for different things is refused, and the flow stays as it was."""
    child = TriggerFlow(name="child")
    child.to(flow_parts.grow)
    flow = register(TriggerFlow(name="whole"))
    flow.to(("note 2", flow_parts.note)).match(name="choose").case(flow_parts.even).to(
        ("yes", flow_parts.note)
    ).end_match().to_sub_flow(child, write_back={"runtime_data": {"here": "result"}})
    before = flow.describe()
    config = flow.get_flow_config()
    flow.load_flow_config(config, replace=False)
    (changed,) = [op for op in config["operators"] if op["name"].partition(":")[0] == name]
    change(changed)
    where = "choose" if name == "case" else name
    with pytest.raises(ConfigError, match=rf"operator id '[\w-]+' is \w+ '{where}' in the config, and the flow has"):
        flow.load_flow_config(config, replace=False)

    assert flow.describe() == before
