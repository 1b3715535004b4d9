"""The routes of one flow. What each does is in :mod:`flowdeck.web.desk`; here it becomes HTTP."""

# Annotations are evaluated here, not postponed: they name dependencies that are made per service.

import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response

from flowdeck.durable import ExecutionRow
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution
from flowdeck.web.access import Caller, caller_of, check_origin, dependency_for
from flowdeck.web.bodies import AnswerBody, CancelBody, InterveneBody, StartBody, parse, read_bytes, read_json
from flowdeck.web.control import Answered
from flowdeck.web.desk import Run, come_to_rest
from flowdeck.web.feed import Position, encode_item, feed
from flowdeck.web.problems import CONTENT_TYPE, Problem, problem_of
from flowdeck.web.schemas import (
    ANSWERED,
    EVENTS,
    INTERRUPTS,
    OUTCOMES,
    RUN,
    accepted,
    answer_input,
    cancel_input,
    intervene_input,
    problems,
    start_input,
)
from flowdeck.web.sse import EventStream
from flowdeck.web.views import shown_row, shown_run

if TYPE_CHECKING:
    from flowdeck.web.service import FlowService

__all__ = ["Json", "ProblemRoute", "flow_routes"]

_log = logging.getLogger("flowdeck.web")

MAX_WAIT: Final = 300.0
"""Seconds a request may ask to wait."""

T = TypeVar("T")


class Json(Response):
    """JSON bytes, whatever the values are."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode."""
        return encode_item(content)


def problem_response(problem: Problem) -> Response:
    """Return a problem as a response."""
    headers = {"retry-after": "1"} if problem.status == 503 else None
    return Response(problem.encoded(), problem.status, headers, CONTENT_TYPE)


