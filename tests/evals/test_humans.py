"""People and interventions from a script: rules, queues, declining, virtual time, and what never happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from flowdeck import TriggerFlow, TriggerFlowRuntimeData
from flowdeck_evals import Case, Suite
from flowdeck_evals.plans import Missing
from flowdeck_evals.rounds import Finding
from flowdeck_evals.single import Single, record_live, replay_tape
from flowdeck_evals.virtual_time import JumpingClock

HOUR = 3600.0


def asking(
    *, number: int = 1, schema: Any = None, expires_in: float | None = None, on_expire: Any = "cancel"
) -> TriggerFlow:
    """Return a flow that asks ``number`` questions in parallel and keeps the answers and the time each took."""
    flow = TriggerFlow(name="asking")

    async def split(data: TriggerFlowRuntimeData) -> list[int]:
        return list(range(number))

    async def ask(data: TriggerFlowRuntimeData) -> Any:
        await data.async_set_state(f"asked.{data.input}", data.now())
        return await data.async_pause_for(
            type="approve",
            payload={"amount": data.input * 100, "who": f"c{data.input}"},
            schema=schema,
            expires_in=expires_in,
            on_expire=on_expire,
        )

    async def keep(data: TriggerFlowRuntimeData) -> None:
        interrupt = data.resume.interrupt or {}
        number = interrupt["payload"]["amount"] // 100
        took = data.now() - data.get_state(f"asked.{number}")
        await data.async_set_state(f"told.{number}", [data.input, interrupt.get("actor"), round(took)])

    flow.to(split).for_each().to(ask).to(keep).end_for_each()
    return flow


def run(flow: TriggerFlow, human: Sequence[Mapping[str, Any]] = (), **options: Any) -> Single:
    """Run it with these people, at level live."""
    return asyncio.run(record_live(flow, None, human=human, timeout=20.0, **options))


def told(single: Single) -> Any:
    return (single.evidence.output or {}).get("told")


def failed(single: Single) -> list[str]:
    return [each.message for each in single.findings if each.kind == "failed"]


def test_the_first_rule_that_matches_answers() -> None:
    """Rules are tried in file order by kind, scope and payload; ``times`` uses one up; answers quote the payload."""
    single = run(
        asking(number=4),
        [
            {"on": "approve for_each[3]/*", "answer": "third", "by": "carol"},
            {"on": "approve *", "where": {"amount": {"ge": 100}}, "answer": {"for": "${payload.who}"}, "times": 1},
            {"on": "approve", "answer": "small ${payload.amount}"},
        ],
    )
    assert told(single) == {
        "0": ["small 0", "rule:3", 0],
        "1": [{"for": "c1"}, "rule:2", 0],
        "2": ["small 200", "rule:3", 0],
        "3": ["third", "carol", 0],
    }
    assert single.findings == []


def test_a_queue_gives_one_answer_each() -> None:
    """The second question gets the second answer; a third finds nobody, and what is left over is said."""
    assert told(run(asking(number=2), [{"on": "approve", "answers": ["yes", "no"]}])) == {
        "0": ["yes", "rule:1", 0],
        "1": ["no", "rule:1", 0],
    }
    short = run(asking(number=2), [{"on": "approve", "answers": ["yes"]}])
    assert failed(short) == ["no human rule answers interrupt 'approve' at for_each[1]/ask"]
    long = run(asking(number=1), [{"on": "approve", "answers": ["yes", "no"]}])
    assert [each.message for each in long.findings] == ["human rule 1 (on: approve) has 1 answers left over"]


def test_delays_pass_on_virtual_time() -> None:
    """Answers after two hours and after one arrive in that order and at that time, at once."""
    began = time.monotonic()
    single = run(
        asking(number=2),
        [
            {"on": "approve", "where": {"amount": 0}, "answer": "late", "delay": 2 * HOUR},
            {"on": "approve", "answer": "early", "delay": HOUR},
        ],
    )
    assert told(single) == {"0": ["late", "rule:1", 7200], "1": ["early", "rule:2", 3600]}
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(("most", "state"), [(3 * HOUR, "passed"), (HOUR, "failed")])
def test_a_trajectory_may_be_timed_on_virtual_time(most: float, state: str) -> None:
    """``within … clock: virtual`` counts the two hours that no wall clock saw."""
    clause = {"within": {"from": "interrupt.open *", "to": "run.end", "at_most": most, "clock": "virtual"}}
    human = ({"on": "approve", "answer": "late", "delay": 2 * HOUR},)
    case = Case(id="a", input=None, human=human, expect={"path": [clause]})
    assert Suite("s", asking(), (case,)).run_sync().outcomes[0].state == state


def test_a_clock_that_goes_live_jumps_no_more() -> None:
    """Before, an hour costs nothing; after, sleeps take real time, also those that had begun."""

    async def sleeps() -> tuple[float, float]:
        clock = JumpingClock(0)
        await clock.sleep(HOUR)
        with clock.busy():
            begun = asyncio.ensure_future(clock.sleep(0.02))
            await asyncio.sleep(0)
            clock.go_live()

        before = time.monotonic()
        await clock.sleep(0.02)
        await begun
        return clock.time_us() / 1e6, time.monotonic() - before

    told, took = asyncio.run(sleeps())
    assert took >= 0.02
    assert HOUR + 0.02 <= told < HOUR + 60


@pytest.mark.parametrize(
    ("rule", "on_expire", "expected"),
    [
        ({"on": "approve", "timeout": True}, {"value": "nobody"}, ["nobody", None, 86400]),
        ({"on": "approve", "decline": True}, {"value": "nobody"}, ["nobody", None, 0]),
        ({"on": "approve", "decline": True}, "cancel", None),
    ],
)
def test_timing_out_and_declining(rule: Mapping[str, Any], on_expire: Any, expected: Any) -> None:
    """A timeout waits for the expiry on virtual time; declining ends the question at once, the same way."""
    single = run(asking(expires_in=24 * HOUR, on_expire=on_expire), [rule])
    assert (told(single) or {}).get("0") == expected
    assert single.findings == []


def test_what_never_expires_cannot_time_out() -> None:
    """It is said, and the run ends instead of waiting for ever."""
    assert failed(run(asking(), [{"on": "approve", "timeout": True}])) == [
        "interrupt 'approve' shall time out, but it never expires at for_each[0]/ask"
    ]


@pytest.mark.parametrize(("otherwise", "left"), [("decline", []), ("fail", ["no human rule answers"])])
def test_otherwise(otherwise: str, left: list[str]) -> None:
    """What no rule matches is declined or fails, as the script says."""
    single = run(asking(), [{"on": "else", "answer": 1}, {"otherwise": otherwise}])
    assert [message[:21] for message in failed(single)] == left


def test_an_answer_must_fit_its_schema() -> None:
    """A script that answers what a person could not is refused before it is delivered."""
    (message,) = failed(run(asking(schema={"type": "integer"}), [{"on": "approve", "answer": "text"}]))
    assert "the answer of rule 1 (on: approve) does not fit the schema of 'approve'" in message


def test_a_rule_that_never_answered() -> None:
    """It is a warning, and a failure where it must be used."""
    single = run(
        asking(),
        [{"on": "approve", "answer": 1}, {"on": "else", "answer": 1}, {"on": "x", "answer": 1, "must_use": True}],
    )
    assert [(each.kind, each.message) for each in single.findings] == [
        ("warning", "human rule 2 (on: else) was never used"),
        ("failed", "human rule 3 (on: x) was never used"),
    ]


def test_a_script_replaces_the_people_of_a_tape() -> None:
    """Never both: with rules the tape's answers are not used."""
    from flowdeck_evals.hosting import Place
    from flowdeck_evals.planning import ReplayPlan

    tape = run(asking(), [{"on": "approve", "answer": "then", "by": "ada"}]).tape
    plan = ReplayPlan(tape, human=[{"on": "approve", "answer": "now", "by": "bob"}])
    evidence = asyncio.run(Place().run(asking(), None, plan, timeout=20.0))
    assert evidence.output["told"]["0"][:2] == ["now", "bob"]
    assert [each for each in plan.finish(evidence) if each.kind != "warning"] == []
    assert told(asyncio.run(replay_tape(tape, asking())))["0"][:2] == ["then", "ada"]


