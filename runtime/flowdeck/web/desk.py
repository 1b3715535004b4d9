"""Runs behind a service: started once per key, found again after a restart, answered by one of many.

No HTTP here. A durable run may live in this process, be parked in the store, or belong to another process; a run
without a store lives here or nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from flowdeck.durable import ControlClient, ExecutionRow
from flowdeck.durable.using import DurableStore
from flowdeck.durable.worker import Worker
from flowdeck.errors import ExecutionBusy, ExecutionExists
from flowdeck.events.ids import new_id
from flowdeck.events.lineage import run_context
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution
from flowdeck.web.access import Caller
from flowdeck.web.control import Control
from flowdeck.web.problems import Problem

__all__ = ["Desk", "Run", "come_to_rest"]

_log = logging.getLogger("flowdeck.web")

_DIGEST: Final = "request_digest"
"""Key in the meta of a run that was started under an idempotency key."""

Run = TriggerFlowExecution | ExecutionRow
"""A run that is in memory, or the store's row of one that is not: parked, or with another server."""


class Desk:
    """Keeps the runs of some flows.

    Args:
        flows: by name.
        services: what hosts the runs.
        store: a store directory; runs are durable then, and what a killed server left behind is taken up.
        resources: returns the runtime resources of a run.
        keep: how many ended runs stay readable without a store.
    """

    def __init__(
        self,
        flows: Mapping[str, TriggerFlow],
        services: Services,
        *,
        store: Any = None,
        durability: str = "full",
        resources: Callable[[], Mapping[str, Any]] | None = None,
        keep: int = 1_000,
    ) -> None:
        self.flows = dict(flows)
        self.services = services
        self._store_path = store
        self._durability = durability
        self._resources = resources
        self._keep = keep
        self._worker: Worker | None = None
        self._serving: asyncio.Task[Any] | None = None
        self._client: ControlClient | None = None
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._ended: OrderedDict[str, TriggerFlow] = OrderedDict()
        self._opening: dict[str, asyncio.Task[TriggerFlowExecution | None]] = {}
        self.control = Control(lambda: self._client)
        """Answers, intervenes, cancels, and lists what is asked."""

    # -- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store and begin to take up what was left behind."""
        if self._store_path is None or self._worker is not None:
            return

        self._worker = await asyncio.to_thread(self._make_worker)
        self._client = ControlClient(self._durable.store.path)
        self._serving = asyncio.get_running_loop().create_task(self._worker.run())
        self._serving.add_done_callback(_worker_ended)

    def _make_worker(self) -> Worker:
        return Worker(
            self._store_path,
            self.flows.values(),
            self.services,
            resources=self._resources,
            durability=self._durability,
            tell=self._tell,
        )

    async def close(self) -> None:
        """Let durable runs go, to be taken up by whoever comes next; others end with the process."""
        for task in list(self._running.values()):
            if self._worker is not None or task.done():
                task.cancel()

        if self._worker is not None and self._serving is not None:
            self._worker.stop()
            await asyncio.gather(self._serving, return_exceptions=True)

        if self._client is not None:
            self._client.close()

        self._worker = self._serving = self._client = None

    @property
    def _durable(self) -> Any:
        assert self._worker is not None
        used: DurableStore = self._worker.durable
        return used

    # -- starting ------------------------------------------------------------------------------------------------

    async def start(
        self, flow: TriggerFlow, value: Any, caller: Caller, *, key: str | None = None, task_id: str | None = None
    ) -> tuple[Run, bool]:
        """Start a run, or return the one that was started under ``key`` before. In a store the start is committed.

        Returns the run, and whether it is new.

        Raises:
            Problem: the key is none, or was given with another value or task before; the service has not been opened.
        """
        self._check_open()
        execution_id = new_id() if key is None else _id_of(flow, key, caller)
        digest = None if key is None else _digest_of(key, value, task_id)
        if key is not None:
            known = await self.locate(flow, execution_id, caller)
            if known is not None:
                await self._check_same(known, key, digest)
                return known, False

        given = {**flow.provided_resources(), **(self._resources() if self._resources is not None else {})}
        with run_context(**{_DIGEST: digest}):  # in the run's meta it is found again after a restart
            execution = flow.create_execution(
                execution_id=execution_id,
                services=self.services,
                runtime_resources=given,
                auto_close_timeout=0.0,
                task_id=task_id,
                tenant_id=caller.tenant_id,
                user_id=caller.user_id,
            )

        task = await self.launch(flow, execution, value)
        log = execution._log
        if log is not None and not task.done():
            try:
                await log.committed()
            except ExecutionExists:
                flow.remove_execution(execution)
                known = await self.locate(flow, execution_id, caller)
                if known is None or key is None:
                    raise

                await self._check_same(known, key, digest)
                return known, False

        return execution, True

    async def _check_same(self, known: Run, key: str, digest: str | None) -> None:
        """Refuse a key that comes again with another request: whoever sent it did not mean that run."""
        first = await self._digest_of_run(known)
        if first is not None and first != digest:
            raise Problem(
                422,
                "Idempotency key used before",
                f"Idempotency-Key {key[:80]!r} has started run {known.id} with another body; repeat that body to get "
                "this run, or give a new request a new key",
                execution_id=known.id,
            )

    async def _digest_of_run(self, run: Run) -> str | None:
        """Return what the run was started with, as a digest; ``None``: by a version that kept none, or unreadable."""
        if not isinstance(run, ExecutionRow):
            return run.run_context.meta.get(_DIGEST)

        assert self._client is not None
        try:
            header = await asyncio.to_thread(self._client._stored_header, run.id)
            found = header["run_context"]["meta"][_DIGEST]
        except KeyError:  # forgotten just now, or none was kept
            return None
        except Exception as error:  # whoever asks again has a right to the run, whatever has become of its beginning
            _log.warning("what run %s was started with cannot be read: %s: %s", run.id, type(error).__name__, error)
            return None

        return found if isinstance(found, str) else None

    async def launch(self, flow: TriggerFlow, execution: TriggerFlowExecution, value: Any) -> asyncio.Task[None]:
        """Start a run beside the caller, and return its task once it has begun and that is recorded."""
        task = asyncio.get_running_loop().create_task(self._run(flow, execution, value))
        self._running[execution.id] = task
        await asyncio.sleep(0)
        return task

    async def _run(self, flow: TriggerFlow, execution: TriggerFlowExecution, value: Any) -> None:
        try:
            await execution._settle_start(value)
            execution._on_idle()
        except ExecutionExists:
            return  # told where it was started
        except Exception as error:
            if not _is_ours(execution):
                return  # somebody else goes on with it

            _log.info("run %s of %r failed: %s: %s", execution.id, flow.name, type(error).__name__, error)
            if not execution.is_closed():
                await execution.async_close(reason="failed", pending_interrupts="cancel")
        finally:
            self._running.pop(execution.id, None)

        if self._worker is None:  # in a store it may leave the memory while it waits, and the host tells of its end
            task = asyncio.get_running_loop().create_task(self._await_end(flow, execution))
            self._running[execution.id] = task

    async def _await_end(self, flow: TriggerFlow, execution: TriggerFlowExecution) -> None:
        await execution.wait_closed()
        self._running.pop(execution.id, None)
        self._has_ended(flow, execution.id)

    def _tell(self, kind: str, execution_id: str, text: str) -> None:
        if kind == "ended":
            for flow in self.flows.values():
                if execution_id in flow._executions:
                    self._has_ended(flow, execution_id)
        elif kind == "refused":
            _log.warning("run %s cannot go on here: %s", execution_id, text)

    def _has_ended(self, flow: TriggerFlow, execution_id: str) -> None:
        self._ended[execution_id] = flow
        while len(self._ended) > self._keep:
            oldest, its_flow = self._ended.popitem(last=False)
            its_flow.remove_execution(oldest)

    # -- finding -------------------------------------------------------------------------------------------------

    async def locate(self, flow: TriggerFlow, execution_id: str, caller: Caller) -> Run | None:
        """Return a run of ``flow`` that the caller may see, wherever it is; ``None``: there is none.

        One that waits in the store stays there: who only looks neither takes it up nor changes its epoch.
        """
        self._check_open()
        execution = flow._executions.get(execution_id)
        if execution is not None and _is_ours(execution):
            return execution if _visible(execution.run_context.meta.get("tenant_id"), caller) else None

        if self._client is None:
            return None

        row = await asyncio.to_thread(self._client.get_execution, execution_id)
        if row is None or row.flow_name != flow.name or not _visible(row.tenant_id, caller):
            return None

        return row if row.finished_us is None else await self._reopen(flow, execution_id)

    async def find(self, flow: TriggerFlow, execution_id: str, caller: Caller) -> TriggerFlowExecution | None:
        """The same, taken up from the store where it is not in memory.

        Raises:
            Problem: 409, another living server runs it.
        """
        found = await self.locate(flow, execution_id, caller)
        if not isinstance(found, ExecutionRow):
            return found

        try:
            return await self._reopen(flow, execution_id)
        except ExecutionBusy:
            row = found if self._client is None else await asyncio.to_thread(self._client.get_execution, execution_id)
            if row is not None and row.finished_us is not None:
                return await self._reopen(flow, execution_id)  # it has ended just now

            raise _elsewhere(row or found) from None

    def _check_open(self) -> None:
        if self._serving is not None and self._serving.done():
            raise Problem(503, "The store cannot be used", "the server could not go on with it; its log says why")

        if self._store_path is not None and self._worker is None:
            raise Problem(
                503,
                "The store is not open",
                "the application must enter the service's lifespan: FastAPI(lifespan=service.lifespan), or "
                "include_router(service.router)",
            )

    async def _reopen(self, flow: TriggerFlow, execution_id: str) -> TriggerFlowExecution | None:
        opening = self._opening.get(execution_id)
        if opening is None:
            opening = asyncio.get_running_loop().create_task(self._open_once(flow, execution_id))
            self._opening[execution_id] = opening
            opening.add_done_callback(lambda _: self._opening.pop(execution_id, None))

        return await asyncio.shield(opening)

    async def _open_once(self, flow: TriggerFlow, execution_id: str) -> TriggerFlowExecution | None:
        host = self._durable.host
        try:
            found: TriggerFlowExecution | None = await host.reopen(flow, execution_id)
        except ExecutionBusy:
            hosted = host.hosted.get(execution_id)  # taken up here meanwhile
            found = hosted.execution if hosted is not None else None
            if found is None:
                raise

        if found is not None and found.is_closed():
            flow._executions[execution_id] = found
            self._has_ended(flow, execution_id)

        return found

    async def open_interrupts(self, flow: TriggerFlow, caller: Caller, limit: int) -> list[dict[str, Any]]:
        """Return what the runs of a flow ask, the longest open first."""
        self._check_open()
        if self._client is not None:
            return await self.control.stored_questions(flow.name, lambda tenant: _visible(tenant, caller), limit)

        found = []
        for execution in list(flow._executions.values()):
            if not execution.is_closed() and _visible(execution.run_context.meta.get("tenant_id"), caller):
                found += await self.control.interrupts(execution)

        return sorted(found, key=lambda each: each["opened_at"] or 0.0)[:limit]