class ProblemRoute(APIRoute):
    """A route whose known errors are problems; so they are in any application the router is part of."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return problem_response(_unfit(error))
            except Exception as error:
                problem = problem_of(error)
                if problem is None:
                    raise

                return problem_response(problem)

        return told


def flow_routes(service: "FlowService", flow: TriggerFlow) -> APIRouter:
    """Return the routes of ``flow``, below its name."""
    name = flow.name
    desk = service.desk
    router = APIRouter(prefix=f"/{name}", tags=[name], route_class=ProblemRoute)
    Start = Annotated[Any, Depends(dependency_for(service.auth, "start"))]
    Read = Annotated[Any, Depends(dependency_for(service.auth, "read"))]
    Answer = Annotated[Any, Depends(dependency_for(service.auth, "answer"))]
    Intervene = Annotated[Any, Depends(dependency_for(service.auth, "intervene"))]
    Cancel = Annotated[Any, Depends(dependency_for(service.auth, "cancel"))]

    async def found(execution_id: str, caller: Caller) -> TriggerFlowExecution:
        execution = await desk.find(flow, execution_id, caller)
        if execution is None:
            raise Problem(404, "Not found", f"flow {name!r} has no run {execution_id[:80]!r}")

        return execution

    async def located(execution_id: str, caller: Caller) -> Run:
        run = await desk.locate(flow, execution_id, caller)
        if run is None:
            raise Problem(404, "Not found", f"flow {name!r} has no run {execution_id[:80]!r}")

        return run

    async def asked(run: Run, interrupt_id: str, value: Any) -> None:
        known = await desk.control.interrupt(run, interrupt_id)
        if known is None:
            raise Problem(404, "Not found", f"run {run.id[:80]!r} asks nothing under {interrupt_id[:80]!r}")

        service.check_answer(known, value)

    async def shown_of(run: Run) -> dict[str, Any]:
        if isinstance(run, ExecutionRow):
            return shown_row(run, await desk.control.interrupts(run))

        return shown_run(run, name, service.expose_errors)

    async def run_response(execution: Run, headers: dict[str, str] | None = None) -> Response:
        shown = await shown_of(execution)
        if isinstance(execution, ExecutionRow):
            return Json(shown, 202, headers)

        if shown["status"] == "failed" and execution.is_closed():
            known = problem_of(execution._driver.failure) if execution._driver.failure is not None else None
            code = known.status if known is not None and known.status == 422 else 500
            detail = known.detail if known is not None and code == 422 else shown["error"]["message"]
            title = known.title if known is not None and code == 422 else "The run failed"
            return problem_response(Problem(code, title, detail, execution_id=execution.id, run=shown))

        return Json(shown, 200 if execution.is_closed() else 202, headers)

    @router.post(
        "/runs",
        summary=f"Start {name}",
        responses={**RUN, **accepted(), **problems(408, 409, 413, 415, 422, 500)},
        openapi_extra=start_input(flow),
    )
    async def start(
        request: Request,
        who: Start,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT, description="seconds to wait for its end")] = service.wait,
    ) -> Response:
        """Start a run. 200 with its result when it ends within ``wait`` seconds; 202 with what it asks when it waits
        for somebody, or while it works on. With an ``Idempotency-Key`` a repetition gets the run of the first time.
        """
        check_origin(request, service.origins)
        body = await read_json(request, StartBody, service.max_body)
        service.check_input(flow, body.input)
        key = request.headers.get("idempotency-key")
        execution, new = await desk.start(flow, body.input, caller_of(who), key=key, task_id=body.task_id)
        if not isinstance(execution, ExecutionRow):
            await come_to_rest(execution, wait, service.stopping)

        headers = {"location": f"{quote(request.url.path)}/{execution.id}"}
        if not new:
            headers["idempotent-replayed"] = "true"

        return await run_response(execution, headers)

    @router.get("/runs/{execution_id}", responses={**RUN, **problems(404, 422)})
    async def status(execution_id: str, who: Read) -> Response:
        """Return where a run stands; its result once it has ended."""
        return Json(await shown_of(await located(execution_id, caller_of(who))))

    @router.get("/runs/{execution_id}/result", responses={**RUN, **accepted(), **problems(404, 409, 422, 500)})
    async def result(
        execution_id: str,
        who: Read,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT, description="seconds to wait for its end")] = 0.0,
    ) -> Response:
        """Return the result: 200 once the run has ended, 202 before, with what it waits for."""
        caller = caller_of(who)
        run = await located(execution_id, caller)
        if wait and not (isinstance(run, ExecutionRow) and run.status == "waiting"):
            execution = await found(execution_id, caller)
            await come_to_rest(execution, wait, service.stopping)
            run = execution

        return await run_response(run)

    @router.get("/runs/{execution_id}/events", responses={**EVENTS, **problems(404, 409, 422)})
    async def events(
        request: Request,
        execution_id: str,
        who: Read,
        until: Annotated[str, Query(pattern="^(waiting|closed)$", description="when the stream ends")] = "closed",
    ) -> Response:
        """Follow a run live as Server-Sent Events, from its first item or from after ``Last-Event-ID``."""
        try:
            after = Position.parse(request.headers.get("last-event-id"))
        except ValueError as error:
            raise Problem(422, "Bad Last-Event-ID", str(error)) from None

        execution = await found(execution_id, caller_of(who))
        if after is not None and after.ended and execution.is_closed():
            return Response(status_code=204)  # tells a browser to connect no more

        frames = feed(
            execution,
            after,
            until_waiting=until == "waiting",
            expose_errors=service.expose_errors,
            translate=service.translate,
            heartbeat=service.heartbeat,
        )
        return EventStream(frames, stall=service.stall, stop=service.stopping)

    @router.get("/runs/{execution_id}/interrupts", responses={**INTERRUPTS, **problems(404, 409, 422)})
    async def interrupts(execution_id: str, who: Read) -> Response:
        """Return what a run asks, with the JSON Schema of each answer."""
        return Json(await desk.control.interrupts(await located(execution_id, caller_of(who))))

    @router.get("/interrupts", responses={**INTERRUPTS, **problems(422)})
    async def open_interrupts(
        who: Read, limit: Annotated[int, Query(ge=1, le=1_000, description="at most so many")] = 100
    ) -> Response:
        """Return what all runs of the flow ask, the longest open first."""
        return Json(await desk.open_interrupts(flow, caller_of(who), limit))

    @router.post(
        "/runs/{execution_id}/interrupts/{interrupt_id}",
        responses={**ANSWERED, **problems(403, 404, 408, 409, 410, 413, 415, 422)},
        openapi_extra=answer_input(),
    )
    async def answer(request: Request, execution_id: str, interrupt_id: str, who: Answer) -> Response:
        """Answer an interrupt. The first answer wins; every later one is told 409."""
        check_origin(request, service.origins)
        body = await read_json(request, AnswerBody, service.max_body)
        caller = caller_of(who)
        run = await located(execution_id, caller)
        await asked(run, interrupt_id, body.value)
        key = request.headers.get("idempotency-key")
        return _answered(await desk.control.answer(run, interrupt_id, body.value, caller, key))

    @router.post(
        "/runs/{execution_id}/interventions",
        responses={**ANSWERED, **problems(403, 404, 408, 409, 413, 415, 422)},
        openapi_extra=intervene_input(),
    )
    async def intervene(request: Request, execution_id: str, who: Intervene) -> Response:
        """Add an intervention to a run."""
        check_origin(request, service.origins)
        body = await read_json(request, InterveneBody, service.max_body)
        caller = caller_of(who)
        added = {"payload": body.payload, "target": body.target, "note": body.note, "metadata": body.metadata}
        return _answered(await desk.control.intervene(await located(execution_id, caller), added, caller))

    @router.post(
        "/runs/{execution_id}/cancel",
        responses={**ANSWERED, **problems(403, 404, 408, 409, 413, 415, 422)},
        openapi_extra=cancel_input(),
    )
    async def cancel(request: Request, execution_id: str, who: Cancel) -> Response:
        """End a run: its handlers are stopped, its questions withdrawn."""
        check_origin(request, service.origins)
        body = await read_json(request, CancelBody, service.max_body)
        caller = caller_of(who)
        return _answered(await desk.control.cancel(await located(execution_id, caller), body.reason, caller))

    @router.post(
        "/webhooks/{webhook}/{execution_id}/{interrupt_id}",
        responses={**ANSWERED, **problems(401, 404, 408, 409, 410, 413, 422)},
    )
    async def webhook(request: Request, webhook: str, execution_id: str, interrupt_id: str) -> Response:
        """Let another system answer an interrupt; its signature is verified first."""
        hook = service.webhooks.get(webhook)
        if hook is None:
            raise Problem(404, "Not found", f"there is no webhook {webhook[:80]!r}")

        content = await read_bytes(request, service.max_body)
        delivery = hook.verify(request.headers, content)
        value: Any = parse(content or b"null", object)
        if hook.value is not None:
            try:
                value = hook.value(value)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise Problem(422, "The body does not fit", f"{type(error).__name__}: {error}") from None

        caller = Caller(user_id=f"webhook:{hook.name}")
        run = await located(execution_id, caller)
        await asked(run, interrupt_id, value)
        key = None if delivery is None else f"{hook.name}:{delivery}"[:255]
        return _answered(await desk.control.answer(run, interrupt_id, value, caller, key))

    return router


def _unfit(error: RequestValidationError) -> Problem:
    wrong = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return Problem(422, "The request does not fit", "; ".join(wrong)[:1_000])


def _answered(answered: Answered) -> Response:
    status, title = OUTCOMES.get(answered.outcome, (409, "Not possible now"))
    if status >= 400:
        raise Problem(status, title, answered.detail or answered.outcome, outcome=answered.outcome)

    return Json({"outcome": answered.outcome, "detail": answered.detail}, status)