# -- interventions ---------------------------------------------------------------------------------------------------


def working() -> TriggerFlow:
    """Return a flow that makes three calls in a row, then keeps the state it finds."""
    flow = TriggerFlow(name="working")

    async def call(data: TriggerFlowRuntimeData) -> Any:
        return [await data.call("tool", name, lambda: "real") for name in ("a", "b", "a")]

    async def keep(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("seen", {"calls": data.input, "note": data.get_state("note")})

    async def react(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("signalled", data.input)

    flow.to(call).to(keep)
    flow.when("Nudge").to(react)
    return flow


def steer(*interventions: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding], Single]:
    """Run :func:`working` under interventions."""
    single = asyncio.run(record_live(working(), None, intervene=interventions, timeout=20.0))
    return single.evidence.output or {}, single.findings, single


def test_an_intervention_waits_for_its_event_and_place() -> None:
    """State is set at the second call of a.* in its scope, before that call goes out."""
    output, findings, _ = steer(
        {"at": {"event": "call.start tool.a", "nth": 2}, "do": {"set": {"path": "note", "value": "x"}}}
    )
    assert output["seen"]["note"] == "x"
    assert findings == []


def test_signals_reach_the_flow() -> None:
    """A signal is emitted into the run."""
    output, findings, _ = steer({"at": "call.done tool.b", "do": {"signal": {"event": "Nudge", "value": 7}}})
    assert output["signalled"] == 7
    assert findings == []


def test_a_call_can_be_failed_or_answered() -> None:
    """The call that begins gives the error or value of the intervention; others are real."""
    output, _, _ = steer({"at": {"event": "call.start tool.*", "nth": 2}, "do": {"replace_output": "fake"}})
    assert output["seen"]["calls"] == ["real", "fake", "real"]
    _, _, single = steer({"at": "call.start tool.b", "do": {"fail_call": "TimeoutError: too slow"}})
    assert (single.evidence.error_type, single.evidence.error_message) == ("TimeoutError", "too slow")


def test_a_stream_can_be_failed_or_answered() -> None:
    """What begins as a stream of chunks obeys interventions like any call."""
    flow = TriggerFlow(name="streaming")

    async def tokens() -> AsyncIterator[str]:
        yield "real"

    async def say(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("said", [token async for token in data.call_stream("model", "say", tokens)])

    flow.to(say)
    at = "call.start model.say"
    answered = asyncio.run(record_live(flow, None, intervene=[{"at": at, "do": {"replace_output": ["a", "b"]}}]))
    assert answered.evidence.output == {"said": ["a", "b"]}
    broken = asyncio.run(record_live(flow, None, intervene=[{"at": at, "do": {"fail_call": "TimeoutError: slow"}}]))
    assert broken.evidence.error_type == "TimeoutError"


def test_cancelling_ends_the_run_once() -> None:
    """After a cancel there is exactly one terminal event, and the last event is the end."""
    _, _, single = steer({"at": "call.start tool.b", "do": "cancel"})
    kinds = [each.kind for each in single.tape.events]
    assert [kind for kind in kinds if kind in ("run.completed", "run.failed", "run.cancelled")] == ["run.cancelled"]
    assert kinds[-1] == "run.end"


def test_one_that_never_fired_fails_the_round() -> None:
    """It says which and what it waited for."""
    _, findings, _ = steer(
        {"at": {"event": "call.start tool.b", "nth": 2}, "do": "cancel"}, {"at": "run.paused", "do": "cancel"}
    )
    assert [(each.kind, each.message) for each in findings] == [
        ("failed", "intervention 1 never reached: no call.start tool.b (it came 1 times, not 2)"),
        ("failed", "intervention 2 never reached: no run.paused"),
    ]


def test_a_paused_run_waits_until_it_is_resumed() -> None:
    """No call goes out between a pause and its resume: here a timer in the flow's own virtual time resumes."""
    flow = TriggerFlow(name="pausing")

    async def call(data: TriggerFlowRuntimeData) -> None:
        await data.call("tool", "first", lambda: None)
        await data.call("tool", "second", lambda: None)
        await data.async_set_state("called", data.now())

    async def wait(data: TriggerFlowRuntimeData) -> Any:
        return await data.async_pause_for(type="go", payload=None)

    async def resumed(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("resumed", data.now())

    flow.to(call)
    flow.to(wait).to(resumed)
    interventions = (
        {"at": "call.start tool.second", "do": "pause", "hold": "run"},
        {"at": "node.done resumed", "do": "resume"},
    )
    human = [{"on": "go", "answer": 1, "delay": HOUR}]
    single = asyncio.run(
        record_live(flow, None, human=human, intervene=interventions, stub={"clock": "virtual"}, timeout=20.0)
    )
    assert single.findings == []
    assert single.evidence.output["called"] >= single.evidence.output["resumed"]


def test_an_unknown_action_is_no_run() -> None:
    """The case cannot be run, and the known actions are named."""
    with pytest.raises(Missing, match="known: cancel, signal"):
        steer({"at": "run.start", "do": {"explode": 1}})


def test_a_restart_plays_what_came_before_and_goes_on_anew() -> None:
    """From the place on the world is asked again; calls, state and answers before it are those of the first attempt."""
    asked: list[str] = []
    flow = TriggerFlow(name="restarting")

    def world(name: str) -> str:
        asked.append(name)
        if name == "charge" and asked.count("charge") == 1:
            raise ConnectionError("no route to the bank")

        return f"{name} {len(asked)}"

    async def look(data: TriggerFlowRuntimeData) -> Any:
        return await data.call("tool", "look", world, "look")

    async def ask(data: TriggerFlowRuntimeData) -> Any:
        await data.async_set_state("looked", [data.input, data.get_state("note")])
        return await data.async_pause_for(type="approve", payload=data.input)

    async def charge(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("answer", data.input)
        await data.async_set_state("charged", await data.call("tool", "charge", world, "charge"))

    flow.to(look).to(ask).to(charge)
    interventions = (
        {"at": "call.start tool.look", "do": {"set": {"path": "note", "value": "x"}}},
        {"at": "node.failed charge", "do": {"restart_from": "charge"}},
    )
    human = [{"on": "approve", "answers": ["yes", "no"]}]
    single = asyncio.run(record_live(flow, None, human=human, intervene=interventions, timeout=20.0))
    assert asked == ["look", "charge", "charge"]
    assert single.evidence.output == {
        "note": "x",
        "looked": ["look 1", "x"],
        "answer": "yes",
        "charged": "charge 3",
    }
    assert [each.message for each in single.findings] == ["human rule 1 (on: approve) has 1 answers left over"]
    assert [each.kind for each in single.evidence.events].count("run.start") == 2
    assert single.tape.status == "completed"
    assert asyncio.run(replay_tape(single.tape, flow)).evidence.output["charged"] == "charge 3"
    (refused,) = steer({"at": "call.start tool.b", "do": {"restart_from": "nowhere"}})[1]
    assert "intervention 1 (restart_from) was refused: the run never came to 'nowhere'" in refused.message
