"""Contracts: what a flow may be started with, may stream and may set as its result."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import typing
from typing import Any

import pytest
import typing_extensions
from pydantic import BaseModel, Field, ValidationError
from tests.execution.support import Data, World, passes

from flowdeck.compat import TriggerFlowContractSpec
from flowdeck.errors import ContractError
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


class Order(BaseModel):
    """A pydantic model."""

    sku: str
    count: int = Field(ge=1)


@dataclasses.dataclass
class Line:
    sku: str
    count: int


class StandardDict(typing.TypedDict):
    sku: str
    count: int
    note: typing.NotRequired[str]


class ExtendedDict(typing_extensions.TypedDict):
    sku: str
    count: int


SCHEMA = {
    "title": "Order",
    "type": "object",
    "properties": {"sku": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
    "required": ["sku", "count"],
}
GOOD = {"sku": "a", "count": 2}


def keeping(**contract: Any) -> tuple[TriggerFlow, list[Any]]:
    got: list[Any] = []
    flow = TriggerFlow(name="keeping")
    flow.to(("keep", lambda data: got.append(data.input)))
    flow.set_contract(**contract)
    return flow, got


class TestInitialInput:
    @pytest.mark.parametrize(
        ("given", "taken"),
        [
            (Order, Order(sku="a", count=2)),
            (Line, Line("a", 2)),
            (StandardDict, GOOD),
            (ExtendedDict, GOOD),
            (dict[str, str | int], GOOD),
            (SCHEMA, GOOD),
            (Any, GOOD),
        ],
        ids=str,
    )
    async def test_a_value_that_fits_reaches_the_first_chunk(self, world: World, given: Any, taken: Any) -> None:
        """Converted to the contract's type where it is one."""
        flow, got = keeping(initial_input=given)
        await world.run(flow, dict(GOOD))
        assert got == [taken]

    @pytest.mark.parametrize("given", [Order, Line, StandardDict, ExtendedDict, SCHEMA, list[int], int], ids=str)
    async def test_a_value_that_does_not_fit_fails_the_run_before_any_chunk(self, world: World, given: Any) -> None:
        """Defect 14: the status says so, the run can be closed, and observers hear why."""
        flow, got = keeping(initial_input=given)
        execution = world.execution(flow)
        with pytest.raises(ContractError, match=r"initial_input does not fit its contract") as caught:
            await execution.async_start({"sku": 1})

        assert (caught.value.part, isinstance(caught.value, ValueError)) == ("initial_input", True)
        assert caught.value.problems
        assert got == []
        assert execution.get_status() == "failed"
        assert world.types("triggerflow.") == [
            "triggerflow.definition_declared",
            "triggerflow.execution_started",
            "triggerflow.execution_failed",
        ]
        (payload,) = world.payloads("triggerflow.execution_failed")
        assert payload["initial_value"] == {"sku": 1}
        assert await execution.async_close() == {}
        assert execution.get_status() == "failed"
        assert "triggerflow.execution_completed" not in world.types()

    async def test_the_problems_have_places_and_pydantics_report_is_the_cause(self, world: World) -> None:
        """One line each, without the values."""
        flow, _ = keeping(initial_input=list[Order])
        execution = world.execution(flow)
        with pytest.raises(ContractError) as caught:
            await execution.async_start([GOOD, {"sku": "b", "count": 0}])

        (problem,) = caught.value.problems
        assert problem.startswith("initial_input.1.count: ")
        assert isinstance(caught.value.__cause__, ValidationError)

    async def test_values_are_converted(self, world: World) -> None:
        """As pydantic does by default; a strict type of the user's stays strict."""
        flow, got = keeping(initial_input=int)
        await world.run(flow, "3")
        assert got == [3]
        strict, _ = keeping(initial_input=typing.Annotated[int, Field(strict=True)])
        with pytest.raises(ContractError):
            await world.execution(strict).async_start("3")

    async def test_a_hidden_start_raises_it_too(self, world: World) -> None:
        """And leaves no execution behind."""
        flow, _ = keeping(initial_input=int)
        with pytest.raises(ContractError):
            await flow.async_start("x", services=world.services)

        assert flow._executions == {}
        assert world.types("triggerflow.execution_")[-1] == "triggerflow.execution_closed"

    async def test_it_holds_in_a_sub_flow(self, world: World) -> None:
        """The operator that runs the child fails with the child's error, which an awaiter may catch."""
        child, _ = keeping(initial_input=Order)
        flow = TriggerFlow(name="parent")
        flow.to_sub_flow(child)
        execution = world.execution(flow)
        with pytest.raises(ContractError, match="flow 'keeping'"):
            await execution.async_start({"sku": 1})

        await execution.async_close()

    async def test_a_converted_input_survives_save_and_load(self, world: World) -> None:
        """It is a value like any other."""
        got: list[Any] = []

        async def ask(data: Data) -> Any:
            if data.is_resume:
                got.append(data.input)
                return None

            return await data.async_pause_for(resume_to="self")

        flow = TriggerFlow(name="saved").set_contract(initial_input=Order)
        flow.to(ask)
        execution = world.execution(flow)
        await execution.async_start(dict(GOOD))
        restored = world.execution(flow)
        restored.load(execution.save())
        await restored.async_continue_with(next(iter(restored.get_pending_interrupts())))
        assert got == [Order(**GOOD)]
        await restored.async_close()


