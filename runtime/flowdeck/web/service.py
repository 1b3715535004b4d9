"""``FlowService``: flows as a router of a FastAPI application, or as an application of their own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from flowdeck.execution.schema import check_value
from flowdeck.execution.services import Services, current_services
from flowdeck.interaction import ProductMapper
from flowdeck.product import product_event
from flowdeck.triggerflow import TriggerFlow
from flowdeck.web.access import Auth, is_loopback
from flowdeck.web.desk import Desk
from flowdeck.web.feed import Translate
from flowdeck.web.problems import Problem
from flowdeck.web.routes import flow_routes
from flowdeck.web.signals import on_stop_signals
from flowdeck.web.socket import socket_routes
from flowdeck.web.webhooks import Webhook

__all__ = ["FlowService"]

_NO_SEGMENT: Final = re.compile(r"[/{}?#%\\\x00-\x1f]")


class FlowService:
    """Serves flows over HTTP.

    Args:
        flows: what is served, each below its name.
        store: a directory: runs are durable, and a server that starts takes up what the last one left. ``None``: runs
            live and die with the process.
        durability: as for ``runtime.use_store``.
        runtime: hosts the runs; by default the current one.
        resources: returns the runtime resources of a run.
        auth: a FastAPI dependency that returns a :class:`~flowdeck.web.Caller`, or a user's name, and raises
            ``HTTPException`` for nobody; or one for each of start, read, answer, intervene and cancel.
        webhooks: other systems that may answer interrupts.
        product: makes product events of stream items by the application's rules; without one the stable fields of
            :mod:`flowdeck.product` are used.
        raw_items: hand the runtime stream on as it is, with the names of operators and signals in it.
        expose_errors: tell clients the text of an exception that ended a run.
        wait: seconds a start waits for the end of the run, unless the request says otherwise.
        heartbeat: seconds after which an idle event stream sends a comment.
        stall: seconds after which a client that does not read is let go.
        max_body: bytes a request body, or a WebSocket message, may have.
        origins: origins beside the service's own whose pages may use it.
        keep: how many ended runs stay readable without a store.

    Raises:
        ValueError: no flow, two of one name, a name that can be no part of an address, or an ``auth`` that leaves a
            kind of route open.
    """

    def __init__(
        self,
        *flows: TriggerFlow,
        store: Any = None,
        durability: str = "full",
        runtime: Any = None,
        resources: Callable[[], Mapping[str, Any]] | None = None,
        auth: Auth = None,
        webhooks: Iterable[Webhook] = (),
        product: ProductMapper | None = None,
        raw_items: bool = False,
        expose_errors: bool = False,
        wait: float = 10.0,
        heartbeat: float = 15.0,
        stall: float = 30.0,
        max_body: int = 1_048_576,
        origins: Iterable[str] = (),
        keep: int = 1_000,
    ) -> None:
        if not flows:
            raise ValueError("FlowService needs at least one flow")

        names = {flow.name: flow for flow in flows}
        if len(names) < len(flows):
            raise ValueError("two flows have the same name, which is their address; give each a name of its own")

        for name in names:
            if name in (".", "..") or _NO_SEGMENT.search(name):
                raise ValueError(f"the name of flow {name!r} is its address; expected one without / {{ }} ? # % and \\")

        services: Services = runtime.services if runtime is not None else current_services()
        self.desk = Desk(names, services, store=store, durability=durability, resources=resources, keep=keep)
        self.auth = auth
        self.webhooks = {hook.name: hook for hook in webhooks}
        self.translate = None if raw_items else product_event if product is None else _by_rules(product)
        self.expose_errors = expose_errors
        self.wait = wait
        self.heartbeat = heartbeat
        self.stall = stall
        self.max_body = max_body
        self.origins = frozenset(origins)
        self.stopping = asyncio.Event()
        self._router: APIRouter | None = None
        self._entered = 0

    @property
    def router(self) -> APIRouter:
        """The routes, for ``app.include_router``; with them comes :meth:`lifespan`."""
        if self._router is None:
            router = APIRouter(lifespan=self.lifespan)
            for flow in self.desk.flows.values():
                router.include_router(flow_routes(self, flow))

            router.include_router(socket_routes(self))
            self._router = router

        return self._router

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Open the store and take up what was left behind; at the end let it go. It may be entered more than once.

        A server waits for its open connections before it lets an application know that it stops, so Ctrl-C and SIGTERM
        end the event streams here.
        """
        self._entered += 1
        try:
            if self._entered > 1:
                yield
                return

            self.stopping.clear()
            await self.desk.open()
            with on_stop_signals(asyncio.get_running_loop(), self.stop):
                yield
        finally:
            self._entered -= 1
            if self._entered == 0:
                self.stop()
                await self.desk.close()

    def stop(self) -> None:
        """End every event stream and WebSocket, so that a server may shut down. On the service's event loop."""
        self.stopping.set()

    def app(self, **options: Any) -> FastAPI:
        """Return an application of the flows alone. ``options`` go to :class:`fastapi.FastAPI`."""
        app = FastAPI(**{"title": "Flowdeck", **options})
        app.include_router(self.router)
        return app

    def run(self, host: str = "127.0.0.1", port: int = 8000, **options: Any) -> None:
        """Serve until Ctrl-C. Needs uvicorn, which gets ``options``.

        Clients that do not finish their headers, or do not read, are cut off (:mod:`flowdeck.web.serving`).

        Raises:
            ValueError: the address is open to other machines, and nobody asks who they are.
        """
        import uvicorn

        from flowdeck.web.serving import bounded_protocol

        app = self.app()
        if is_loopback(host):
            # A page whose name was made to resolve to this machine is not this machine.
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host])
        elif self.auth is None:
            raise ValueError(
                f"{host} is reachable from other machines: give FlowService(auth=...), or serve on 127.0.0.1"
            )

        given = {"http": bounded_protocol(2 * self.stall + 1.0), "timeout_graceful_shutdown": 2, **options}
        with suppress(KeyboardInterrupt):  # uvicorn stops by it, and raises it again when all is closed
            uvicorn.Server(uvicorn.Config(app, host=host, port=port, **given)).run()

    # -- checks ---------------------------------------------------------------------------------------------------

    def check_input(self, flow: TriggerFlow, value: Any) -> None:
        """Refuse an input that does not fit the flow's contract before there is a run.

        Raises:
            ContractError: it does not fit.
        """
        contract = flow._contract
        if contract is not None and contract.initial_input is not None:
            contract.initial_input.checked(value, flow.name)

    @staticmethod
    def check_answer(interrupt: Mapping[str, Any], value: Any) -> None:
        """Refuse an answer that does not fit the question.

        Raises:
            Problem: 422.
        """
        schema = interrupt.get("schema")
        wrong = check_value(schema, value) if schema is not None else None
        if wrong:
            raise Problem(422, "The answer does not fit", wrong, schema=schema)


def _by_rules(product: ProductMapper) -> Translate:
    def translate(item: Any, execution_id: str, task_id: str | None) -> Any:
        event = product.of_stream(item)
        if event is None:
            return None

        known = {"execution_id": event.execution_id or execution_id, "task_id": event.task_id or task_id}
        return event.model_copy(update=known)

    return translate
