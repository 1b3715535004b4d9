"""Mode ``planned``: pending interventions become visible at intervention points."""

from __future__ import annotations

from typing import Any

import pytest
from tests.execution.support import Data, World, passes

from flowdeck.errors import DefinitionError, InterventionTargetWarning
from flowdeck.triggerflow import TriggerFlow

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::flowdeck.errors.InterventionTargetWarning")]


def payloads(items: list[dict[str, Any]]) -> list[Any]:
    return [item["payload"] for item in items]


async def test_scenario_a18(world: World) -> None:
    """Only the item with the point's target is inserted; the others expire; the stream tells it in order."""
    seen: dict[str, Any] = {}
    flow = TriggerFlow(name="a18")

    async def risk(data: Data) -> None:
        seen["after"] = payloads(data.interventions)
        for item in data.interventions:
            await data.async_mark_intervention_consumed(item["id"], status="applied", note="used")

    flow.to(("before", lambda data: seen.update(before=payloads(data.interventions)))).intervention_point(
        name="before_risk", target="before_risk"
    ).to(("risk", risk))
    execution = world.execution(flow)
    await execution.async_intervene("one", target="before_risk")
    await execution.async_intervene("two")
    await execution.async_intervene("three", target="zzz")
    await execution.async_start()
    snapshot = await execution.async_close()

    assert seen == {"before": [], "after": ["one"]}
    statuses = {item["payload"]: item["status"] for item in snapshot["$interventions"].values()}
    assert statuses == {"one": "inserted", "two": "expired", "three": "expired"}
    items = [item async for item in execution.get_async_runtime_stream(timeout=1)]
    assert [i["action"] for i in items] == [*["append"] * 3, "insert", "consume", "expire", "expire"]
    consumers = execution.result.get_interventions(consumed_by="risk")[0]["consumers"]
    assert set(consumers["risk"]) == {"status", "note", "metadata", "consumed_at"}
    assert (consumers["risk"]["status"], consumers["risk"]["metadata"]) == ("applied", {})
    expired = execution.result.get_interventions("expired")
    assert expired[0]["expired_at"] == expired[1]["expired_at"] is not None


async def test_an_untargeted_point_takes_untargeted_items_only(world: World) -> None:
    """Targets are compared exactly, ``None`` included."""
    flow = TriggerFlow(name="untargeted")
    seen: list[Any] = []
    flow.intervention_point(name="any").to(("look", lambda data: seen.append(payloads(data.interventions))))
    execution = world.execution(flow)
    await execution.async_intervene("free")
    await execution.async_intervene("aimed", target="any")
    await execution.async_start()
    await execution.async_close()
    assert seen == [["free"]]


async def test_a_point_with_nothing_pending_passes_the_value_through(world: World) -> None:
    """The chunk behind it gets what the chunk before it returned."""
    flow = TriggerFlow(name="empty")
    flow.to(passes("a", lambda v: v + 1)).intervention_point(name="p").to(
        ("keep", lambda data: data.set_state("v", data.input))
    )
    assert await world.run(flow, 1) == {"v": 2}


async def test_an_item_is_inserted_once(world: World) -> None:
    """A point that is reached again does not insert again; what came meanwhile it does."""
    flow = TriggerFlow(name="again")
    seen: list[Any] = []
    flow.when("Go").intervention_point(name="p", target="t").to(
        ("look", lambda data: seen.append([(i["payload"], i["inserted_at"]) for i in data.interventions]))
    )
    execution = world.execution(flow)
    await execution.async_intervene("one", target="t")
    await execution.async_emit("Go")
    await world.clock.advance(1)
    await execution.async_intervene("two", target="t")
    await execution.async_emit("Go")
    await execution.async_close()
    assert [[p for p, _ in each] for each in seen] == [["one"], ["one", "two"]]
    assert seen[0][0] == seen[1][0]


async def test_a_chunk_that_runs_already_does_not_see_what_is_inserted_later(world: World) -> None:
    """A chunk's view is that of its dispatch, consumers included."""
    flow = TriggerFlow(name="view")
    views: dict[str, Any] = {}

    async def holder(data: Data) -> None:
        await data.async_emit("Insert")
        (item,) = data.execution.get_interventions()
        await data.async_mark_intervention_consumed(item["id"])
        views["holder"] = payloads(data.interventions)

    async def later(data: Data) -> None:
        views["later"] = [sorted(i["consumers"]) for i in data.interventions]

    flow.to(("holder", holder)).to(("later", later))
    flow.when("Insert").intervention_point(name="p", target="t").to(
        ("look", lambda data: views.update(look=[sorted(i["consumers"]) for i in data.interventions]))
    )
    execution = world.execution(flow)
    await execution.async_intervene("one", target="t")
    await execution.async_start()
    await execution.async_close()
    assert views == {"look": [[]], "holder": [], "later": [["holder"]]}


async def test_insertion_says_where_and_by_what_signal(world: World) -> None:
    """Operator, block, signal, scope and time are in the item."""
    flow = TriggerFlow(name="where")
    flow.to(passes("a")).intervention_point(name="p", target="t").to(passes("b"))
    execution = world.execution(flow)
    await execution.async_intervene("one", target="t", note="n", metadata={"k": [1]})
    await execution.async_start({"big": object()})
    (item,) = execution.get_interventions()
    insertion = item["insertion"]
    assert insertion["mode"] == "planned" and "policy" not in insertion
    assert (insertion["operator_name"], insertion["operator_kind"]) == ("p", "intervention_point")
    assert (insertion["group_id"], insertion["group_kind"], insertion["scope"]) == (None, None, "p")
    assert insertion["signal"]["trigger_event"].startswith("Chunk[a]-")
    assert insertion["signal"]["value"]["__type__"] == "dict", "what cannot be stored is named"
    assert insertion["inserted_at"] == item["inserted_at"]
    assert (item["note"], item["metadata"]) == ("n", {"k": [1]})
    await execution.async_close()


