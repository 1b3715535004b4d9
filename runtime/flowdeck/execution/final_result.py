"""``$final_result``: the deprecated way to say what a run came to. New flows put it into state.

The value is checked against the contract's ``result``. A later one replaces the earlier; observers hear of the first.
Source: the compatible API's ``set_result`` and ``get_result``.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from flowdeck.events.lineage import RunContext
    from flowdeck.execution.driver import Driver

__all__ = ["FINAL_RESULT", "FinalResultScope", "deprecated"]

FINAL_RESULT: Final = "$final_result"


def deprecated(name: str) -> None:
    """Warn that ``name`` is only there for programs of the compatible API."""
    warnings.warn(
        f"{name}() is deprecated; put the result into state and read the close snapshot",
        DeprecationWarning,
        stacklevel=3,
    )


class FinalResultScope:
    """The part of the data object that sets and reads the result."""

    __slots__ = ()

    if TYPE_CHECKING:
        _driver: Driver
        run: RunContext

        def get_state(self, key: str | None = None, default: Any = None) -> Any: ...
        def set_state(self, key: str, value: Any, *, emit: bool = True) -> None: ...
        def _elsewhere(self) -> bool: ...
        def _run_on_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any: ...

    def set_result(self, result: Any) -> None:
        """Deprecated: set the run's result.

        Raises:
            ContractError: it does not fit the flow's contract.
            UnencodableValue: it cannot be stored.
        """
        deprecated("set_result")
        if self._elsewhere():
            self._run_on_loop(self._set_result(result))
        else:
            self._set_result_now(result)

    async def async_set_result(self, result: Any) -> None:
        """The same as :meth:`set_result`."""
        deprecated("async_set_result")
        self._set_result_now(result)

    def get_result(self) -> Any:
        """Deprecated: return what was set as the result so far."""
        deprecated("get_result")
        return self.get_state(FINAL_RESULT)

    async def _set_result(self, result: Any) -> None:
        self._set_result_now(result)

    def _set_result_now(self, result: Any) -> None:
        execution = self._driver.execution
        kept = execution._checked_result(result)
        first = self.get_state(FINAL_RESULT) is None
        self.set_state(FINAL_RESULT, kept, emit=False)
        if first and not self._driver.closed:
            execution._tell_result(kept, self.run)