class TestStream:
    async def test_items_are_checked_and_go_on_as_they_are(self, world: World) -> None:
        """The reader gets what was put, not a converted copy."""
        flow = TriggerFlow(name="stream").set_contract(stream=Order)
        flow.to(("put", lambda data: data.put_into_stream({"sku": "a", "count": "2"})))
        execution = world.execution(flow)
        await execution.async_start()
        await execution.async_close()
        assert [i async for i in execution.get_async_runtime_stream()] == [{"sku": "a", "count": "2"}]

    async def test_an_item_that_does_not_fit_fails_its_chunk(self, world: World) -> None:
        """It never reaches a reader; the event carries it and the reason."""
        flow = TriggerFlow(name="stream").set_contract(stream=SCHEMA)
        flow.to(("put", lambda data: data.put_into_stream({"sku": "a"})))
        execution = world.execution(flow)
        with pytest.raises(ContractError, match="stream.*'count'|count"):
            await execution.async_start()

        assert world.payloads("triggerflow.stream_item_rejected")[0]["item"] == {"sku": "a"}
        await execution.async_close()
        assert [i async for i in execution.get_async_runtime_stream()] == []

    async def test_a_worker_thread_is_told(self, world: World) -> None:
        """The error is raised where the item was put."""
        flow = TriggerFlow(name="thread").set_contract(stream=int)
        told: list[str] = []

        def put(data: Data) -> None:
            try:
                data.put_into_stream("x")
            except ContractError as exc:
                told.append(exc.part)

        async def work(data: Data) -> None:
            await asyncio.to_thread(put, data)

        flow.to(("work", work))
        await world.run(flow)
        assert told == ["stream"]

    async def test_the_frameworks_own_items_are_exempt(self, world: World) -> None:
        """Interrupts and interventions are no product items."""
        flow = TriggerFlow(name="system").set_contract(stream=Order)
        flow.to(("ask", lambda data: data.pause_for(resume_to="next"))).to(passes("end"))
        execution = world.execution(flow, intervention_mode="auto")
        await execution.async_intervene("note")
        await execution.async_start()
        await execution.async_continue_with(next(iter(execution.get_pending_interrupts())))
        await execution.async_close()
        items = [i async for i in execution.get_async_runtime_stream()]
        assert {i["type"] for i in items} == {"interrupt", "intervention"}

    async def test_from_outside_the_caller_is_told(self, world: World) -> None:
        """``execution.put_into_stream`` raises; the run goes on."""
        flow = TriggerFlow(name="outside").set_contract(stream=int)
        flow.to(passes("a"))
        execution = world.execution(flow)
        with pytest.raises(ValueError, match="stream"):
            await execution.async_put_into_stream("x")

        await execution.async_start()
        await execution.async_close()
        assert execution.get_status() == "completed"


