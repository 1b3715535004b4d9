"""Mode ``auto``: pending interventions become visible before the operator that is their target."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from tests.execution.support import Data, World, passes, turns, until

from flowdeck.errors import DefinitionError, InterventionPolicyError, InterventionTargetWarning
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::flowdeck.errors.InterventionTargetWarning")]


def look(seen: dict[str, Any], name: str, result: Any = None) -> tuple[str, Any]:
    """Return a chunk that writes down which payloads it sees."""

    def see(data: Data) -> Any:
        seen.setdefault(name, []).append([item["payload"] for item in data.interventions])
        return data.input if result is None else result

    return (name, see)


def inserted_at(execution: TriggerFlowExecution) -> dict[Any, Any]:
    return {i["payload"]: i["insertion"] and i["insertion"]["operator_kind"] for i in execution.get_interventions()}


async def test_scenario_a19(world: World) -> None:
    """Untargeted and kind-targeted items enter before the first chunk, the named one before its own."""
    seen: dict[str, Any] = {}
    flow = TriggerFlow(name="a19")
    flow.to(look(seen, "c1")).to(look(seen, "c2"))
    execution = world.execution(flow, intervention_mode="auto")
    for payload, target in (("free", None), ("named", "c2"), ("kind", "chunk"), ("lost", "nope")):
        await execution.async_intervene(payload, target=target)

    await execution.async_start()
    await execution.async_close()
    assert seen == {"c1": [["free", "kind"]], "c2": [["free", "named", "kind"]]}
    assert [i["status"] for i in execution.result.get_interventions()] == [*["inserted"] * 3, "expired"]
    assert execution.get_latest_intervention(status="inserted")["insertion"]["policy"] == "builtin"


async def test_a_flow_may_say_that_its_runs_are_auto(world: World) -> None:
    """So hosts that create executions without options take interventions, too; an execution's own word counts more."""
    seen: dict[str, Any] = {}
    flow = TriggerFlow(name="f")
    flow.to(look(seen, "c1"))
    flow.intervention_mode = "auto"
    execution = world.execution(flow)
    await execution.async_intervene("free")
    await execution.async_start()
    assert seen == {"c1": [["free"]]}
    assert world.execution(flow, intervention_mode=None).intervention_mode is None


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("for_each_split", "for_each_split"),
        ("for_each", "for_each_split"),
        ("for_each_collect", "for_each_collect"),
        ("batch_fanout", "batch_fanout"),
        ("batch", "batch_fanout"),
        ("batch_collect", "batch_collect"),
        ("match_route", "match_route"),
        ("match", "match_route"),
        ("match_collect", "match_collect"),
        ("signal_gate", "signal_gate"),
        ("collect_branch", "collect_branch"),
        ("collect", "collect_branch"),
        ("sub_flow", "sub_flow"),
    ],
)
async def test_an_operator_of_any_kind_takes_what_is_aimed_at_its_kind_or_block(
    world: World, target: str, kind: str
) -> None:
    """It is inserted right before that operator is reached, and the flow's result is the same as without."""
    child = TriggerFlow(name="child")
    child.to(("inside", lambda data: data.set_state("$final_result", data.input)))

    def declare() -> TriggerFlow:
        flow = TriggerFlow(name="kinds")
        (
            flow.to(passes("items", lambda _: [1, 2]))
            .for_each(concurrency=1, name="each")
            .to(passes("double", lambda v: v * 2))
            .end_for_each()
            .batch(passes("sum", sum), passes("len", len), name="both")
            .match(mode="hit_all", name="which")
            .case(lambda data: True)
            .to(passes("arm"))
            .end_match()
            .to_sub_flow(child)
            .collect("meet", "left")
            .to(("keep", lambda data: data.set_state("collected", data.input)))
        )
        flow.to(passes("other")).collect("meet", "right")
        flow.when({"event": ["A", "B"]}).to(("gate", lambda data: data.set_state("gated", data.input)))
        return flow

    async def run(**options: Any) -> tuple[dict[str, Any], TriggerFlowExecution]:
        execution = world.execution(declare(), **options)
        if options:
            await execution.async_intervene("note", target=target)

        await execution.async_start("in")
        await execution.async_emit("A", 1)
        await execution.async_emit("B", 2)
        return await execution.async_close(), execution

    plain, _ = await run()
    steered, execution = await run(intervention_mode="auto")
    assert inserted_at(execution) == {"note": kind}
    del steered["$interventions"]
    assert steered == plain
    assert plain["collected"] == {"left": [{"sum": 6, "len": 2}], "right": "in"}
    assert plain["gated"] == {"event": {"A": 1, "B": 2}}


