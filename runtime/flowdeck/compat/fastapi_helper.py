"""``FastAPIHelper``: the reference system's way to put an agent, a flow or a generator behind HTTP.

Requests are ``{"data": ..., "options": {}}``: the JSON body of a POST, the query parameter ``payload`` of GET and SSE,
a frame of a WebSocket. Answers are envelopes: ``{"status", "data", "msg"}``, with ``error`` when something went wrong.

What is different: the HTTP status is that of the envelope (``always_200=True`` gives the reference's); streams are live
while a flow works; a flow that pauses answers 202 with its questions, and its stream ends with ``event: waiting``
instead of hanging; ``POST {path}/{execution_id}/interrupts/{interrupt_id}`` continues it; runtime resources come from
``@flow.resources``, never from a client. New code has :class:`flowdeck.web.FlowService`.
"""

# Annotations are evaluated here, not postponed: FastAPI reads them where they stand.

import asyncio
import inspect
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Self

from fastapi import FastAPI, Query, Request, WebSocket
from pydantic import BaseModel, Field, ValidationError, create_model
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocketDisconnect

from flowdeck.agents.agent import Agent
from flowdeck.errors import ExecutionNotFound, FlowdeckError, InterruptError, InterruptNotFound
from flowdeck.execution.services import current_services
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution
from flowdeck.web.access import OPEN
from flowdeck.web.desk import Desk, come_to_rest, interrupts_of
from flowdeck.web.feed import encode_item, feed
from flowdeck.web.problems import problem_of

__all__ = ["FastAPIHelper"]

_OPTIONS = frozenset({"concurrency", "timeout", "stream_timeout", "close_timeout"})