async def test_planned_mode_without_points_is_allowed_and_everything_expires(world: World) -> None:
    """The sender is warned that nothing in the flow has the target."""
    flow = TriggerFlow(name="none")
    flow.to(passes("a"))
    execution = world.execution(flow, intervention_mode="planned")
    with pytest.warns(InterventionTargetWarning, match=r"'t' \(there are: none\)"):
        await execution.async_intervene("one", target="t")

    await execution.async_start()
    snapshot = await execution.async_close()
    assert [i["status"] for i in snapshot["$interventions"].values()] == ["expired"]


async def test_a_cancelled_close_expires_too(world: World) -> None:
    """Given up runs do not keep pending interventions."""
    flow = TriggerFlow(name="cancelled")
    flow.to(("ask", lambda data: data.pause_for())).intervention_point(name="p", target="t")
    execution = world.execution(flow)
    await execution.async_start()
    item = await execution.async_intervene("one", target="t")
    await execution.async_close(pending_interrupts="cancel")
    assert execution.get_intervention(item["id"])["status"] == "expired"  # type: ignore[index]


async def test_the_ledger_is_part_of_the_live_state(world: World) -> None:
    """``$interventions`` can be read while the run is open, and is absent until something was written."""
    flow = TriggerFlow(name="live")
    flow.intervention_point(name="p", target="t").to(("keep", lambda data: data.set_state("k", 1)))
    execution = world.execution(flow)
    assert execution.get_state("$interventions") is None
    item = await execution.async_intervene("one", target="t")
    assert execution.get_state(f"$interventions.{item['id']}.status") == "pending"
    await execution.async_start()
    assert execution.get_state("k") == 1
    assert execution.result.get_state() == {"k": 1, "$interventions": {item["id"]: execution.get_interventions()[0]}}
    await execution.async_close()


async def test_a_value_that_cannot_even_be_shown_does_not_stop_the_flow(world: World) -> None:
    """The insertion quotes the signal's value as well as it can."""

    class Shy:
        def __repr__(self) -> str:
            raise ValueError("no")

    flow = TriggerFlow(name="shy")
    flow.intervention_point(name="p", target="t").to(passes("a", lambda v: 1))
    execution = world.execution(flow)
    await execution.async_intervene("one", target="t")
    await execution.async_start(Shy())
    quoted = execution.get_interventions()[0]["insertion"]["signal"]["value"]
    assert quoted == {"__repr__": "<its repr raised ValueError>", "__type__": Shy.__qualname__}
    await execution.async_close()


async def test_a_sub_flow_with_a_point_runs_inside_a_steered_flow(world: World) -> None:
    """Its ledger is its own: nobody outside holds its handle, so its point passes the value through."""
    seen: list[Any] = []
    child = TriggerFlow(name="child")
    child.intervention_point(name="p", target="t").to(("in", lambda data: seen.append(len(data.interventions))))
    flow = TriggerFlow(name="parent")
    flow.to_sub_flow(child).to(("out", lambda data: seen.append(len(data.interventions))))
    execution = world.execution(flow, intervention_mode="auto")
    await execution.async_intervene("one", target="out")
    await execution.async_start()
    snapshot = await execution.async_close()
    assert seen == [0, 1]
    assert set(snapshot) == {"$interventions"}


class TestDeclaring:
    def test_a_point_declared_again_is_the_same_point(self) -> None:
        """Replaying a definition changes nothing."""
        flow = TriggerFlow(name="replay")
        for _ in range(2):
            flow.intervention_point(name="p", target="t")

        assert [op.kind for op in flow.operators()] == ["intervention_point"]

    def test_the_same_name_with_another_target_is_refused(self) -> None:
        """A name is unique in its flow."""
        flow = TriggerFlow(name="target")
        flow.intervention_point(name="p", target="t")
        with pytest.raises(ValueError, match="another target"):
            flow.intervention_point(name="p", target="u")

    def test_the_same_name_at_another_position_is_refused(self) -> None:
        """Also with the same target."""
        flow = TriggerFlow(name="position")
        first = flow.intervention_point(name="p", target="t")
        with pytest.raises(DefinitionError, match="another position"):
            first.intervention_point(name="p", target="t")

    @pytest.mark.parametrize("options", [{"name": ""}, {"name": None}, {"name": "p", "target": ""}, {"name": 3}])
    def test_what_is_no_name_or_target_is_refused(self, options: dict[str, Any]) -> None:
        """Where it is declared."""
        with pytest.raises(ValueError, match="intervention_point"):
            TriggerFlow(name="bad").intervention_point(**options)

    async def test_a_point_belongs_to_its_position_inside_blocks(self, world: World) -> None:
        """A point inside ``for_each`` inserts at the first element that reaches it; all later ones see it."""
        flow = TriggerFlow(name="inside")
        seen: list[Any] = []
        (
            flow.for_each(concurrency=1)
            .intervention_point(name="p", target="t")
            .to(("look", lambda data: seen.append(len(data.interventions))))
            .end_for_each()
        )
        execution = world.execution(flow)
        await execution.async_intervene("one", target="t")
        await execution.async_start([1, 2, 3])
        await execution.async_close()
        assert seen == [1, 1, 1]
