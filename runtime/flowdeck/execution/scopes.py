"""The two data scopes a handler writes: the execution's state, and the flow's shared data.

Every write is an input to the core the moment it is called. The async methods wait for the handlers of the key; the
sync ones let the chunk's completion wait for them, or block when they are called from a worker thread.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from flowdeck.execution.dotted_keys import lookup
from flowdeck.execution.flow_data import tell, warn_shared
from flowdeck.execution.interventions_ledger import read_state
from flowdeck.execution.values import copy_value

if TYPE_CHECKING:
    from flowdeck.events.lineage import RunContext
    from flowdeck.execution.driver import Driver
    from flowdeck.execution.state import Task

__all__ = ["FlowStateView", "StateScope", "StateView"]

_MISSING = object()


class StateScope:
    """The part of the data object that reads and writes data."""

    __slots__ = ()

    if TYPE_CHECKING:
        _driver: Driver
        _task: Task
        run: RunContext

        def _commit(self, kind: str, key: str, value: Any) -> bool: ...
        def _emit(self, event: str, value: Any, awaited: bool, kind: str = "event") -> int: ...
        def _later(self, group: int) -> None: ...
        def _elsewhere(self) -> bool: ...
        def _run_on_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any: ...

    # -- execution state -----------------------------------------------------------------------------------------

    def get_state(self, key: str | None = None, default: Any = None) -> Any:
        """Return a copy of what stands at the dotted ``key``; the whole state without a key."""
        core = self._driver.core
        if core.ledger is not None:
            return read_state(core, key, default)

        data = core.data
        return copy_value(data if key is None else lookup(data, key, default))

    async def async_get_state(self, key: str | None = None, default: Any = None) -> Any:
        return self.get_state(key, default)

    def set_state(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Replace what stands at ``key``. Handlers of that key run before the chunk completes.

        Raises:
            UnencodableValue: the value cannot be stored; the error carries its key path.
        """
        if self._elsewhere():
            self._run_on_loop(self.async_set_state(key, value, emit=emit))
        else:
            self._later(self._change("s", key, value, emit))

    async def async_set_state(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Replace what stands at ``key`` and wait for the handlers of that key."""
        group = self._change("s", key, value, emit)
        if group:
            await self._driver.settle(group)

    def append_state(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Append to the list at ``key``, creating it."""
        if self._elsewhere():
            self._run_on_loop(self.async_append_state(key, value, emit=emit))
        else:
            self._later(self._change("a", key, value, emit))

    async def async_append_state(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Append to the list at ``key`` and wait for the handlers of that key."""
        group = self._change("a", key, value, emit)
        if group:
            await self._driver.settle(group)

    def del_state(self, key: str, *, emit: bool = True) -> None:
        """Delete ``key``; deleting what is not there changes nothing."""
        if self._elsewhere():
            self._run_on_loop(self.async_del_state(key, emit=emit))
        else:
            self._later(self._change("d", key, None, emit))

    async def async_del_state(self, key: str, *, emit: bool = True) -> None:
        """Delete ``key`` and wait for the handlers of that key."""
        group = self._change("d", key, None, emit)
        if group:
            await self._driver.settle(group)

    @property
    def state(self) -> StateView:
        """The execution state as a mapping-like namespace."""
        return StateView(self)

    def _change(self, kind: str, key: str, value: Any, emit: bool) -> int:
        core = self._driver.core
        copied = copy_value(value, key) if kind != "d" else None
        if self._driver.closed and not self._driver.execution._takes_writes(key):
            return 0

        if self._commit(kind, key, copied):
            if kind == "s":
                core.set_state(key, copied)
            elif kind == "a":
                copied = core.append_state(key, copied)
            elif not core.del_state(key):
                return 0

            self._driver.execution._state_changed(key, copied, self.run)

        if not emit or key not in core.plan.state_keys:
            return 0

        return self._emit(key, copy_value(copied), awaited=True, kind="runtime_data")

    # -- flow data -----------------------------------------------------------------------------------------------

    def get_flow_data(self, key: str | None = None, default: Any = None, *, no_warning: bool = True) -> Any:
        """Return a copy of what stands at the dotted ``key`` of the flow's shared data."""
        return self._driver.execution._flow_data.get(key, default)

    async def async_get_flow_data(self, key: str | None = None, default: Any = None, *, no_warning: bool = True) -> Any:
        return self._driver.execution._flow_data.get(key, default)

    def set_flow_data(self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False) -> None:
        """Replace ``key`` for every execution of the flow; its handlers run in each live one.

        Raises:
            UnencodableValue: the value cannot be stored; the error carries its key path.
        """
        warn_shared(no_warning)
        self._change_flow_now("f", key, value, emit)

    async def async_set_flow_data(self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False) -> None:
        """Replace ``key`` for every execution of the flow and wait for its handlers."""
        warn_shared(no_warning)
        await self._change_flow("f", key, value, emit)

    def append_flow_data(self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False) -> None:
        """Append to the list at ``key``, creating it."""
        warn_shared(no_warning)
        self._change_flow_now("g", key, value, emit)

    async def async_append_flow_data(
        self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False
    ) -> None:
        """Append to the list at ``key`` and wait for its handlers."""
        warn_shared(no_warning)
        await self._change_flow("g", key, value, emit)

    def del_flow_data(self, key: str, *, emit: bool = True, no_warning: bool = False) -> None:
        """Delete ``key``; deleting what is not there changes nothing."""
        warn_shared(no_warning)
        self._change_flow_now("h", key, None, emit)

    async def async_del_flow_data(self, key: str, *, emit: bool = True, no_warning: bool = False) -> None:
        """Delete ``key`` and wait for its handlers."""
        warn_shared(no_warning)
        await self._change_flow("h", key, None, emit)

    @property
    def flow_state(self) -> FlowStateView:
        """The flow's shared data as a mapping-like namespace."""
        return FlowStateView(self)

    def _write_flow(self, kind: str, key: str, value: Any) -> tuple[bool, bool, Any]:
        """Apply a change once. Returns whether there is one, whether it is new (no re-run), and what stands there."""
        data = self._driver.execution._flow_data
        copied = copy_value(value, key)  # refuses what cannot be stored before anything is marked as done
        if not self._commit(kind, key, copied):
            return True, False, data.get(key)

        if self._driver.gate is not None:
            self._driver.gate.flow_data_changed(kind, key, copied)

        if kind == "f":
            return True, True, data.set(key, copied)

        return (True, True, data.append(key, copied)) if kind == "g" else (data.delete(key), True, None)

    def _emit_flow(self, key: str, value: Any) -> int:
        if key not in self._driver.core.plan.flow_keys:
            return 0

        return self._emit(key, copy_value(value), awaited=True, kind="flow_data")

    async def _change_flow(self, kind: str, key: str, value: Any, emit: bool) -> None:
        changed, new, now = self._write_flow(kind, key, value)
        if changed and emit:
            execution = self._driver.execution
            group = self._emit_flow(key, now)
            if group:
                await self._driver.settle(group)

            if new:
                await tell(execution._flow_data.others(execution, key), key, copy_value(now))

    def _change_flow_now(self, kind: str, key: str, value: Any, emit: bool) -> None:
        if self._elsewhere():
            self._run_on_loop(self._change_flow(kind, key, value, emit))
            return

        changed, new, now = self._write_flow(kind, key, value)
        if changed and emit:
            self._later(self._emit_flow(key, now))
            execution = self._driver.execution
            others = execution._flow_data.others(execution, key) if new else []
            if others:
                execution._services_task(tell(others, key, copy_value(now)))


class StateView:
    """``data.state``: the execution state as a namespace with ``get``, ``set``, ``append``, ``delete`` and ``[]``."""

    __slots__ = ("_data",)

    def __init__(self, data: StateScope) -> None:
        self._data = data

    def get(self, key: str, default: Any = None) -> Any:
        return self._data.get_state(key, default)

    def set(self, key: str, value: Any, *, emit: bool = True) -> None:
        self._data.set_state(key, value, emit=emit)

    def append(self, key: str, value: Any, *, emit: bool = True) -> None:
        self._data.append_state(key, value, emit=emit)

    def delete(self, key: str, *, emit: bool = True) -> None:
        self._data.del_state(key, emit=emit)

    async def async_set(self, key: str, value: Any, *, emit: bool = True) -> None:
        await self._data.async_set_state(key, value, emit=emit)

    async def async_append(self, key: str, value: Any, *, emit: bool = True) -> None:
        await self._data.async_append_state(key, value, emit=emit)

    async def async_del(self, key: str, *, emit: bool = True) -> None:
        await self._data.async_del_state(key, emit=emit)

    def _held(self) -> dict[str, Any]:
        """Return the data itself; whoever hands a part of it out copies that."""
        return self._data._driver.core.data

    def to_dict(self) -> dict[str, Any]:
        copied: dict[str, Any] = copy_value(self._held())
        return copied

    def keys(self) -> list[str]:
        return list(self._held())

    def values(self) -> list[Any]:
        return list(self.to_dict().values())

    def items(self) -> list[tuple[str, Any]]:
        return list(self.to_dict().items())

    def __getitem__(self, key: str) -> Any:
        found = lookup(self._held(), key, _MISSING)
        if found is _MISSING:
            raise KeyError(key)

        return copy_value(found)

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        self.delete(key)

    def __contains__(self, key: str) -> bool:
        return lookup(self._held(), key, _MISSING) is not _MISSING

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._held()))

    def __len__(self) -> int:
        return len(self._held())