class FastAPIHelper(FastAPI):
    """A FastAPI application whose routes ask one provider.

    Args:
        response_provider: an agent or one of its requests, a flow, an execution, or a (async) generator function
            ``f(data, **options)``.
        response_warper: makes the whole answer of a value or an exception, in place of the envelope.
        always_200: answer 200 whatever the envelope says, as the reference does.
        **fastapi: for :class:`fastapi.FastAPI`.

    Raises:
        TypeError: the provider is none of these.
    """

    def __init__(
        self,
        *,
        response_provider: Any,
        response_warper: Callable[[Any], Any] | None = None,
        always_200: bool = False,
        **fastapi: Any,
    ) -> None:
        super().__init__(**fastapi)
        self.response_provider = response_provider
        self.response_warper = response_warper
        self.always_200 = always_200
        self._asked = _provider(response_provider)
        self._body = _body_model(self._asked)

    # -- routes ----------------------------------------------------------------------------------------------------

    def use_post(self, path: str, name: str | None = None, *, dependencies: Any = None) -> Self:
        """Answer POST requests at ``path`` with the provider's whole result."""
        model = self._body

        async def post(body: model) -> Response:  # type: ignore[valid-type]
            return await self._whole(body.data, body.options)  # type: ignore[attr-defined]

        self.post(path, name=name, dependencies=dependencies, openapi_extra=self._contract())(post)
        self._use_answers(path, dependencies)
        return self

    def use_get(self, path: str, name: str | None = None, *, dependencies: Any = None) -> Self:
        """Answer GET requests at ``path?payload=...`` with the provider's whole result."""

        async def get(payload: Annotated[str, Query(description='{"data": ..., "options": {}} as JSON')]) -> Response:
            try:
                data, options = self._read(payload)
            except ValueError as error:
                return self._failed(error)

            return await self._whole(data, options)

        self.get(path, name=name, dependencies=dependencies, openapi_extra=self._contract())(get)
        return self

    def use_sse(self, path: str, name: str | None = None, *, dependencies: Any = None) -> Self:
        """Stream the provider's items at ``path?payload=...`` as Server-Sent Events, an envelope each."""

        async def sse(payload: Annotated[str, Query(description='{"data": ..., "options": {}} as JSON')]) -> Response:
            return StreamingResponse(self._events(payload), media_type="text/event-stream")

        self.get(path, name=name, dependencies=dependencies, openapi_extra=self._contract())(sse)
        return self

    def use_websocket(self, path: str, name: str | None = None, *, dependencies: Any = None) -> Self:
        """Take requests as frames of a WebSocket and send an envelope per item; several requests, one after another."""

        async def websocket(socket: WebSocket) -> None:
            await socket.accept()
            try:
                while True:
                    message = await socket.receive()
                    if message["type"] == "websocket.disconnect":
                        return

                    frame = message.get("text") or message.get("bytes") or ""
                    async with aclosing(self._items(frame)) as items:
                        async for _, envelope in items:
                            await socket.send_text(encode_item(envelope).decode())
            except WebSocketDisconnect:
                return

        self.websocket(path, name=name, dependencies=dependencies)(websocket)
        return self

    def _use_answers(self, path: str, dependencies: Any) -> None:
        asked = self._asked
        if not isinstance(asked, _Flow):
            return

        async def answer(request: Request, execution_id: str, interrupt_id: str) -> Response:
            try:
                value = json.loads(await request.body() or b"null")
                return self._enveloped(*await asked.answer(execution_id, interrupt_id, value))
            except Exception as error:
                return self._failed(error)

        place = path.rstrip("/") + "/{execution_id}/interrupts/{interrupt_id}"
        self.post(place, dependencies=dependencies, description="Answer what a paused run asks.")(answer)

    def _contract(self) -> dict[str, Any]:
        described = self._asked.contract()
        return {"x-agently-triggerflow-contract": described} if described else {}

    # -- answering -------------------------------------------------------------------------------------------------

    @staticmethod
    def _read(payload: str | bytes) -> tuple[Any, dict[str, Any]]:
        try:
            found = _Request.model_validate_json(payload)
        except ValidationError as error:
            raise ValueError(f'the payload must be {{"data": ..., "options": {{}}}}: {error}') from error

        return found.data, found.options

    async def _whole(self, data: Any, options: dict[str, Any]) -> Response:
        try:
            return self._enveloped(*await self._asked.result(data, options))
        except Exception as error:
            return self._failed(error)

    async def _events(self, payload: str) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._items(payload)) as items:
            async for event, envelope in items:
                named = b"" if event == "item" else b"event: " + event.encode() + b"\n"
                yield named + b"data: " + encode_item(envelope) + b"\n\n"

    async def _items(self, payload: str | bytes) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield ``(event, envelope)``: item, waiting or error."""
        try:
            data, options = self._read(payload)
            async with aclosing(self._asked.items(data, options)) as items:
                async for event, item in items:
                    status = 202 if event == "waiting" else 200
                    yield event, self._shape(item, status)
        except Exception as error:
            yield "error", self._shape(error, _status_of(error))

    def _shape(self, value: Any, status: int) -> Any:
        if self.response_warper is not None:
            return self.response_warper(value)

        if isinstance(value, Exception):
            return {"status": status, "data": None, "msg": str(value), "error": _described(value)}

        return {"status": status, "data": value, "msg": None}

    def _enveloped(self, status: int, value: Any) -> Response:
        body = encode_item(self._shape(value, status))
        return Response(body, 200 if self.always_200 else status, media_type="application/json")

    def _failed(self, error: Exception) -> Response:
        return self._enveloped(_status_of(error), error)


class _Request(BaseModel):
    data: Any = Field(...)
    options: dict[str, Any] = Field(default_factory=dict)


def _body_model(asked: "_Provider") -> type[BaseModel]:
    given = asked.input_type()
    name = f"FastAPIHelperRequestData_{id(asked):x}"
    return _Request if given is None else create_model(name, __base__=_Request, data=(given, ...))


def _status_of(error: BaseException) -> int:
    problem = problem_of(error) if isinstance(error, FlowdeckError) else None
    if problem is not None:
        return problem.status

    return 422 if isinstance(error, ValueError) else 504 if isinstance(error, TimeoutError) else 400


def _described(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    described: dict[str, Any] = {
        "type": kind.__name__,
        "module": kind.__module__,
        "message": str(error),
        "args": [repr(each)[:500] for each in error.args],
    }
    errors = getattr(error, "errors", None)
    if isinstance(error, ValidationError) and callable(errors):
        described["validation_errors"] = error.errors(include_url=False, include_context=False)

    for key, other in (("cause", error.__cause__), ("context", error.__context__)):
        if other is not None:
            described[key] = {"type": type(other).__name__, "message": str(other)}

    return described


# -- providers -------------------------------------------------------------------------------------------------------


class _Provider:
    """What a route asks."""

    async def result(self, data: Any, options: dict[str, Any]) -> tuple[int, Any]:
        """Return a status and the whole result."""
        raise NotImplementedError

    def items(self, data: Any, options: dict[str, Any]) -> "AsyncGenerator[tuple[str, Any], None]":
        """Yield ``(event, item)``."""
        raise NotImplementedError

    def contract(self) -> dict[str, Any]:
        """The contract of a flow."""
        return {}

    def input_type(self) -> Any:
        """The type of ``data``, when there is a contract."""
        return None


class _Flow(_Provider):
    """A new run for each request."""

    def __init__(self, flow: TriggerFlow) -> None:
        self._flow = flow
        self._desk = Desk({flow.name: flow}, current_services())

    async def result(self, data: Any, options: dict[str, Any]) -> tuple[int, Any]:
        execution = self._started(options)
        await self._desk.launch(self._flow, execution, data)
        return await self._rested(execution, _seconds(options, "timeout", 300.0))

    async def _rested(self, execution: TriggerFlowExecution, seconds: float) -> tuple[int, Any]:
        if not await come_to_rest(execution, seconds):
            raise TimeoutError(f"the run {execution.id} has not ended within {seconds:g} s; it goes on")

        failure = execution._driver.failure
        if failure is not None:
            raise failure

        return (200, await execution.async_close()) if execution.is_closed() else (202, _paused(execution))

    async def items(self, data: Any, options: dict[str, Any]) -> AsyncGenerator[tuple[str, Any], None]:
        execution = self._started(options)
        await self._desk.launch(self._flow, execution, data)
        idle = _seconds(options, "stream_timeout", _seconds(options, "timeout", 300.0))
        async with aclosing(feed(execution, translate=None, until_waiting=True, heartbeat=idle)) as frames:
            async for batch in frames:
                if not batch:
                    raise TimeoutError(f"no item for {idle:g} s; the run {execution.id} goes on")

                for frame in batch:
                    if frame.event == "item":
                        yield "item", frame.data
                    elif frame.event == "waiting":
                        yield "waiting", _paused(execution)

        failure = execution._driver.failure
        if failure is not None:
            raise failure

    def _started(self, options: dict[str, Any]) -> TriggerFlowExecution:
        unknown = set(options) - _OPTIONS
        if unknown:
            raise ValueError(f"options {sorted(unknown)}: expected {', '.join(sorted(_OPTIONS))}")

        return self._flow.create_execution(
            auto_close_timeout=0.0,
            concurrency=options.get("concurrency"),
            runtime_resources=self._flow.provided_resources(),
        )

    async def answer(self, execution_id: str, interrupt_id: str, value: Any) -> tuple[int, Any]:
        """Continue a run; returns as :meth:`result` does."""
        execution = await self._desk.find(self._flow, execution_id, OPEN)
        if execution is None:
            raise ExecutionNotFound(f"flow {self._flow.name!r} has no run {execution_id!r}")

        if execution.get_interrupt(interrupt_id) is None:
            raise InterruptNotFound(f"run {execution_id!r} asks nothing under {interrupt_id!r}")

        if execution.is_closed():
            raise InterruptError(f"run {execution_id!r} has ended")

        execution.continue_nowait(interrupt_id, value)
        return await self._rested(execution, 300.0)

    def contract(self) -> dict[str, Any]:
        return dict(self._flow.get_contract_metadata())

    def input_type(self) -> Any:
        given = self._flow.get_contract().initial_input
        return None if isinstance(given, Mapping) else given


class _Execution(_Flow):
    """One run, which the first request starts."""

    def __init__(self, execution: TriggerFlowExecution) -> None:
        super().__init__(execution._definition)
        self._execution = execution

    def _started(self, options: dict[str, Any]) -> TriggerFlowExecution:
        return self._execution


class _Function(_Provider):
    """A generator function: every item is sent; the whole result is the list of them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    async def result(self, data: Any, options: dict[str, Any]) -> tuple[int, Any]:
        return 200, [item async for _, item in self.items(data, options)]

    async def items(self, data: Any, options: dict[str, Any]) -> AsyncGenerator[tuple[str, Any], None]:
        made = self._function(data, **options)
        if hasattr(made, "__aiter__"):
            async for item in made:
                yield "item", item
        else:
            iterator, end = iter(made), object()
            while (item := await asyncio.to_thread(next, iterator, end)) is not end:
                yield "item", item


