"""AgentExecution: one turn of an agent, from the prompt to an answer that is good enough.

Order of a turn::

    begin                agent_turn.started, request.started
    history, actions     the session's window; the action loop, whose results enter the prompt
    attempt              one call of the model through the port ``model``; everybody reads its pieces while they come
    checks               parse, ensure_keys, validators  ->  another attempt, or the end
    end                  request.*, agent_turn.*: once, whatever the number of attempts; the session remembers

The call is made once, when the first reader asks; all readers share it. When the last of them is cancelled, it is, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from flowdeck.agents.agent_events import AgentEvents
from flowdeck.agents.attempt import Attempt
from flowdeck.agents.checks import Checks, Refusal
from flowdeck.agents.shared_work import SharedWork
from flowdeck.agents.telling import Telling
from flowdeck.errors import ModelError, ModelOutputError, ModelProtocolError
from flowdeck.events.ids import new_id
from flowdeck.events.lineage import RunContext, current_run, run_scope
from flowdeck.execution.ports import PortCall
from flowdeck.models.requester import ModelRequest, Piece

if TYPE_CHECKING:
    from flowdeck.agents.request import RequestPlan
    from flowdeck.agents.response import ModelResponse

__all__ = ["PORT", "AgentExecution"]

PORT: Final = "model"
"""The port model calls go through; their name in it is the model's."""
_TOLD: Final = ("agent_name", "response_id", "attempt_index", "retry_count", "max_retries")
_BACKOFF_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
_MAX_WAIT_S: Final = 60.0
"""Longer waits than this are not taken: the error says what the provider asks for."""


