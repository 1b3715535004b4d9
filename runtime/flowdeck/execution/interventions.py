"""Interventions: context that outside code adds while a run is open, visible to later chunks at safe boundaries.

An intervention is recorded at once (*pending*) and changes nothing else: no signal, no pause, no input. It becomes
visible (*inserted*) at the next place that takes it: in mode ``planned`` an ``intervention_point`` with its target,
in mode ``auto`` the next operator one of whose names is the target (without a target: the next chunk). Until then it
can be *rejected*; what is pending at the close *expires*.

Rows that come from other processes are applied by :mod:`flowdeck.execution.interventions_inbox`.

Source: the document on runtime intervention (seed 002), the compatible API §4.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from flowdeck.definition.plan import POINT
from flowdeck.errors import DefinitionError, InterventionError, InterventionPolicyError, InterventionTargetWarning
from flowdeck.execution.interrupts import InterruptMixin
from flowdeck.execution.interventions_inbox import apply_row
from flowdeck.execution.interventions_item import Intervention
from flowdeck.execution.interventions_ledger import AUTO, PLANNED, Ledger, address, filters
from flowdeck.execution.values import copy_value

if TYPE_CHECKING:
    from flowdeck.definition.plan import Plan, PlanOp
    from flowdeck.events.center import EventType
    from flowdeck.execution.control import InboxRow
    from flowdeck.execution.state import Task

__all__ = ["PENDING_LIMIT", "UNSET", "InterventionMixin", "open_ledger"]

PENDING_LIMIT: Final = 1_000
"""Pending interventions an execution keeps; more would be a mistake, or an attack."""
UNSET: Final[Any] = object()
"""``intervention_mode`` was not given, so it is inferred."""

_CONSUMED: Final = ("applied", "ignored")

Policy = Callable[[dict[str, Any]], Any]


def open_ledger(plan: Plan, mode: Any, policy: Policy | None) -> Ledger | None:
    """Return the ledger an execution of ``plan`` begins with, or ``None`` when it takes no interventions.

    A mode that is not given is ``auto`` when there is a policy, else ``planned`` when the flow has intervention
    points, else none.

    Raises:
        DefinitionError: an unknown mode, ``auto`` in a flow with intervention points, or a policy without ``auto``.
        TypeError: the policy is not callable.
    """
    if policy is not None and not callable(policy):
        raise TypeError(f"intervention_policy={policy!r}: expected a callable that takes the context and returns ids")

    if mode is UNSET:
        mode = AUTO if policy is not None else PLANNED if plan.points else None

    if mode is None and policy is None:
        return None

    if mode not in (PLANNED, AUTO, None):
        raise DefinitionError(f'intervention_mode={mode!r}: expected "planned", "auto" or None')

    if mode != AUTO:
        if policy is not None:
            raise DefinitionError(
                f"intervention_policy= is used in mode 'auto' only, and intervention_mode is {mode!r}"
            )

        return Ledger(PLANNED)

    if plan.points:
        raise DefinitionError(
            f"intervention_mode='auto' does not go with explicit intervention points, and flow {plan.flow_name!r} has "
            f"{', '.join(plan.points)}; leave the mode out (then it is 'planned') or the points"
        )

    return Ledger(AUTO)


class InterventionMixin(InterruptMixin):
    """The part of an execution that takes additions from outside."""

    _policy: Policy | None = None

    @property
    def intervention_mode(self) -> str | None:
        """``planned``, ``auto``, or ``None`` when the execution takes no interventions."""
        ledger = self._core.ledger
        return None if ledger is None else ledger.mode

    # -- adding and refusing -------------------------------------------------------------------------------------

    def intervene(
        self,
        payload: Any,
        *,
        author: str | None = None,
        note: str | None = None,
        target: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Record an intervention and return its item; it may come before the start.

        On the execution's own thread it returns at once, in a durable run before the item is committed;
        :meth:`async_intervene` returns after that.

        Args:
            payload: what to add: JSON data and the other types that may be stored.
            author: who adds it.
            target: where it shall become visible: an intervention point's target; in mode ``auto`` an operator's
                id, name or kind, or its block's.
            metadata: anything else to keep with it.

        Raises:
            InterventionError: the execution takes none, is sealed or closed, or keeps 1,000 pending ones.
            TypeError: an argument is of the wrong type; UnencodableValue: it cannot be stored.
        """
        if self._on_another_thread():
            return self._sync(self.async_intervene(payload, author=author, note=note, target=target, metadata=metadata))

        return self._warned(self._receive(payload, author, note, target, metadata))

    async def async_intervene(
        self,
        payload: Any,
        *,
        author: str | None = None,
        note: str | None = None,
        target: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The same as :meth:`intervene`; in a durable run it returns once the item is committed."""
        recorded = self._warned(self._receive(payload, author, note, target, metadata))
        await self._committed()
        return recorded

    def reject_intervention(
        self, intervention_id: str, *, reason: str | None = None, author: str | None = None
    ) -> dict[str, Any]:
        """Refuse a pending intervention, so that no chunk sees it. Returns its item.

        Raises:
            InterventionNotFound: there is none of that id.
            InterventionSettled: it was inserted, rejected or expired before.
            InterventionError: the execution takes no interventions.
        """
        if self._on_another_thread():
            return self._sync(self.async_reject_intervention(intervention_id, reason=reason, author=author))

        return self._refuse(intervention_id, reason, author).record()

    async def async_reject_intervention(
        self, intervention_id: str, *, reason: str | None = None, author: str | None = None
    ) -> dict[str, Any]:
        """The same as :meth:`reject_intervention`; in a durable run it returns once that is committed."""
        refused = self._refuse(intervention_id, reason, author).record()
        await self._committed()
        return refused

    def mark_intervention_consumed(
        self,
        intervention_id: str,
        *,
        consumer: str,
        status: str = "applied",
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Note that ``consumer`` took an intervention into account; also for pending ones, and after the close.

        Reading does not consume. The item's status stays; a second note of the same consumer replaces the first.

        Raises:
            InterventionNotFound: there is none of that id.
            ValueError: no consumer, or a status other than ``applied`` and ``ignored``.
        """
        if self._on_another_thread():
            return self._sync(
                self.async_mark_intervention_consumed(
                    intervention_id, consumer=consumer, status=status, note=note, metadata=metadata
                )
            )

        return self._consume(intervention_id, consumer, status, note, metadata).record()

    async def async_mark_intervention_consumed(
        self,
        intervention_id: str,
        *,
        consumer: str,
        status: str = "applied",
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The same as :meth:`mark_intervention_consumed`; in a durable run it returns once that is committed."""
        marked = self._consume(intervention_id, consumer, status, note, metadata).record()
        await self._committed()
        return marked

    # -- reading -------------------------------------------------------------------------------------------------

    def get_intervention(self, intervention_id: str) -> dict[str, Any] | None:
        """Return a copy of an intervention in any status, or ``None``."""
        ledger = self._core.ledger
        item = ledger.items.get(intervention_id) if ledger is not None else None
        return None if item is None else item.record()

    def get_interventions(
        self, status: str | None = None, target: str | None = None, since_version: int | None = None
    ) -> list[dict[str, Any]]:
        """Return copies of the interventions that fit, by version; ``since_version`` is exclusive."""
        ledger = self._core.ledger
        return [] if ledger is None else ledger.select(**filters(status, target, since_version))

    def get_pending_interventions(self, target: str | None = None) -> list[dict[str, Any]]:
        """Return copies of those that are not visible to anybody yet."""
        return self.get_interventions("pending", target)

    def get_latest_intervention(self, default: Any = None, **wanted: Any) -> Any:
        """Return the last of what :meth:`get_interventions` returns, or ``default``."""
        found = self.get_interventions(**wanted)
        return found[-1] if found else default

    # -- changes -------------------------------------------------------------------------------------------------

    def _receive(
        self, payload: Any, author: Any, note: Any, target: Any, metadata: Any, key: str | None = None
    ) -> Intervention:
        ledger = self._ledger()
        if self._lifecycle != "open":
            raise InterventionError(f"execution {self.id} is {self._lifecycle}, so it takes no interventions any more")

        if len(ledger.pending) >= PENDING_LIMIT:
            raise InterventionError(f"execution {self.id} keeps {PENDING_LIMIT} pending interventions already")

        _check_texts(author=author, note=note, target=target)
        if target == "":
            raise TypeError("intervene(target=''): name an operator, or leave the target out")

        item = ledger.receive(
            self.id,
            copy_value(payload, "payload"),
            author=author,
            note=note,
            target=target,
            metadata=_metadata(metadata),
            now_us=self._services.clock.time_us(),
            key=key,
        )
        self._changed(self._events.intervention_received, "append", item)
        return item

    def _warned(self, item: Intervention) -> dict[str, Any]:
        """Return the item, after a warning when nothing in the flow could take it."""
        unmatched = self._unmatched(self._ledger(), item.target)
        if unmatched:
            warnings.warn(f"execution {self.id}: {unmatched}", InterventionTargetWarning, stacklevel=3)

        return item.record()

    def _refuse(self, intervention_id: str, reason: Any, author: Any) -> Intervention:
        _check_texts(reason=reason, author=author)
        item = self._ledger().reject(intervention_id, reason, author, self._services.clock.time_us())
        self._changed(self._events.intervention_rejected, "reject", item)
        return item

    def _consume(self, intervention_id: str, consumer: Any, status: Any, note: Any, metadata: Any) -> Intervention:
        ledger = self._ledger()
        if not isinstance(consumer, str) or not consumer:
            raise ValueError(f"mark_intervention_consumed(consumer={consumer!r}): say who took it, as a text")

        if status not in _CONSUMED:
            raise ValueError(f'mark_intervention_consumed(status={status!r}): expected "applied" or "ignored"')

        _check_texts(note=note)
        now = self._services.clock.time_us()
        item = ledger.consume(intervention_id, consumer, status, note, _metadata(metadata), now)
        self._changed(self._events.intervention_consumed, "consume", item, consumer=consumer)
        return item

    def _insert(self, ids: list[str], task: Task, op: PlanOp, policy: str | None) -> None:
        """Make pending items visible from ``op`` on."""
        if not ids:
            return

        ledger = self._ledger()
        scope = self._core.scope(task)
        now = self._services.clock.time_us()
        for item in ledger.insert(ids, address(self._plan, op), task, scope, policy, now):
            self._changed(self._events.intervention_inserted, "insert", item, scope=scope)

    def _expire_interventions(self) -> None:
        """The execution closes: what is still pending found no taker."""
        for item in self._ledger().expire(self._services.clock.time_us()):
            self._changed(self._events.intervention_expired, "expire", item)

    def _changed(
        self, event: EventType, action: str, item: Intervention, *, scope: str | None = None, **more: Any
    ) -> None:
        """Tell everybody of a change: observers, and the stream's readers while there is a stream."""
        self._core._ledger_changed()
        record = item.record()
        self._emit_event(event, {"intervention": record, **more}, scope=scope)
        if self._lifecycle != "closed":
            self._active()
            self._put_system({"type": "intervention", "action": action, "intervention": record})

    def _policy_failed(self, op: PlanOp, policy: str, error: InterventionPolicyError, ids: list[str]) -> None:
        """A policy raised, or selected what is not there. What it should have selected stays pending."""
        payload = {"operator_id": op.id, "operator_name": op.name, "policy": policy, "intervention_ids": ids}
        self._emit_event(self._events.intervention_rejected, payload, message=str(error), error=error)
        self._warn(str(error))

    def _ledger(self) -> Ledger:
        ledger = self._core.ledger
        if ledger is None:
            raise InterventionError(
                f"interventions are disabled for execution {self.id}; give its flow an intervention_point(), or create "
                'it with intervention_mode="auto"'
            )

        return ledger

    def _unmatched(self, ledger: Ledger, target: str | None) -> str | None:
        """Return why nothing in the flow could take an intervention of this target, if so."""
        if self._policy is not None:
            return None  # whatever it selects

        if ledger.mode == PLANNED:
            targets = [op.options.get("target") for op in self._plan.ops if op.kind == POINT]
            if target in targets:
                return None

            there = ", ".join(sorted({repr(each) for each in targets})) or "none"
            return f"no intervention point has the target {target!r} (there are: {there}); it will expire at the close"

        if target is None or any(target in address(self._plan, op) for op in self._plan.ops):
            return None

        return f"no operator has {target!r} as its id, name, kind or block; it will expire at the close"

    def _applied_intervention(self, row: InboxRow) -> tuple[str, str | None]:
        """Apply an inbox row of kind ``intervene``. Returns the outcome and its detail."""
        return apply_row(self, row)

    # -- inner ---------------------------------------------------------------------------------------------------

    async def _committed(self) -> None:
        """An id somebody was told must still mean the same intervention when this process is killed."""
        gate = self._driver.gate
        if gate is not None:
            await gate.committed()

    def _on_another_thread(self) -> bool:
        loop = self._driver.loop
        return loop is not None and loop.is_running() and threading.get_ident() != self._thread


def _check_texts(**given: Any) -> None:
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name}={value!r}: expected a text or None")


def _metadata(given: Any) -> dict[str, Any]:
    if given is None:
        return {}

    if not isinstance(given, Mapping):
        raise TypeError(f"metadata={given!r}: expected a dict")

    copied: dict[str, Any] = copy_value(dict(given), "metadata")
    return copied
