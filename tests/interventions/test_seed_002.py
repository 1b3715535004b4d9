"""Every sample of the document on runtime intervention, as it is written there, through ``flowdeck.compat``."""

from __future__ import annotations

from typing import Any

import pytest
from tests.execution.support import World

from flowdeck.compat import TriggerFlow, TriggerFlowRuntimeData
from flowdeck.errors import InterventionError
from flowdeck.execution.services import use_services

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::flowdeck.errors.InterventionTargetWarning")]


class Document:
    """The document's flow: extract terms, take supplements, assess the risk."""

    def __init__(self) -> None:
        self.assessed: list[Any] = []
        self.flow = TriggerFlow(name="document_review")

    async def extract_terms(self, data: TriggerFlowRuntimeData) -> Any:
        return {"terms": data.input}

    async def assess_with_model(self, question: dict[str, Any]) -> dict[str, Any]:
        self.assessed.append(question)
        return {"risk": "high" if question["supplements"] else "low"}

    def declare(self) -> None:
        flow, extract_terms, assess_with_model = self.flow, self.extract_terms, self.assess_with_model

        async def risk_assessment(data: TriggerFlowRuntimeData):  # type: ignore[no-untyped-def]
            supplements = data.get_interventions(status="inserted", target="before_risk")
            result = await assess_with_model(
                {
                    "terms": data.input,
                    "supplements": [item["payload"] for item in supplements],
                }
            )
            for item in supplements:
                await data.async_mark_intervention_consumed(
                    item["id"],
                    status="applied",
                )
            return result

        # fmt: off
        (
            flow
            .to(extract_terms)
            .intervention_point(name="before_risk", target="before_risk")
            .to(risk_assessment)
        )
        # fmt: on


async def test_a_supplement_reaches_the_chunk_behind_its_point_and_is_consumed(world: World) -> None:
    """Recorded at once, visible behind the point, consumed under the chunk's name, kept in the snapshot and result."""
    document = Document()
    document.declare()
    flow = document.flow
    with use_services(world.services):
        execution = flow.create_execution(
            auto_close=False,
        )

    await execution.async_intervene(
        {"text": "Attachment A is the latest price table."},
        author="reviewer",
        target="before_risk",
    )
    await execution.async_start("contract")
    snapshot = await execution.async_close()

    assert document.assessed == [
        {
            "terms": {"terms": "contract"},
            "supplements": [{"text": "Attachment A is the latest price table."}],
        }
    ]
    (item,) = execution.result.get_interventions()
    assert snapshot == {"$interventions": {item["id"]: item}}
    assert (item["status"], item["author"], item["target"]) == ("inserted", "reviewer", "before_risk")
    assert item["consumers"]["risk_assessment"]["status"] == "applied"
    assert world.types("triggerflow.intervention_") == [
        "triggerflow.intervention_received",
        "triggerflow.intervention_inserted",
        "triggerflow.intervention_consumed",
    ]
    items = [item async for item in execution.get_async_runtime_stream(timeout=1)]
    assert [each["action"] for each in items] == ["append", "insert", "consume"]
    for each in items:
        assert {k: v for k, v in each.items() if k != "intervention"} == {
            "type": "intervention",
            "action": each["action"],
            "execution_id": execution.id,
        }


async def test_it_is_off_unless_it_is_asked_for(world: World) -> None:
    """Without a point or a mode ``intervene`` is refused, and nothing changes."""
    flow = TriggerFlow(name="plain")
    flow.to(lambda data: data.input)
    execution = world.execution(flow)
    with pytest.raises(InterventionError, match="disabled"):
        await execution.async_intervene({"text": "more"})

    assert execution.result.get_meta()["state_version"] == 0
    assert execution.intervention_mode is None
    await execution.async_start("x")
    assert await execution.async_close() == {}


async def test_the_mode_is_inferred_from_a_point_and_none_switches_it_off(world: World) -> None:
    """A flow with a point is ``planned`` when the mode is left out; an explicit ``None`` disables this execution."""
    document = Document()
    document.declare()
    assert world.execution(document.flow).intervention_mode == "planned"
    execution = world.execution(document.flow, intervention_mode=None)
    with pytest.raises(RuntimeError):
        await execution.async_intervene("late", target="before_risk")

    await execution.async_start("contract")
    assert await execution.async_close() == {}
    assert document.assessed[0]["supplements"] == [], "the point passes the value through"


