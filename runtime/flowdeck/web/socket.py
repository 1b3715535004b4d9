"""The same over a WebSocket: several requests at a time on one connection, each under an id of the client's own.

A client sends ``{"id", "op", "flow", ...}``; what comes back carries the same ``id``:

    start      input, task_id?, key?           -> accepted {execution_id}, then the run's frames as for follow
    follow     execution_id, after?            -> item, waiting, reset, gap ..., and closed or failed as the last
    status     execution_id                    -> run
    answer     execution_id, interrupt_id, value, key?  -> answered
    intervene  execution_id, payload, target?, note?, metadata?  -> answered
    cancel     execution_id, reason?           -> answered
    forget     (the id of a start or follow)   -> forgotten; the run goes on

Frames are ``{"id", "type", "position"?, "data"}``. What is wrong with one request is an ``error`` frame with a problem
in ``data``; the connection and the other requests go on.
"""

# Annotations are evaluated here, not postponed: they name dependencies that are made per service.

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import msgspec
from fastapi import APIRouter, Depends, WebSocket
from starlette.websockets import WebSocketDisconnect

from flowdeck.durable import ExecutionRow
from flowdeck.triggerflow import TriggerFlow
from flowdeck.web.access import Access, Caller, caller_of, check_origin, dependency_for
from flowdeck.web.bodies import parse
from flowdeck.web.desk import Run
from flowdeck.web.feed import Position, encode_item, feed
from flowdeck.web.problems import Problem, problem_of
from flowdeck.web.schemas import OUTCOMES
from flowdeck.web.views import shown_row, shown_run

if TYPE_CHECKING:
    from flowdeck.web.service import FlowService

__all__ = ["socket_routes"]

_log = logging.getLogger("flowdeck.web")

MAX_REQUESTS: Final = 100
"""Requests of one connection that may be under way."""

_TOO_BIG: Final = 1009
_GOING_AWAY: Final = 1001
_POLICY: Final = 1008


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """One request."""

    id: str | int
    op: str
    flow: str | None = None
    execution_id: str = ""
    interrupt_id: str = ""
    after: str | None = None
    until: str = "closed"
    input: Any = None
    value: Any = None
    payload: Any = None
    key: str | None = None
    task_id: str | None = None
    target: str | None = None
    note: str | None = None
    metadata: dict[str, Any] | None = None
    reason: str | None = None


_ACCESS: Final = {
    "start": "start",
    "follow": "read",
    "status": "read",
    "answer": "answer",
    "intervene": "intervene",
    "cancel": "cancel",
}


def socket_routes(service: "FlowService") -> APIRouter:
    """Return the WebSocket route of a service: ``/socket``."""
    router = APIRouter()
    start_, read_, answer_, intervene_, cancel_ = (
        Depends(dependency_for(service.auth, kind)) for kind in get_args(Access)
    )  # one connection can do everything, so whoever opens it must be allowed everything

    @router.websocket("/socket")
    async def socket(
        websocket: WebSocket,
        start: Annotated[Any, start_],
        read: Annotated[Any, read_],
        answer: Annotated[Any, answer_],
        intervene: Annotated[Any, intervene_],
        cancel: Annotated[Any, cancel_],
    ) -> None:
        callers = {"start": start, "read": read, "answer": answer, "intervene": intervene, "cancel": cancel}
        try:
            check_origin(websocket, service.origins)
        except Problem as problem:
            await websocket.close(_POLICY, problem.detail[:120])
            return

        await websocket.accept()
        await _Connection(service, websocket, {kind: caller_of(given) for kind, given in callers.items()}).serve()

    return router


