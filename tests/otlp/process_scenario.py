"""A process that runs one real flow and journals it: ``python -m tests.otlp.process_scenario <scenario> <store>``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import flowdeck
from flowdeck import Retry, TriggerFlow
from flowdeck.triggerflow import TriggerFlowRuntimeData as Data


async def classify(data: Data) -> Any:
    return {"text": data.input, "length": len(str(data.input))}


async def answer(data: Data) -> Any:
    await data.async_set_state("answer", data.input["length"])
    return data.input["length"]


def success() -> TriggerFlow:
    flow = TriggerFlow(name="support")
    flow.to(("classify", classify)).to(("answer", answer))
    return flow


def fan_out() -> TriggerFlow:
    flow = TriggerFlow(name="pages")
    flow.to(("split", lambda data: ["one", "two", "three"])).for_each().to(
        ("read", lambda data: data.input.upper())
    ).end_for_each().to(("join", lambda data: "+".join(data.input)))
    return flow


def retry() -> TriggerFlow:
    flow = TriggerFlow(name="flaky")
    tries: list[int] = []

    async def fetch(data: Data) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError(f"try {len(tries)} was refused")

        return "page"

    flow.to(("fetch", fetch), retry=Retry(attempts=3)).to(("keep", lambda data: data.input))
    return flow


def failure() -> TriggerFlow:
    inner = TriggerFlow(name="payment")

    async def charge(data: Data) -> Any:
        raise ValueError("the card was declined")

    inner.to(("charge", charge))
    flow = TriggerFlow(name="order")
    flow.to(("check", lambda data: data.input)).to_sub_flow(inner).to(("ship", lambda data: data.input))
    return flow


def approval() -> TriggerFlow:
    flow = TriggerFlow(name="refund")

    async def ask(data: Data) -> Any:
        return await data.async_pause_for(type="approval", payload={"amount": data.input}, interrupt_id="refund-ok")

    flow.to(("ask", ask)).to(("pay", lambda data: data.input))
    return flow


def endless() -> TriggerFlow:
    flow = TriggerFlow(name="crawl")

    async def fetch(data: Data) -> Any:
        print("running", flush=True)
        await asyncio.Event().wait()

    flow.to(("plan", lambda data: data.input)).to(("fetch", fetch))
    return flow


FLOWS = {
    "success": success,
    "fan-out": fan_out,
    "retry": retry,
    "failure": failure,
    "pause": approval,
    "resume": approval,
    "killed": endless,
}


async def run(scenario: str, store: Path) -> None:
    flow = FLOWS[scenario]()
    saved = store.parent / "saved.json"
    execution = flow.create_execution(auto_close=False, user_id="ana")
    if scenario == "resume":
        execution.load(json.loads(saved.read_text()))
        await execution.async_continue_with("refund-ok", {"approved": True}, actor="ben")
        await execution.async_close()
        return

    try:
        await execution.async_start(40 if scenario == "pause" else "where is my parcel?")
    except ValueError:
        pass

    if scenario == "pause":
        saved.write_text(json.dumps(execution.save()))
    else:
        await execution.async_close()


def main() -> None:
    scenario, store = sys.argv[1], Path(sys.argv[2])
    with flowdeck.runtime.observe(store=store):
        asyncio.run(run(scenario, store))


if __name__ == "__main__":
    main()