class AgentExecution(SharedWork, Telling):
    """One turn. Made by :meth:`AgentRequest.create_execution`, or under the hood of a response.

    Attributes:
        id: unique; the ``response_id`` of its runs' lineage.
        run_context: the run of the turn (kind ``agent_turn``), below the run that asked.
        request_run: the run of the request, below the turn's.
        attempts: what each call of the model has said.
    """

    def __init__(self, plan: RequestPlan, *, first_attempt: int = 1, correction: str = "") -> None:
        super().__init__()
        self.plan = plan
        self.id = f"resp_{new_id()}"
        self.attempts: list[Attempt] = []
        self.checks: Checks = plan.checks
        self._decided = False
        self._first = first_attempt
        self._correction = correction
        self._events: AgentEvents = plan.agent._events_of(plan.services)
        self._scope = plan.data.scope if plan.data is not None else None
        agent = plan.agent
        session = agent.activated_session
        self.run_context = RunContext.create(
            run_kind="request" if plan.planning else "agent_turn",
            parent=plan.parent or current_run.get(),
            agent_id=agent.id,
            agent_name=agent.name,
            session_id=None if session is None else session.id,
            response_id=self.id,
        )
        self.request_run = self.run_context if plan.planning else self.run_context.create_child(run_kind="request")
        self.streaming = True
        """Whether ``model.streaming`` is told for every delta."""

    def __repr__(self) -> str:
        return f"<AgentExecution {self.id} of {self.plan.agent.name!r}, {self.status}>"

    @property
    def response(self) -> ModelResponse:
        """The readers of its answer."""
        from flowdeck.agents.response import ModelResponse

        return ModelResponse(self)

    result = response

    async def async_start(self) -> Any:
        """Ask, and return the answer's data; see :meth:`ModelResponse.async_get_data`."""
        return await self.response.async_get_data()

    def get_async_runtime_stream(self, type: str = "instant") -> AsyncIterator[Any]:
        """Stream the answer; see :meth:`ModelResponse.get_async_generator`."""
        return self.response.get_async_generator(type)

    @property
    def last(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    def require(self, checks: Checks) -> bool:
        """Check the answer by these, too; ``False`` when it has been judged already."""
        with self._lock:
            if not self._decided:
                self.checks = checks.over(self.checks)

            return not self._decided

    # -- the turn --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        began = time.perf_counter_ns()
        plan, status = self.plan, "failed"
        name = plan.agent.name
        if not plan.planning:
            self._tell("agent_turn.started", {"agent_id": plan.agent.id, "agent_name": name}, self.run_context)

        try:
            with run_scope(self.request_run):
                await self._answer()

            status = "completed"
        except asyncio.CancelledError as problem:
            self.failure, status = problem, "cancelled"
            raise
        except Exception as problem:
            self.failure = problem
        except BaseException as problem:
            self.failure = problem
            raise
        finally:
            self._decided = True
            self._end(status, began)
            if status != "completed":
                self._finish(status)

        if status == "completed":
            try:
                await self._remember()
            except Exception as problem:  # an analysis or resize handler of the user's
                self.failure, status = problem, "failed"
            finally:
                self._finish(status)

    def _end(self, status: str, began: int) -> None:
        last, agent = self.last, self.plan.agent.name
        response_id = last.response_id if last is not None else self.id
        index = last.index if last is not None else self._first
        took = (time.perf_counter_ns() - began) // 1000
        how = "completed" if status == "completed" else "failed"
        request = {"agent_name": agent, "response_id": response_id, "attempt_index": index}
        turn = {
            "agent_name": agent,
            "response_id": response_id,
            "request_run_id": self.request_run.run_id,
            "attempt_count": len(self.attempts),
        }
        error = self.failure
        if isinstance(error, asyncio.CancelledError):
            error = asyncio.CancelledError(str(error) or "the turn was cancelled")

        self._tell(f"request.{how}", request, self.request_run, error=error, duration_us=took)
        if not self.plan.planning:
            self._tell(f"agent_turn.{how}", turn, self.run_context, error=error, duration_us=took)

    async def _answer(self) -> None:
        """Ask until the answer is good enough, or nothing more may be tried."""
        plan, index, failed = self.plan, self._first, 0
        prompt = plan.prompt
        prompt.correction = self._correction
        self._started(index)
        prompt.history = plan.agent.apply_session(self.request_run) if plan.history is None else plan.history
        if plan.work is not None and prompt.action_results is None:
            prompt.action_results = await plan.work(self)

        while True:
            attempt = self._attempt(index)
            refusal: Refusal | None = None
            problem: ModelError | None = None
            try:
                await self._ask(attempt)
            except ModelError as raised:
                problem = raised
            else:
                refusal = await self._judge(attempt)
                if refusal is None:
                    return

            left = self.checks.max_retries - (index - self._first)
            if problem is not None:
                wait = _wait(problem, failed)
                failed += 1
                if left <= 0 or not problem.retryable or wait is None:
                    raise problem

                self._retrying(attempt, index, "provider_error", {"error": str(problem), "delay_s": wait})
                await plan.clock.sleep(wait)
            else:
                assert refusal is not None
                if left <= 0 or not refusal.retry:
                    self._give_up(attempt, refusal)
                    return

                self._retrying(attempt, index, refusal.retry_reason, refusal.as_payload())
                prompt.correction = f"Your last answer was not accepted: {refusal.text[:1_000]}"

            index += 1
            self._started(index)

    def _give_up(self, attempt: Attempt, refusal: Refusal, checks: Checks | None = None) -> None:
        """Raise what is wrong with the last answer, unless it is to be returned as it is."""
        if refusal.problem is not None and refusal.raises:
            raise refusal.problem

        if not (checks or self.checks).raise_failure and refusal.reason != "parse":
            return

        tries = attempt.index
        raise ModelOutputError(
            f"the answer of {self.plan.config.name!r} is not good enough after {tries} "
            f"attempt{'s' * (tries > 1)}: {refusal.text}",
            refusal.reason,
            attempt.text,
            tries,
            self.plan.config.name,
        ) from refusal.problem

    # -- one attempt -----------------------------------------------------------------------------------------------

    def _attempt(self, index: int) -> Attempt:
        response_id = self.id if index == self._first else f"resp_{new_id()}"
        run = self.request_run.create_child(run_kind="model_request", response_id=response_id)
        attempt = Attempt(index, response_id, run)
        self.attempts.append(attempt)
        return attempt

    async def _ask(self, attempt: Attempt) -> None:
        plan, events = self.plan, self._events
        base = {"agent_name": plan.agent.name, "response_id": attempt.response_id}
        place = {**base, "request_run_id": self.request_run.run_id, "attempt_index": attempt.index}
        self._tell("model.request_started", place, attempt.run)
        try:
            messages = plan.prompt.messages() if plan.messages is None else plan.messages(plan.prompt)
            request = plan.request(messages)
            if events.wanted("prompt.built"):
                self._tell("prompt.built", {**base, **self._built(attempt, request)}, attempt.run)

            if events.wanted("model.requesting"):
                self._tell("model.requesting", {**place, "request": self._requesting(request)}, attempt.run)

            attempt.began_ns = time.perf_counter_ns()
            await self._read(attempt, request, base)
            if not attempt.meta:
                raise ModelProtocolError(f"model {plan.config.name!r} never said how it ended", model=plan.config.name)

            self._read_answer(attempt, base)
        except BaseException as problem:
            attempt.error = problem
            attempt.ended = True
            self._wake()
            told = asyncio.CancelledError("the call was cancelled") if _is_cancel(problem) else problem
            took = attempt.duration_us
            self._tell("model.request_failed", place, attempt.run, error=told, duration_us=took)
            raise

    async def _read(self, attempt: Attempt, request: ModelRequest, base: dict[str, Any]) -> None:
        streaming, count = self._events.streaming, 0
        stream = self._stream(request)
        try:
            async for piece in stream:
                kind, said = piece
                if not count:
                    attempt.began_ns += getattr(self.plan.requester, "loading_ns", 0)

                if kind == "meta":
                    attempt.meta = dict(said)
                    continue

                attempt.take((kind, said))
                if streaming.sinks and self.streaming and kind == "delta":
                    streaming.emit({**base, "delta": said, "chunk_index": count}, run=attempt.run)

                count += 1
                self._wake()
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    def _stream(self, request: ModelRequest) -> AsyncIterator[Piece]:
        plan = self.plan
        name = plan.config.name
        if plan.data is not None:
            return plan.data.call_stream(PORT, name, plan.requester.stream, request)

        call = PortCall("", PORT, name, (request,), plan.agent._next_ordinal())
        return plan.services.ports.stream(call, plan.requester.stream)

    def _read_answer(self, attempt: Attempt, base: dict[str, Any]) -> None:
        """Read the text as what was asked for, and end the attempt."""
        attempt._text = text = attempt.text
        attempt.meta["time_to_first_token_us"] = attempt.first_token_us
        attempt.meta["duration_us"] = took = attempt.duration_us
        reasoning = attempt.reasoning
        self._tell("model.meta", {**base, "meta": attempt.meta}, attempt.run)
        answer = attempt.answer = self.plan.prompt.output.read(text)
        tool_calls = attempt.tool_calls
        if tool_calls:
            answer = attempt.answer = answer._replace(problem=None)  # the model would rather act

        cleaned = {} if answer.text == text or not answer.text else {"cleaned_text": answer.text}
        if answer.problem is not None:
            failed = {**base, "result": text, **cleaned, "reason": answer.reason, "problem": answer.problem}
            self._tell("model.parse_failed", failed, attempt.run, message=answer.problem[:500])

        if self._events.wanted("model.completed"):
            result = None if answer.problem is not None else answer.data
            payload = {**base, "result": result, "raw_text": text, "repaired": False, **cleaned}
            if reasoning:
                payload["reasoning_text"] = reasoning

            if tool_calls:
                payload["tool_calls"] = tool_calls

            if result == text:
                del payload["raw_text"]  # it would stand there twice

            self._tell("model.completed", payload, attempt.run, duration_us=took)

        attempt.pieces.append(("meta", attempt.meta))
        attempt.ended = True
        self._wake()

    async def _judge(self, attempt: Attempt) -> Refusal | None:
        """Return why the answer is not good enough, ``None`` when it is."""
        answer = attempt.answer
        if answer.problem is not None:
            return Refusal(answer.reason, answer.problem)

        if not self.checks:
            self._decided = True
            return None

        refusal = await self.judge(attempt, self.checks)
        self._decided = refusal is None
        return refusal

    async def judge(self, attempt: Attempt, checks: Checks) -> Refusal | None:
        """Check an answer, and tell what a validator has against it."""
        context = {
            "agent_name": self.plan.agent.name,
            "response_id": attempt.response_id,
            "attempt_index": attempt.index,
            "retry_count": attempt.index - self._first,
            "max_retries": checks.max_retries,
            "input": self.plan.prompt.slots.get("input"),
            "response_text": attempt.text,
            "meta": attempt.meta,
        }
        refusal = await checks.look(attempt.answer.data, context)
        if refusal is not None and refusal.reason == "validation":
            told = {key: context[key] for key in _TOLD}
            told |= {
                "validator_name": refusal.validator,
                "reason": refusal.text,
                "stop": refusal.stop,
                "no_retry": not refusal.retry,
                "error_kind": type(refusal.problem).__name__ if refusal.problem is not None else None,
                "validation_payload": refusal.payload,
                "response_text": attempt.text,
            }
            name = "model.validation_error" if refusal.is_error else "model.validation_failed"
            self._tell(name, told, self.request_run, error=refusal.problem, message=refusal.text[:500])

        return refusal

    async def _remember(self) -> None:
        plan = self.plan
        session = plan.agent.activated_session
        attempt = self.last
        if session is None or attempt is None or not plan.remember:
            return

        slots = plan.prompt.slots
        given = slots.get("input")
        request = {**slots, **given} if isinstance(given, dict) else slots
        user = session.user_content(plan.prompt.user_text, request, plan.agent.prompt)
        assistant = session.assistant_content(attempt.text, attempt.answer.data)
        await plan.agent.record_turn(user, assistant, run=self.request_run)


def _is_cancel(problem: BaseException) -> bool:
    return isinstance(problem, asyncio.CancelledError | GeneratorExit)


def _wait(problem: ModelError, failed: int) -> float | None:
    """Return the seconds to wait before the next attempt; ``None`` when the provider asks for too many."""
    if problem.retry_after is not None:
        return problem.retry_after if problem.retry_after <= _MAX_WAIT_S else None

    return _BACKOFF_S[min(failed, len(_BACKOFF_S) - 1)]
