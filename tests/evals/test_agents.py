"""Agents and factories as targets: recorded, replayed without their model, isolated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from flowdeck import Runtime, TriggerFlow, TriggerFlowRuntimeData
from flowdeck_evals import Case, Suite
from flowdeck_evals.single import record_live, replay_tape
from flowdeck_evals.targets import find_target


class Parrot:
    """A model that says what it is asked, a word at a time."""

    name = "parrot"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def stream(self, request: Any) -> AsyncIterator[tuple[str, Any]]:
        text = str(request["messages"][-1]["content"])
        self.asked.append(text)
        for word in ("you", " said ", text):
            yield ("delta", word)

        usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
        yield ("meta", {"finish_reason": "stop", "usage": usage, "model": "parrot", "provider": "test", "id": "r1"})


def test_an_agent_is_recorded_and_replayed_without_its_model() -> None:
    """Its turn is a step of a run: the model's stream is on the tape, and another prompt is a divergence by name."""
    model = Parrot()
    agent = Runtime().create_agent("echo").use_model(model)
    single = asyncio.run(record_live(find_target(agent), "hello"))
    assert single.evidence.output == "you said hello", single.evidence.error
    again = asyncio.run(replay_tape(single.tape, find_target(agent)))
    assert (again.evidence.output, again.findings) == ("you said hello", [])
    assert len(model.asked) == 1
    agent.system("be brief", always=True)
    changed = asyncio.run(replay_tape(single.tape, find_target(agent)))
    assert changed.divergence is not None
    assert changed.divergence.detail["cause"] == "changed"
    assert "messages" in changed.divergence.message


def test_agents_in_a_suite() -> None:
    """Checks see the answer, the model call and the tokens; a factory makes every round an agent of its own."""
    agents: list[Any] = []

    def make() -> Any:
        agents.append(Runtime().create_agent("echo").use_model(Parrot()))
        return agents[-1]

    case = Case(
        id="a",
        input="hi",
        rounds=3,
        expect={
            "output": {"equals": "you said hi"},
            "path": [{"in_order": ["run.start", "call.done model.parrot", "model.completed", "run.end"]}],
            "budget": {"tokens": 7, "steps": 1},
        },
    )
    report = Suite("s", make, (case,)).run_sync()
    assert report.judge().ok, report.rounds
    assert len(set(map(id, agents))) == 3
    assert Suite("s", agents[0], (case,)).run_sync().judge().ok


def test_a_factory_must_make_a_flow() -> None:
    """A function without parameters makes a flow or an agent; anything else is the target's error, by name."""
    flow = TriggerFlow(name="made")

    async def only(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("got", data.input)

    flow.to(only)
    good = Case(id="a", input=1, expect={"output": {"equals": {"got": 1}}})
    assert Suite("s", lambda: flow, (good,)).run_sync().judge().ok
    (round,) = Suite("s", lambda: 1, (good,)).run_sync().rounds
    assert round.state == "errored"
    assert "must make a flow or an agent; it gave a int" in round.reason
