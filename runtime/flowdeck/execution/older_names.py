"""Names of the compatible API that have newer ones: they work, and say what to write instead.

Handlers and executions inherit them, so that a program written for the compatible API runs; new code does not need
them. What has no meaning here any more (layer marks, which are kept by the flow itself) changes nothing.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdeck.execution.driver import Driver
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.state import Task

__all__ = ["OlderDataNames", "OlderExecutionNames", "SignalInfo", "ignored"]


class SignalInfo(dict[str, Any]):
    """What is known of a signal, by key or by attribute."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"a signal has {', '.join(self)}, not {name!r}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict."""
        return dict(self)


def _renamed(name: str, newer: str) -> None:
    warnings.warn(f"{name}() is deprecated; use {newer}()", DeprecationWarning, stacklevel=3)


def ignored(option: str, why: str, *, stacklevel: int = 3) -> None:
    """Warn that an option of the compatible API changes nothing here."""
    warnings.warn(f"{option} changes nothing: {why}", DeprecationWarning, stacklevel=stacklevel)


LANES = "the flow keeps apart what runs side by side by itself"


class OlderNames:
    """Execution state under the name ``runtime_data``."""

    __slots__ = ()

    if TYPE_CHECKING:

        def get_state(self, key: str | None = None, default: Any = None) -> Any: ...
        def set_state(self, key: str, value: Any, *, emit: bool = True) -> None: ...
        def append_state(self, key: str, value: Any, *, emit: bool = True) -> None: ...
        def del_state(self, key: str, *, emit: bool = True) -> None: ...
        async def async_set_state(self, key: str, value: Any, *, emit: bool = True) -> None: ...
        async def async_append_state(self, key: str, value: Any, *, emit: bool = True) -> None: ...
        async def async_del_state(self, key: str, *, emit: bool = True) -> None: ...

    def get_runtime_data(self, key: str | None = None, default: Any = None, *, inherit: bool = True) -> Any:
        """Deprecated: ``get_state``."""
        _renamed("get_runtime_data", "get_state")
        return self.get_state(key, default)

    def set_runtime_data(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Deprecated: ``set_state``."""
        _renamed("set_runtime_data", "set_state")
        self.set_state(key, value, emit=emit)

    def append_runtime_data(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Deprecated: ``append_state``."""
        _renamed("append_runtime_data", "append_state")
        self.append_state(key, value, emit=emit)

    def del_runtime_data(self, key: str, *, emit: bool = True) -> None:
        """Deprecated: ``del_state``."""
        _renamed("del_runtime_data", "del_state")
        self.del_state(key, emit=emit)

    async def async_set_runtime_data(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Deprecated: ``async_set_state``."""
        _renamed("async_set_runtime_data", "async_set_state")
        await self.async_set_state(key, value, emit=emit)

    async def async_append_runtime_data(self, key: str, value: Any, *, emit: bool = True) -> None:
        """Deprecated: ``async_append_state``."""
        _renamed("async_append_runtime_data", "async_append_state")
        await self.async_append_state(key, value, emit=emit)

    async def async_del_runtime_data(self, key: str, *, emit: bool = True) -> None:
        """Deprecated: ``async_del_state``."""
        _renamed("async_del_runtime_data", "async_del_state")
        await self.async_del_state(key, emit=emit)


class OlderDataNames(OlderNames):
    """Older names of the data object."""

    __slots__ = ()

    if TYPE_CHECKING:
        _driver: Driver
        _task: Task

        @property
        def scope(self) -> str: ...
        @property
        def execution(self) -> TriggerFlowExecution: ...
        @property
        def signal_meta(self) -> dict[str, Any]: ...

    @property
    def signal(self) -> SignalInfo:
        """The signal that triggered the chunk."""
        task = self._task
        return SignalInfo(
            id=f"s{task.sig}",
            trigger_event=task.event,
            trigger_type=task.type,
            value=task.value,
            layer_marks=self._layers(),
            source=task.source,
            meta=self.signal_meta,
        )

    @property
    def signal_info(self) -> SignalInfo:
        """The same in short: event, type, source, meta and value."""
        task = self._task
        return SignalInfo(event=task.event, type=task.type, source=task.source, meta=self.signal_meta, value=task.value)

    @property
    def layer_mark(self) -> str | None:
        """The innermost branch the chunk runs in, such as ``for_each[3]``; ``None`` outside of every block."""
        layers = self._layers()
        return layers[-1] if layers else None

    @property
    def upper_layer_mark(self) -> str | None:
        """The branch around the innermost one."""
        layers = self._layers()
        return layers[-2] if len(layers) > 1 else None

    def layer_in(self) -> None:
        """Deprecated: changes nothing, as the flow keeps its branches apart by itself."""
        ignored("layer_in()", LANES)

    def layer_out(self) -> None:
        """Deprecated: changes nothing, as the flow keeps its branches apart by itself."""
        ignored("layer_out()", LANES)

    def get_last_signal(self) -> dict[str, Any] | None:
        """Return the last signal that was emitted by name in this run."""
        return self.execution.get_last_signal()

    def _layers(self) -> list[str]:
        """Return the indexed places around the chunk, from the outermost to the innermost."""
        parts = self.scope.split("/")
        return ["/".join(parts[: k + 1]) for k, part in enumerate(parts[:-1]) if "[" in part]


class OlderExecutionNames(OlderNames):
    """Older and asynchronous names of the execution."""

    if TYPE_CHECKING:

        def seal(self, reason: str = "manual") -> Any: ...
        def unseal(self, reason: str = "manual") -> Any: ...
        def stop_stream(self) -> None: ...

    async def async_seal(self, reason: str = "manual") -> Any:
        """The same as :meth:`seal`."""
        return self.seal(reason)

    async def async_unseal(self, reason: str = "manual") -> Any:
        """The same as :meth:`unseal`."""
        return self.unseal(reason)

    async def async_stop_stream(self) -> None:
        """The same as :meth:`stop_stream`."""
        self.stop_stream()
