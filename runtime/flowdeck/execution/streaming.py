"""The runtime stream as an execution offers it: putting items, and reading them live or late."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from flowdeck.events.lineage import RunContext
from flowdeck.execution.hosting import HostedMixin
from flowdeck.execution.state import Interrupt
from flowdeck.execution.stream import Deferred, RuntimeStream

if TYPE_CHECKING:
    from flowdeck.execution.sub_flow import SubFlowLink

__all__ = ["InterruptItem", "StreamMixin"]


class InterruptItem(Deferred):
    """A system item: what became of an interrupt, as it stood at that moment."""

    __slots__ = ("_action", "_execution_id", "_interrupt", "_link")

    def __init__(self, execution_id: str, action: str, interrupt: Interrupt, link: SubFlowLink | None) -> None:
        self._execution_id = execution_id
        self._action = action
        self._interrupt = interrupt
        self._link = link

    def build(self) -> dict[str, Any]:
        interrupt = self._interrupt
        if self._action in ("pause", "project"):
            interrupt = interrupt.as_asked()

        record = interrupt.record()
        item = {"execution_id": self._execution_id, "type": "interrupt", "action": self._action, "interrupt": record}
        if self._action in ("pause", "project") and self._link is not None:
            record["projected_as"] = self._link.root_id(self._interrupt.id)

        if self._action == "pause":
            item["signal"] = record["source_signal"]
        elif self._action == "project":
            item["value"] = record["payload"]
        elif self._action == "resume":
            item["value"] = record["response"]

        return item


class StreamMixin(HostedMixin):
    """The part of an execution that has a runtime stream."""

    if TYPE_CHECKING:  # supplied by the execution

        async def async_start(self, initial_value: Any = None, *, timeout: float | None = -1.0) -> Any: ...

    @property
    def stream(self) -> RuntimeStream:
        """The runtime stream itself, for readers that keep a position of their own."""
        return self._stream

    @property
    def epoch(self) -> int:
        """How often the run has been taken up, from 1: together with an item's number it names the item."""
        return self._epoch

    def put_into_stream(self, item: Any) -> None:
        """Put a product event on the runtime stream. Refused with a warning once the execution is closed."""
        self._put(item, self.run_context)

    async def async_put_into_stream(self, item: Any) -> None:
        """The same as :meth:`put_into_stream`."""
        self._put(item, self.run_context)

    def _put(self, item: Any, run: RunContext) -> None:
        origin = {"run_id": run.run_id, **run.meta} if run is not self.run_context else None
        if self._lifecycle == "closed":
            self._warn("stream item refused, it is closed")
            self._emit_event(self._events.stream_item_rejected, {"item": item, "origin_chunk": origin}, run=run)
            return

        if self._contract is not None:
            self._check_item(item, origin, run)

        self._active()
        self._put_item(item, origin, run)

    def _put_system(self, item: dict[str, Any]) -> None:
        self._put_item({"execution_id": self.id, **item}, None, self.run_context)

    def _put_interrupt(self, action: str, interrupt: Interrupt) -> None:
        item = InterruptItem(self._core.execution_id, action, interrupt, self._link)
        if self._link is None and not self._events.stream_item_emitted.sinks:
            core = self._core
            core.streamed += 1
            core.seq += 1
            self._stream.put(item)
        else:
            self._put_item(item.build(), None, self.run_context, item)

    def _put_item(
        self, item: Any, origin: dict[str, Any] | None, run: RunContext, deferred: InterruptItem | None = None
    ) -> None:
        self._core.streamed += 1
        self._stream.put(item if deferred is None else deferred)
        event = self._events.stream_item_emitted
        if event.sinks:
            payload = {"item": item, "item_type": type(item).__name__, "origin_chunk": origin}
            self._emit_event(event, payload, run=run)
        else:
            self._core.seq += 1

        if self._link is not None:
            self._link.parent._bridge(item, origin)

    async def get_async_runtime_stream(
        self, initial_value: Any = None, *, timeout: float | None = 10.0
    ) -> AsyncIterator[Any]:
        """Yield the runtime stream from its first item, live, until it ends; starts the execution if need be.

        Args:
            timeout: seconds without an item after which the reader (not the execution) gives up; ``None``: never.
        """
        if not self._core.started and self._lifecycle == "open":
            self._bind()
            self._services_task(self._start_quietly(initial_value))

        async for item in self._stream.read(timeout, self._services.clock):
            yield item

        if self._driver.failure is not None and self.auto_close:
            raise self._driver.failure

    async def _start_quietly(self, initial_value: Any) -> None:
        try:
            await self.async_start(initial_value)
        except Exception:
            # The reader raises it, after the items that came before; the events have it already.
            self._stream.close()
            self._on_idle()

    def get_runtime_stream(self, initial_value: Any = None, *, timeout: float | None = 10.0) -> Iterator[Any]:
        """Synchronous twin of :meth:`get_async_runtime_stream`, on a helper thread.

        Raises:
            RuntimeError: it is iterated on the event loop the execution works on, and would wait for itself.
        """
        home = self._driver.loop
        working = home is not None and home.is_running() and not self._stream.closed
        if working and threading.get_ident() == self._thread:
            raise RuntimeError(
                "a synchronous reader cannot wait on the event loop the execution works on; "
                "use async for with get_async_runtime_stream()"
            )

        items: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

        async def pump() -> None:
            async for item in self.get_async_runtime_stream(initial_value, timeout=timeout):
                items.put(("item", item))

        def work() -> None:
            try:
                loop = self._driver.loop if not self._stream.closed else None
                if loop is not None and loop.is_running():
                    asyncio.run_coroutine_threadsafe(pump(), loop).result()
                else:
                    asyncio.run(pump())
                items.put(("end", None))
            except BaseException as exc:
                items.put(("error", exc))

        threading.Thread(target=work, name="flowdeck-stream", daemon=True).start()
        while True:
            kind, item = items.get()
            if kind == "item":
                yield item
            elif kind == "error":
                raise item
            else:
                return
