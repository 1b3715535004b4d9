"""What the compatible API's own tests pin about definitions, configs and lineage, where no other test has it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.execution.support import World

from flowdeck.compat import RunContext, TriggerFlow, TriggerFlowRuntimeData
from flowdeck.errors import ContractError
from flowdeck.events.lineage import current_run

Data = TriggerFlowRuntimeData


async def tell(data: Data) -> None:
    await data.async_emit("Told", 1)
    await data.async_emit("Told", 2)


async def hear(data: Data) -> None:
    await data.async_append_state("heard", data.input)


def test_replaying_an_edge_does_not_lose_emits() -> None:
    """A ``when`` edge declared twice is one edge; an event emitted twice is heard twice."""
    flow = TriggerFlow(name="f")
    for _ in range(2):
        flow.to(tell)
        flow.when("Told").to(hear)

    assert asyncio.run(World().run(flow)) == {"heard": [1, 2]}


def test_a_contract_in_config_and_diagram() -> None:
    """A config and both diagrams show the contract; loading keeps it as metadata and enforces nothing."""
    flow = TriggerFlow(name="f")
    flow.to(hear)
    flow.set_contract(initial_input=int, result=dict[str, int], meta={"version": 3})
    config = flow.get_flow_config()
    assert config["contract"]["initial_input"]["schema"] == {"type": "integer"}
    for mode in ("simplified", "detailed"):
        assert '[["contract\\ninput: ' in flow.to_mermaid(mode=mode)

    with pytest.raises(ContractError):
        asyncio.run(World().run(flow, "seven"))

    loaded = TriggerFlow(name="other").register_chunk_handler(hear).load_flow_config(config)
    assert loaded.get_flow_config()["contract"] == config["contract"]
    assert loaded.get_contract_metadata() == config["contract"]
    assert loaded.get_contract().initial_input is None
    assert asyncio.run(World().run(loaded, "seven")) == {"heard": ["seven"]}
    child = TriggerFlow(name="parent")
    child.to_sub_flow(flow)
    assert child.get_flow_config()["operators"][0]["options"]["sub_flow_config"]["contract"] == config["contract"]


def test_configs_and_resources() -> None:
    """Resources are not part of a config: an imported flow gets them where it runs, as the original does."""

    def use(data: Data) -> Any:
        return data.set_state("used", data.require_resource("db"))

    def allowed(data: Data) -> bool:
        return data.get_resource("db") == "here"

    flow = TriggerFlow(name="f")
    flow.match(name="m").case(allowed).to(use).end_match()
    loaded = TriggerFlow().register_chunk_handler(use).register_condition_handler(allowed)
    loaded.load_json_flow(flow.get_json_flow())
    assert asyncio.run(World().run(loaded, runtime_resources={"db": "here"})) == {"used": "here"}


def test_a_pause_in_an_imported_sub_flow() -> None:
    """Sub flows with bindings, and the pauses in them, survive export and import; child data stays isolated."""

    async def ask(data: Data) -> Any:
        await data.async_set_flow_data("asked", True, no_warning=True)
        return await data.async_pause_for(type="human", payload={"n": data.input})

    child = TriggerFlow(name="child")
    child.to(ask).to(("keep answer", hear))
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child, capture={"input": "value.n"}, write_back={"value": {"got": "result.heard"}}).to(hear)
    loaded = TriggerFlow().register_chunk_handler(ask).register_chunk_handler(hear)
    loaded.register_chunk_handler(hear, "keep answer").load_yaml_flow(flow.get_yaml_flow())
    execution = World().execution(loaded)

    async def main() -> dict[str, Any]:
        await execution.async_start({"n": 4})
        (interrupt,) = execution.get_pending_interrupts().values()
        assert interrupt["payload"] == {"n": 4}
        await execution.async_continue_with(interrupt["id"], "yes")
        return await execution.async_close()

    assert asyncio.run(main()) == {"heard": [{"n": 4, "got": ["yes"]}]}
    assert loaded.get_flow_data() == {}


def test_lineage_in_helpers_and_nested_flows() -> None:
    """What a chunk starts, in helpers and nested flows too, is a child of that chunk's run and of the same root."""
    runs: list[RunContext] = []
    inner = TriggerFlow(name="inner")

    def request(kind: str) -> None:
        runs.append(RunContext.create(run_kind=kind, parent=current_run.get()))

    inner.to(("asks", lambda data: request("model_request")))

    async def helper() -> None:
        request("request")
        await inner.async_start(1)

    async def outer(data: Data) -> None:
        runs.append(data.chunk_run_context)
        await helper()

    flow = TriggerFlow(name="outer")
    flow.to(outer)
    world = World()
    execution = world.execution(flow)

    async def main() -> None:
        await execution.async_start()
        await execution.async_close()

    asyncio.run(main())
    chunk, request_run, model = runs
    assert request_run.parent_run_id == chunk.run_id
    assert chunk.parent_run_id == execution.run_context.run_id
    assert {run.root_run_id for run in runs} == {execution.run_context.run_id}
    assert model.parent is not None and model.parent.parent is not None
    assert model.parent.parent.parent_run_id == chunk.run_id


def test_a_failing_item_waits_for_the_others_clean_up() -> None:
    """A failure inside for_each stops the siblings and is raised only when they have cleaned up; all are reported."""
    cleaned: list[int] = []

    async def work(data: Data) -> None:
        if data.input == 2:
            await asyncio.sleep(0)
            raise ValueError("two")

        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(data.input)

    flow = TriggerFlow(name="f")
    flow.for_each(name="each").to(work).end_for_each()
    world = World()
    execution = world.execution(flow)

    async def main() -> None:
        with pytest.raises(ValueError, match="two"):
            await execution.async_start([1, 2, 3])

        assert sorted(cleaned) == [1, 3]
        await execution.async_close()

    asyncio.run(main())
    assert len(world.payloads("chunk.failed")) == 3
    assert execution.get_status() == "failed"
