"""Data shared by all executions of one flow object, and the flow methods that change it.

It lives as long as the flow, belongs to no run and follows no order between runs: keep progress in execution state.
Values obey the same rules as execution state (JSON plus tagged types, copied in and out).

``save()`` keeps a copy with the run. ``load()`` never overwrites what this process has: only keys that nobody has set
or deleted here are taken from the saved copy, so a fresh process finds them and a live one keeps its own.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowdeck.execution.dotted_keys import append, assign, delete, lookup
from flowdeck.execution.registry import ExecutionRegistry
from flowdeck.execution.sync import run_sync
from flowdeck.execution.values import copy_value

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["FlowData", "FlowDataScope", "warn_shared"]


class FlowData:
    """The values, and the executions that are told of a change. Safe to use from several threads."""

    __slots__ = ("_data", "_executions", "_lock", "_touched")

    def __init__(self, executions: ExecutionRegistry | None = None, data: dict[str, Any] | None = None) -> None:
        self._executions = ExecutionRegistry() if executions is None else executions
        self._data: dict[str, Any] = data or {}
        self._touched: set[str] = set(self._data)
        """First segments of the keys that were set or deleted in this process."""
        self._lock = threading.Lock()

    def get(self, key: str | None = None, default: Any = None) -> Any:
        """Return a copy of what stands at the dotted ``key``; everything without a key."""
        with self._lock:
            return copy_value(self._data if key is None else lookup(self._data, key, default))

    def set(self, key: str, value: Any) -> Any:
        """Replace ``key``. Returns what stands there now."""
        copied = copy_value(value, key)
        with self._lock:
            self._touch(key)
            assign(self._data, key, copied)

        return copied

    def append(self, key: str, value: Any) -> Any:
        """Append to the list at ``key``, creating it. Returns the whole list."""
        copied = copy_value(value, key)
        with self._lock:
            self._touch(key)
            return append(self._data, key, copied)

    def delete(self, key: str) -> bool:
        """Delete ``key``. Returns whether it was there."""
        with self._lock:
            self._touch(key)
            return delete(self._data, key)

    def _touch(self, key: str) -> None:
        self._touched.update((key, key.split(".", 1)[0]))

    def isolated(self) -> FlowData:
        """Return a copy for a sub flow: nobody shares it."""
        return FlowData(None, self.get())

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take the keys of a saved copy that nobody has touched in this process."""
        with self._lock:
            for key, value in saved.items():
                if key not in self._touched:
                    self._data[key] = value

    def others(self, besides: TriggerFlowExecution | None, key: str) -> list[TriggerFlowExecution]:
        """Return the live executions that have handlers for ``key``."""
        return [
            each
            for each in list(self._executions.values())
            if each is not besides and key in each._plan.flow_keys and each.is_open() and each._core.started
        ]


async def tell(executions: list[TriggerFlowExecution], key: str, value: Any) -> None:
    """Run the handlers of ``key`` in every given execution, each on its own loop, and wait for them.

    A handler that fails fails its own execution, which says so; the caller's is not touched.
    """
    here = asyncio.get_running_loop()
    waits: list[Any] = []
    for execution in executions:
        loop = execution._driver.loop
        if loop is here:
            waits.append(execution._flow_data_changed(key, value))
        elif loop is not None and loop.is_running():
            told = asyncio.run_coroutine_threadsafe(execution._flow_data_changed(key, value), loop)
            waits.append(asyncio.wrap_future(told))

    await asyncio.gather(*waits)


def warn_shared(no_warning: bool, stacklevel: int = 3) -> None:
    """Say that flow data is shared by every execution of the flow."""
    if not no_warning:
        warnings.warn(
            "flow data is shared by all executions of the flow; keep a run's progress in its own state "
            "(pass no_warning=True if sharing is meant)",
            RuntimeWarning,
            stacklevel=stacklevel,
        )


class FlowDataScope:
    """``flow.*_flow_data``. Every write warns that the scope is shared, unless ``no_warning``.

    With ``emit`` the ``flow_data`` handlers of that key run in every live execution of the flow; the async methods
    wait for them, and so do the sync ones, except on a thread whose event loop they would block.
    """

    _flow_data: FlowData

    def get_flow_data(self, key: str | None = None, default: Any = None, *, no_warning: bool = True) -> Any:
        """Return a copy of what stands at the dotted ``key``; everything without a key."""
        return self._flow_data.get(key, default)

    async def async_get_flow_data(self, key: str | None = None, default: Any = None, *, no_warning: bool = True) -> Any:
        return self._flow_data.get(key, default)

    def set_flow_data(self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False) -> None:
        """Replace ``key``.

        Raises:
            UnencodableValue: the value cannot be stored; the error carries its key path.
        """
        warn_shared(no_warning)
        self._tell(key, self._flow_data.set(key, value), emit)

    def append_flow_data(self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False) -> None:
        """Append to the list at ``key``, creating it."""
        warn_shared(no_warning)
        self._tell(key, self._flow_data.append(key, value), emit)

    def del_flow_data(self, key: str, *, emit: bool = True, no_warning: bool = False) -> None:
        """Delete ``key``; deleting what is not there changes nothing."""
        warn_shared(no_warning)
        if self._flow_data.delete(key):
            self._tell(key, None, emit)

    async def async_set_flow_data(self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False) -> None:
        """Replace ``key`` and wait for its handlers."""
        warn_shared(no_warning)
        await self._async_tell(key, self._flow_data.set(key, value), emit)

    async def async_append_flow_data(
        self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False
    ) -> None:
        """Append to the list at ``key`` and wait for its handlers."""
        warn_shared(no_warning)
        await self._async_tell(key, self._flow_data.append(key, value), emit)

    async def async_del_flow_data(self, key: str, *, emit: bool = True, no_warning: bool = False) -> None:
        """Delete ``key`` and wait for its handlers."""
        warn_shared(no_warning)
        if self._flow_data.delete(key):
            await self._async_tell(key, None, emit)

    async def _async_tell(self, key: str, value: Any, emit: bool) -> None:
        if emit:
            await tell(self._flow_data.others(None, key), key, copy_value(value))

    def _tell(self, key: str, value: Any, emit: bool) -> None:
        others = self._flow_data.others(None, key) if emit else []
        if not others:
            return

        told = tell(others, key, copy_value(value))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            run_sync(told)
        else:
            task = loop.create_task(told)
            _running.add(task)
            task.add_done_callback(_running.discard)


_running: set[asyncio.Task[None]] = set()
"""Tasks nobody waits for are kept alive here."""
