"""The part of the data object through which a chunk reaches the world: calls a tape can answer instead.

Time, chance and ids come through ports as well, so whatever a handler is told from outside can be told again.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from flowdeck.execution.ports import PortCall
from flowdeck.execution.values import copy_value

if TYPE_CHECKING:
    from flowdeck.events.lineage import RunContext
    from flowdeck.execution.driver import Driver
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.state import Task

__all__ = ["PortScope"]

T = TypeVar("T")


class PortScope:
    """The part of the data object that calls ports."""

    __slots__ = ("_random",)

    _random: random.Random | None

    if TYPE_CHECKING:
        _driver: Driver
        _task: Task
        run: RunContext

        @property
        def _over(self) -> bool: ...
        @property
        def execution(self) -> TriggerFlowExecution: ...
        @property
        def scope(self) -> str: ...
        def _call_soon(self, fn: Callable[..., None], *args: Any) -> None: ...
        def _count(self, key: str) -> int: ...
        def _elsewhere(self) -> bool: ...

    async def call(self, port: str, name: str, fn: Callable[..., Awaitable[Any] | Any], *args: Any) -> Any:
        """Call the world through a port, so that a tape can answer instead.

        ``(scope, port, name, ordinal)`` identifies the call in every replay of the run.
        """
        return await self.execution._through_port(self._port_call(port, name, args), fn, self.run)

    def call_stream(
        self, port: str, name: str, fn: Callable[..., AsyncIterator[Any]], *args: Any
    ) -> AsyncIterator[Any]:
        """The same for what comes in chunks: iterate over what ``fn(*args)`` yields, or over the chunks of a tape."""
        return self.execution._stream_through_port(self._port_call(port, name, args), fn, self.run)

    def now(self) -> float:
        """The time in seconds since the Unix epoch, as this run sees it."""
        services = self._driver.services
        call = self._port_call("clock", "now", ())
        return self._drawn(call, services.ports.now_us(call, services.clock)) / 1e6

    @property
    def random(self) -> random.Random:
        """A random generator of this attempt's own, replayable through its port."""
        if self._random is None:
            call = self._port_call("random", "random", ())
            self._random = random.Random(self._drawn(call, self._driver.services.ports.seed(call)))

        return self._random

    def new_id(self) -> str:
        """An id nobody else has, replayable through its port."""
        call = self._port_call("id", "new_id", ())
        return self._drawn(call, self._driver.services.ports.new_id(call))

    async def step(self, key: str, fn: Callable[..., Awaitable[Any] | Any], *args: Any) -> Any:
        """Run ``fn`` once for this activation and remember its result over re-runs."""
        tag = f"m:{key}"
        tags = {} if self._over else self._task.tags or {}
        if tag in tags:
            return copy_value(tags[tag][1])

        result = await self.call("step", key, fn, *args)
        driver = self._driver
        if not self._over:
            driver.core.remember(self._task, tag, copy_value(result, key))

        if driver.gate is not None:
            await driver.gate.committed()  # what follows may depend on it, so it must not be another one later

        return result

    def _port_call(self, port: str, name: str, args: tuple[Any, ...]) -> PortCall:
        return PortCall(self.execution._place(self.scope), port, name, args, self._count(f"c:{port}:{name}"))

    def _drawn(self, call: PortCall, value: T) -> T:
        """Record what a port that cannot fail has answered; the event is emitted on the execution's own thread."""
        if self._elsewhere():
            self._call_soon(self.execution._port_returned, call, self.run, value)
        else:
            self.execution._port_returned(call, self.run, value)

        return value