class FlowStateView(StateView):
    """``data.flow_state``: the flow's shared data as a namespace. Writes warn unless ``no_warning``."""

    __slots__ = ()

    def get(self, key: str, default: Any = None) -> Any:
        return self._data.get_flow_data(key, default)

    def set(self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False) -> None:
        self._data.set_flow_data(key, value, emit=emit, no_warning=no_warning)

    def append(self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False) -> None:
        self._data.append_flow_data(key, value, emit=emit, no_warning=no_warning)

    def delete(self, key: str, *, emit: bool = True, no_warning: bool = False) -> None:
        self._data.del_flow_data(key, emit=emit, no_warning=no_warning)

    async def async_set(self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False) -> None:
        await self._data.async_set_flow_data(key, value, emit=emit, no_warning=no_warning)

    async def async_append(self, key: str, value: Any, *, emit: bool = True, no_warning: bool = False) -> None:
        await self._data.async_append_flow_data(key, value, emit=emit, no_warning=no_warning)

    async def async_del(self, key: str, *, emit: bool = True, no_warning: bool = False) -> None:
        await self._data.async_del_flow_data(key, emit=emit, no_warning=no_warning)

    def _held(self) -> dict[str, Any]:
        everything: dict[str, Any] = self._data.get_flow_data()
        return everything