async def test_a_target_can_be_an_operators_id(world: World) -> None:
    """Ids are what ``definition_declared`` and the events carry."""
    seen: dict[str, Any] = {}
    flow = TriggerFlow(name="ids")
    flow.to(look(seen, "c1")).to(look(seen, "c2"))
    wanted = next(op.id for op in flow.operators() if op.name == "c2")
    execution = world.execution(flow, intervention_mode="auto")
    await execution.async_intervene("note", target=wanted)
    await execution.async_start()
    await execution.async_close()
    assert seen == {"c1": [[]], "c2": [["note"]]}


async def test_what_comes_while_a_chunk_runs_is_seen_by_the_next(world: World) -> None:
    """The safe boundary is the dispatch of the next chunk, not the moment of arrival."""
    seen: dict[str, Any] = {}
    begun, go = asyncio.Event(), asyncio.Event()
    flow = TriggerFlow(name="live")

    async def slow(data: Data) -> None:
        begun.set()
        await go.wait()
        seen["slow"] = [item["payload"] for item in data.interventions]

    flow.to(("slow", slow)).to(look(seen, "next"))
    execution = world.execution(flow, intervention_mode="auto")
    start = asyncio.create_task(execution.async_start())
    await begun.wait()
    await execution.async_intervene("meanwhile")
    go.set()
    await start
    await execution.async_close()
    assert seen == {"slow": [], "next": [["meanwhile"]]}


async def test_conditions_see_what_chunks_see(world: World) -> None:
    """A condition may decide by an intervention aimed at its match."""
    flow = TriggerFlow(name="condition")
    (
        flow.match(name="route")
        .case(lambda data: data.get_latest_intervention({"payload": None})["payload"] == "escalate")
        .to(("up", lambda data: data.set_state("went", "up")))
        .case_else()
        .to(("down", lambda data: data.set_state("went", "down")))
        .end_match()
    )
    for payload, went in (("escalate", "up"), ("nothing", "down")):
        execution = world.execution(flow, intervention_mode="auto")
        await execution.async_intervene(payload, target="route")
        await execution.async_start()
        assert (await execution.async_close())["went"] == went


async def test_a_retry_sees_what_came_meanwhile(world: World) -> None:
    """An attempt is a fresh run: its view is new."""
    from flowdeck import Retry

    views: list[int] = []
    flow = TriggerFlow(name="retry")

    async def fails_once(data: Data) -> None:
        views.append(len(data.interventions))
        if len(views) == 1:
            await data.execution.async_intervene("hint")
            raise ValueError("again")

    flow.to(("work", fails_once), retry=Retry(attempts=2, backoff=0))
    execution = world.execution(flow, intervention_mode="auto")
    await execution.async_start()
    await execution.async_close()
    assert views == [0, 1]