async def come_to_rest(execution: TriggerFlowExecution, seconds: float, stop: asyncio.Event | None = None) -> bool:
    """Wait until a run has ended or waits for somebody; tell whether it has, in so many seconds and before ``stop``."""
    stream = execution.stream
    if stream.closed or stream.resting:
        return True

    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    stopped = None if stop is None else loop.create_task(_happens(stop))
    try:
        while not (stream.closed or stream.resting):
            changed = stream.changed()
            waits = {changed} if stopped is None else {changed, stopped}
            try:
                await asyncio.wait(waits, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stream.forget(changed)

            if not changed.done():
                return False
    finally:
        if stopped is not None:
            stopped.cancel()

    return True


async def _happens(event: asyncio.Event) -> None:
    await event.wait()


def _is_ours(execution: TriggerFlowExecution) -> bool:
    """Whether this process still has the run: one that was taken over is a shell that changes no more."""
    return execution._log is None or execution._log.error is None or execution.is_closed()


def _worker_ended(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log.error("runs are taken up no more, start the server again: %s: %s", type(error).__name__, error)


def _elsewhere(row: ExecutionRow) -> Problem:
    return Problem(
        409,
        "Run elsewhere",
        f"run {row.id} lives in the server process {row.writer}, and only there it can be followed; let one server "
        "serve a store, or send all requests of a run to the same. Its status, questions and answers work here too",
        execution_id=row.id,
        owner=row.writer,
    )


def _visible(tenant_id: str | None, caller: Caller) -> bool:
    return caller.tenant_id is None or caller.tenant_id == tenant_id


def _id_of(flow: TriggerFlow, key: str, caller: Caller) -> str:
    if not 0 < len(key) <= 255:
        raise Problem(422, "Bad idempotency key", "expected 1 to 255 characters")

    return hashlib.sha256(f"{flow.name}\0{caller.tenant_id or ''}\0{key}".encode()).hexdigest()[:32]


def _digest_of(key: str, value: Any, task_id: str | None) -> str:
    """Return what tells one request from another; keyed, as it stands in events, where secrets are hidden."""
    request = msgspec.json.encode([value, task_id], order="deterministic")
    return hmac.new(key.encode(), request, "sha256").hexdigest()[:32]
