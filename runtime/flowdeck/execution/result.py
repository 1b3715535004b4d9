"""What a run came to: state, metadata and the deprecated result value."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from flowdeck.execution.base import ExecutionBase
from flowdeck.execution.dotted_keys import lookup
from flowdeck.execution.final_result import FINAL_RESULT, deprecated
from flowdeck.execution.interventions_ledger import filters, read_state
from flowdeck.execution.values import copy_value

if TYPE_CHECKING:
    from flowdeck.events.lineage import RunContext
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["ExecutionResult", "FinalResultMixin"]


class ExecutionResult:
    """A view of an execution: live while it runs, frozen once it is closed."""

    __slots__ = ("_execution",)

    def __init__(self, execution: TriggerFlowExecution) -> None:
        self._execution = execution

    def get_state(self, key: str | None = None, default: Any = None) -> Any:
        """Return a copy of the close snapshot, or of the live state before the close; dotted keys."""
        execution = self._execution
        if execution._snapshot is None and execution._core.ledger is not None:
            return read_state(execution._core, key, default)

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

    def get_interventions(
        self,
        status: str | None = None,
        target: str | None = None,
        since_version: int | None = None,
        consumed_by: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return copies of the interventions that fit, by version, also after the close. Reading consumes nothing."""
        ledger = self._execution._core.ledger
        return [] if ledger is None else ledger.select(**filters(status, target, since_version, consumed_by))

    def get_latest_intervention(self, default: Any = None, **wanted: Any) -> Any:
        """Return the last of what :meth:`get_interventions` returns, or ``default``."""
        found = self.get_interventions(**wanted)
        return found[-1] if found else default

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


class FinalResultMixin(ExecutionBase):
    """The part of an execution that has a set result."""

    if TYPE_CHECKING:  # supplied by the other parts

        def _takes_writes(self, key: str) -> bool: ...
        def _checked_result(self, value: Any) -> Any: ...

    @property
    def result(self) -> ExecutionResult:
        """A view of what the run came to, live while it works."""
        return ExecutionResult(self)  # type: ignore[arg-type]

    def set_result(self, result: Any) -> None:
        """Deprecated: set the result from outside any chunk.

        Raises:
            ContractError: it does not fit the flow's contract.
            UnencodableValue: it cannot be stored.
        """
        deprecated("set_result")
        kept = copy_value(self._checked_result(result), FINAL_RESULT)
        if not self._takes_writes(FINAL_RESULT):
            return

        first = lookup(self._core.data, FINAL_RESULT, None) is None
        self._core.set_state(FINAL_RESULT, kept)
        self._state_changed(FINAL_RESULT, kept)
        if first:
            self._tell_result(kept, self.run_context)

    async def async_set_result(self, result: Any) -> None:
        """The same as :meth:`set_result`."""
        self.set_result(result)

    async def async_get_result(self, timeout: float | None = None) -> Any:
        """Deprecated: the same as ``result.async_get_final_result``."""
        deprecated("async_get_result")
        return await self.result.async_get_final_result(timeout)

    def get_result(self, timeout: float | None = None) -> Any:
        """Deprecated: the same as ``result.get_final_result``."""
        deprecated("get_result")
        return self.result.get_final_result(timeout)

    def _tell_result(self, result: Any, run: RunContext) -> None:
        origin = {"run_id": run.run_id, **run.meta} if run is not self.run_context else None
        payload = {"result": result, "state_key": FINAL_RESULT, "origin_chunk": origin}
        self._emit_event(self._events.result_set, payload, run=run)
