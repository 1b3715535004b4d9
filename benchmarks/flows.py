"""The flows and sinks the workloads run."""

from __future__ import annotations

import asyncio
from typing import Any

from flowdeck.events import EventCenter
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow

__all__ = ["NoopSink", "chain_flow", "fan_flow", "journaled", "nap_flow", "pause_flow", "plain", "step"]


async def step(data: Any) -> Any:
    return data.value


def chain_flow(steps: int = 20) -> TriggerFlow:
    flow = TriggerFlow(name="chain")
    at = flow.process
    for i in range(steps):
        at = at.to((f"step_{i}", step))

    return flow


def fan_flow() -> TriggerFlow:
    flow = TriggerFlow(name="fan")
    flow.for_each().to(("branch", step)).end_for_each()
    return flow


def nap_flow() -> TriggerFlow:
    async def nap(data: Any) -> Any:
        await asyncio.sleep(0.001)
        return data.value

    flow = TriggerFlow(name="naps")
    at = flow.process
    for i in range(10):
        at = at.to((f"nap_{i}", nap))

    return flow


async def ask(data: Any) -> Any:
    return await data.async_pause_for(type="approval", payload={"q": "ok?"}, resume_to="next")


def pause_flow(members: bool = False) -> TriggerFlow:
    """Ask, then go on; with ``members`` once for each item of the value."""
    flow = TriggerFlow(name="pause")
    if members:
        flow.for_each().to(("ask", ask)).to(("commit", step)).end_for_each()
    else:
        flow.to(("ask", ask)).to(("commit", step))

    return flow


def plain() -> Services:
    return Services(center=EventCenter())


def journaled(folder: str) -> tuple[Services, Any]:
    from flowdeck_sinks.journal import JournalSink

    center = EventCenter()
    sink = JournalSink(folder, lossless=True, publish=False)
    center.add_sink(sink)
    return Services(center=center), sink


class NoopSink:
    name = "noop"

    def accept(self, record: object) -> None:
        return None

    def flush(self, timeout: float) -> bool:
        return True

    def close(self, timeout: float) -> None:
        return None

    def statistics(self) -> dict[str, int | float | str]:
        return {}
