"""Runs whose stored form is kept as a file, so that later versions are held to reading it.

``python -m tests.durable.golden_runs`` writes the file of the present format; it is committed once for each format and
never changed afterwards.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from flowdeck.durable.memory import MemoryStore
from flowdeck.durable.store import Stored
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow

__all__ = ["FOLDER", "RUNS", "parts"]

FOLDER = Path(__file__).parent / "golden"
FORMAT = 1


def parts(**changed: Any) -> dict[str, Any]:
    """Return the handlers of the review flow; ``changed`` replaces or adds some."""

    async def split(data: Any) -> list[int]:
        await data.async_set_state("input", data.input)
        return [1, 2, 3]

    async def each(data: Any) -> Any:
        await data.async_append_state("seen", data.input)
        if data.input == 2:
            return await data.async_pause_for(type="check", payload=data.input, interrupt_id="check-2")

        return data.input

    async def joined(data: Any) -> Any:
        await data.async_set_state("joined", data.input)
        return data.input

    return {"split": split, "each": each, "joined": joined, **changed}


def review(handlers: dict[str, Any] | None = None, *, each: str = "each", extra: str | None = None) -> TriggerFlow:
    """Three members, one of which asks; a gate that has half of what it waits for."""
    made = handlers or parts()
    flow = TriggerFlow(name="golden review")
    at: Any = flow.to(("split", made["split"])).for_each(name="members").to((each, made["each"])).end_for_each()
    if extra:
        at = at.to((extra, lambda data: data.input))

    at.to(("joined", made["joined"]))
    flow.to(("one", lambda data: data.emit("ONE", 1)))
    flow.when({"event": ["ONE", "TWO"]}).to(("gate", lambda data: data.set_state("gate", data.input)))
    return flow


async def _stored(flow: TriggerFlow, name: str) -> Stored:
    store = MemoryStore()
    services = Services(center=EventCenter(), store=store)
    execution = flow.create_execution(services=services, auto_close=False, execution_id=name)
    await execution.async_start({"a": (1, 2), "b": b"x"})
    return store.load(name)


RUNS = {"review": review}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    stored = {name: asyncio.run(_stored(make(), f"golden-{name}")) for name, make in RUNS.items()}
    path = FOLDER / f"format-{FORMAT}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(stored), indent=1))
    print(path)


if __name__ == "__main__":
    main()
