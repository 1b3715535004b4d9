"""The manager declares, ensures, reuses, checks and releases; scenario A21."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from tests.execution.support import World

from flowdeck.actions import ActionRuntime
from flowdeck.actions.policy import planned_override
from flowdeck.environments import (
    ExecutionEnvironmentApprovalDenied,
    ExecutionEnvironmentApprovalRequired,
    ExecutionEnvironmentError,
    ExecutionEnvironmentManager,
    ExecutionEnvironmentRefused,
)
from flowdeck.errors import ActionDefinitionError
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio
FAMILY = "execution_environment."


class Bench:
    """A provider whose environments are lists of what happened to them."""

    kind = "bench"

    def __init__(self) -> None:
        self.made: list[list[str]] = []
        self.health: Any = "ready"
        self.problem: Exception | None = None
        self.policies: list[Mapping[str, Any]] = []

    async def async_ensure(self, *, requirement: Any, policy: Any, existing_handle: Any = None) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem

        self.policies.append(policy)
        self.made.append([])
        return {"resource": self.made[-1]}

    async def async_health_check(self, handle: Any) -> str:
        if isinstance(self.health, Exception):
            raise self.health

        return str(self.health)

    async def async_release(self, handle: Any) -> None:
        if self.problem is not None:
            raise self.problem

        handle["resource"].append("released")


@pytest.fixture
def bench(manager: ExecutionEnvironmentManager) -> Bench:
    made = Bench()
    manager.register_provider(made)
    return made


def happened(world: World) -> list[str]:
    return [each.removeprefix(FAMILY) for each in world.types(FAMILY)]


async def test_reuse_and_the_last_release(manager: ExecutionEnvironmentManager, bench: Bench, world: World) -> None:
    """A21: two ensures of one declared id give the same handle once; the first release is silent."""
    declared = manager.declare({"kind": "bench", "scope": "global"})
    first = await manager.async_ensure(declared["requirement_id"])
    second = await manager.async_ensure(declared["requirement_id"])
    assert first is second and first["ref_count"] == 2
    assert happened(world) == ["declared", "ensuring", "ready"]
    await manager.async_release(first)
    assert happened(world) == ["declared", "ensuring", "ready"] and bench.made == [[]]
    await manager.async_release(second)
    assert happened(world)[3:] == ["releasing", "released"] and bench.made == [["released"]]
    assert manager.list() == []


async def test_declaring_starts_nothing(manager: ExecutionEnvironmentManager, bench: Bench) -> None:
    """A declared requirement is complete, and lazy."""
    declared = manager.declare({"kind": "bench"})
    assert (declared["scope"], declared["owner_id"], declared["resource_key"]) == ("action_call", "Flowdeck", "bench")
    assert declared["requirement_id"].startswith("bench:") and manager.inspect(declared["requirement_id"]) == declared
    assert bench.made == []


@pytest.mark.parametrize(("health", "level"), [("sick", "INFO"), (OSError("gone"), "ERROR")])
async def test_an_unhealthy_handle_is_replaced(
    manager: ExecutionEnvironmentManager, bench: Bench, world: World, health: Any, level: str
) -> None:
    """A21: unhealthy, releasing, released, ensuring, ready; the level is ERROR when the check raised."""
    first = await manager.async_ensure({"kind": "bench"})
    bench.health = health
    second = await manager.async_ensure({"kind": "bench"})
    assert second is not first and second["resource"] is not first["resource"]
    assert happened(world)[2:] == ["unhealthy", "releasing", "released", "ensuring", "ready"]
    [record] = world.records(FAMILY + "unhealthy")
    assert record.level == level and ("error" in record.payload) == (level == "ERROR")


async def test_the_payload_of_its_events(manager: ExecutionEnvironmentManager, bench: Bench, world: World) -> None:
    """Always the same keys; handle_id is empty before ready."""
    handle = await manager.async_ensure({"kind": "bench", "scope": "agent", "owner_id": "ann"})
    ensuring, ready = world.payloads(FAMILY + "ensuring")[0], world.payloads(FAMILY + "ready")[0]
    keys = {"requirement_id", "handle_id", "kind", "scope", "owner_id", "resource_key", "status", "reuse_key"}
    assert set(ensuring) == set(ready) == keys
    assert (ensuring["handle_id"], ready["handle_id"], ready["status"]) == ("", handle["handle_id"], "ready")


async def test_simultaneous_ensures_make_one(manager: ExecutionEnvironmentManager, bench: Bench) -> None:
    """Twenty at once share one environment, also from another thread's loop."""
    wanted = {"kind": "bench", "scope": "global"}
    *handles, other = await asyncio.gather(
        *(manager.async_ensure(wanted) for _ in range(20)), asyncio.to_thread(manager.ensure, wanted)
    )
    assert len(bench.made) == 1 and handles[0]["ref_count"] == 21 and other is handles[0]


