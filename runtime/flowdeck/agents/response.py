"""ModelResponse: the readers of one answer.

All of them share one call of the model: whoever comes late gets everything from the beginning. Source: behaviour §8.4.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from flowdeck.agents.checks import Checks, Refusal
from flowdeck.agents.synchronous import closing, in_a_thread
from flowdeck.agents.turn import AgentExecution
from flowdeck.errors import FlowdeckError
from flowdeck.execution.sync import run_sync
from flowdeck.models.instant import InstantParser, PathStyle, StreamingData

if TYPE_CHECKING:
    from flowdeck.agents.attempt import Attempt
    from flowdeck.execution.data import TriggerFlowRuntimeData

__all__ = ["GENERATORS", "ModelResponse"]

T = TypeVar("T")
GENERATORS: Final = ("delta", "all", "specific", "original", "instant", "streaming_parse")
_EVENTS: Final = (
    "delta", "reasoning_delta", "tool_calls", "original_delta", "meta", "original_done", "reasoning_done", "done",
    "retry", "error",
)  # fmt: skip


class ModelResponse:
    """One answer, however often it had to be asked for.

    Attributes:
        execution: the turn that brings it about.
    """

    streaming_parse_path_style: PathStyle = "dot"
    """How instant paths are written: ``dot`` or ``slash``."""

    def __init__(self, execution: AgentExecution) -> None:
        self.execution = execution
        style = execution.plan.agent.settings.get("response.streaming_parse_path_style")
        if style in ("dot", "slash"):
            self.streaming_parse_path_style = style

    def __repr__(self) -> str:
        return f"<ModelResponse {self.id}, {self.execution.status}>"

    @property
    def id(self) -> str:
        """The response's id; later attempts have ids of their own."""
        return self.execution.id

    @property
    def result(self) -> Self:
        """The response itself, under the name programs for the compatible API have for it."""
        return self

    @property
    def attempt_index(self) -> int:
        """Which attempt is the newest, from 1."""
        last = self.execution.last
        return last.index if last is not None else 1

    @property
    def run_context(self) -> Any:
        """The request's run."""
        return self.execution.request_run

    def cancel_logs(self) -> None:
        """Tell no more ``model.streaming`` events, and say so once."""
        execution = self.execution
        if execution.streaming:
            execution.streaming = False
            last = execution.last
            payload = {"agent_name": execution.plan.agent.name, "response_id": self.id}
            execution._tell("model.streaming_canceled", payload, last.run if last else execution.request_run)

    # -- the whole answer ------------------------------------------------------------------------------------------

    async def async_get_data(self, *, type: Literal["parsed", "original", "all"] = "parsed", **checks: Any) -> Any:
        """Return the answer: parsed as :meth:`AgentRequest.output` asked, else the text.

        Args:
            type: ``"original"`` is the text as it came, ``"all"`` everything in a mapping.
            checks: ``ensure_keys``, ``validate_handler``, ``key_style``, ``max_retries``, ``raise_ensure_failure``,
                beside those of the request. When they come after the answer was judged, and it does not pass, a
                further turn tries again.

        Raises:
            ModelError: the model could not be asked, or never gave an answer that is good enough.
            Exception: what a validator wants raised.
        """
        if type not in ("parsed", "original", "all"):
            raise ValueError(f"type={type!r}: expected 'parsed', 'original' or 'all'")

        attempt = await self._whole(Checks.of(**checks) if checks else None)
        if type == "original":
            return attempt.text

        return attempt.answer.data if type == "parsed" else self._everything(attempt)

    async def async_get_data_object(self, **checks: Any) -> Any:
        """Return the answer as an object: of the class given to ``output()``, or of one made of its specification."""
        attempt = await self._whole(Checks.of(**checks) if checks else None)
        return self.execution.plan.prompt.output.as_object(attempt.answer.data)

    async def async_get_text(self) -> str:
        """Return the answer's text as it came."""
        return (await self._whole(None)).text

    async def async_get_meta(self) -> dict[str, Any]:
        """Return ``finish_reason``, ``usage``, ``model``, ``provider``, ``id``, ``time_to_first_token_us``,
        ``duration_us``, ``attempt_count``, ``reasoning_text``."""
        attempt = await self._whole(None)
        return {**attempt.meta, "attempt_count": attempt.index, "reasoning_text": attempt.reasoning}

    async def _whole(self, checks: Checks | None) -> Attempt:
        """Return the last attempt once the turn has ended well."""
        late = checks is not None and not self.execution.require(checks)
        await self.execution.done()
        attempt = self._ended()
        if late and checks is not None:
            refusal = await self.execution.judge(attempt, checks)
            if refusal is not None:
                attempt = await self._again(attempt, checks, refusal)

        return attempt

    async def _again(self, attempt: Attempt, checks: Checks, refusal: Refusal) -> Attempt:
        """Ask anew in a turn of its own: the one before has ended, and has said so."""
        before = self.execution
        if not refusal.retry or checks.max_retries < 1:
            before._give_up(attempt, refusal, checks)
            return attempt

        merged = checks.over(before.checks)
        before.plan.checks = Checks(
            merged.ensure_keys, merged.validators, merged.key_style, merged.max_retries - 1, merged.raise_failure
        )
        said = f"Your last answer was not accepted: {refusal.text[:1_000]}"
        self.execution = AgentExecution(before.plan, first_attempt=attempt.index + 1, correction=said)
        await self.execution.done()
        return self._ended()

    def _ended(self) -> Attempt:
        execution = self.execution
        if execution.failure is not None:
            raise execution.failure

        last = execution.last
        assert last is not None
        return last

    def _everything(self, attempt: Attempt) -> dict[str, Any]:
        return {
            "parsed": attempt.answer.data,
            "original": attempt.text,
            "text": attempt.text,
            "reasoning": attempt.reasoning,
            "tool_calls": attempt.tool_calls,
            "meta": dict(attempt.meta),
        }

    # -- while it comes --------------------------------------------------------------------------------------------

    async def get_async_generator(
        self, type: str = "delta", *, specific: str | Collection[str] | None = None, retries: bool = False
    ) -> AsyncIterator[Any]:
        """Stream the answer from its beginning, whenever the reader comes.

        Args:
            type: ``delta``: texts; ``all``: ``(event, data)``; ``specific``: those named; ``original``: the provider's
                deltas as chat completions write them; ``instant``: :class:`~flowdeck.models.instant.StreamingData` of a
                structured answer (``streaming_parse`` is the same).
            specific: event names, for ``type="specific"``.
            retries: go on with later attempts. By default the first attempt that says anything is streamed to its end;
                whether the answer was good enough is for :meth:`async_get_data` to say.

        Raises:
            ModelError: the attempt that is streamed broke off, or no attempt said anything.
        """
        if type not in GENERATORS:
            raise ValueError(f"type={type!r}: expected one of {', '.join(GENERATORS)}")

        if type == "specific":
            wanted = {specific} if isinstance(specific, str) else set(specific or ())
            unknown = wanted.difference(_EVENTS)
            if unknown or not wanted:
                raise ValueError(f"specific={sorted(wanted)}: expected some of {', '.join(_EVENTS)}")
        else:
            wanted = set(_EVENTS)

        ways: dict[str, Any] = {"delta": self._deltas, "original": self._originals}
        make = ways.get(type, self._events if type in ("all", "specific") else self._instants)
        execution, number = self.execution, 0
        execution.begin()
        with execution.reading():
            while True:
                await execution.until(_there, execution, number)
                if number >= len(execution.attempts):
                    if execution.failure is not None and (number == 0 or execution.attempts[-1].error is not None):
                        raise execution.failure

                    return

                attempt = execution.attempts[number]
                said = False
                item: Any
                async for item in make(attempt):
                    said = True
                    if type not in ("all", "specific") or item[0] in wanted:
                        yield item

                if attempt.error is not None and said and not retries:
                    raise attempt.error

                if said and not retries:
                    return

                number += 1
                if retries and type in ("all", "specific") and "retry" in wanted:
                    await execution.until(_there, execution, number)
                    if number < len(execution.attempts):
                        yield "retry", {"attempt_index": execution.attempts[number].index}

    async def _pieces(self, attempt: Attempt) -> AsyncIterator[tuple[str, Any]]:
        at, pieces = 0, attempt.pieces
        while True:
            while at < len(pieces):
                yield pieces[at]
                at += 1

            if at == len(pieces) and (attempt.ended or self.execution.ended):
                return

            await self.execution.until(_more, self.execution, attempt, at)

    async def _deltas(self, attempt: Attempt) -> AsyncIterator[str]:
        async for kind, data in self._pieces(attempt):
            if kind == "delta":
                yield data

    async def _originals(self, attempt: Attempt) -> AsyncIterator[dict[str, Any]]:
        async for kind, data in self._pieces(attempt):
            yield _original(kind, data)

    async def _events(self, attempt: Attempt) -> AsyncIterator[tuple[str, Any]]:
        async for kind, data in self._pieces(attempt):
            if kind == "meta":
                yield "meta", dict(data)
            else:
                yield "original_delta", _original(kind, data)
                yield kind, data

        if attempt.error is None:
            yield "original_done", {"content": attempt.text, "tool_calls": attempt.tool_calls, **attempt.meta}
            if attempt.reasoning:
                yield "reasoning_done", attempt.reasoning

            yield "done", attempt.text
        elif attempt.pieces:
            yield "error", attempt.error

    async def _instants(self, attempt: Attempt) -> AsyncIterator[StreamingData]:
        output, style = self.execution.plan.prompt.output, self.streaming_parse_path_style
        structured = output.format != "text"
        parser = InstantParser(output.root, style=style, attempt=attempt.index, reader=output.section_reader())
        said = False
        async for kind, data in self._pieces(attempt):
            if kind == "delta" and structured:
                for item in parser.feed(data):
                    said = True
                    yield item
            elif kind == "tool_calls":
                yield StreamingData.of("$tool_calls", data, attempt.index)

        if structured and attempt.error is None:
            for item in parser.end():
                said = True
                yield item

        if not said and structured and attempt.answer.problem is None and attempt.answer.text:
            # What looked like the beginning of the document was none: say what was read in the end.
            for item in InstantParser(output.root, style=style, attempt=attempt.index).feed(attempt.answer.text):
                yield item

    async def async_emit_signals(
        self, data: TriggerFlowRuntimeData, signals: Mapping[str, str], *, deltas: bool = False
    ) -> Any:
        """Emit flow signals while the answer is being written, and return its data.

        Args:
            data: the chunk that emits.
            signals: events by wildcard path: ``{"title": "TitleReady", "items[*]": "ItemReady"}``. The value is
                ``{"path", "indexes", "value", "delta", "is_complete"}``.
            deltas: also tell of strings that grow; by default of what is complete.
        """
        async for item in self.get_async_generator("instant"):
            event = signals.get(item.wildcard_path)
            if event is not None and (deltas or item.is_complete):
                data.emit_nowait(
                    event,
                    {
                        "path": item.path,
                        "indexes": list(item.indexes),
                        "value": item.value,
                        "delta": item.delta,
                        "is_complete": item.is_complete,
                    },
                )

        return await self.async_get_data()

    # -- synchronous twins -----------------------------------------------------------------------------------------

    def get_data(self, **options: Any) -> Any:
        """Synchronous twin of :meth:`async_get_data`."""
        return self._now(self.async_get_data(**options))

    def get_data_object(self, **options: Any) -> Any:
        """Synchronous twin of :meth:`async_get_data_object`."""
        return self._now(self.async_get_data_object(**options))

    def get_text(self) -> str:
        """Synchronous twin of :meth:`async_get_text`."""
        return self._now(self.async_get_text())

    def get_meta(self) -> dict[str, Any]:
        """Synchronous twin of :meth:`async_get_meta`."""
        return self._now(self.async_get_meta())

    def get_generator(self, type: str = "delta", **options: Any) -> Iterator[Any]:
        """Synchronous twin of :meth:`get_async_generator`; what is asked for runs in a thread of its own."""
        self._refuse_to_block()
        if self.execution.plan.data is not None:
            raise FlowdeckError("a chunk's run has one event loop: iterate get_async_generator() on it")

        async def items() -> AsyncIterator[Any]:
            async for item in self.get_async_generator(type, **options):
                yield item

            await self.execution.until(lambda: self.execution.ended)  # its loop must not end before

        return in_a_thread(items)

    def _now(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            self._refuse_to_block()
        except BaseException:
            coroutine.close()
            raise

        data = self.execution.plan.data
        if data is not None and data._elsewhere():
            result: T = data._run_on_loop(coroutine)
            return result

        return run_sync(closing(coroutine))

    def _refuse_to_block(self) -> None:
        data = self.execution.plan.data
        if self.execution.stuck_here() or (data is not None and not data._elsewhere()):
            raise FlowdeckError(
                "this would block the event loop that brings the answer about; "
                "await async_get_data(), or iterate get_async_generator()"
            )


def _there(execution: AgentExecution, number: int) -> bool:
    return len(execution.attempts) > number or execution.ended


def _more(execution: AgentExecution, attempt: Attempt, at: int) -> bool:
    return len(attempt.pieces) > at or attempt.ended or execution.ended


def _original(kind: str, data: Any) -> dict[str, Any]:
    """Return a piece as a delta of the chat completions API."""
    name = {"delta": "content", "reasoning_delta": "reasoning_content"}.get(kind, kind)
    return {name: data}
