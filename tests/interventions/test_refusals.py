"""Rejecting interventions, and what ``intervene`` and its relatives refuse."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.execution.support import World, passes

from flowdeck.errors import InterventionError, InterventionNotFound, InterventionSettled, UnencodableValue
from flowdeck.execution.interventions import PENDING_LIMIT
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::flowdeck.errors.InterventionTargetWarning")]


def open_execution(world: World, **options: Any) -> TriggerFlowExecution:
    flow = TriggerFlow(name="steered")
    flow.to(passes("c1")).to(("keep", lambda data: data.set_state("seen", len(data.interventions))))
    return world.execution(flow, **{"intervention_mode": "auto", **options})


async def test_a_rejected_intervention_is_seen_by_nobody(world: World) -> None:
    """Its record says when, why and by whom; readers of the stream and observers hear of it."""
    execution = open_execution(world)
    item = await execution.async_intervene("wrong table", author="ann")
    await world.clock.advance(2)
    record = await execution.async_reject_intervention(item["id"], reason="outdated", author="bob")
    assert (record["status"], record["reject_reason"], record["rejected_by"]) == ("rejected", "outdated", "bob")
    assert record["rejected_at"] == record["created_at"] + 2
    await execution.async_start()
    snapshot = await execution.async_close()
    assert snapshot["seen"] == 0
    assert snapshot["$interventions"][item["id"]] == record, "it does not expire besides"
    (payload,) = world.payloads("triggerflow.intervention_rejected")
    assert payload == {"intervention": record}
    items = [i async for i in execution.get_async_runtime_stream(timeout=1)]
    assert [(i["action"], i["intervention"]["status"]) for i in items] == [
        ("append", "pending"),
        ("reject", "rejected"),
    ]


async def test_only_a_pending_intervention_can_be_rejected(world: World) -> None:
    """Who has seen an inserted one cannot unsee it; the error names the mend."""
    execution = open_execution(world)
    item = await execution.async_intervene("note")
    await execution.async_start()
    with pytest.raises(InterventionSettled, match="is inserted.*ignored"):
        await execution.async_reject_intervention(item["id"], reason="late")

    other = await execution.async_intervene("other")
    await execution.async_reject_intervention(other["id"])
    with pytest.raises(ValueError, match="is rejected"):
        await execution.async_reject_intervention(other["id"])

    last = await execution.async_intervene("last")
    await execution.async_close()
    with pytest.raises(InterventionSettled, match="is expired"):
        await execution.async_reject_intervention(last["id"])


async def test_an_unknown_id_is_a_named_key_error(world: World) -> None:
    """For rejecting and for consuming; a lookup returns ``None``."""
    execution = open_execution(world)
    with pytest.raises(InterventionNotFound, match="'nobody' not found"):
        await execution.async_reject_intervention("nobody", reason="x")

    with pytest.raises(KeyError):
        await execution.async_mark_intervention_consumed("nobody", consumer="me")

    with pytest.raises(KeyError):
        await execution.async_mark_intervention_consumed(["unhashable"], consumer="me")  # type: ignore[arg-type]

    assert execution.get_intervention("nobody") is None


async def test_a_sealed_or_closed_execution_takes_none(world: World) -> None:
    """The error says which it is; consuming is still allowed, for the audit."""
    execution = open_execution(world)
    item = await execution.async_intervene("note")
    execution.seal()
    with pytest.raises(InterventionError, match="is sealed"):
        await execution.async_intervene("late")

    execution.unseal()
    await execution.async_start()
    snapshot = await execution.async_close()
    with pytest.raises(RuntimeError, match="is closed"):
        await execution.async_intervene("later")

    await execution.async_mark_intervention_consumed(item["id"], consumer="auditor")
    assert execution.result.get_latest_intervention()["consumers"].keys() == {"auditor"}
    assert snapshot["$interventions"][item["id"]]["consumers"] == {}, "the close snapshot is frozen"


async def test_a_disabled_execution_refuses_everything_but_reading(world: World) -> None:
    """Neither its state nor its version changes."""
    execution = open_execution(world, intervention_mode=None)
    for refused in (
        execution.async_intervene("x"),
        execution.async_reject_intervention("x"),
        execution.async_mark_intervention_consumed("x", consumer="me"),
    ):
        with pytest.raises(InterventionError, match="disabled"):
            await refused

    assert execution.get_interventions() == execution.result.get_interventions() == []
    assert execution.get_latest_intervention("nothing") == "nothing"
    assert execution.result.get_meta()["state_version"] == 0
    assert world.types() == []


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"metadata": [1]}, TypeError, "metadata"),
        ({"metadata": {"k": object()}}, UnencodableValue, r"metadata\.k"),
        ({"author": 7}, TypeError, "author=7"),
        ({"note": b"x"}, TypeError, "note="),
        ({"target": 7}, TypeError, "target=7"),
        ({"target": ""}, TypeError, "target=''"),
        ({"payload": {"live": object()}}, UnencodableValue, r"payload\.live"),
    ],
)
async def test_bad_arguments_are_named_and_record_nothing(
    world: World, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    """One clear error each; no half item stays."""
    execution = open_execution(world)
    with pytest.raises(error, match=match):
        await execution.async_intervene(**{"payload": "x", **options})

    assert execution.get_interventions() == []
    assert world.types() == []


async def test_bad_marks_are_refused(world: World) -> None:
    """No consumer, another status, metadata that is no mapping, an unknown filter."""
    execution = open_execution(world)
    item = await execution.async_intervene("x")
    for bad, error in (
        ({"consumer": ""}, ValueError),
        ({"consumer": None}, ValueError),
        ({"consumer": "me", "status": "seen"}, ValueError),
        ({"consumer": "me", "metadata": "x"}, TypeError),
        ({"consumer": "me", "note": 3}, TypeError),
    ):
        with pytest.raises(error):
            await execution.async_mark_intervention_consumed(item["id"], **bad)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="status='new'"):
        execution.get_interventions("new")

    assert execution.get_interventions()[0]["consumers"] == {}


async def test_a_flood_of_pending_interventions_is_stopped(world: World) -> None:
    """The limit is named; rejecting one makes room."""
    execution = open_execution(world)
    for n in range(PENDING_LIMIT):
        await execution.async_intervene(n)

    with pytest.raises(InterventionError, match=str(PENDING_LIMIT)):
        await execution.async_intervene("one more")

    await execution.async_reject_intervention(execution.get_pending_interventions()[0]["id"])
    assert (await execution.async_intervene("fits"))["version"] == PENDING_LIMIT + 1


async def test_what_is_handed_in_and_out_is_a_copy(world: World) -> None:
    """Nobody can change the ledger from outside."""
    execution = open_execution(world)
    payload = {"list": [1]}
    item = await execution.async_intervene(payload, metadata={"m": [1]})
    payload["list"].append(2)
    item["payload"]["list"].append(3)
    item["metadata"]["m"].append(2)
    execution.get_interventions()[0]["consumers"]["x"] = {}
    (held,) = execution.get_interventions()
    assert (held["payload"], held["metadata"], held["consumers"]) == ({"list": [1]}, {"m": [1]}, {})


async def test_filters_are_combined(world: World) -> None:
    """Status, target, version and consumer; versions are exclusive."""
    execution = open_execution(world)
    for n, target in enumerate(("a", "b", "a")):
        await execution.async_intervene(n, target=target)

    await execution.async_mark_intervention_consumed(execution.get_interventions()[2]["id"], consumer="me")
    assert [i["payload"] for i in execution.get_interventions(target="a")] == [0, 2]
    assert [i["payload"] for i in execution.get_interventions(target="a", since_version=1)] == [2]
    assert [i["payload"] for i in execution.get_pending_interventions("b")] == [1]
    assert [i["payload"] for i in execution.result.get_interventions(consumed_by="me")] == [2]
    assert execution.get_latest_intervention(target="b")["payload"] == 1
    assert execution.result.get_latest_intervention(None, target="c") is None


async def test_sync_twins_work_on_the_loop_and_from_another_thread(world: World) -> None:
    """Recording never waits, so it needs no thread of its own; elsewhere it goes through the execution's loop."""
    execution = open_execution(world)
    await execution.async_start()
    first = execution.intervene("here")
    found: dict[str, Any] = {}

    def elsewhere() -> None:
        found["item"] = execution.intervene("there", author="thread")
        found["marked"] = execution.mark_intervention_consumed(first["id"], consumer="thread")
        found["rejected"] = execution.reject_intervention(found["item"]["id"], reason="no")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.get_running_loop().run_in_executor(None, thread.join)
    assert found["rejected"]["status"] == "rejected"
    assert found["marked"]["consumers"]["thread"]["status"] == "applied"
    await execution.async_close()


def test_without_a_loop_at_all(world: World) -> None:
    """Before the start there is no loop, and none is needed."""
    flow = TriggerFlow(name="sync")
    flow.to(("keep", lambda data: data.set_state("seen", [i["payload"] for i in data.interventions])))
    execution = flow.create_execution(intervention_mode="auto", auto_close_timeout=0, services=world.services)
    execution.intervene("early")
    assert execution.start()["seen"] == ["early"]


async def test_a_sync_chunk_in_a_worker_thread_marks_through_the_loop(world: World) -> None:
    """The data object's sync twin may be called from wherever the chunk's work runs."""
    flow = TriggerFlow(name="worker")

    async def work(data: Any) -> None:
        await asyncio.to_thread(lambda: [data.mark_intervention_consumed(i["id"]) for i in data.interventions])

    flow.to(("work", work))
    execution = world.execution(flow, intervention_mode="auto")
    await execution.async_intervene("note")
    await execution.async_start()
    assert execution.get_interventions()[0]["consumers"]["work"]["status"] == "applied"
    await execution.async_close()
