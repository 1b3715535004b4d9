"""Starting a flow: with a handle, at most once under a key, from start to close, or as a stream."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from flowdeck.errors import ExecutionExists
from flowdeck.execution.interventions import UNSET
from flowdeck.execution.registry import ExecutionRegistry
from flowdeck.execution.services import current_services
from flowdeck.execution.sync import run_sync

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["StartingScope"]


class StartingScope:
    """The part of a flow that creates executions and starts them in one call."""

    _executions: ExecutionRegistry

    if TYPE_CHECKING:  # supplied by the flow
        create_execution: Callable[..., TriggerFlowExecution]
        remove_execution: Callable[[TriggerFlowExecution | str], None]

        @property
        def name(self) -> str: ...

    async def async_start_execution(
        self,
        initial_value: Any = None,
        *,
        timeout: float | None = UNSET,
        wait_for_result: Any = None,
        start_key: str | None = None,
        **options: Any,
    ) -> TriggerFlowExecution:
        """Create an execution, start it, and return its handle once the start has settled.

        Args:
            start_key: start at most once under this key: whoever asks again, in this process or another, gets the
                execution that was started first, also when it has ended. Needs ``runtime.use_store(...)``.

        Raises:
            ExecutionBusy: it was started under this key, and another process runs it.
            ValueError: ``start_key`` without an execution store.
        """
        _deprecated_wait(wait_for_result)
        if start_key is not None:
            return await self._start_once(start_key, initial_value, timeout, options)

        if timeout is not UNSET:
            options["auto_close_timeout"] = timeout

        execution = self.create_execution(**options)
        await execution._settle_start(initial_value)
        execution._on_idle()
        if execution._log is not None:
            await execution._log.committed()

        return execution

    async def _start_once(
        self, key: str, initial_value: Any, timeout: Any, options: dict[str, Any]
    ) -> TriggerFlowExecution:
        store = (options.get("services") or current_services()).store
        if store is None:
            raise ValueError("start_key= needs an execution store: call runtime.use_store(...) first")

        execution_id = hashlib.sha256(f"{self.name}\0{key}".encode()).hexdigest()[:32]
        known = self._executions.get(execution_id) or await store.reopen(self, execution_id)
        if known is None:
            try:
                return await self.async_start_execution(
                    initial_value, timeout=timeout, execution_id=execution_id, **options
                )
            except ExecutionExists:  # somebody was faster
                self.remove_execution(execution_id)
                known = await store.reopen(self, execution_id)
                if known is None:
                    raise

        reopened: TriggerFlowExecution = known
        return reopened

    def start_execution(self, initial_value: Any = None, **options: Any) -> TriggerFlowExecution:
        """Synchronous twin of :meth:`async_start_execution`."""
        return run_sync(self.async_start_execution(initial_value, **options))

    async def async_start(
        self,
        initial_value: Any = None,
        *,
        auto_close: bool = True,
        auto_close_timeout: float | None = 0.0,
        timeout: float | None = UNSET,
        wait_for_result: Any = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Run the flow from start to close and return the close snapshot. Nobody holds a handle, so it cannot pause.

        Raises:
            ValueError: ``auto_close=False``; use :meth:`create_execution`.
            HiddenHandleError: a chunk paused.
        """
        if not auto_close:
            raise ValueError("flow.start() hides the handle, so it must close by itself; use create_execution()")

        _deprecated_wait(wait_for_result)
        execution = self.create_execution(
            auto_close_timeout=auto_close_timeout if timeout is UNSET else timeout,
            resume_handle_exposed=False,
            **options,
        )
        try:
            snapshot: dict[str, Any] = await execution.async_start(initial_value)
            return snapshot
        except BaseException:
            if not execution.is_closed():
                await execution.async_close(reason="failed", timeout=0, pending_interrupts="cancel")

            raise
        finally:
            self.remove_execution(execution)

    def start(self, initial_value: Any = None, **options: Any) -> dict[str, Any]:
        """Synchronous twin of :meth:`async_start`."""
        return run_sync(self.async_start(initial_value, **options))

    async def get_async_runtime_stream(
        self, initial_value: Any = None, *, timeout: float | None = 10.0, **options: Any
    ) -> AsyncIterator[Any]:
        """Run the flow and yield its runtime stream, live, until it has closed."""
        execution = self.create_execution(auto_close_timeout=0.0, resume_handle_exposed=False, **options)
        try:
            async for item in execution.get_async_runtime_stream(initial_value, timeout=timeout):
                yield item
        finally:
            self.remove_execution(execution)

    def get_runtime_stream(
        self, initial_value: Any = None, *, timeout: float | None = 10.0, **options: Any
    ) -> Iterator[Any]:
        """Synchronous twin of :meth:`get_async_runtime_stream`."""
        execution = self.create_execution(auto_close_timeout=0.0, resume_handle_exposed=False, **options)
        yield from execution.get_runtime_stream(initial_value, timeout=timeout)


def _deprecated_wait(value: Any) -> None:
    if value is not None:
        warnings.warn("wait_for_result is ignored", DeprecationWarning, stacklevel=3)
