"""What :class:`~flowdeck.compat.FastAPIHelper` asks: flows, one execution, agents and generator functions."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from flowdeck.agents.agent import Agent
from flowdeck.agents.request import AgentRequest
from flowdeck.errors import ExecutionNotFound, InterruptError, InterruptNotFound
from flowdeck.execution.services import current_services
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution
from flowdeck.web.access import OPEN
from flowdeck.web.control import interrupts_of
from flowdeck.web.desk import Desk, come_to_rest
from flowdeck.web.feed import feed

__all__ = ["FlowProvider", "Provider", "provider_of"]

_OPTIONS = frozenset({"concurrency", "timeout", "stream_timeout", "close_timeout"})


class Provider:
    """What a route asks."""

    async def result(self, data: Any, options: dict[str, Any]) -> tuple[int, Any]:
        """Return a status and the whole result."""
        raise NotImplementedError

    def items(self, data: Any, options: dict[str, Any]) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield ``(event, item)``."""
        raise NotImplementedError

    def contract(self) -> dict[str, Any]:
        """The contract of a flow."""
        return {}

    def input_type(self) -> Any:
        """The type of ``data``, when there is a contract."""
        return None


class FlowProvider(Provider):
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

        if execution.continue_nowait(interrupt_id, value) is None:
            raise InterruptError(f"run {execution_id!r} is ending")

        return await self._rested(execution, 300.0)

    def contract(self) -> dict[str, Any]:
        return dict(self._flow.get_contract_metadata())

    def input_type(self) -> Any:
        given = self._flow.get_contract().initial_input
        return None if isinstance(given, Mapping) else given


class ExecutionProvider(FlowProvider):
    """One run, which the first request starts."""

    def __init__(self, execution: TriggerFlowExecution) -> None:
        super().__init__(execution._definition)
        self._execution = execution

    def _started(self, options: dict[str, Any]) -> TriggerFlowExecution:
        return self._execution


class FunctionProvider(Provider):
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


class AgentProvider(Provider):
    """An agent: the keys of ``data`` are slots of its prompt."""

    def __init__(self, agent: Agent | AgentRequest) -> None:
        self._agent = agent

    def _request(self, data: Any) -> Any:
        if isinstance(self._agent, Agent):
            request = self._agent.create_request()
        else:
            request = copy.copy(self._agent)  # what one client sends must not be in the next one's prompt
            request.slots, request._settings = dict(request.slots), dict(request._settings)

        return request.load_prompt(_slots(data))

    async def result(self, data: Any, options: dict[str, Any]) -> tuple[int, Any]:
        return 200, await self._request(data).get_response().async_get_data()

    async def items(self, data: Any, options: dict[str, Any]) -> AsyncGenerator[tuple[str, Any], None]:
        kind = options.get("type", "delta")
        specific = {"specific": options["specific"]} if "specific" in options else {}
        response = self._request(data).get_response()
        async for item in response.get_async_generator(kind, **specific):
            yield "item", item


def _slots(data: Any) -> dict[str, Any]:
    """A configure prompt: slots, also below ``.agent`` and ``.request``; of this request only, whatever it says."""
    if not isinstance(data, Mapping):
        return {"input": data}

    slots: dict[str, Any] = {}
    for key, value in data.items():
        if key in (".agent", ".request") and isinstance(value, Mapping):
            slots.update(value)
        else:
            slots[str(key).lstrip(".")] = value

    return slots


def provider_of(given: Any) -> Provider:
    if isinstance(given, TriggerFlow):
        return FlowProvider(given)

    if isinstance(given, TriggerFlowExecution):
        return ExecutionProvider(given)

    if isinstance(given, (Agent, AgentRequest)):
        return AgentProvider(given)

    if inspect.isgeneratorfunction(given) or inspect.isasyncgenfunction(given):
        return FunctionProvider(given)

    raise TypeError(
        f"response_provider={given!r}: expected an agent, a request, a flow, an execution or a generator function"
    )


def _paused(execution: TriggerFlowExecution) -> dict[str, Any]:
    return {"execution_id": execution.id, "status": "waiting", "interrupts": interrupts_of(execution)}


def _seconds(options: Mapping[str, Any], name: str, default: float) -> float:
    given = options.get(name)
    return default if given is None else float(given)
