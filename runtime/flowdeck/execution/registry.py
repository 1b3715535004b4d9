"""The executions of one flow object: held while they work, only remembered while a store holds them parked."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["ExecutionRegistry"]

_NOBODY: Final[WeakValueDictionary[str, TriggerFlowExecution]] = WeakValueDictionary()
"""Those that rest, of every registry in which none has rested yet; never written to."""


class ExecutionRegistry(MutableMapping[str, "TriggerFlowExecution"]):
    """Executions by id. One that rests in an execution store does not live on for the registry's sake."""

    __slots__ = ("_held", "_resting")

    def __init__(self) -> None:
        self._held: dict[str, TriggerFlowExecution] = {}
        self._resting = _NOBODY

    def __getitem__(self, key: str) -> TriggerFlowExecution:
        held = self._held.get(key)
        return held if held is not None else self._resting[key]

    def __setitem__(self, key: str, execution: TriggerFlowExecution) -> None:
        if self._resting is not _NOBODY:
            self._resting.pop(key, None)

        self._held[key] = execution

    def __delitem__(self, key: str) -> None:
        if key in self._held:
            del self._held[key]
        else:
            del self._resting[key]

    def __len__(self) -> int:
        return len(self._held) + len(self._resting)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._held, *self._resting])

    def forget(self, key: str) -> None:
        """Hold on to it no more, if it is there."""
        if self._held.pop(key, None) is None:
            self._resting.pop(key, None)

    def rest(self, execution: TriggerFlowExecution) -> None:
        """Hold on to it no longer than somebody else does."""
        if self._held.get(execution.id) is execution:
            del self._held[execution.id]
            if self._resting is _NOBODY:
                self._resting = WeakValueDictionary()

            self._resting[execution.id] = execution

    def stir(self, execution: TriggerFlowExecution) -> None:
        """It works again: hold on to it."""
        if self._resting.get(execution.id) is execution:
            self[execution.id] = execution