async def test_owners_do_not_share(manager: ExecutionEnvironmentManager, bench: Bench) -> None:
    """Another owner gets an environment of its own; release_scope ends one owner's only."""
    await manager.async_ensure({"kind": "bench"}, scope="session", owner_id="s-1")
    await manager.async_ensure({"kind": "bench"}, scope="session", owner_id="s-1")
    kept = await manager.async_ensure({"kind": "bench"}, scope="session", owner_id="s-2")
    await manager.async_release_scope("session", "s-1")
    assert [each["handle_id"] for each in manager.list()] == [kept["handle_id"]]
    assert len(manager.list(scope="session", owner_id="s-2", status="ready")) == 1


async def test_approval_comes_before_the_provider(
    manager: ExecutionEnvironmentManager, bench: Bench, world: World
) -> None:
    """Nobody to ask, a no, and a yes with another policy."""
    wanted = {"kind": "bench", "approval_required": True, "policy": {"timeout_seconds": 1}}
    with pytest.raises(ExecutionEnvironmentApprovalRequired) as missing:
        await manager.async_ensure(wanted)

    assert missing.value.code == "execution_environment.approval_required"
    assert missing.value.payload["policy"] == {"timeout_seconds": 1}
    manager.set_decision_handler(lambda requirement, policy: {"approved": False, "reason": "not on Sundays"})
    with pytest.raises(ExecutionEnvironmentApprovalDenied, match="not on Sundays"):
        await manager.async_ensure(wanted)

    assert happened(world) == ["approval_required"] * 2 and bench.made == []
    assert world.payloads(FAMILY + "approval_required")[0]["status"] == "pending_approval"

    async def decide(requirement: Any, policy: Any) -> Any:
        return {"approved": True, "policy_override": {"timeout_seconds": 9}}

    manager.set_decision_handler(decide)
    handle = await manager.async_ensure(wanted)
    assert handle["policy"] == {"timeout_seconds": 9} == bench.policies[0]


async def test_never_without_being_asked_passes(manager: ExecutionEnvironmentManager, bench: Bench) -> None:
    """approval_mode "never" denies what needs approval, and nothing else."""
    await manager.async_ensure({"kind": "bench", "policy": {"approval_mode": "never"}})
    with pytest.raises(ExecutionEnvironmentApprovalDenied):
        await manager.async_ensure(
            {"kind": "bench", "approval_required": True, "owner_id": "x", "policy": {"approval_mode": "never"}}
        )


async def test_what_cannot_be_had(manager: ExecutionEnvironmentManager, bench: Bench, world: World) -> None:
    """Unknown kinds and ids have stable errors; a provider's failure is its own and poisons nothing."""
    with pytest.raises(ExecutionEnvironmentError, match="of kind 'moon'; there are: bash, bench") as missing:
        await manager.async_ensure({"kind": "moon"})

    assert missing.value.code == "execution_environment.provider_missing"
    with pytest.raises(ValueError, match="no execution environment 'x' was declared"):
        await manager.async_ensure("x")

    with pytest.raises(ValueError, match="needs a kind"):
        manager.declare({"scope": "global"})

    with pytest.raises(ValueError, match="expected one of global, agent"):
        manager.declare({"kind": "bench", "scope": "galaxy"})

    with pytest.raises(TypeError, match="expected kind, async_ensure"):
        manager.register_provider(object())  # type: ignore[arg-type]

    bench.problem = OSError("no room")
    with pytest.raises(OSError, match="no room"):
        await manager.async_ensure({"kind": "bench"})

    assert happened(world)[-1] == "failed" and world.records(FAMILY + "failed")[-1].level == "ERROR"
    bench.problem = None
    handle = await manager.async_ensure({"kind": "bench"})
    bench.problem = OSError("stuck")
    await manager.async_release(handle)
    assert manager.list()[0]["status"] == "failed" and happened(world)[-1] == "failed"
    bench.problem = None


async def test_suffixes_of_a_providers_own(manager: ExecutionEnvironmentManager, world: World) -> None:
    """A provider may tell more than the manager does: the family is open."""
    manager.emit("image_pulled", manager.declare({"kind": "bench"}), layers=3)
    assert world.payloads(FAMILY + "image_pulled")[0]["layers"] == 3


