"""One registered action: what it is called, what it takes, what it may do, and what runs it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from inspect import isawaitable, iscoroutinefunction, signature
from typing import Any, Final, Protocol, runtime_checkable

from flowdeck.actions.context import ActionContext
from flowdeck.actions.schema import Arguments

__all__ = ["SIDE_EFFECTS", "ActionExecutor", "ActionSpec", "FunctionExecutor"]

SIDE_EFFECTS: Final = ("read", "write", "exec")
"""What calling an action changes: nothing, data, or anything at all (it runs code)."""


@runtime_checkable
class ActionExecutor(Protocol):
    """What runs an action. ``executor_type`` is shown in records; ``sandboxed``: it runs in an isolated environment."""

    executor_type: str
    sandboxed: bool

    def execute(self, context: ActionContext, kwargs: dict[str, Any]) -> Awaitable[Any] | Any:
        """Do it and return the outcome; anything raised becomes a record with status ``error``."""


@dataclass(frozen=True, slots=True, eq=False)
class ActionSpec:
    """An action as it was registered. Source: behaviour §7.1."""

    action_id: str
    desc: str
    arguments: Arguments
    executor: ActionExecutor
    func: Callable[..., Any] | None = None
    returns: Any = None
    tags: list[str] = field(default_factory=list)
    default_policy: Mapping[str, Any] = field(default_factory=dict)
    side_effect_level: str = "read"
    approval_required: bool = False
    sandbox_required: bool = False
    replay_safe: bool = True
    """Whether a call that a crash cut off may simply be made again."""
    expose_to_model: bool = True
    execution_environments: list[Any] = field(default_factory=list)
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def action_type(self) -> str:
        """The ``action_type`` of its events: ``tool``, ``mcp`` …"""
        return str(self.meta.get("action_type", "tool"))

    def info(self) -> dict[str, Any]:
        """Return the description under the compatible API's keys, with the JSON Schema as ``parameters``."""
        return {
            "action_id": self.action_id,
            "name": self.action_id,
            "desc": self.desc,
            "kwargs": dict(self.arguments.kwargs),
            "parameters": self.arguments.parameters,
            "tags": list(self.tags),
            "default_policy": dict(self.default_policy),
            "side_effect_level": self.side_effect_level,
            "approval_required": self.approval_required,
            "sandbox_required": self.sandbox_required,
            "replay_safe": self.replay_safe,
            "expose_to_model": self.expose_to_model,
            "executor_type": self.executor.executor_type,
            "execution_environments": list(self.execution_environments),
            "meta": dict(self.meta),
            "returns": self.returns,
        }


class FunctionExecutor:
    """Runs a function of this process: an async one on the loop, a plain one in a thread of its own."""

    executor_type = "function"
    sandboxed = False

    def __init__(self, function: Callable[..., Any], injected: frozenset[str], resources: tuple[str, ...]) -> None:
        self.function = function
        self.is_async = iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
        self._injected = injected
        taken = signature(function).parameters
        self._resources = tuple(key for key in resources if key in taken)

    async def execute(self, context: ActionContext, kwargs: dict[str, Any]) -> Any:
        given = dict(kwargs)
        given.update((key, context.environments[key]) for key in self._resources)
        given.update((name, context) for name in self._injected)
        if self.is_async:
            return await self.function(**given)

        result = await _in_thread(self.function, given)
        return await result if isawaitable(result) else result


async def _in_thread(function: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    """Run ``function`` in a daemon thread of its own.

    Not in the loop's pool: a function that hangs would hold one of its places for ever, and hold up the end of the
    loop and of the interpreter, which wait for the pool.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def settle(result: Any, problem: BaseException | None) -> None:
        if future.done():
            return  # given up: it took too long

        if problem is None:
            future.set_result(result)
        elif isinstance(problem, StopIteration):  # a future cannot carry it
            future.set_exception(RuntimeError(f"the action raised StopIteration({problem})"))
        else:
            future.set_exception(problem)

    def work() -> None:
        result, problem = None, None
        try:
            result = context.run(function, **kwargs)
        except BaseException as raised:
            problem = raised

        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=work, name=f"flowdeck-action-{getattr(function, '__name__', '')}", daemon=True).start()
    return await future