class _Connection:
    def __init__(self, service: "FlowService", websocket: WebSocket, callers: dict[str, Caller]) -> None:
        self._service = service
        self._websocket = websocket
        self._callers = callers
        self._tasks: dict[str | int, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()
        self._over = False

    async def serve(self) -> None:
        """Take requests until the client leaves or the service stops."""
        loop = asyncio.get_running_loop()
        receiving = loop.create_task(self._receive())
        stopping = loop.create_task(_wait(self._service.stopping))
        try:
            await asyncio.wait({receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._over = True
            tasks = [receiving, stopping, *self._tasks.values()]
            for task in tasks:
                task.cancel()

            await asyncio.gather(*tasks, return_exceptions=True)

        if stopping.done() and not stopping.cancelled():
            await self._close(_GOING_AWAY, "the service stops; connect again")

    async def _receive(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return

            text = message.get("text")
            content = text if text is not None else message.get("bytes") or b""
            if len(content) > self._service.max_body:
                await self._close(_TOO_BIG, f"a message may have {self._service.max_body} bytes")
                return

            await self._take(content)

    async def _take(self, content: str | bytes) -> None:
        try:
            asked = parse(content, Asked)
        except Problem as problem:
            await self._tell(None, "error", problem.body())
            return

        try:
            self._begin(asked)
        except Problem as problem:
            await self._tell(asked.id, "error", problem.body())

    def _begin(self, asked: Asked) -> None:
        if asked.op == "forget":
            task = self._tasks.get(asked.id)
            if task is None:
                raise Problem(404, "Not found", f"no request {asked.id!r} is under way")

            task.cancel()
            return

        if asked.op not in _ACCESS:
            raise Problem(422, "Unknown op", f"op {asked.op[:40]!r}: expected {', '.join(_ACCESS)} or forget")

        if asked.id in self._tasks:
            raise Problem(409, "Id in use", f"request {asked.id!r} is under way already")

        if len(self._tasks) >= MAX_REQUESTS:
            raise Problem(429, "Too many requests", f"{MAX_REQUESTS} requests of this connection are under way")

        task = asyncio.get_running_loop().create_task(self._do(asked))
        self._tasks[asked.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(asked.id, None))

    async def _do(self, asked: Asked) -> None:
        try:
            await self._handle(asked, self._callers[_ACCESS[asked.op]])
        except asyncio.CancelledError:
            if not self._over:
                await self._tell(asked.id, "forgotten", None)

            raise
        except WebSocketDisconnect:
            pass
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                _log.exception("a request over a WebSocket failed")
                problem = Problem(500, "Internal error", "the service's log says more")

            await self._tell(asked.id, "error", problem.body())

    async def _handle(self, asked: Asked, caller: Caller) -> None:
        service, desk = self._service, self._service.desk
        flow = self._flow(asked)
        if asked.op == "start":
            service.check_input(flow, asked.input)
            execution, new = await desk.start(flow, asked.input, caller, key=asked.key, task_id=asked.task_id)
            await self._tell(asked.id, "accepted", {"execution_id": execution.id, "new": new})
            await self._follow(asked, execution, flow, caller)
            return

        found = await desk.locate(flow, asked.execution_id, caller)
        if found is None:
            raise Problem(404, "Not found", f"flow {flow.name!r} has no run {asked.execution_id[:80]!r}")

        if asked.op == "follow":
            await self._follow(asked, found, flow, caller)
        elif asked.op == "status":
            if isinstance(found, ExecutionRow):
                shown = shown_row(found, await desk.control.interrupts(found))
            else:
                shown = shown_run(found, flow.name, service.expose_errors)

            await self._tell(asked.id, "run", shown)
        else:
            await self._act(asked, found, caller)

    async def _act(self, asked: Asked, execution: Run, caller: Caller) -> None:
        service, control = self._service, self._service.desk.control
        if asked.op == "answer":
            known = await control.interrupt(execution, asked.interrupt_id)
            if known is None:
                raise Problem(404, "Not found", f"the run asks nothing under {asked.interrupt_id[:80]!r}")

            service.check_answer(known, asked.value)
            answered = await control.answer(execution, asked.interrupt_id, asked.value, caller, asked.key)
        elif asked.op == "intervene":
            body = {
                "payload": asked.payload,
                "target": asked.target,
                "note": asked.note,
                "metadata": asked.metadata,
            }
            answered = await control.intervene(execution, body, caller)
        else:
            answered = await control.cancel(execution, asked.reason, caller)

        status, title = OUTCOMES.get(answered.outcome, (409, "Not possible now"))
        if status >= 400:
            raise Problem(status, title, answered.detail or answered.outcome, outcome=answered.outcome)

        await self._tell(asked.id, "answered", {"outcome": answered.outcome, "detail": answered.detail})

    async def _follow(self, asked: Asked, run: Run, flow: TriggerFlow, caller: Caller) -> None:
        try:
            after = Position.parse(asked.after)
        except ValueError as error:
            raise Problem(422, "Bad position", str(error)) from None

        service = self._service
        execution = await service.desk.find(flow, run.id, caller) if isinstance(run, ExecutionRow) else run
        if execution is None:
            raise Problem(404, "Not found", f"flow {flow.name!r} has no run {run.id!r} any more")

        frames = feed(
            execution,
            after,
            until_waiting=asked.until == "waiting",
            expose_errors=service.expose_errors,
            translate=service.translate,
            heartbeat=service.heartbeat,
        )
        async with aclosing(frames):
            async for batch in frames:
                for frame in batch:
                    await self._tell(asked.id, frame.event, frame.data, str(frame.position))

    def _flow(self, asked: Asked) -> TriggerFlow:
        flows = self._service.desk.flows
        name = asked.flow if asked.flow is not None or len(flows) > 1 else next(iter(flows))
        flow = flows.get(name or "")
        if flow is None:
            raise Problem(404, "Not found", f"flow {name!r}: expected one of {', '.join(map(repr, flows))}")

        return flow

    async def _tell(self, request: str | int | None, kind: str, data: Any, position: str | None = None) -> None:
        frame: dict[str, Any] = {"id": request, "type": kind}
        if position is not None:
            frame["position"] = position

        text = encode_item({**frame, "data": data}).decode()
        stalled = False
        async with self._sending:
            try:
                async with asyncio.timeout(self._service.stall):
                    await self._websocket.send_text(text)
            except TimeoutError:
                stalled = True

        if stalled:
            _log.info("a WebSocket client took nothing for %g s and was let go", self._service.stall)
            await self._close(_POLICY, f"nothing was read for {self._service.stall:g} s; connect again to go on")
            raise WebSocketDisconnect(_POLICY)

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._websocket.close(code, reason)
        except (TimeoutError, RuntimeError, OSError):
            pass  # it is gone already


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()