async def test_an_action_has_its_environment(world: World, manager: ExecutionEnvironmentManager, bench: Bench) -> None:
    """Ensured before the call and released after it; the resource comes by its key, the events below the action."""
    actions = ActionRuntime(world.services, environments=manager)

    def use(what: str, bench: list[str]) -> int:
        bench.append(what)
        return len(bench)

    actions.register_action(action_id="use", func=use, execution_environments=[{"kind": "bench"}])
    assert await actions.async_call_action("use", {"what": "saw"}) == 1
    assert bench.made == [["saw", "released"]]
    action = world.records("action.started")[0].run
    assert {each.run for each in world.records(FAMILY + "ready")} == {action}


async def test_an_environment_that_needs_approval_makes_the_call_wait(
    world: World, manager: ExecutionEnvironmentManager, bench: Bench
) -> None:
    """The record says approval_required; as a step of a flow it pauses, and runs once approved."""
    actions = ActionRuntime(world.services, environments=manager)
    needs = [{"kind": "bench", "approval_required": True}]
    actions.register_action(action_id="use", func=lambda bench: "used", execution_environments=needs)
    record = await actions.async_execute_action("use", {})
    assert record["status"] == "approval_required" and bench.made == []
    flow = TriggerFlow(name="f")
    flow.to(("use", actions.step("use"))).to(("keep", lambda data: data.set_state("got", data.input["data"])))
    execution = world.execution(flow)
    await execution.async_start({})
    [interrupt_id] = execution.get_pending_interrupts()
    await execution.async_continue_with(interrupt_id, {"approved": True})
    assert (await execution.async_close())["got"] == "used"
    manager.set_decision_handler(lambda requirement, policy: False)
    assert (await actions.async_execute_action("use", {}))["status"] == "blocked"
    missing = actions.register_action(action_id="lost", func=lambda: 1, execution_environments=[{"kind": "moon"}])
    record = await actions.async_execute_action(missing.action_id, {})
    assert record["status"] == "error" and record["diagnostics"][0]["code"] == "execution_environment.provider_missing"


async def test_an_execution_has_its_environments_while_it_runs(
    world: World, manager: ExecutionEnvironmentManager, bench: Bench
) -> None:
    """create_execution(execution_environments=…): there at the start, gone after the close."""
    world.services.environments = manager
    flow = TriggerFlow(name="f")
    flow.to(lambda data: data.require_resource("tool").append("used"))
    execution = world.execution(flow, execution_environments=[{"kind": "bench", "resource_key": "tool"}])
    assert bench.made == []
    await execution.async_start()
    assert bench.made == [["used"]]
    [handle] = manager.list(scope="execution", owner_id=execution.id)
    assert handle["ref_count"] == 1
    await execution.async_close()
    assert bench.made == [["used", "released"]] and manager.list() == []
    assert "tool" not in execution.get_runtime_resources()


async def test_a_loaded_execution_gets_fresh_environments(
    world: World, manager: ExecutionEnvironmentManager, bench: Bench
) -> None:
    """What was saved has none; the flow's own are ensured again when it is taken up."""
    world.services.environments = manager
    flow = TriggerFlow(name="f")
    flow.execution_environments = [{"kind": "bench", "resource_key": "tool"}]
    flow.to(lambda data: data.pause_for(resume_to="next")).to(
        ("use", lambda data: data.require_resource("tool").append("used"))
    )
    execution = world.execution(flow)
    await execution.async_start()
    saved = execution.save()
    [interrupt_id] = execution.get_pending_interrupts()
    await execution.async_close(pending_interrupts="cancel")
    loaded = world.execution(flow).load(saved)
    await loaded.async_recover()
    await loaded.async_continue_with(interrupt_id)
    await loaded.async_close()
    assert bench.made == [["released"], ["used", "released"]] and manager.list() == []


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ({"network_mode": "none"}, "policy.network_mode='none': expected inherit, enabled, disabled"),
        ({"timeout_seconds": "5"}, "policy.timeout_seconds='5': expected seconds, more than 0"),
        ({"timeout_seconds": float("inf")}, "expected seconds"),
        ({"max_output_bytes": 0}, "expected a whole number, more than 0"),
        ({"read_only": "yes"}, "policy.read_only='yes': expected True or False"),
        ({"allowed_cmd_prefixes": [""]}, "expected a list of texts, none empty"),
        ({"workspace_roots": 3}, "policy.workspace_roots=3: expected a list of texts"),
    ],
)
def test_a_policy_that_cannot_be_meant(manager: ExecutionEnvironmentManager, policy: Any, problem: str) -> None:
    """A value of the wrong type is refused where it is declared, by key."""
    with pytest.raises(ActionDefinitionError, match=problem):
        manager.declare({"kind": "python", "requirement_id": "py:1", "policy": policy})


