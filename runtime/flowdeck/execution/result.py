"""What a run came to: state, metadata and the deprecated result value."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from flowdeck.execution.values import copy_value, lookup

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["ExecutionResult"]


class ExecutionResult:
    """A view of an execution: live while it runs, frozen once it is closed."""

    __slots__ = ("_execution",)

    def __init__(self, execution: TriggerFlowExecution) -> None:
        self._execution = execution

    def get_state(self, key: str | None = None, default: Any = None) -> Any:
        """Return a copy of the close snapshot, or of the live state before the close; dotted keys."""
        execution = self._execution
        data = execution._snapshot if execution._snapshot is not None else execution._core.data
        return copy_value(data if key is None else lookup(data, key, default))

    def get_meta(self) -> dict[str, Any]:
        """Return the run's identity and lifecycle; times in seconds since the Unix epoch."""
        execution = self._execution
        return {
            "execution_id": execution.id,
            "flow_name": execution._plan.flow_name,
            "status": execution.get_status(),
            "lifecycle_state": execution._lifecycle,
            "created_at": execution._created_us / 1e6,
            "started_at": None if execution._started_us is None else execution._started_us / 1e6,
            "closed_at": None if execution._closed_us is None else execution._closed_us / 1e6,
            "close_reason": execution._close_reason,
            "state_version": execution._core.version,
        }

    async def async_get_final_result(self, timeout: float | None = None) -> Any:
        """Return ``$final_result`` when it is set, else the close snapshot once the execution has closed."""
        final = lookup(self._execution._core.data, "$final_result", None)
        if final is not None:
            return copy_value(final)

        try:
            async with self._execution._services.clock.timeout(timeout):
                await self._execution.wait_closed()
        except TimeoutError:
            warnings.warn(f"no result within {timeout} s", UserWarning, stacklevel=2)
            return None

        state = self.get_state()
        return state.get("$final_result", state)

    def get_final_result(self, timeout: float | None = None) -> Any:
        """Synchronous twin of :meth:`async_get_final_result`."""
        return self._execution._sync(self.async_get_final_result(timeout))