class TestDeclaring:
    def test_parts_that_are_not_given_stay(self) -> None:
        """``None`` removes one; the flow is returned."""
        flow = TriggerFlow(name="parts")
        assert flow.set_contract(initial_input=Order) is flow
        flow.set_contract(stream=int, meta={"owner": "ann"})
        assert flow.get_contract() == TriggerFlowContractSpec(Order, int, None, {"owner": "ann"})
        flow.set_contract(initial_input=None)
        assert flow.get_contract().initial_input is None
        flow.set_contract(stream=None, meta=None)
        assert flow.get_contract() == TriggerFlowContractSpec()
        assert flow.get_contract_metadata() == {}

    def test_metadata_has_label_and_schema_of_each_part(self) -> None:
        """And the schemas of the framework's own items."""
        flow = TriggerFlow(name="meta")
        assert flow.get_contract_metadata() == {}
        flow.set_contract(initial_input=Order, result=list[int], meta={"v": 1})
        metadata = flow.get_contract_metadata()
        assert metadata["initial_input"]["label"] == "Order"
        assert metadata["initial_input"]["schema"] == Order.model_json_schema()
        assert metadata["stream"] is None
        assert metadata["result"]["schema"] == {"type": "array", "items": {"type": "integer"}}
        assert metadata["meta"] == {"v": 1}
        system = metadata["system_stream"]
        assert {kind: part["label"] for kind, part in system.items()} == {
            "interrupt": "TriggerFlowInterruptEvent",
            "intervention": "TriggerFlowInterventionEvent",
        }
        metadata["initial_input"]["schema"].clear()
        assert flow.get_contract_metadata()["initial_input"]["schema"], "a copy"

    async def test_the_definition_carries_it(self, world: World) -> None:
        """So other processes can show a form, and check before they start."""
        flow, _ = keeping(initial_input=SCHEMA)
        await world.run(flow, dict(GOOD))
        (declared,) = world.payloads("triggerflow.definition_declared")
        assert declared["definition"]["contract"]["initial_input"] == {"label": "Order", "schema": SCHEMA}

    async def test_an_execution_keeps_the_contract_it_was_created_with(self, world: World) -> None:
        """A later declaration does not reach it."""
        flow, got = keeping(initial_input=int)
        execution = world.execution(flow)
        flow.set_contract(initial_input=Order)
        await execution.async_start(1)
        assert got == [1]
        assert execution.get_contract().initial_input is int
        assert execution.get_contract_metadata()["initial_input"]["schema"] == {"type": "integer"}
        await execution.async_close()

    @pytest.mark.parametrize(
        "part", [object(), "NoSuchType", 7, lambda: 0, {"type": 7}, {"properties": []}, {"pattern": "("}]
    )
    def test_what_is_no_type_is_refused_where_it_is_declared(self, part: Any) -> None:
        """By name, and the contract stays as it was."""
        flow = TriggerFlow(name="bad").set_contract(stream=int)
        with pytest.raises(TypeError):
            flow.set_contract(initial_input=part)

        assert flow.get_contract() == TriggerFlowContractSpec(stream=int)

    @pytest.mark.parametrize(
        ("part", "text"),
        [
            ({"type": "txet"}, "'type' is 'txet', which is none of array, boolean"),
            ({"properties": {"a": {"type": ["string", "nul"]}}}, r"schema\.properties\.a: 'type' is 'nul'"),
            ({"$ref": "https://example.org/x"}, r"'\$ref' is 'https://example.org/x': nothing is fetched"),
        ],
    )
    def test_a_schema_that_would_check_nothing_is_refused(self, part: Any, text: str) -> None:
        """A misspelt type would let everything pass."""
        with pytest.raises(TypeError, match=text):
            TriggerFlow(name="bad").set_contract(stream=part)

    def test_meta_must_be_a_dict(self) -> None:
        """Nothing else can be published."""
        with pytest.raises(TypeError, match="meta"):
            TriggerFlow(name="bad").set_contract(meta=[1])

    def test_nested_typed_dicts_of_the_standard_library_are_understood(self) -> None:
        """Also before Python 3.12, in lists and unions; optional keys stay optional."""
        flow = TriggerFlow(name="nested").set_contract(initial_input=list[StandardDict] | None)
        schema = flow.get_contract_metadata()["initial_input"]["schema"]
        assert schema["$defs"]["StandardDict"]["required"] == ["sku", "count"]

    async def test_a_shape_of_a_real_item_fits_the_published_schema(self, world: World) -> None:
        """What the stream carries is what the metadata says."""
        from pydantic import TypeAdapter

        from flowdeck.compat import TriggerFlowSystemStreamEvent

        flow = TriggerFlow(name="shapes")
        flow.to(("ask", lambda data: data.pause_for(resume_to="next"))).to(
            ("take", lambda data: [data.mark_intervention_consumed(i["id"]) for i in data.interventions] and None)
        )
        execution = world.execution(flow, intervention_mode="auto")
        await execution.async_intervene({"x": 1})
        gone = await execution.async_intervene("gone", target="take")
        await execution.async_reject_intervention(gone["id"])
        await execution.async_start()
        await execution.async_continue_with(next(iter(execution.get_pending_interrupts())), {"ok": True})
        await execution.async_intervene("late", target="ask")
        await execution.async_close()
        items = [i async for i in execution.get_async_runtime_stream()]
        assert {i["action"] for i in items} == {
            "append", "insert", "consume", "expire", "reject", "pause", "resume",
        }  # fmt: skip
        adapter: TypeAdapter[Any] = TypeAdapter(TriggerFlowSystemStreamEvent)
        for item in items:
            adapter.validate_python(item)


