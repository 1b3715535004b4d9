"""A call returns a record and never raises, whatever the action does."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.execution.support import World

from flowdeck.actions import ActionContext, ActionRuntime, FileArtifacts, current_action
from flowdeck.events.lineage import RunContext, run_scope
from flowdeck.execution.ports import PortCall, Ports
from flowdeck.triggerflow import TriggerFlow, TriggerFlowRuntimeData

pytestmark = pytest.mark.anyio
RECORD_KEYS = (
    "action_call_id ok status purpose action_id tool_name kwargs todo_suggestion next success result data "
    "artifact_refs artifacts diagnostics approval timing meta redaction_report error expose_to_model "
    "side_effect_level executor_type"
)


async def test_the_record_of_a_call(actions: ActionRuntime) -> None:
    """It has every key of the compatible API; arguments are converted to the types of the hints."""

    @actions.action_func
    async def add(x: int, y: int = 1) -> int:
        return x + y

    record = await actions.async_execute_action("add", {"x": "2"}, purpose="to know")
    assert set(RECORD_KEYS.split()) == set(record)
    assert (record["status"], record["data"], record["result"], record["ok"]) == ("success", 3, 3, True)
    assert record["action_call_id"].startswith("act_call_")
    assert await actions.async_call_action("add", {"x": 5}) == 6


OUTCOMES: list[tuple[Any, str, str]] = [
    ("Error: no such order", "error", "no such order"),
    ({"ok": False, "reason": "closed"}, "error", "closed"),
    ({"ok": False, "stderr": "boom"}, "error", "boom"),
    ({"error": "bad"}, "error", "bad"),
    ({"error": ""}, "success", ""),
    ({"need_approval": True, "reason": "over the limit"}, "approval_required", "over the limit"),
    ({"status": "blocked", "error": "not today"}, "blocked", "not today"),
    ({"status": "success", "data": 7}, "success", ""),
    ({"status": "shipped"}, "success", ""),
    (None, "success", ""),
]


@pytest.mark.parametrize(("outcome", "status", "error"), OUTCOMES)
async def test_what_an_action_returns_is_read_by_convention(
    actions: ActionRuntime, outcome: Any, status: str, error: str
) -> None:
    """Texts and dicts that report failure are failures; a dict with a status is taken as the record."""
    actions.register_action(action_id="it", func=lambda: outcome)
    record = await actions.async_execute_action("it", {})
    assert (record["status"], record["error"], record["ok"]) == (status, error, status == "success")


@pytest.mark.parametrize(
    ("name", "kwargs", "problem"),
    [
        ("nope", {}, "Can not find action named 'nope'"),
        ("strict", {}, "arguments of 'strict' do not fit: x: Field required"),
        ("strict", {"x": "many"}, "x: Input should be a valid integer"),
        ("strict", {"x": 1, "z": 2}, "z: Extra inputs are not permitted"),
        ("strict", [1], r"must be a mapping, got \[1\]"),
        ("raises", {}, "ZeroDivisionError: division by zero"),
        ("stops", {}, "StopIteration"),
        ("leaves", {}, r"^action 'leaves' called sys.exit\(2\)$"),
        ("leaves_later", {}, r"^action 'leaves_later' called sys.exit\(3\)$"),
        ("cancels", {}, "^action 'cancels' was cancelled from within$"),
        ("shouts", {}, r"^ValueError: !{3988}… \(50000012 characters in all\)$"),
        ("hurries", {}, "action 'hurries': policy.timeout_seconds='5': expected seconds"),
    ],
)
async def test_a_call_that_cannot_work(
    actions: ActionRuntime, world: World, name: str, kwargs: Any, problem: str
) -> None:
    """A missing action, wrong arguments and whatever is raised become a record with an error and an action.failed."""

    def strict(x: int) -> int:
        return x

    def raises() -> None:
        1 / 0

    def stops() -> None:
        next(iter(()))

    def leaves() -> None:
        sys.exit(2)

    async def leaves_later() -> None:
        sys.exit(3)

    async def cancels() -> None:
        inner = asyncio.ensure_future(asyncio.sleep(9))
        inner.cancel()
        await inner

    def shouts() -> None:
        raise ValueError("!" * 50_000_000)

    def hurries() -> None:
        pass

    for function in (strict, raises, stops, leaves, leaves_later, cancels, shouts, hurries):
        actions.action_func(function)

    actions.settings["action.policy.global"] = {"timeout_seconds": "5"} if name == "hurries" else {}

    record = await actions.async_execute_action(name, kwargs)
    assert record["status"] == "error" and not record["ok"]

    assert re.search(problem, record["error"])
    assert world.types("action.") == ["action.started", "action.failed"]
    failed = world.payloads("action.failed")[0]
    assert failed["record"]["error"] == record["error"]
    assert (name != "nope") == record["expose_to_model"]


async def test_a_call_that_hangs_is_given_up(actions: ActionRuntime, world: World) -> None:
    """After its time a call is an error, also when a plain function keeps its thread; the loop can end."""
    never = threading.Event()

    async def waits() -> None:
        await asyncio.Event().wait()

    actions.register_action(action_id="waits", func=waits, default_policy={"timeout_seconds": 3})
    actions.register_action(action_id="blocks", func=lambda: never.wait())
    for name in ("waits", "blocks"):
        call = asyncio.create_task(actions.async_execute_action(name, {}, timeout=3))
        await asyncio.sleep(0)
        await world.clock.advance(4)
        record = await call
        assert (record["status"], record["error"]) == ("error", f"action '{name}' took longer than 3.0 s")

    never.set()


async def test_a_huge_result_becomes_an_artifact(actions: ActionRuntime, tmp_path: Path, world: World) -> None:
    """50 MB stay out of records and events: a digest stands for them, and read_action_artifact reads them back."""
    actions.use_artifacts(FileArtifacts(tmp_path / "kept"))
    actions.register_action(action_id="dump", func=lambda: "0123456789" * 5_000_000)
    record = await actions.async_execute_action("dump", {})
    assert record["status"] == "success" and len(record["data"]) == 50_000_000
    [ref] = record["artifact_refs"]
    assert record["artifacts"][0]["size"] == 50_000_000 and len(record["model_digest"]) < 3_000
    assert len(str(world.payloads("action.completed")[0])) < 20_000
    part = await actions.async_call_action("read_action_artifact", {"ref": ref, "offset": 9, "size": 4})
    assert part == "9012"
    gone = await actions.async_execute_action("read_action_artifact", {"ref": "artifact:../../etc/passwd"})
    assert gone["status"] == "error" and "is no artifact of this store" in gone["error"]


async def test_an_artifact_is_read_on_where_its_digest_ends(actions: ActionRuntime) -> None:
    """Offsets count bytes, pieces hold whole characters, and together they are the text, whatever its script."""
    text = "".join(chr(0x4E00 + at % 500) + "aé😀"[at % 3] for at in range(20_000))
    actions.register_action(action_id="big", func=lambda: text)
    record = await actions.async_execute_action("big")
    found = re.search(r'ref="([^"]+)", offset=(\d+)', record["model_digest"])
    assert found is not None
    read, offset = text[:2_000], int(found[2])
    while piece := await actions.async_call_action("read_action_artifact", {"ref": found[1], "offset": offset}):
        read, offset = read + piece, offset + 8_000

    assert read == text


async def test_a_disk_that_takes_nothing_loses_no_result(actions: ActionRuntime) -> None:
    """When an artifact cannot be kept the call still counts, and says so."""
    actions.use_artifacts(FileArtifacts(Path("/dev/null/kept")))
    actions.register_action(action_id="dump", func=lambda: "x" * 100_000)
    record = await actions.async_execute_action("dump", {})
    assert record["status"] == "success" and record["artifact_refs"] == []
    assert record["diagnostics"][0]["code"] == "artifact_not_kept"


async def test_a_result_that_cannot_be_stored_is_described(actions: ActionRuntime) -> None:
    """A live object in a result is replaced by its description, and a diagnostic names its place."""

    class Handle:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    actions.register_action(action_id="it", func=lambda: {"rows": [1, Handle()]})
    record = await actions.async_execute_action("it", {})
    assert record["status"] == "success" and record["data"]["rows"][0] == 1
    assert record["data"]["rows"][1]["__repr__"] == "<repr failed: RuntimeError>"
    assert record["diagnostics"][0]["code"] == "not_storable" and "rows[1]" in record["diagnostics"][0]["message"]


async def test_policies_and_approval(actions: ActionRuntime) -> None:
    """Later policies win; an action that needs approval does not run without one, and not against one."""
    ran: list[str] = []
    actions.register_action(action_id="free", func=lambda: ran.append("free"))
    actions.register_action(action_id="asks", func=lambda: ran.append("asks"), approval_required=True)
    actions.settings["action.policy.global"] = {"approval_mode": "always"}
    record = await actions.async_execute_action("free", {})
    assert record["status"] == "approval_required" and record["approval"]["required"] and not ran
    assert (await actions.async_execute_action("free", {}, policy_override={"approval_mode": "auto"}))["ok"]
    actions.settings.clear()
    assert (await actions.async_execute_action("asks", {}))["status"] == "approval_required"
    denied = await actions.async_execute_action("asks", {}, approval={"approved": False, "reason": "too late"})
    assert (denied["status"], denied["error"]) == ("blocked", "action 'asks' was not approved: too late")
    assert (await actions.async_execute_action("asks", {}, approval=True))["ok"]
    assert ran == ["free", "asks"]


async def test_a_sandbox_is_not_optional(actions: ActionRuntime) -> None:
    """sandbox_required with an executor of this process is blocked."""
    actions.register_action(action_id="it", func=lambda: 1, sandbox_required=True)
    record = await actions.async_execute_action("it", {})
    assert record["status"] == "blocked" and "must run sandboxed" in record["error"]


async def test_what_an_action_knows_of_its_call(actions: ActionRuntime, world: World) -> None:
    """It gets its context as a parameter or from current_action(), and what it emits belongs to its run."""
    seen: list[Any] = []

    @actions.action_func
    def probe(context: ActionContext) -> None:
        seen.append((context, current_action()))
        world.center.emit({"event_type": "shop.looked", "source": "shop"})

    request = RunContext.create(run_kind="request")
    with run_scope(request):
        record = await actions.async_execute_action("probe", {})

    context, current = seen[0]
    assert context is current and context.action_call_id == record["action_call_id"]
    [started] = world.records("action.started")
    assert started.run is not None and started.run.run_kind == "action"
    assert started.run.parent_run_id == request.run_id
    [looked] = world.records("shop.looked")
    assert looked.run is not None and looked.run.run_id == started.run.run_id
    assert current_action() is None


async def test_a_tape_answers_in_place_of_the_world(world: World) -> None:
    """Calls go through the port ``action``, so a replay needs neither the function nor the environment."""

    class Tape(Ports):
        async def call(self, call: PortCall, fn: Any) -> Any:
            return f"{call.port}:{call.name}:{call.args}:{call.ordinal}"

    world.services.ports = Tape()
    actions = ActionRuntime(world.services)
    actions.register_action(action_id="it", func=lambda x: 1 / 0, execution_environments=[{"kind": "nowhere"}])
    assert await actions.async_call_action("it", {"x": 1}) == "action:it:({'x': 1},):0"
    assert await actions.async_call_action("it", {"x": 1}) == "action:it:({'x': 1},):1"


async def test_a_cancelled_call_says_so_and_is_cancelled(actions: ActionRuntime, world: World) -> None:
    """Cancelling the caller cancels the action; its run ends as failed."""

    async def waits() -> None:
        await asyncio.Event().wait()

    actions.register_action(action_id="waits", func=waits)
    call = asyncio.create_task(actions.async_execute_action("waits", {}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert world.types("action.") == ["action.started", "action.failed"]


def test_the_synchronous_twins(actions: ActionRuntime) -> None:
    """Without a loop, call_action and execute_action do the same."""
    actions.register_action(action_id="it", func=lambda x: x + 1)
    assert actions.call_action("it", {"x": 1}) == 2
    assert actions.execute_action("it", {"x": 1})["status"] == "success"


async def test_every_call_has_an_idempotency_key_of_its_own(actions: ActionRuntime, world: World) -> None:
    """Two actions in one chunk, and one called twice, never share a key: a receiver would drop the second payment."""
    keys: list[str] = []

    def charge(context: ActionContext) -> None:
        keys.append(context.idempotency_key)

    actions.action_func(charge)
    actions.register_action(action_id="refund", func=charge)

    async def pay(data: TriggerFlowRuntimeData) -> None:
        for name in ("charge", "refund", "refund"):
            await actions.async_execute_action(name, data=data)

    flow = TriggerFlow(name="f")
    flow.to(pay)
    execution = world.execution(flow, execution_id="o-1")
    await execution.async_start()
    await execution.async_close()
    assert keys == ["o-1:t1:charge", "o-1:t1:refund", "o-1:t1:refund:1"]
