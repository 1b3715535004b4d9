"""Agents that ask a scripted server, and what they told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.workspace.conftest import Collector

from flowdeck import Runtime
from flowdeck.agents import Agent
from flowdeck.testing import LocalModel

__all__ = ["SleepCounter", "asking", "runs_of", "told"]


class SleepCounter:
    """The machine's clock, whose sleeps take no time and are counted."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def time_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_ns(self) -> int:
        return time.perf_counter_ns()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        return asyncio.timeout(seconds)


@contextmanager
def asking(host: Runtime, script: Any, **options: Any) -> Iterator[tuple[Agent, LocalModel]]:
    """An agent of ``host`` whose model is a server with ``script``."""
    with LocalModel(script) as server:
        key = options.pop("api_key", server.api_key)
        yield host.create_agent("helper").use_model("local", base_url=server.base_url, api_key=key, **options), server


def told(events: Collector, *families: str) -> list[str]:
    """The names of what was told, DEBUG left out."""
    wanted = families or ("agent_turn", "request", "prompt", "model", "session", "action")
    return [r.event_type for r in events.records if r.level != "DEBUG" and r.event_type.split(".")[0] in wanted]


def runs_of(events: Collector) -> dict[str, tuple[str, str | None]]:
    """Kind and parent of every run, by its id."""
    return {r.run.run_id: (r.run.run_kind, r.run.parent_run_id) for r in events.records if r.run is not None}