def test_a_flow_without_a_contract_does_not_import_pydantic() -> None:
    """It costs a tenth of a second."""
    code = (
        "import sys, asyncio, flowdeck\n"
        "flow = flowdeck.TriggerFlow(name='x'); flow.to(lambda data: 1)\n"
        "asyncio.run(flow.async_start(1)); print('pydantic' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "False\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestResult:
    async def test_a_set_result_is_checked_and_converted(self, world: World) -> None:
        """The close snapshot is never checked; what ``set_result`` takes is."""
        flow = TriggerFlow(name="result").set_contract(result=Order)
        flow.to(("set", lambda data: data.set_result({"sku": "a", "count": "2"})))
        execution = world.execution(flow)
        await execution.async_start()
        snapshot = await execution.async_close()
        assert snapshot == {"$final_result": Order(sku="a", count=2)}
        assert await execution.async_get_result() == snapshot["$final_result"]
        (payload,) = world.payloads("triggerflow.result_set")
        assert payload["state_key"] == "$final_result" and payload["origin_chunk"]["chunk_name"] == "set"

    async def test_a_result_that_does_not_fit_fails_its_chunk(self, world: World) -> None:
        """Nothing is kept of it."""
        flow = TriggerFlow(name="bad").set_contract(result=int)
        flow.to(("set", lambda data: data.set_result("x")))
        execution = world.execution(flow)
        with pytest.raises(ContractError, match="result"):
            await execution.async_start()

        assert await execution.async_close() == {}
        assert world.payloads("triggerflow.result_set") == []

    async def test_from_outside_and_from_a_thread(self, world: World) -> None:
        """Observers hear of the first; a later one replaces it."""
        flow = TriggerFlow(name="outside").set_contract(result=int)

        async def work(data: Data) -> None:
            await asyncio.to_thread(data.set_result, 2)
            assert data.get_result() == 2
            await data.async_set_result(3)

        flow.to(("work", work))
        execution = world.execution(flow)
        with pytest.raises(ContractError):
            execution.set_result("x")

        execution.set_result(1)
        await execution.async_start()
        assert (await execution.async_close())["$final_result"] == 3
        assert [p["result"] for p in world.payloads("triggerflow.result_set")] == [1]


async def test_a_set_result_is_deprecated(world: World) -> None:
    """State and the close snapshot say the same, without a second way."""
    flow = TriggerFlow(name="deprecated")
    flow.to(passes("a"))
    execution = world.execution(flow)
    with pytest.warns(DeprecationWarning, match="set_result"):
        execution.set_result(1)