class TestPolicy:
    async def test_a_policy_gets_everything_to_decide_by_and_may_be_async(self, world: World) -> None:
        """It is asked before every operator while something is pending, and selects by id."""
        asked: list[dict[str, Any]] = []
        seen: dict[str, Any] = {}

        async def second_only(context: dict[str, Any]) -> Any:
            asked.append(context)
            await asyncio.sleep(0)
            if context["operator_name"] == "c2":
                return [item["id"] for item in context["pending_interventions"]]

            return None

        flow = TriggerFlow(name="asked")
        flow.to(look(seen, "c1", [1])).for_each(name="each").to(look(seen, "c2")).end_for_each().to(look(seen, "c3"))
        execution = world.execution(flow, intervention_mode="auto", intervention_policy=second_only)
        await execution.async_set_state("k", {"v": 1})
        item = await execution.async_intervene("note", target="anything")
        await execution.async_start("T")
        await execution.async_close()
        assert seen == {"c1": [[]], "c2": [["note"]], "c3": [["note"]]}
        assert [context["operator_kind"] for context in asked] == ["chunk", "for_each_split", "chunk"]
        first = asked[0]
        assert set(first) >= {
            "execution_id", "flow_name", "signal", "operator", "operator_id", "operator_name", "operator_kind",
            "group_id", "group_kind", "pending_interventions", "state", "latest_inserted_version",
        }  # fmt: skip
        assert (first["flow_name"], first["execution_id"]) == ("asked", execution.id)
        assert (first["signal"]["trigger_event"], first["signal"]["value"]) == ("START", "T")
        assert first["state"]["k"] == {"v": 1}
        assert (first["group_kind"], asked[1]["group_kind"]) == (None, "for_each")
        assert [each["id"] for each in first["pending_interventions"]] == [item["id"]]
        assert execution.get_intervention(item["id"])["insertion"]["policy"] == "second_only"  # type: ignore[index]

    async def test_a_policy_makes_the_mode_auto(self, world: World) -> None:
        """Without a mode, a policy can only mean ``auto``; with another mode it is refused."""
        flow = TriggerFlow(name="infer")
        flow.to(passes("a"))
        policy = lambda context: None  # noqa: E731
        assert world.execution(flow, intervention_policy=policy).intervention_mode == "auto"
        for mode in (None, "planned"):
            with pytest.raises(DefinitionError, match="intervention_policy"):
                world.execution(flow, intervention_mode=mode, intervention_policy=policy)

        with pytest.raises(TypeError, match="callable"):
            world.execution(flow, intervention_policy="builtin")

        with pytest.raises(ValueError, match='"planned", "auto" or None'):
            world.execution(flow, intervention_mode="always")

    async def test_a_policy_that_raises_is_told_and_the_flow_goes_on(self, world: World) -> None:
        """The items stay pending; the event names the policy and the operator and carries the error."""

        def broken(context: dict[str, Any]) -> Any:
            raise KeyError("no such rule")

        seen: dict[str, Any] = {}
        flow = TriggerFlow(name="broken")
        flow.to(look(seen, "c1"))
        execution = world.execution(flow, intervention_mode="auto", intervention_policy=broken)
        item = await execution.async_intervene("note")
        with pytest.warns(RuntimeWarning, match="'broken' raised before 'c1'"):
            await execution.async_start()

        assert seen == {"c1": [[]]}
        assert execution.get_status() == "running"
        assert execution.get_intervention(item["id"])["status"] == "pending"  # type: ignore[index]
        (record,) = world.records("triggerflow.intervention_rejected")
        assert record.level == "WARNING"
        assert record.payload["operator_id"] == flow.operators()[0].id
        assert record.payload["policy"] == "broken"
        assert isinstance(record.error, InterventionPolicyError) or "InterventionPolicyError" in str(record.error)
        await execution.async_close()

    @pytest.mark.parametrize("strange", [["nobody"], [7], 7, {"id": "x"}, "nobody", b"bytes", True])
    async def test_a_policy_that_selects_what_is_not_there_is_told(self, world: World, strange: Any) -> None:
        """What it names besides is inserted all the same."""
        flow = TriggerFlow(name="strange")
        flow.to(passes("c1"))

        def policy(context: dict[str, Any]) -> Any:
            known = [item["id"] for item in context["pending_interventions"]]
            return [*known, *strange] if isinstance(strange, list) else strange

        execution = world.execution(flow, intervention_mode="auto", intervention_policy=policy)
        item = await execution.async_intervene("note")
        with pytest.warns(RuntimeWarning, match="selected what is not there"):
            await execution.async_start()

        status = execution.get_intervention(item["id"])["status"]  # type: ignore[index]
        assert status == ("inserted" if isinstance(strange, list) else "pending")
        (payload,) = world.payloads("triggerflow.intervention_rejected")
        assert len(payload["intervention_ids"]) == 1
        await execution.async_close()

    async def test_a_policy_that_never_stops_selecting_is_told(self, world: World) -> None:
        """The event loop goes on; the pending item it named is inserted once."""
        seen: dict[str, Any] = {}
        flow = TriggerFlow(name="endless")
        flow.to(look(seen, "c1"))
        execution = world.execution(
            flow, intervention_policy=lambda context: itertools.repeat(context["pending_interventions"][0]["id"])
        )
        await execution.async_intervene("note")
        with pytest.warns(RuntimeWarning, match="selected what is not there before 'c1': more than 101 ids"):
            await execution.async_start()

        assert seen == {"c1": [["note"]]}
        await execution.async_close()

    async def test_a_policy_whose_own_task_was_cancelled_is_told_too(self, world: World) -> None:
        """That is no cancellation of the run, and neither is an iterable that raises while it is read."""

        async def cancelled(context: dict[str, Any]) -> None:
            raise asyncio.CancelledError

        def halfway(context: dict[str, Any]) -> Any:
            yield context["pending_interventions"][0]["id"]
            raise LookupError("no more")

        for policy in (cancelled, halfway):
            seen: dict[str, Any] = {}
            flow = TriggerFlow(name="inner")
            flow.to(look(seen, "c1"))
            execution = world.execution(flow, intervention_policy=policy)
            await execution.async_intervene("note")
            with pytest.warns(RuntimeWarning, match="raised before 'c1'"):
                await execution.async_start()

            assert seen == {"c1": [[]]}
            await execution.async_close()
            assert execution.get_status() == "completed"

    async def test_two_branches_that_select_one_item_insert_it_once(self, world: World) -> None:
        """The second finds it inserted already; that is no mistake of the policy's."""
        seen: dict[str, Any] = {}

        async def everything(context: dict[str, Any]) -> list[str]:
            await turns(3)
            return [item["id"] for item in context["pending_interventions"]]

        flow = TriggerFlow(name="two")
        flow.to(look(seen, "a"))
        flow.to(look(seen, "b"))
        execution = world.execution(flow, intervention_mode="auto", intervention_policy=everything)
        await execution.async_intervene("note")
        await execution.async_start()
        await execution.async_close()
        assert len(world.payloads("triggerflow.intervention_inserted")) == 1
        assert world.payloads("triggerflow.intervention_rejected") == []
        assert seen == {"a": [["note"]], "b": [["note"]]}

    async def test_context_variables_a_policy_sets_do_not_reach_the_chunk(self, world: World) -> None:
        """Sync or async."""
        from contextvars import ContextVar

        variable: ContextVar[str] = ContextVar("variable", default="outside")
        values: list[str] = []

        async def slow(context: dict[str, Any]) -> None:
            variable.set("policy")

        def quick(context: dict[str, Any]) -> None:
            variable.set("policy")

        flow = TriggerFlow(name="variables")
        flow.to(("c1", lambda data: values.append(variable.get())))
        for policy in (slow, quick):
            execution = world.execution(flow, intervention_mode="auto", intervention_policy=policy)
            await execution.async_intervene("note")
            await execution.async_start()
            await execution.async_close()

        assert values == ["outside", "outside"]

    async def test_a_run_cancelled_while_its_policy_is_asked_ends(self, world: World) -> None:
        """The chunk behind it never runs, and nothing is left behind."""
        asked = asyncio.Event()
        seen: dict[str, Any] = {}

        async def stuck(context: dict[str, Any]) -> None:
            asked.set()
            await asyncio.Event().wait()

        flow = TriggerFlow(name="stuck")
        flow.to(look(seen, "c1"))
        execution = world.execution(flow, intervention_mode="auto", intervention_policy=stuck)
        item = await execution.async_intervene("note")
        start = asyncio.create_task(execution.async_start())
        await asked.wait()
        await execution.async_cancel(reason="enough")
        await until(start.done, "the start")
        assert seen == {}
        assert execution.get_status() == "cancelled"
        assert execution.get_intervention(item["id"])["status"] == "expired"  # type: ignore[index]

    async def test_a_caller_that_gives_up_while_the_policy_is_asked_stops_the_branch(self, world: World) -> None:
        """As it stops a handler."""
        asked = asyncio.Event()

        async def stuck(context: dict[str, Any]) -> None:
            asked.set()
            await asyncio.Event().wait()

        flow = TriggerFlow(name="left")
        flow.to(passes("c1"))
        execution = world.execution(flow, intervention_mode="auto", intervention_policy=stuck)
        await execution.async_intervene("note")
        start = asyncio.create_task(execution.async_start())
        await asked.wait()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

        await until(execution.is_idle, "idleness")
        await execution.async_close()


