"""The answerer: who answers interrupts in the place of people, asked after a question is applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowdeck import Runtime, TriggerFlow, TriggerFlowRuntimeData
from flowdeck.execution.ports import Question, Reply


class Answerer:
    """Answers by a function and keeps what it was asked."""

    def __init__(self, say: Callable[[Question], Reply | None]) -> None:
        self.say = say
        self.asked: list[Question] = []
        self.was_asked = asyncio.Event()

    def answer(self, question: Question) -> Reply | None:
        self.asked.append(question)
        self.was_asked.set()
        return self.say(question)


def asking(**options: Any) -> TriggerFlow:
    """Return a flow of one question whose answer is kept."""
    flow = TriggerFlow(name="asking")

    async def ask(data: TriggerFlowRuntimeData) -> Any:
        signal = await data.async_pause_for(type="ok", payload={"n": 1}, **options)
        await asyncio.sleep(0)  # the question is open, and the handler is not done
        return signal

    async def keep(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("answer", data.input)

    flow.to(ask).to(keep)
    return flow


def run(flow: TriggerFlow, answerer: Answerer, runtime: Runtime | None = None) -> Any:
    """Run it to its end."""
    runtime = runtime or Runtime()
    runtime.services.answerer = answerer
    with runtime.use():
        return asyncio.run(flow.create_execution(auto_close_timeout=0.0).async_start("go"))


def test_it_is_asked_once_with_place_payload_and_schema() -> None:
    """One question, one answer, in the place of a person."""
    answerer = Answerer(lambda question: Reply({"n": question.payload["n"] + 1}, "script"))
    assert run(asking(schema={"type": "object"}), answerer)["answer"] == {"n": 2}
    (question,) = answerer.asked
    assert (question.kind, question.scope, question.schema, question.expires_us) == (
        "ok",
        "ask",
        {"type": "object"},
        None,
    )


def test_in_a_sub_flow_it_is_asked_once_with_the_full_place() -> None:
    """The innermost execution asks, and the outermost is answered."""
    outer = TriggerFlow(name="outer")

    async def split(data: TriggerFlowRuntimeData) -> list[int]:
        return [0, 1]

    outer.to(split).for_each().to_sub_flow(asking()).end_for_each()
    answerer = Answerer(lambda question: Reply("yes"))
    run(outer, answerer)
    assert [question.scope for question in answerer.asked] == ["for_each[0]/asking/ask", "for_each[1]/asking/ask"]
    assert len({question.execution_id for question in answerer.asked}) == 1


@pytest.mark.parametrize("durability", ["process", "exit"])
def test_in_a_durable_run_it_is_asked_after_the_commit(durability: str, tmp_path: Path) -> None:
    """A durable execution is answered like any other, and its state says so."""
    runtime = Runtime()
    runtime.use_store(tmp_path / "store", durability=durability)
    try:
        assert run(asking(), Answerer(lambda question: Reply("yes")), runtime)["answer"] == "yes"
    finally:
        runtime.close()


@pytest.mark.parametrize(("on_expire", "expected"), [({"value": "nobody"}, "nobody"), ("cancel", None)])
def test_a_declined_question_ends_the_way_it_would_expire(on_expire: Any, expected: Any) -> None:
    """Nobody waits for the expiry."""
    result = run(asking(expires_in=3600.0, on_expire=on_expire), Answerer(lambda question: Reply(declined=True)))
    assert result.get("answer") == expected


def test_an_answer_that_does_not_fit_leaves_the_question_open() -> None:
    """It is refused with a warning; somebody else can still answer."""

    async def main() -> Any:
        execution = asking(schema={"type": "integer"}).create_execution(auto_close_timeout=0.0)
        started = asyncio.ensure_future(execution.async_start("go"))
        with pytest.warns(RuntimeWarning, match="was refused"):
            await answerer.was_asked.wait()

            await asyncio.sleep(0)

        (interrupt_id,) = execution.get_pending_interrupts()
        await execution.async_continue_with(interrupt_id, 3)
        return await started

    answerer = Answerer(lambda question: Reply("text"))
    runtime = Runtime()
    runtime.services.answerer = answerer
    with runtime.use():
        assert asyncio.run(main())["answer"] == 3


def test_one_that_raises_or_keeps_silent_changes_nothing() -> None:
    """The question stays open to others."""

    def fail(question: Question) -> Reply | None:
        raise ValueError("no opinion")

    async def main(answerer: Answerer) -> Any:
        runtime = Runtime()
        runtime.services.answerer = answerer
        with runtime.use():
            execution = asking().create_execution(auto_close_timeout=0.0)
            started = asyncio.ensure_future(execution.async_start("go"))
            await answerer.was_asked.wait()

            (interrupt_id,) = execution.get_pending_interrupts()
            await execution.async_continue_with(interrupt_id, "by hand")
            return await started

    with pytest.warns(RuntimeWarning, match="nobody answers 'ok' at 'ask': ValueError: no opinion"):
        assert asyncio.run(main(Answerer(fail)))["answer"] == "by hand"

    assert asyncio.run(main(Answerer(lambda question: None)))["answer"] == "by hand"
