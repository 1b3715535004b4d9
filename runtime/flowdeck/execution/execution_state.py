"""The state of an execution, as whoever holds its handle reads and writes it. Handlers do so through their data."""

from __future__ import annotations

from typing import Any

from flowdeck.execution.dotted_keys import lookup
from flowdeck.execution.interventions_ledger import read_state
from flowdeck.execution.lifecycle import LifecycleMixin
from flowdeck.execution.values import copy_value

__all__ = ["StateMixin"]


class StateMixin(LifecycleMixin):
    """The part of an execution that reads and writes its state from outside."""

    def get_state(self, key: str | None = None, default: Any = None) -> Any:
        """Return a copy of what stands at the dotted ``key``; the whole state without a key."""
        if self._core.ledger is not None:
            return read_state(self._core, key, default)

        return copy_value(self._core.data if key is None else lookup(self._core.data, key, default))

    async def async_set_state(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Replace what stands at ``key`` and wait for the handlers of that key."""
        if self._takes_writes(key):
            self._core.set_state(key, copy_value(value, key))
            await self._after_change(key, emit)

    async def async_append_state(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Append to the list at ``key`` and wait for the handlers of that key."""
        if self._takes_writes(key):
            self._core.append_state(key, copy_value(value, key))
            await self._after_change(key, emit)

    async def async_del_state(self, key: str, *, emit: bool = True) -> None:
        """Delete ``key`` and wait for the handlers of that key."""
        if self._takes_writes(key) and self._core.del_state(key):
            await self._after_change(key, emit)

    def set_state(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Synchronous twin of :meth:`async_set_state`."""
        self._sync(self.async_set_state(key, value, emit=emit))

    def append_state(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Synchronous twin of :meth:`async_append_state`."""
        self._sync(self.async_append_state(key, value, emit=emit))

    def del_state(self, key: str, *, emit: bool = True) -> None:
        """Synchronous twin of :meth:`async_del_state`."""
        self._sync(self.async_del_state(key, emit=emit))

    def _takes_writes(self, key: str) -> bool:
        """Whether state may still be written. What a run came to stands once it is closed, so that is refused."""
        if self._lifecycle != "closed":
            return True

        self._warn(f"state {key!r} refused, it is closed")
        return False

    async def _after_change(self, key: str, emit: bool) -> None:
        value = self.get_state(key)
        self._state_changed(key, value)
        if emit and key in self._plan.state_keys and self._lifecycle == "open":
            self._bind()
            self._core.started = True
            self._active()
            try:
                await self._driver.settle(self._core.signal(key, value, "runtime_data", "runtime_data"))
            finally:
                self._on_idle()
        elif self._driver.gate is not None:
            await self._driver.gate.committed()  # whoever was told that it stands so must find it after a crash

    async def _flow_data_changed(self, key: str, value: Any) -> None:
        """Somebody has changed the flow's data: run this execution's handlers for it."""
        if self._lifecycle != "open":
            return

        self._bind()
        self._active()
        self._signalled(key, value, "flow_data", "flow_data")
        try:
            await self._driver.settle(self._core.signal(key, value, "flow_data", "flow_data"))
        except Exception:
            pass  # this execution has failed and said so; whoever changed the data has not
        finally:
            self._on_idle()