class _Agent(_Provider):
    """An agent: the keys of ``data`` are slots of its prompt."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def _request(self, data: Any) -> Any:
        request = self._agent.create_request() if hasattr(self._agent, "create_request") else self._agent
        prompt = data if isinstance(data, Mapping) else {"input": data}
        for key, value in prompt.items():
            request.set_request_prompt(str(key).lstrip("."), value)

        return request

    async def result(self, data: Any, options: dict[str, Any]) -> tuple[int, Any]:
        return 200, await self._request(data).get_response().async_get_data()

    async def items(self, data: Any, options: dict[str, Any]) -> AsyncGenerator[tuple[str, Any], None]:
        kind = options.get("type", "delta")
        specific = {"specific": options["specific"]} if "specific" in options else {}
        response = self._request(data).get_response()
        async for item in response.get_async_generator(kind, **specific):
            yield "item", item


def _provider(given: Any) -> _Provider:
    if isinstance(given, TriggerFlow):
        return _Flow(given)

    if isinstance(given, TriggerFlowExecution):
        return _Execution(given)

    if isinstance(given, Agent) or hasattr(given, "get_response"):
        return _Agent(given)

    if inspect.isgeneratorfunction(given) or inspect.isasyncgenfunction(given):
        return _Function(given)

    raise TypeError(
        f"response_provider={given!r}: expected an agent, a request, a flow, an execution or a generator function"
    )


def _paused(execution: TriggerFlowExecution) -> dict[str, Any]:
    return {"execution_id": execution.id, "status": "waiting", "interrupts": interrupts_of(execution)}


def _seconds(options: Mapping[str, Any], name: str, default: float) -> float:
    given = options.get(name)
    return default if given is None else float(given)
