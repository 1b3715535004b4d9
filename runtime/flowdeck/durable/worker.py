"""A worker: takes up what other processes left behind, until it is stopped or nothing is left.

Order of one round: look for work (executions whose process is gone, parked ones that were asked something or whose time
has come, starts) -> claim each -> make it anew from the store -> it goes on as asyncio tasks. Between rounds the worker
sleeps until somebody writes to the store (``PRAGMA data_version``), a timer is due, or it is time to look whether
everybody still lives.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from flowdeck.durable._hosted import HostedStore
from flowdeck.durable.host import Host
from flowdeck.durable.statedb import StoreBusy
from flowdeck.durable.store import Claim, Retention, Work
from flowdeck.durable.using import DurableStore, open_durable
from flowdeck.errors import ExecutionBusy, ExecutionError, ExecutionExists, FlowdeckError
from flowdeck.execution.control import InboxRow
from flowdeck.execution.services import Services
from flowdeck.layout import StoreError
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

__all__ = ["Report", "Worker"]

LIVENESS_SECONDS: Final = 1.0
"""How often a worker looks whether the owners of open executions live."""
FULL_SECONDS: Final = 0.04
"""So often a worker that has no place for anything looks whether one is free: as often as for changes in a store."""
PRUNE_SECONDS: Final = 3_600.0
AWAY_SECONDS: Final = 0.5
"""Between two attempts while the store cannot be used."""

_log = logging.getLogger("flowdeck.durable")

Tell = Callable[[str, str, str], None]
"""``tell(kind, execution_id, text)``; kinds: taken, refused, ended, started."""


class Report(msgspec.Struct):
    """What a worker did."""

    taken_up: int = 0
    started: int = 0
    ended: int = 0
    refused: dict[str, str] = msgspec.field(default_factory=dict)
    """Why executions could not be taken up, by id."""
    parked: int = 0
    """Executions that wait for somebody, at the end."""


class Worker:
    """Runs the durable executions of some flows.

    Args:
        store: the store directory, or the URL of a PostgreSQL store.
        flows: the flows whose executions it takes up; looked up by name.
        services: what hosts the executions.
        resources: returns the runtime resources of every execution, beside what ``@flow.resources`` gives.
        concurrency: how many executions may be active at once; parked ones do not count.
        retention: forget finished executions by this policy, now and every hour.
        tell: called when something happened to an execution.
    """

    def __init__(
        self,
        store: Any,
        flows: Iterable[TriggerFlow],
        services: Services,
        *,
        resources: Callable[[], Mapping[str, Any]] | None = None,
        durability: str = "full",
        lease: float = 30.0,
        concurrency: int = 256,
        retention: Retention | None = None,
        tell: Tell | None = None,
    ) -> None:
        self.flows = {flow.name: flow for flow in flows}
        self.durable: DurableStore = open_durable(services, store, durability=durability, lease=lease)
        assert isinstance(self.durable.store, HostedStore) and self.durable.host is not None
        self.store: HostedStore = self.durable.store
        self.host: Host = self.durable.host
        self.host.flows.update(self.flows)
        self.host.resources = resources
        self.report = Report()
        self._services = services
        self._limit = concurrency
        self._retention = retention
        self._pruned = 0.0
        self._tell = tell or (lambda kind, execution_id, text: None)
        self._stop = threading.Event()
        self._first = True
        self._looked_us = 0
        """When it last asked for work; 0 while it has no place for any."""
        self._told_away = False
        self._running: dict[str, TriggerFlowExecution] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asked: set[int] = set()
        """Inbox rows that asked for a start, and got it here."""
        self.host.on_taken_up = self._taken_up
        self.host.on_ended = self._ended

    def stop(self) -> None:
        """End :meth:`run` soon. From any thread or signal handler."""
        self._stop.set()

    async def run(self, *, once: bool = False) -> Report:
        """Work until :meth:`stop`; with ``once`` until nothing is left that could go on without somebody's answer."""
        try:
            while not self._stop.is_set():
                try:
                    found = await self._round()
                    if once and not found and self._at_rest():
                        break

                    if not found:
                        await asyncio.to_thread(self._wait, once)
                except StoreBusy as problem:  # somebody holds it, or its server is away: work goes on when it is back
                    self._away(str(problem))
                    await asyncio.to_thread(self._stop.wait, AWAY_SECONDS)
                else:
                    self._told_away = False
        finally:
            self.report.parked = sum(h.strong is None for h in self.host.hosted.values())
            await self._let_go()
            for task in self._tasks:
                task.cancel()

        return self.report

    async def _let_go(self) -> None:
        """Commit what is left, and give back what is open."""
        await asyncio.to_thread(self.durable.close, 5.0)

    async def run_one(self, execution_id: str, *, force: bool = False) -> TriggerFlowExecution:
        """Take up one execution, and return it when it waits for somebody or has ended.

        Raises:
            FlowdeckError: it cannot be taken up; the message says why.
        """
        try:
            execution = await self.host.take_up(execution_id, flow=self._flow_of(execution_id), force=force)
            while not self._stop.is_set() and not self._at_rest():
                await asyncio.to_thread(self._stop.wait, 0.02)

            return execution
        finally:
            await asyncio.to_thread(self.durable.close, 5.0)

    def _flow_of(self, execution_id: str) -> TriggerFlow | None:
        row = self.store.get_execution(execution_id)
        only = next(iter(self.flows.values())) if len(self.flows) == 1 else None
        return self.flows.get(row.flow_name, only) if row is not None else only

    # -- a round -------------------------------------------------------------------------------------------------

    async def _round(self) -> int:
        """Take up what there is. Returns how many executions."""
        self._forget_ended()
        if self._retention is not None and time.monotonic() - self._pruned > PRUNE_SECONDS:
            self._pruned = time.monotonic()
            await asyncio.to_thread(self.store.prune, self._retention)

        room = self._limit - self._active()
        if room <= 0:
            self._looked_us = 0  # what is due now is due as soon as a place is free
            return 0

        work, starts = await asyncio.to_thread(self._look, room)
        self._first = False
        count = 0
        for each in work:
            count += await self._take_up(each)

        for row in starts:
            count += self._start(row)

        return count

    def _away(self, why: str) -> None:
        if not self._told_away:
            self._told_away = True
            _log.warning("%s It is tried again.", why)

    def _look(self, room: int) -> tuple[list[Work], list[InboxRow]]:
        hosted = self.host.hosted
        self._looked_us = time.time_ns() // 1_000
        work = self.store.work(list(self.flows), blocked=self._first, limit=room + len(hosted))
        for each in work:
            held = hosted.get(each.execution_id)
            if held is not None and held.token < each.token and self.host.leave(held):
                del hosted[held.id]  # it was taken over, and left behind again

        mine = [w for w in work if w.execution_id not in hosted and w.execution_id not in self.report.refused]
        names = [*self.flows, *(flow.entrypoint for flow in self.flows.values() if flow.entrypoint)]
        starts = [row for row in self.store.starts(names) if row.id not in self._asked]
        return mine[:room], starts[:room]

    async def _take_up(self, work: Work) -> bool:
        try:
            await self.host.take_up(work.execution_id, flow=self.flows[work.flow_name], token=work.token)
        except ExecutionBusy:
            return False  # another worker was faster
        except StoreBusy:
            return False  # the store is away; it will be looked at again
        except (FlowdeckError, StoreError, TypeError) as problem:
            self.report.refused[work.execution_id] = str(problem)
            self._tell("refused", work.execution_id, str(problem))
            return False

        return True

    def _taken_up(self, execution: TriggerFlowExecution, claim: Claim) -> None:
        self.report.taken_up += 1
        self._running[execution.id] = execution
        self._tell("taken", execution.id, f"{claim.flow_name} at {claim.seq}, epoch {claim.token}")

    def _ended(self, execution: TriggerFlowExecution) -> None:
        self.report.ended += 1
        self._tell("ended", execution.id, execution.get_status())

    def _start(self, row: InboxRow) -> bool:
        """Start an execution that somebody asked for; the row is acknowledged in the commit that creates it."""
        flow = next(
            (f for f in self.flows.values() if row.target in (f.name, f.entrypoint)),
            None,
        )
        if flow is None:
            return False

        execution = flow.create_execution(
            execution_id=row.execution_id,
            services=self._services,
            runtime_resources=self.host._resources_for(flow, None),
            auto_close_timeout=0.0,
        )
        self._asked.add(row.id)
        log = execution._log
        assert log is not None
        execution._bind()
        log.row(row.id, row.kind, row.target, row.actor, "applied", None)
        log.attach("ack", (row.id, "applied", None))
        self.report.started += 1
        self._running[execution.id] = execution
        self._tell("started", execution.id, flow.name)
        for work in (self._run(execution, row.payload), self._tell_started(execution, row)):
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return True

    async def _tell_started(self, execution: TriggerFlowExecution, row: InboxRow) -> None:
        """Say who asked for the start, once it is sure that it was started here."""
        log = execution._log
        assert log is not None
        with suppress(ExecutionError):  # another worker was faster
            await log.committed()
            execution._tell_applied(row.kind, row.target, row.actor, "applied", None, row.payload)

    async def _run(self, execution: TriggerFlowExecution, value: Any) -> None:
        try:
            await execution._settle_start(value)  # not until it has closed: one that waits for people holds no task
            execution._on_idle()
        except ExecutionExists:
            self._running.pop(execution.id, None)  # another worker was faster
        except Exception:
            if not execution.is_closed() and execution.is_idle() and not execution._core.open:
                await execution.async_close(reason="failed")  # the run has failed and said so

    # -- between rounds ------------------------------------------------------------------------------------------

    def _forget_ended(self) -> None:
        for execution_id, execution in list(self._running.items()):
            if execution.is_closed():
                del self._running[execution_id]
            elif execution._log is not None and execution._log.error is not None:
                del self._running[execution_id]  # another process has taken it over
            elif execution.is_idle() and execution._log is not None and execution._log.idle and rests(execution):
                del self._running[execution_id]  # parked: its host takes it up again

    def _active(self) -> int:
        return sum(hosted.strong is not None for hosted in self.host.hosted.values())

    def _at_rest(self) -> bool:
        """Whether everything waits for somebody, or has ended."""
        self._forget_ended()
        if self._running or self._tasks or self._active() or self.host._reviving:
            return False

        return not self.store.undelivered()

    def _pause(self) -> float:
        if not self._looked_us:
            return FULL_SECONDS

        wake = self.store._wake_after(self._looked_us)
        if wake is None:
            return LIVENESS_SECONDS

        return min(max((wake - time.time_ns() // 1_000) / 1e6, 0.0) + 0.001, LIVENESS_SECONDS)

    def _wait(self, once: bool) -> None:
        """Sleep until somebody else writes to the store, or something is due."""
        self.store.wait_change(0.05 if once else self._pause(), self._stop)


def rests(execution: TriggerFlowExecution) -> bool:
    """Whether nothing will happen to an idle execution by itself, soon: it asks somebody, or never closes."""
    return bool(execution._core.open) or not execution.auto_close or execution.auto_close_timeout is None
