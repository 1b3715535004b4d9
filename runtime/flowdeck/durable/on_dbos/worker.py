"""A process that serves flows on DBOS: it runs activations, and hands over to DBOS what there is to do.

Each round: what has something to do (see :meth:`~flowdeck.durable.postgres.store.PostgresStore.work`) is enqueued, by
whichever process sees it first; what was taken from a queue by a process that is gone is put back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from flowdeck.durable.on_dbos import activation
from flowdeck.durable.on_dbos.activation import Queued, Running
from flowdeck.durable.postgres.address import address_of
from flowdeck.durable.postgres.store import PostgresStore
from flowdeck.durable.statedb import StoreBusy
from flowdeck.durable.worker import AWAY_SECONDS, LIVENESS_SECONDS, Report, Worker, rests
from flowdeck.errors import ExecutionBusy, ExecutionError, ExecutionExists, ExecutionFenced, FlowdeckError
from flowdeck.execution.services import Services
from flowdeck.layout import StoreError
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

__all__ = ["POLLING_SECONDS", "DbosWorker"]

POLLING_SECONDS: Final = 0.1
"""How often DBOS looks into a queue."""
LOOK: Final = 1_000
RECHECK_SECONDS: Final = 1.0
"""After so long it is looked again whether something that was handed over is still with DBOS."""
SUPERSEDED: Final = "superseded"


class DbosWorker(Worker):
    """Like :class:`~flowdeck.durable.worker.Worker`, with DBOS in between.

    Args:
        store: the URL of a PostgreSQL store, or a directory with ``FLOWDECK_EXECUTIONS`` set; DBOS keeps its tables
            in a schema beside it.
        flows, services, resources, concurrency, retention, lease, tell: see :class:`Worker`.
        global_concurrency: how many activations of a flow may run at once, over all processes.
        limiter: ``{"limit": n, "period": seconds}``: how many activations of a flow may begin in a period.
        polling: seconds between two looks into a queue.

    Raises:
        StoreError: there is no PostgreSQL store, or it cannot be used.
    """

    def __init__(
        self,
        store: Any,
        flows: Iterable[TriggerFlow],
        services: Services,
        *,
        concurrency: int = 256,
        global_concurrency: int | None = None,
        limiter: dict[str, float] | None = None,
        polling: float = POLLING_SECONDS,
        **options: Any,
    ) -> None:
        address = address_of(store)
        if address is None:
            raise StoreError("DBOS needs a PostgreSQL store: give its URL, postgresql://user@host/database")

        self._address = address
        self._limits = {
            "worker_concurrency": min(concurrency, global_concurrency or concurrency),
            "global_concurrency": global_concurrency,
            "limiter": limiter,
            "polling_interval_sec": polling,
        }
        super().__init__(store, flows, services, concurrency=concurrency, **options)
        assert isinstance(self.store, PostgresStore)
        self._shelf: PostgresStore = self.store
        self._shelf.on_rest = self._heard
        self._at_work: dict[str, asyncio.Future[None]] = {}
        """By execution: resolved when it has come to rest."""
        self._handed: dict[str, float] = {}
        self._beaten = self._reaped = -1e9
        self._quiet = False
        self._idle: set[str] = set()
        """Workflows that this process held at the last look and did not run."""

    async def run(self, *, once: bool = False) -> Report:
        """Serve until :meth:`stop`; with ``once`` until nothing is left that could go on without somebody's answer."""
        try:
            self.store.heartbeat(self.host.lease)  # before DBOS knows our name, so that nobody takes us for dead
            activation.join(self._address, self.store.owner, self._activate, self.flows)
        except BaseException:
            await asyncio.to_thread(self.durable.close, 5.0)
            raise

        return await super().run(once=once)

    async def _let_go(self) -> None:
        await asyncio.to_thread(activation.leave)
        # DBOS had put an executor of its own there, and has ended it.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        await super()._let_go()

    # -- a round -------------------------------------------------------------------------------------------------

    async def _round(self) -> int:
        try:
            return await asyncio.to_thread(self._dispatch)
        except activation.PROBLEMS as problem:
            raise StoreBusy(f"DBOS cannot use {self._address} now: {problem}") from problem

    def _dispatch(self) -> int:
        """Hand over what there is to do. Returns how much of it is new.

        Raises:
            StoreBusy, SQLAlchemyError: the server cannot be used now.
        """
        now = time.monotonic()
        if self._beaten < 0:
            activation.listen(self.flows, self._limits)

        if now - self._beaten > self.host.lease / 3:
            self.store.heartbeat(self.host.lease)
            self._beaten = now

        if self._retention is not None and now - self._pruned > 3_600.0:
            self._pruned = now
            self.store.prune(self._retention)

        if now - self._reaped > LIVENESS_SECONDS:
            self._reap()
            self._reaped = now

        work, starts = self._look(LOOK)
        self._first = False
        by_entrypoint = {flow.entrypoint: flow.name for flow in self.flows.values()}
        wanted = [Queued(each.flow_name, each.execution_id, each.token) for each in work]
        for row in starts:
            target = row.target or ""
            wanted.append(Queued(target if target in self.flows else by_entrypoint[target], row.execution_id, 0))

        self._handed = {id: at for id, at in self._handed.items() if now - at < RECHECK_SECONDS}
        new = [each for each in wanted if each.id not in self._handed]
        count = activation.hand_over(new)
        self._handed.update((each.id, now) for each in new)
        self._quiet = not wanted and not self._at_work and not activation.unfinished(self.flows)
        return count

    def _reap(self) -> None:
        """Put back what processes hold that are gone. Who does so twice does no harm: the token lets one of them in.

        Also what this process holds by DBOS's tables and does not run: its connection was cut between taking it from
        the queue and being told of it, and DBOS forgets it until the process starts again.
        """
        taken = activation.pending(self.flows)
        held = [each for each in taken if each.executor != self.store.owner]
        gone = self._shelf.gone({each.executor for each in held}) if held else set()
        for each in held:
            if each.executor in gone:
                activation.resume(each)

        idle = {each.id: each for each in taken if each.executor == self.store.owner and not self._runs(each)}
        for id in idle.keys() & self._idle:
            activation.resume(idle[id])

        self._idle = {id for id in idle if id not in self._idle}

    def _runs(self, taken: Running) -> bool:
        return taken.id.partition(":")[0] in self._at_work

    def _at_rest(self) -> bool:
        return self._quiet and not self._at_work

    # -- an activation -------------------------------------------------------------------------------------------

    async def _activate(self, flow_name: str, execution_id: str, token: int) -> str:
        """Claim, run until it waits or ends, give back. Returns what became of it.

        It ends only when the execution is claimed by somebody or has nothing to do: what ended too early would be
        taken for done by DBOS.
        """
        if execution_id in self._at_work:
            return SUPERSEDED  # it was taken for lost, and is not

        self._at_work[execution_id] = asyncio.get_running_loop().create_future()
        try:
            execution = await self._begin(flow_name, execution_id, token)
            return SUPERSEDED if execution is None else await self._until_rest(execution)
        except (FlowdeckError, StoreError, TypeError) as problem:
            row = await asyncio.to_thread(self.store.get_execution, execution_id)
            if row is not None and row.finished_us is not None:
                return SUPERSEDED  # whoever was taken for lost has ended it

            self.report.refused[execution_id] = str(problem)
            self._tell("refused", execution_id, str(problem))
            return f"refused: {problem}"
        finally:
            self._at_work.pop(execution_id, None)
            self._running.pop(execution_id, None)

    async def _begin(self, flow_name: str, execution_id: str, token: int) -> TriggerFlowExecution | None:
        """Take the execution up or start it; ``None`` when somebody else has done so."""
        while True:
            try:
                if token:
                    return await self.host.take_up(execution_id, flow=self.flows[flow_name], token=token)

                rows = await asyncio.to_thread(self.store.read_inbox, execution_id)
                row = next((row for row in rows if row.kind == "start"), None)
                return self._running[execution_id] if row is not None and self._start(row) else None
            except (ExecutionBusy, ExecutionExists):
                return None
            except StoreBusy as problem:
                self._away(str(problem))
                await asyncio.sleep(AWAY_SECONDS)

    async def _until_rest(self, execution: TriggerFlowExecution) -> str:
        loop = asyncio.get_running_loop()
        log = execution._log
        assert log is not None
        while True:
            # Once it rests, or, as what it was asked may be nothing that it stirs for, after a while again.
            await asyncio.wait({self._at_work[execution.id]}, timeout=RECHECK_SECONDS if log._resting else None)
            if execution.is_closed() and log.error is None:
                with suppress(ExecutionError):
                    await log.settled()  # its end must be in the store, or nobody would go on with it

            if log.error is not None:
                return SUPERSEDED

            if execution.is_closed():
                return execution.get_status()

            if self._at_work[execution.id].done():
                self._at_work[execution.id] = loop.create_future()

            if log._resting and rests(execution) and await self._give_back(execution, log.token):
                return "waits"  # any other closes by itself, soon

    async def _give_back(self, execution: TriggerFlowExecution, token: int) -> bool:
        """Give a waiting execution back. Returns ``False`` if it has been asked something meanwhile, and goes on."""
        hosted = self.host._hosted.get(execution.id)
        if hosted is not None:
            hosted.token = token + 1  # what it will be then: it was not taken away from us

        while True:
            try:
                given = await asyncio.to_thread(self._shelf.give_back, execution.id, token)
            except StoreBusy as problem:
                self._away(str(problem))
                await asyncio.sleep(AWAY_SECONDS)
            except ExecutionFenced:
                given = True
                break
            else:
                break

        if hosted is not None and given:
            self.host._hosted.pop(execution.id, None)
            self._shelf.control.forget(hosted)
            self._shelf.control.bell.ring()  # who looked for work just now took it for ours
        elif hosted is not None:
            hosted.token = token

        return given

    def _heard(self, execution: TriggerFlowExecution, wake_us: int | None) -> None:
        """It has come to rest, or (with -1) stirs. Called on its loop."""
        self.host._rests(execution, wake_us)
        resting = self._at_work.get(execution.id)
        if wake_us != -1 and resting is not None and not resting.done():
            resting.set_result(None)