async def test_a_target_no_operator_has_is_warned_of(world: World) -> None:
    """It is recorded all the same, and expires."""
    flow = TriggerFlow(name="warned")
    flow.to(passes("c1"))
    execution = world.execution(flow, intervention_mode="auto")
    with pytest.warns(InterventionTargetWarning, match="'c2' as its id, name, kind or block"):
        await execution.async_intervene("note", target="c2")


async def test_a_policy_of_ones_own_may_take_any_target(world: World) -> None:
    """So nothing is warned of."""
    flow = TriggerFlow(name="free")
    flow.to(passes("c1"))
    execution = world.execution(flow, intervention_policy=lambda context: None)
    await execution.async_intervene("note", target="whatever it means")


async def test_concurrency_limits_hold_while_operators_are_asked_about(world: World) -> None:
    """Fan-outs and joins that wait for their turn neither run more at once nor lose a member."""
    running = peak = 0

    async def work(data: Data) -> Any:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await turns(3)
        running -= 1
        return data.input

    flow = TriggerFlow(name="limited")
    flow.for_each(concurrency=2, name="each").to(("work", work)).end_for_each().to(
        ("keep", lambda data: data.set_state("all", data.input))
    )
    execution = world.execution(flow, intervention_mode="auto", concurrency=3)
    await execution.async_intervene("stays", target="nope")
    await execution.async_start(list(range(7)))
    snapshot = await execution.async_close()
    assert (snapshot["all"], peak) == (list(range(7)), 2)


async def test_a_generator_reaches_its_for_each(world: World) -> None:
    """Asked about first, then drawn out."""
    flow = TriggerFlow(name="generator")
    flow.to(("make", lambda data: (n for n in range(3)))).for_each(name="each").to(
        passes("x", lambda v: v * 2)
    ).end_for_each().to(("keep", lambda data: data.set_state("all", data.input)))
    execution = world.execution(flow, intervention_mode="auto")
    await execution.async_intervene("note", target="each")
    await execution.async_start()
    snapshot = await execution.async_close()
    assert snapshot["all"] == [0, 2, 4]
    assert inserted_at(execution) == {"note": "for_each_split"}
