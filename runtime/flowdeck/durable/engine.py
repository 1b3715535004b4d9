"""Engines that executions run on, beside the process's own: ``Durable.dbos(url).serve([flow])``."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from flowdeck.durable.client import ControlClient
from flowdeck.durable.postgres.address import parse
from flowdeck.errors import DefinitionError, ExecutionExists
from flowdeck.events.ids import new_id
from flowdeck.execution.services import Services, current_services

if TYPE_CHECKING:
    from flowdeck.durable.worker import Report
    from flowdeck.triggerflow import TriggerFlow

__all__ = ["DbosEngine", "Durable"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Durable:
    """Where executions run when that is not the process that starts them."""

    @staticmethod
    def dbos(url: str, *, global_concurrency: int | None = None, limiter: dict[str, float] | None = None) -> DbosEngine:
        """Return DBOS over a PostgreSQL store. Needs ``pip install 'flowdeck[dbos]'``.

        Args:
            url: of the store, ``postgresql://user@host/database``; DBOS keeps its tables in a schema beside it.
            global_concurrency: how many activations of a flow may run at once, over all processes.
            limiter: ``{"limit": n, "period": seconds}``: how many activations of a flow may begin in a period.

        Raises:
            StoreError: the URL cannot be read.
        """
        return DbosEngine(url, global_concurrency=global_concurrency, limiter=limiter)


class DbosEngine:
    """Executions on DBOS; see :meth:`Durable.dbos`. Every other tool takes the same URL as without DBOS."""

    def __init__(self, url: str, **limits: Any) -> None:
        self.address = parse(url)
        self._url = url
        self._limits = limits

    def serve(self, flows: Iterable[TriggerFlow], **options: Any) -> Report:
        """Run executions of these flows until SIGINT or SIGTERM, as one of any number of processes.

        Args:
            options: see :meth:`work`.

        Raises:
            DefinitionError: other processes could not go on with one of the flows; see ``flow.check_portable``.
            StoreError: the server or DBOS cannot be used.
        """
        return asyncio.run(self.work(flows, **options))

    async def work(
        self,
        flows: Iterable[TriggerFlow],
        *,
        once: bool = False,
        services: Services | None = None,
        resources: Callable[[], Mapping[str, Any]] | None = None,
        concurrency: int = 256,
        lease: float = 30.0,
    ) -> Report:
        """The same as :meth:`serve` on the running loop.

        Args:
            once: until nothing is left that could go on without somebody's answer.
            services: what hosts the executions; by default the runtime's.
            resources: returns runtime resources of every execution, beside what ``@flow.resources`` gives.
            concurrency: activations at once in this process.
            lease: seconds without a beat after which this process counts as gone.
        """
        from flowdeck.durable.on_dbos.worker import DbosWorker

        served = list(flows)
        for flow in served:
            if problems := flow.check_portable("dbos"):
                raise DefinitionError(f"flow {flow.name!r} cannot be served on DBOS: {'; '.join(problems)}")

        worker = DbosWorker(
            self._url,
            served,
            services or current_services(),
            resources=resources,
            concurrency=concurrency,
            lease=lease,
            **self._limits,
        )
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError, RuntimeError, ValueError):  # only the main thread hears signals
            for number in _SIGNALS:
                loop.add_signal_handler(number, worker.stop)

        try:
            return await worker.run(once=once)
        finally:
            with suppress(NotImplementedError, RuntimeError, ValueError):
                for number in _SIGNALS:
                    loop.remove_signal_handler(number)

    def client(self) -> ControlClient:
        """Return what lists, answers and watches, from any process; to be closed, or used in ``with``."""
        return ControlClient(self._url)

    def start(
        self, flow: TriggerFlow | str, value: Any = None, *, execution_id: str | None = None, actor: str | None = None
    ) -> str:
        """Ask for an execution to be started by whichever process serves the flow, and return its id.

        Asking again under the same ``execution_id`` is asking once.

        Raises:
            ExecutionExists: there is an execution of that id, which was not asked for in this way.
        """
        name = flow if isinstance(flow, str) else flow.name
        wanted = execution_id or new_id()
        with self.client() as client:
            said = client.put_inbox("start", wanted, name, value, actor, wanted)

        if not said.accepted:
            raise ExecutionExists(f"execution {wanted} was not started: {said.detail or said.outcome}")

        return wanted
