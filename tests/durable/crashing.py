"""A process that can be killed without killing the test: a store that stops answering, and the run made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from tests.execution.support import World, turns

from flowdeck.definition.skeleton import dump_plan, plan_digest
from flowdeck.durable.memory import MemoryStore, Shelf
from flowdeck.durable.recovery import restore
from flowdeck.durable.store import Claim, Commit, Done
from flowdeck.events.center import EventCenter
from flowdeck.execution.execution import TriggerFlowExecution
from flowdeck.execution.replica import replay
from flowdeck.execution.services import Services
from flowdeck.execution.snapshot import load_state
from flowdeck.triggerflow import TriggerFlow

__all__ = ["DyingStore", "Process", "finish"]


class DyingStore(MemoryStore):
    """Dies at its n-th commit: that one is written or not, and nothing is ever heard of it or of later ones."""

    def __init__(self, shelf: Shelf, owner: str, dies_at: int = 0, *, written: bool = False) -> None:
        super().__init__(shelf, owner)
        self.dies_at = dies_at
        self.written = written
        self.commits = 0
        self.dead = False
        self.died = asyncio.Event()

    def submit(self, commit: Commit, done: Done) -> None:
        self.commits += 1
        if not self.dead and self.commits == self.dies_at:
            self.dead = True
            self.died.set()
            if self.written:
                super().submit(commit, lambda error: None)

        if not self.dead:
            super().submit(commit, done)


class Process:
    """One life of a run: its store, its services and its asyncio tasks."""

    def __init__(self, world: World, shelf: Shelf, name: str, dies_at: int = 0, *, written: bool = False) -> None:
        self.store = DyingStore(shelf, name, dies_at, written=written)
        self.world = world
        self.services = type(world.services)(center=world.center, clock=world.clock, store=self.store)
        self.execution: TriggerFlowExecution | None = None
        self.work: list[asyncio.Task[Any]] = []

    def start(self, flow: TriggerFlow, value: Any, **options: Any) -> TriggerFlowExecution:
        """Begin a new run."""
        self.execution = flow.create_execution(**{"services": self.services, "auto_close": False, **options})
        self.go(self.execution.async_start(value))
        return self.execution

    def take_up(self, flow: TriggerFlow, execution_id: str, **resources: Any) -> TriggerFlowExecution:
        """Go on with a run from the shelf."""
        claim = self.store.claim(execution_id)
        expected = as_loaded(flow, deepcopy(claim), resources)
        self.execution = restore(flow, claim, self.services, resources)
        if expected is not None:  # the core was taken over as it was replayed, or written out and read in: all the same
            assert (self.execution.save(), self.execution.run_context.encoded) == expected

        self.go(self.execution.async_recover())
        return self.execution

    def go(self, what: Any) -> None:
        self.work.append(asyncio.get_running_loop().create_task(what))

    async def kill(self) -> None:
        """End it as a killed process ends: nothing it still does is seen by anybody."""
        self.store.dead = True
        self.store.shelf.dead.add(self.store.owner)
        if self.execution is not None:
            assert self.execution._log is not None
            self.execution._log.error = RuntimeError("killed")
            self.execution._driver.closed = True
            self.execution._driver.leave(RuntimeError("killed"))
            self.execution._rest()
            for task in self.execution._background or ():
                task.cancel()

        for task in self.work:
            task.cancel()

        await asyncio.gather(*self.work, return_exceptions=True)
        await turns(3)


def as_loaded(flow: TriggerFlow, claim: Claim, resources: dict[str, Any]) -> tuple[dict[str, Any], bytes] | None:
    """Return what a recovered run saves, if its state goes the way of every saved one; ``None`` in another flow."""
    replica = replay(claim.header, claim.plans, claim.definition, claim.snapshot, claim.batches)
    if plan_digest(dump_plan(flow.plan)) != replica.root.definition:
        return None

    auto_close, timeout = replica.root.settings
    other = flow.create_execution(
        execution_id=claim.execution_id,
        runtime_resources=resources,
        auto_close=auto_close,
        auto_close_timeout=timeout,
        services=Services(center=EventCenter()),
    )
    flow.remove_execution(other)
    load_state(other, replica.dump(claim.token - 1, claim.resource_keys), "utf-8", trusted=True)
    return other.save(), other.run_context.encoded


async def finish(process: Process, answer: Callable[[Any], Any]) -> dict[str, Any] | None:
    """Answer everything until the run ends, and close it. ``None``: the process died on the way."""
    execution = process.execution
    assert execution is not None
    died = asyncio.get_running_loop().create_task(process.store.died.wait())
    try:
        while not process.store.dead:
            await turns(2)
            for interrupt_id, record in execution.get_pending_interrupts().items():
                process.go(execution.async_continue_with(interrupt_id, answer(record["payload"])))
                await turns(1)

            for done in [each for each in process.work if each.done()]:
                done.result()
                process.work.remove(done)

            if not process.work and execution.is_idle() and not execution.get_pending_interrupts():
                closing = asyncio.get_running_loop().create_task(execution.async_close())
                await asyncio.wait([closing, died], return_when=asyncio.FIRST_COMPLETED)
                if closing.done():
                    return closing.result()

                closing.cancel()
                await asyncio.gather(closing, return_exceptions=True)

        return None
    finally:
        died.cancel()