async def test_a_restriction_is_enforced_or_refused(
    manager: ExecutionEnvironmentManager, bench: Bench, world: World
) -> None:
    """No provider starts under a policy it would ignore, whether the key is one of all providers or misspelt."""
    bench.policy_keys = frozenset({"read_only"})  # type: ignore[attr-defined]
    open_ones = {"network_mode": "enabled", "allow_delete": True, "read_only": True, "auto_release": True}
    await manager.async_ensure({"kind": "bench", "policy": open_ones})
    for policy in ({"network_mode": "disabled"}, {"allow_delete": False}, {"max_output_byte": 3}):
        [key] = policy
        with pytest.raises(ExecutionEnvironmentRefused, match=f"'bench' cannot enforce policy {key}=") as refused:
            await manager.async_ensure({"kind": "bench", "policy": policy})

        assert refused.value.code == "execution_environment.policy_not_enforced"
        assert world.payloads(FAMILY + "failed")[-1]["status"] == "failed"

    assert len(bench.made) == 1
    for kind, policy in (("python", {"read_only": True}), ("shell", {"allow_create": False})):
        with pytest.raises(ExecutionEnvironmentRefused, match=f"kind '{kind}' cannot enforce"):
            await manager.async_ensure({"kind": kind, "policy": policy})


async def test_no_one_gets_an_environment_of_another_policy(manager: ExecutionEnvironmentManager, bench: Bench) -> None:
    """Same kind, scope and owner, other policy: another environment, and each is found again by its own."""
    lax, strict = ({"kind": "bench", "scope": "global", "policy": {"read_only": each}} for each in (False, True))
    first, second = await manager.async_ensure(lax), await manager.async_ensure(strict)
    assert first is not second and [first["policy"], second["policy"]] == bench.policies
    assert await manager.async_ensure(lax) is first and await manager.async_ensure(strict) is second


async def test_the_policy_of_a_call_reaches_its_environment(
    world: World, manager: ExecutionEnvironmentManager, bench: Bench
) -> None:
    """It goes over the requirement's; a planner's part of it can only make it stricter."""
    actions = ActionRuntime(world.services, environments=manager)
    needs = [{"kind": "bench", "scope": "session", "policy": {"max_rows": 3, "auto_release": False}}]
    actions.register_action(action_id="use", func=lambda: 1, execution_environments=needs)
    override = {"network_mode": "disabled", "purpose": "x"}
    assert await actions.async_call_action("use", {}, policy_override=override) == 1
    assert bench.policies == [{"max_rows": 3, "auto_release": False, "network_mode": "disabled"}]
    assert await actions.async_call_action("use", {}, policy_override=override) == 1
    assert bench.made == [[]]  # auto_release=False: it stayed for the second call
    planned = {"approval_mode": "auto", "network_mode": "disabled", "timeout_seconds": 9e9, "read_only": False}
    assert planned_override(planned) == {"network_mode": "disabled"}
    await manager.async_release_scope("session", manager.list(scope="session")[0]["owner_id"])
    assert bench.made == [["released"]]


async def test_a_cancelled_call_gives_all_its_environments_back(
    world: World, manager: ExecutionEnvironmentManager, bench: Bench
) -> None:
    """Cancelled again while it gives back, it still gives back the rest."""
    actions = ActionRuntime(world.services, environments=manager)
    started, going, all_back = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def use() -> None:
        started.set()
        await asyncio.Event().wait()

    async def slow_release(handle: Any) -> None:
        going.set()
        await asyncio.sleep(0.01)
        handle["resource"].append("released")
        if bench.made == [["released"]] * 3:
            all_back.set()

    bench.async_release = slow_release  # type: ignore[method-assign]
    needs = [{"kind": "bench", "resource_key": key} for key in ("a", "b", "c")]
    actions.register_action(action_id="use", func=use, execution_environments=needs)
    call = asyncio.create_task(actions.async_execute_action("use"))
    await started.wait()
    call.cancel()
    await going.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    await asyncio.wait_for(all_back.wait(), 5)
    assert bench.made == [["released"]] * 3


async def test_a_provider_that_hangs_holds_up_nobody(
    world: World, manager: ExecutionEnvironmentManager, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that never ends is given up; the call it belongs to has its result, and the handle is listed failed."""
    monkeypatch.setattr("flowdeck.environments.manager.RELEASE_SECONDS", 0.02)

    async def hang(handle: Any) -> None:
        await asyncio.Event().wait()

    bench.async_release = hang  # type: ignore[method-assign]
    actions = ActionRuntime(world.services, environments=manager)
    actions.register_action(action_id="use", func=lambda: "used", execution_environments=[{"kind": "bench"}])
    assert await actions.async_call_action("use") == "used"
    assert [handle["status"] for handle in manager.list()] == ["failed"]
    assert "TimeoutError" in world.payloads(FAMILY + "failed")[0]["error"]
    del bench.async_release  # type: ignore[method-assign]
