"""A small world for execution tests: virtual time, a recording sink, and no sleeping."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from flowdeck.events import EventCenter, EventRecord
from flowdeck.events.catalogue import problems
from flowdeck.execution.execution import TriggerFlowExecution
from flowdeck.execution.ports import VirtualClock
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow, TriggerFlowRuntimeData

__all__ = ["Recorder", "World", "keep", "left_behind", "passes", "turns", "until"]

Data = TriggerFlowRuntimeData


class Recorder:
    """A sink that keeps every record, and refuses what the catalogue does not know."""

    name = "recorder"

    def __init__(self) -> None:
        self.records: list[EventRecord] = []
        self.problems: list[str] = []

    def accept(self, record: EventRecord) -> None:
        record.encoded  # what a real sink would read, at the moment it would read it
        self.records.append(record)
        self.problems.extend(problems(record))

    def flush(self, timeout: float) -> bool:
        return True

    def close(self, timeout: float) -> None:
        pass

    def statistics(self) -> dict[str, int | float | str]:
        return {"accepted": len(self.records), "dropped": 0}


class World:
    """Services of one test: nothing in it is shared with another."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.center = EventCenter(strict_catalogue=True)
        self.recorder = Recorder()
        self.center.add_sink(self.recorder, min_level="DEBUG")
        self.services = Services(center=self.center, clock=self.clock)

    def execution(self, flow: TriggerFlow, **options: Any) -> TriggerFlowExecution:
        """Create an execution that stays open until it is closed."""
        return flow.create_execution(**{"auto_close": False, "services": self.services, **options})

    async def run(self, flow: TriggerFlow, value: Any = None, **options: Any) -> dict[str, Any]:
        """Run a flow from start to close."""
        execution = self.execution(flow, **options)
        await execution.async_start(value)
        return await execution.async_close()

    def types(self, family: str = "", run: str | None = None) -> list[str]:
        """Return the event types that were emitted, DEBUG left out."""
        return [
            r.event_type
            for r in self.recorder.records
            if r.event_type.startswith(family)
            and r.level != "DEBUG"
            and (run is None or (r.run is not None and r.run.run_id == run))
        ]

    def payloads(self, event_type: str) -> list[dict[str, Any]]:
        return [r.payload for r in self.recorder.records if r.event_type == event_type]

    def records(self, event_type: str) -> list[EventRecord]:
        return [r for r in self.recorder.records if r.event_type == event_type]

    def chunks(self, event_type: str = "chunk.completed") -> Counter[str]:
        return Counter(p["chunk_name"] for p in self.payloads(event_type))


async def turns(count: int = 100) -> None:
    """Let everything that can run without time passing run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool], what: str = "the condition") -> None:
    """Give the loop turns until ``holds()``."""
    for _ in range(5_000):
        if holds():
            return

        await asyncio.sleep(0)

    raise AssertionError(f"{what} never came true")


def keep(key: str) -> tuple[str, Callable[[Data], Any]]:
    """Return a chunk that puts its input into state."""

    async def put(data: Data) -> Any:
        await data.async_set_state(key, data.input)
        return data.input

    return (f"keep {key}", put)


def passes(name: str, change: Callable[[Any], Any] = lambda value: value) -> tuple[str, Callable[[Data], Any]]:
    """Return a chunk that passes its input on, changed."""

    async def step(data: Data) -> Any:
        return change(data.input)

    return (name, step)


def left_behind(
    go_on: asyncio.Event, ask: asyncio.Event, then: Callable[[Data], Awaitable[Any]], after: Callable[[Data], Any]
) -> TriggerFlow:
    """Return a flow with a handler no cancellation ends before ``go_on``, which does ``then``, and one that asks.

    The question ``one`` comes once ``ask`` is set, so a close that had begun leaves the first behind, and is refused.
    """

    async def stubborn(data: Data) -> None:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()

        await then(data)

    async def asks(data: Data) -> Any:
        await ask.wait()
        return await data.async_pause_for(interrupt_id="one")

    flow = TriggerFlow(name="left")
    flow.to(("stubborn", stubborn))
    flow.to(("asks", asks)).to(("after", after))
    return flow
