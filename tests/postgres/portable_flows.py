"""Twelve flows for every way to run them; a handler notes its idempotency key, so that ids can be compared."""

from __future__ import annotations

from typing import Any

from flowdeck.definition.retry import Retry
from flowdeck.triggerflow import TriggerFlow

__all__ = ["ANSWERS", "FLOWS", "asking"]

ANSWERS = {"asks": 1, "asks_each": 3, "asks_below": 1, "asks_again": 2, "goes_to_an_event": 1}
"""How many questions each flow asks that somebody answers."""


def step(name: str, change: Any = lambda value: value) -> tuple[str, Any]:
    async def run(data: Any) -> Any:
        await data.async_append_state("keys", f"{name} {data.idempotency_key}")
        return change(data.input)

    return (name, run)


def keep(name: str = "out") -> tuple[str, Any]:
    async def run(data: Any) -> Any:
        await data.async_set_state(name, data.input)
        return data.input

    return (f"keep {name}", run)


def ask(name: str = "ask", **options: Any) -> tuple[str, Any]:
    async def run(data: Any) -> Any:
        return await data.async_pause_for(type="approval", payload={"about": data.input}, **options)

    return (name, run)


def _again(data: Any) -> Any:
    answer = data.resume.value
    if answer is None:
        return data.pause_for(type="number", payload=data.input, resume_to="self")

    return [data.input, answer]


def _flaky(data: Any) -> Any:
    if data.attempt < 3:
        raise ConnectionError("not yet")

    return data.input + 1


def _streams(data: Any) -> Any:
    for number in range(3):
        data.put({"number": number})

    return data.input


def flows() -> list[TriggerFlow]:
    made = {name: TriggerFlow(name=name) for name in (
        "chain", "members", "batch", "chooses", "gate", "retries", "asks", "asks_each", "asks_below", "asks_again",
        "goes_to_an_event", "expires",
    )}  # fmt: skip
    made["chain"].to(step("a")).to(("streams", _streams)).to(step("b", lambda v: v + 1)).to(keep())
    made["members"].to(step("split", lambda v: [v, v + 1, v + 2])).for_each(concurrency=2).to(
        step("each", lambda v: v * 10)
    ).end_for_each().to(keep())
    made["batch"].to(step("a")).batch(step("left"), step("right", lambda v: -v)).to(keep())
    made["chooses"].to(step("a")).if_condition(lambda data: data.input > 100).to(step("many")).else_condition().to(
        step("few", lambda v: "few")
    ).end_condition().to(keep())
    made["gate"].to(("one", lambda data: data.emit("ONE", 1)))
    made["gate"].to(("two", lambda data: data.emit("TWO", 2)))
    made["gate"].when({"event": ["ONE", "TWO"]}).to(keep())
    made["retries"].to(("flaky", _flaky), retry=Retry(attempts=5, backoff=0.01)).to(keep())
    made["asks"].to(step("a")).to(ask()).to(keep("answer")).to(step("b"))
    made["asks_each"].to(step("split", lambda v: [1, 2, 3])).for_each().to(ask()).end_for_each().to(keep("answers"))
    child = TriggerFlow(name="below")
    child.to(step("inner")).to(ask()).to(keep("inner"))
    made["asks_below"].to_sub_flow(child, name="below").to(keep())
    made["asks_again"].to(("again", _again)).to(keep())
    made["asks_again"].to(ask("other")).to(keep("other"))
    made["goes_to_an_event"].to(ask(resume_event="DECIDED"))
    made["goes_to_an_event"].when("DECIDED").to(keep("decided"))
    made["expires"].to(ask(expires_in=0.4, on_expire={"value": "late"})).to(keep("answer"))
    return list(made.values())


FLOWS = flows()
asking = next(flow for flow in FLOWS if flow.name == "asks")
