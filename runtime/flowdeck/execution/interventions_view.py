"""What a chunk sees of the interventions: those that were inserted before it was dispatched, the same over re-runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowdeck.execution.interventions_ledger import VIEW, filters

if TYPE_CHECKING:
    from flowdeck.definition.plan import PlanOp
    from flowdeck.execution.driver import Driver
    from flowdeck.execution.state import Task

__all__ = ["InterventionScope"]


class InterventionScope:
    """The part of the data object that reads interventions and says what became of them."""

    __slots__ = ()

    if TYPE_CHECKING:
        _driver: Driver
        _task: Task
        _op: PlanOp

        def _tag(self, kind: str, key: str) -> str: ...
        def _elsewhere(self) -> bool: ...
        def _run_on_loop(self, coroutine: Any) -> Any: ...

    @property
    def interventions(self) -> list[dict[str, Any]]:
        """Copies of the interventions that were inserted, at any target, before this chunk was dispatched."""
        return self.get_interventions()

    def get_interventions(
        self, status: str | None = None, target: str | None = None, since_version: int | None = None
    ) -> list[dict[str, Any]]:
        """Return what fits of :attr:`interventions`, by version; ``since_version`` is exclusive. Consumes nothing."""
        wanted = filters(status, target, since_version)
        ledger = self._driver.core.ledger
        if ledger is None:
            return []

        tags = self._task.tags
        return ledger.select(**wanted, before=tags[VIEW][1] if tags is not None and VIEW in tags else 0)

    def get_latest_intervention(self, default: Any = None, **wanted: Any) -> Any:
        """Return the last of what :meth:`get_interventions` returns, or ``default``."""
        found = self.get_interventions(**wanted)
        return found[-1] if found else default

    async def async_mark_intervention_consumed(
        self,
        intervention_id: str,
        *,
        consumer: str | None = None,
        status: str = "applied",
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Note that this chunk took an intervention into account; ``consumer`` is its name unless given.

        Raises:
            InterventionNotFound: there is none of that id.
            ValueError: a status other than ``applied`` and ``ignored``.
        """
        return self._mark_consumed(intervention_id, consumer, status, note, metadata)

    def mark_intervention_consumed(
        self,
        intervention_id: str,
        *,
        consumer: str | None = None,
        status: str = "applied",
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The same as :meth:`async_mark_intervention_consumed`."""
        if self._elsewhere():
            marked: dict[str, Any] = self._run_on_loop(
                self.async_mark_intervention_consumed(
                    intervention_id, consumer=consumer, status=status, note=note, metadata=metadata
                )
            )
            return marked

        return self._mark_consumed(intervention_id, consumer, status, note, metadata)

    def _mark_consumed(
        self, intervention_id: str, consumer: str | None, status: str, note: str | None, metadata: Any
    ) -> dict[str, Any]:
        driver = self._driver
        who = self._op.name if consumer is None else consumer
        tag = self._tag("k", f"{intervention_id}:{who}")
        ledger = driver.core.ledger
        if ledger is not None and self._task.tags is not None and tag in self._task.tags:
            return ledger.get(intervention_id).record()  # a re-run; it is noted already

        item = driver.execution._consume(intervention_id, who, status, note, metadata)
        driver.core.mark(self._task, tag)
        return item.record()
