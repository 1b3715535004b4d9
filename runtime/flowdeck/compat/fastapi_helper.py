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
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Any, Self

from fastapi import FastAPI, Query, Request, WebSocket
from pydantic import BaseModel, Field, ValidationError, create_model
from starlette.responses import Response, StreamingResponse

from flowdeck.compat.fastapi_providers import FlowProvider, Provider, provider_of
from flowdeck.errors import FlowdeckError
from flowdeck.web.feed import encode_item
from flowdeck.web.problems import problem_of

__all__ = ["FastAPIHelper"]

_FRAMES_AHEAD = 16
"""Requests of one WebSocket that wait for the one before them."""


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
        self._asked = provider_of(response_provider)
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
            frames: asyncio.Queue[str | bytes] = asyncio.Queue(_FRAMES_AHEAD)
            tasks = [
                asyncio.create_task(_receive(socket, frames)),
                asyncio.create_task(self._answer_frames(socket, frames)),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()

                await asyncio.gather(*tasks, return_exceptions=True)

        self.websocket(path, name=name, dependencies=dependencies)(websocket)
        return self

    async def _answer_frames(self, socket: WebSocket, frames: "asyncio.Queue[str | bytes]") -> None:
        while True:
            async with aclosing(self._items(await frames.get())) as items:
                async for _, envelope in items:
                    await socket.send_text(encode_item(envelope).decode())

    def _use_answers(self, path: str, dependencies: Any) -> None:
        asked = self._asked
        if not isinstance(asked, FlowProvider):
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


async def _receive(socket: WebSocket, frames: "asyncio.Queue[str | bytes]") -> None:
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        await frames.put(message.get("text") or message.get("bytes") or "")


class _Request(BaseModel):
    data: Any = Field(...)
    options: dict[str, Any] = Field(default_factory=dict)


def _body_model(asked: "Provider") -> type[BaseModel]:
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