async def test_recording_is_not_a_signal_a_pause_or_an_input(world: World) -> None:
    """``intervene`` emits no signal, pauses nothing and rewrites neither ``data.input`` nor ``data.value``."""
    seen: list[Any] = []
    flow = TriggerFlow(name="quiet")
    flow.to(lambda data: seen.append((data.input, data.value)))
    execution = world.execution(flow, intervention_mode="auto")
    await execution.async_intervene({"text": "note"})
    signals = len(world.payloads("triggerflow.signal"))
    await execution.async_start("T")
    assert seen == [("T", "T")]
    assert (signals, len(world.payloads("triggerflow.signal"))) == (0, 1)
    assert execution.get_pending_interrupts() == {}
    await execution.async_close()


async def test_what_is_pending_at_the_close_expires(world: World) -> None:
    """It stays readable through the result and in the snapshot, and readers of the stream hear of it."""
    document = Document()
    document.declare()
    execution = world.execution(document.flow)
    await execution.async_start("contract")
    item = await execution.async_intervene("too late", target="before_risk")
    snapshot = await execution.async_close()
    assert snapshot["$interventions"][item["id"]]["status"] == "expired"
    assert [i["status"] for i in execution.result.get_interventions()] == ["expired"]
    last = [i async for i in execution.get_async_runtime_stream(timeout=1)][-1]
    assert (last["action"], last["intervention"]["status"]) == ("expire", "expired")


async def test_auto_mode_is_refused_where_the_flow_has_points(world: World) -> None:
    """The error names the points."""
    document = Document()
    document.declare()
    with pytest.raises(ValueError, match="before_risk"):
        world.execution(document.flow, intervention_mode="auto")


async def test_reading_does_not_consume_and_an_execution_must_name_the_consumer(world: World) -> None:
    """``applied`` and ``ignored`` are kept per consumer; outside a chunk there is no default name."""
    flow = TriggerFlow(name="read")
    flow.to(lambda data: len(data.interventions) + len(data.get_interventions(status="inserted")))
    execution = world.execution(flow, intervention_mode="auto")
    item = await execution.async_intervene("note")
    await execution.async_start()
    assert execution.get_interventions()[0]["consumers"] == {}
    with pytest.raises(TypeError):
        await execution.async_mark_intervention_consumed(item["id"])  # type: ignore[call-arg]

    await execution.async_mark_intervention_consumed(item["id"], consumer="auditor", status="ignored", note="no")
    record = execution.get_interventions()[0]
    assert record["status"] == "inserted"
    assert record["consumers"]["auditor"] | {"consumed_at": 0} == {
        "status": "ignored",
        "note": "no",
        "metadata": {},
        "consumed_at": 0,
    }
    await execution.async_close()


async def test_save_and_load_keep_mode_ledger_versions_and_consumers(world: World) -> None:
    """A loaded execution knows what came, what was seen and by whom; the next version follows the last."""
    document = Document()
    flow = document.flow
    seen: list[Any] = []

    async def gate(data: TriggerFlowRuntimeData) -> Any:
        return await data.async_pause_for(type="approval", resume_to="next")

    flow.to(gate).intervention_point(name="point", target="t").to(lambda data: seen.append(data.interventions))
    execution = world.execution(flow)
    first = await execution.async_intervene({"n": 1}, target="t")
    second = await execution.async_intervene({"n": 2}, target="other")
    await execution.async_mark_intervention_consumed(second["id"], consumer="auditor")
    await execution.async_start("x")
    saved = execution.save()

    restored = world.execution(flow)
    restored.load(saved)
    assert restored.intervention_mode == "planned"
    assert restored.get_interventions() == execution.get_interventions()
    third = await restored.async_intervene({"n": 3}, target="t")
    assert third["version"] == 3
    (interrupt_id,) = restored.get_pending_interrupts()
    await restored.async_continue_with(interrupt_id, "go")
    assert [item["id"] for item in seen[0]] == [first["id"], third["id"]]
    await restored.async_close()


async def test_a_restored_auto_execution_without_its_policy_uses_the_built_in_one(world: World) -> None:
    """A policy is not saved; given again it counts, else the built-in rules do."""

    def nothing(context: dict[str, Any]) -> None:
        return None

    async def gate(data: TriggerFlowRuntimeData) -> Any:
        return await data.async_pause_for(resume_to="next")

    seen: list[list[Any]] = []
    flow = TriggerFlow(name="policy")
    flow.to(gate).to(("look", lambda data: seen.append([item["insertion"]["policy"] for item in data.interventions])))
    execution = world.execution(flow, intervention_mode="auto", intervention_policy=nothing)
    await execution.async_intervene("note")
    await execution.async_start()
    saved = execution.save()
    for options in ({"intervention_policy": nothing}, {}):
        restored = world.execution(flow, **options)
        restored.load(saved)
        await restored.async_continue_with(next(iter(restored.get_pending_interrupts())), None)
        await restored.async_close()

    assert seen == [[], ["builtin"]]
