"""What planners see of a loop's records: each is copied once, however many rounds there are.

To copy all of them out of the state in every round would make a long loop quadratic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from flowdeck.execution.values import copy_value

if TYPE_CHECKING:
    from flowdeck.execution.data import TriggerFlowRuntimeData
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["RecordViews"]


class RecordViews:
    """The planners' copies of the records in the states of running loops."""

    def __init__(self) -> None:
        self._views: WeakKeyDictionary[TriggerFlowExecution, list[dict[str, Any]]] = WeakKeyDictionary()

    def of(self, data: TriggerFlowRuntimeData, last: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the records so far, and those of round ``last``."""
        kept = data._driver.core.data.get("records") or []
        view = self._views.setdefault(data.execution, [])
        if len(view) > len(kept):  # another snapshot was loaded into the handle
            view.clear()

        view += [copy_value(each, "records") for each in kept[len(view) :]]
        newest: list[dict[str, Any]] = []
        for record in reversed(view):
            if record["meta"].get("round_index") != last:
                break

            newest.append(record)

        return list(view), newest[::-1]
