"""Snapshots of many parked branches are packed into one text; and no state, however made, fails without a name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.execution.support import Data, World, keep

from flowdeck.errors import MissingResource, SnapshotError
from flowdeck.execution.snapshot import FORMAT, ROWS_FORMAT, _digest
from flowdeck.execution.snapshot_core import MANY, dump_core, unpack
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

pytestmark = pytest.mark.anyio

COUNT = MANY + 20


def asking(name: str = "ask") -> TriggerFlow:
    async def ask(data: Data) -> Any:
        await data.step("memo", lambda: {"of": data.input})
        return data.pause_for(payload={"who": data.input})

    flow = TriggerFlow(name="many")
    flow.for_each().to((name, ask)).end_for_each().to(keep("out"))
    return flow


async def parked(world: World, flow: TriggerFlow, items: list[Any]) -> TriggerFlowExecution:
    world.center.remove_sink(world.recorder)
    execution = world.execution(flow)
    await execution.async_start(items)
    return execution


def signed(state: dict[str, Any]) -> dict[str, Any]:
    bare = {key: value for key, value in state.items() if key != "sha256"}
    return {**bare, "sha256": _digest(bare)}


async def finished(execution: TriggerFlowExecution) -> dict[str, Any]:
    for interrupt_id, record in execution.get_pending_interrupts().items():
        await execution.async_continue_with(interrupt_id, record["payload"])

    return await execution.async_close()


async def test_packed_and_unpacked_states_are_the_same_state(world: World) -> None:
    """A packed state survives JSON, is byte for byte the same when saved again, and says what its rows say."""
    flow = asking()
    first = await parked(world, flow, list(range(COUNT)))
    saved = first.save()
    assert saved["format"] == FORMAT and "tasks" not in saved["core"]
    rows = dump_core(first._core)
    assert unpack(saved["core"], first.id).keys() == rows.keys()

    second = world.execution(flow).load(json.loads(json.dumps(saved)))
    assert dump_core(second._core) == rows
    assert second.save()["core"] == saved["core"]

    third = world.execution(flow).load(
        signed({**saved, "format": ROWS_FORMAT, "core": unpack(saved["core"], first.id)})
    )
    assert dump_core(third._core) == rows
    assert third.save()["core"] == saved["core"]
    expected = {"out": [{"who": i} for i in range(COUNT)]}
    assert await finished(second) == await finished(third) == expected

    changed = {**saved, "core": {**saved["core"], "packed": saved["core"]["packed"].replace("ask", "asc", 1)}}
    with pytest.raises(SnapshotError, match="altered"):
        world.execution(flow).load(changed)


@pytest.mark.parametrize("odd", [(1, 2), "\ud800", float("nan"), {"$type": "x"}, {1: 2}], ids=repr)
async def test_a_value_that_needs_a_tag_is_not_packed(world: World, odd: Any) -> None:
    """One value among thousands that JSON would change keeps all rows as they are, and comes back as it was."""
    flow = asking()
    execution = await parked(world, flow, [*range(COUNT), odd])
    saved = execution.save()
    assert saved["format"] == ROWS_FORMAT and "packed" not in saved["core"]
    fresh = world.execution(flow).load(json.loads(json.dumps(saved)))
    record = list(fresh.get_pending_interrupts().values())[-1]
    assert repr(record["payload"]) == repr({"who": odd})


async def test_an_answer_that_needs_a_tag(world: World) -> None:
    """Records looked at when they came to be are looked at again when something else comes to them."""
    flow = TriggerFlow(name="many")
    flow.for_each().to(("ask", lambda data: data.pause_for())).to(
        ("again", lambda data: data.pause_for())
    ).end_for_each()
    execution = await parked(world, flow, list(range(COUNT)))
    assert "packed" in execution.save()["core"]
    for place, answer in enumerate(({"a": 1}, {"a": (1, 2)})):
        await execution.async_continue_with(next(iter(execution.get_pending_interrupts())), answer)
        saved = execution.save()
        assert ("packed" in saved["core"]) is (place == 0)

    fresh = world.execution(flow).load(saved)
    assert {"a": (1, 2)} in [each.response for each in fresh._core.interrupts.values()]


async def test_a_packed_state_in_a_changed_definition(world: World) -> None:
    """Steps that moved are found by their names; a lost one is named; a migration sees rows, never the text."""
    saved = (await parked(world, asking(), list(range(COUNT)))).save()
    moved = TriggerFlow(name="many")
    moved.when("Never").to(("new", lambda data: None))
    moved.for_each().to(("ask", lambda data: data.pause_for())).end_for_each().to(keep("out"))
    loaded = world.execution(moved).load(saved)
    assert (await finished(loaded))["out"][:2] == [{"who": 0}, {"who": 1}]

    renamed = asking("question")
    with pytest.raises(SnapshotError, match="lost operators.*ask"):
        world.execution(renamed).load(saved)

    @renamed.migrate
    def rename(state: dict[str, Any]) -> dict[str, Any]:
        core = state["core"]
        assert len(core["tasks"]) == COUNT and "packed" not in core
        return {**state, "core": {**core, "ops": ["question" if key == "ask" else key for key in core["ops"]]}}

    assert len((await finished(world.execution(renamed).load(saved)))["out"]) == COUNT


async def test_a_state_made_by_hand(world: World) -> None:
    """Whatever is missing or of the wrong kind, with a right checksum too, is an error that says so."""
    flow = TriggerFlow(name="hand")
    flow.to(("ask", lambda data: data.pause_for())).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start(1)
    saved = execution.save()
    refused = 0
    for where in ("", "core"):
        whole = saved[where] if where else saved
        for key in whole:
            without = {name: value for name, value in whole.items() if name != key}
            for made in (without, *({**whole, key: odd} for odd in (None, 5, "x", [], {}, [[]], [[1, 2]], {"a": 1}))):
                state = signed({**saved, where: made} if where else made) if key != "sha256" else made
                try:
                    world.execution(flow).load(state)
                except (SnapshotError, MissingResource):
                    refused += 1

    assert refused > 100
