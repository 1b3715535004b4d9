"""Stored runs of every released format are read, by the same and by changed definitions, or refused by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.durable.golden_runs import FOLDER, parts, review

from flowdeck.durable._shelf import Held, Shelf
from flowdeck.durable.memory import MemoryStore
from flowdeck.durable.recovery import BlockedVersion, rename_operators, restore
from flowdeck.durable.store import Claim, Stored
from flowdeck.errors import SnapshotError
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow

FILES = sorted(FOLDER.glob("format-*.json"))
EXPECTED = {
    "input": {"a": (1, 2), "b": b"x"},
    "seen": [1, 2, 3],
    "joined": [1, "checked", 3],
    "gate": {"event": {"ONE": 1, "TWO": 2}},
}


def claim_of(path: Path, name: str) -> Claim:
    stored = msgspec.json.decode(path.read_bytes(), type=dict[str, Stored])[name]
    fields = {field: getattr(stored, field) for field in Stored.__struct_fields__}
    return Claim(**fields, token=2, flow_name=stored.header["flow"]["name"])


def go_on(path: Path, flow: TriggerFlow) -> dict[str, Any]:
    """Take the stored review up, answer it, send what the gate waits for, and return the state."""
    claim = claim_of(path, "review")
    shelf = Shelf()
    held = Held(claim.execution_id, msgspec.msgpack.encode(claim.header), claim.definition)
    held.token, held.seq = 2, claim.seq
    shelf.put(held)

    async def run() -> dict[str, Any]:
        services = Services(center=EventCenter(), store=MemoryStore(shelf))
        execution = restore(flow, claim, services, {})
        await execution.async_recover()
        await execution.async_continue_with("check-2", "checked")
        await execution.async_emit("TWO", 2)
        return await execution.async_close()

    return asyncio.run(run())


def other(**options: Any) -> TriggerFlow:
    return review(**options)


def without_gate() -> TriggerFlow:
    made = parts()
    flow = TriggerFlow(name="golden review")
    flow.to(("split", made["split"])).for_each(name="members").to(("each", made["each"])).end_for_each().to(
        ("joined", made["joined"])
    )
    return flow


def gate(*events: str) -> TriggerFlow:
    flow = without_gate()
    flow.to(("one", lambda data: data.emit("ONE", 1)))
    flow.when({"event": list(events)}).to(("gate", lambda data: data.set_state("gate", data.input)))
    return flow


def batch_in_place_of_for_each() -> TriggerFlow:
    made = parts()
    flow = TriggerFlow(name="golden review")
    flow.to(("split", made["split"])).batch(("each", made["each"]), ("other", made["each"]), name="members").to(
        ("joined", made["joined"])
    )
    return flow


def no_end() -> TriggerFlow:
    made = parts()
    flow = TriggerFlow(name="golden review")
    flow.to(("split", made["split"])).for_each(name="members").to(("each", made["each"]))
    flow.to(("one", lambda data: data.emit("ONE", 1)))
    flow.when({"event": ["ONE", "TWO"]}).to(("gate", lambda data: data.set_state("gate", data.input)))
    return flow


def migrated() -> TriggerFlow:
    flow = review(each="member")
    flow.migrate(lambda state: rename_operators(state, {"each": "member"}))
    return flow


def migrated_wrongly() -> TriggerFlow:
    flow = review(each="member")
    flow.migrate(lambda state: rename_operators(state, {"each": "nobody"}))
    return flow


def with_side_branch() -> TriggerFlow:
    flow = review()
    flow.to(("beside", lambda data: None))
    return flow


def with_listener() -> TriggerFlow:
    flow = review()
    flow.when("OTHER").to(("listens", lambda data: None))
    return flow


def with_collect() -> TriggerFlow:
    flow = review()
    flow.when("P").to(("p", lambda data: 1)).collect("pair", "p")
    flow.when("Q").to(("q", lambda data: 1)).collect("pair", "q")
    return flow


def with_match() -> TriggerFlow:
    flow = review()
    flow.when("M").match().case(lambda data: True).to(("hit", lambda data: 1)).end_match()
    return flow


def with_limit() -> TriggerFlow:
    made = parts()
    flow = TriggerFlow(name="golden review")
    flow.to(("split", made["split"])).for_each(name="members", concurrency=2).to(
        ("each", made["each"])
    ).end_for_each().to(("joined", made["joined"]))
    flow.to(("one", lambda data: data.emit("ONE", 1)))
    flow.when({"event": ["ONE", "TWO"]}).to(("gate", lambda data: data.set_state("gate", data.input)))
    return flow


def with_state_listener() -> TriggerFlow:
    flow = review()
    flow.when({"runtime_data": "joined"}).to(("sees", lambda data: None))
    return flow


def rest_of_the_review(flow: TriggerFlow) -> TriggerFlow:
    flow.to(("one", lambda data: data.emit("ONE", 1)))
    flow.when({"event": ["ONE", "TWO"]}).to(("gate", lambda data: data.set_state("gate", data.input)))
    return flow


def renamed_after_the_join() -> TriggerFlow:
    made = parts()
    flow = TriggerFlow(name="golden review")
    flow.to(("split", made["split"])).for_each(name="members").to(("each", made["each"])).end_for_each().to(
        ("joined under another name", made["joined"])
    )
    return rest_of_the_review(flow)


def without_block() -> TriggerFlow:
    made = parts()
    flow = TriggerFlow(name="golden review")
    flow.to(("split", made["split"])).to(("each", made["each"])).to(("joined", made["joined"]))
    return rest_of_the_review(flow)


GOES_ON: dict[str, Callable[[], TriggerFlow]] = {
    "the same": review,
    "other bodies": lambda: other(handlers=parts()),
    "a step more after the join": lambda: other(extra="more"),
    "another branch at the start": with_side_branch,
    "another listener": with_listener,
    "another collect": with_collect,
    "another match": with_match,
    "a listener for state": with_state_listener,
    "a limit for later members": with_limit,
    "renamed and migrated": migrated,
    "a step renamed that was not reached": renamed_after_the_join,
}
BLOCKED: dict[str, tuple[Callable[[], TriggerFlow], str]] = {
    "the asking step is gone": (lambda: other(each="member"), "operator 'each'"),
    "migrated to something else": (migrated_wrongly, "operator 'nobody'"),
    "the gate is gone": (without_gate, "signal_gate|gate|when"),
    "the gate waits for more": (lambda: gate("ONE", "TWO", "THREE"), "triggers of gate|operator"),
    "the gate waits for others": (lambda: gate("ONE", "THREE"), "triggers of gate|operator"),
    "the block is another": (batch_in_place_of_for_each, "members"),
    "the block is gone": (without_block, "members"),
    "the block has no end": (no_end, "the end of block"),
    "nothing is left": (lambda: TriggerFlow(name="golden review"), "operator"),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("make", GOES_ON.values(), ids=list(GOES_ON))
def test_a_stored_run_goes_on(path: Path, make: Callable[[], TriggerFlow]) -> None:
    """It ends in the same state under every definition that still has what it stands in."""
    assert go_on(path, make()) == EXPECTED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize(("make", "missing"), BLOCKED.values(), ids=list(BLOCKED))
def test_a_stored_run_is_blocked_by_name(path: Path, make: Callable[[], TriggerFlow], missing: str) -> None:
    """Under a definition that lacks something it is blocked, with what is missing; nothing is loaded in part."""
    flow = make()
    with pytest.raises(BlockedVersion, match=missing):
        go_on(path, flow)

    assert len(flow._executions) == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("spoiled", ["format", "no plan", "no task", "code"])
def test_a_spoiled_run_is_refused_by_name(path: Path, spoiled: str) -> None:
    """A newer format, a lost definition or an altered log: a SnapshotError says which."""
    claim = claim_of(path, "review")
    if spoiled == "format":
        claim.header["format"] = 2
    elif spoiled == "no plan":
        claim.plans.clear()
    elif spoiled == "no task":
        claim.batches.append((1, [["D", 0, 99, 4711, None, None]]))
    else:
        claim.batches.append((1, [["future", 0, 99]]))

    with pytest.raises(SnapshotError):
        restore(review(), claim, Services(center=EventCenter(), store=MemoryStore()), {})
