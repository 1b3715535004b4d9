"""The ledger of interventions: what was added to a run from outside, and where it became visible.

Part of the core's state: deterministic, no clock, no user code. Time, and what a policy selected, come in as
arguments. Every change that a chunk could see has a number (``changes``), so that a chunk's view is one integer: it
sees what had changed before it was dispatched, and sees the same again when it re-runs after a crash.

Source: the document on runtime intervention (seed 002) and the compatible API's ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowdeck.definition.plan import BATCH, CHUNK, COLLECT, FOR_EACH, JOIN, MATCH_END, POINT, ROUTE
from flowdeck.errors import InterventionNotFound, InterventionSettled, SnapshotError, UnencodableValue
from flowdeck.execution.dotted_keys import lookup
from flowdeck.execution.interventions_item import Intervention
from flowdeck.execution.values import copy_value, decode

if TYPE_CHECKING:
    from flowdeck.definition.plan import Plan, PlanOp
    from flowdeck.execution.core import Core
    from flowdeck.execution.state import Task

__all__ = [
    "AUTO",
    "BUILTIN",
    "PLANNED",
    "STATE_KEY",
    "VIEW",
    "Address",
    "Ledger",
    "address",
    "filters",
    "read_state",
]

PLANNED: Final = "planned"
AUTO: Final = "auto"
BUILTIN: Final = "builtin"
"""The name of the policy that is used in auto mode unless another is given."""
STATE_KEY: Final = "$interventions"
"""Where the ledger stands in the execution's state and in the close snapshot."""
VIEW: Final = "v"
"""Tag under which an activation remembers how much of the ledger it sees."""

_STATUSES: Final = ("pending", "inserted", "rejected", "expired")


class Address(NamedTuple):
    """The names an operator can be targeted by."""

    id: str
    name: str
    kind: str
    group_id: str | None
    group_kind: str | None


class Ledger:
    """The interventions of one execution, in the order they came. Owned by the core."""

    __slots__ = ("changes", "items", "mode", "pending", "touched", "version")

    def __init__(self, mode: str) -> None:
        self.mode = mode
        """``planned`` or ``auto``; an execution without interventions has no ledger."""
        self.version = 0
        self.changes = 0
        self.items: dict[str, Intervention] = {}
        self.pending: dict[str, Intervention] = {}
        self.touched: dict[str, Intervention] = {}
        """What is new or changed since the last :meth:`news`."""

    @property
    def steers(self) -> bool:
        """Whether an operator must be asked about before it is reached."""
        return bool(self.pending) and self.mode == AUTO

    # -- what is so ----------------------------------------------------------------------------------------------

    def get(self, intervention_id: str) -> Intervention:
        """Return an intervention.

        Raises:
            InterventionNotFound: the ledger has none of that id.
        """
        item = self.items.get(intervention_id) if isinstance(intervention_id, str) else None
        if item is None:
            raise InterventionNotFound(
                f"intervention {intervention_id!r} not found; get_interventions() lists the {len(self.items)} there are"
            )

        return item

    def known(self, key: str) -> Intervention | None:
        """Return the intervention that came with this dedup key."""
        return next((item for item in self.items.values() if item.key == key), None)

    @property
    def latest_inserted(self) -> int:
        """The highest version that is inserted; 0 when none is."""
        return max((item.version for item in self.items.values() if item.status == "inserted"), default=0)

    def select(
        self,
        *,
        status: str | None = None,
        target: str | None = None,
        since_version: int | None = None,
        consumed_by: str | None = None,
        before: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return copies of the items that fit, by version.

        Args:
            since_version: only those after it.
            before: only those inserted at or before this change: a chunk's view.
        """
        return [
            item.record(before)
            for item in self.items.values()
            if (status is None or item.status == status)
            and (target is None or item.target == target)
            and (since_version is None or item.version > since_version)
            and (consumed_by is None or consumed_by in item.consumers)
            and (before is None or (item.status == "inserted" and item.change <= before))
        ]

    def records(self) -> dict[str, dict[str, Any]]:
        """Return copies of all items by id: what ``$interventions`` holds."""
        return {item.id: item.record() for item in self.items.values()}

    # -- changes -------------------------------------------------------------------------------------------------

    def receive(
        self,
        execution_id: str,
        payload: Any,
        *,
        author: str | None,
        note: str | None,
        target: str | None,
        metadata: dict[str, Any],
        now_us: int,
        key: str | None = None,
    ) -> Intervention:
        """Record an intervention. ``payload`` and ``metadata`` must be the ledger's own copies."""
        self.version += 1
        new_id = f"{execution_id}-v{self.version}"
        item = Intervention(new_id, self.version, payload, target, author, note, metadata, now_us, key)
        self.items[new_id] = self.pending[new_id] = self.touched[new_id] = item
        return item

    def due(self, plan: Plan, op: PlanOp) -> list[str]:
        """Return what is to be inserted before ``op`` runs, as the built-in rules have it.

        At an intervention point: what has exactly its target. In auto mode before any operator: what has one of the
        operator's names as its target, and before a chunk also what has none.
        """
        if self.mode == PLANNED:
            wanted = op.options.get("target")
            return [item.id for item in self.pending.values() if op.kind == POINT and item.target == wanted]

        names = address(plan, op)
        return [
            item.id
            for item in self.pending.values()
            if (item.target in names if item.target is not None else op.kind == CHUNK)
        ]

    def insert(
        self, ids: Iterable[str], place: Address, task: Task, scope: str, policy: str | None, now_us: int
    ) -> list[Intervention]:
        """Make pending items visible to what runs from now on. Ids that are not pending are passed over."""
        found = [self.pending.pop(each) for each in ids if each in self.pending]
        if not found:
            return found

        self.changes += 1
        signal = [f"s{task.sig}", task.event, task.type, _storable(task.value), task.source]
        for item in found:
            item.status = "inserted"
            item.inserted_us = now_us
            item.change = self.changes
            item.insertion = [self.mode, *place, signal, scope, policy]
            self.touched[item.id] = item

        return found

    def reject(self, intervention_id: str, reason: str | None, author: str | None, now_us: int) -> Intervention:
        """Refuse a pending item: nobody will see it.

        Raises:
            InterventionNotFound: the ledger has none of that id.
            InterventionSettled: it is not pending any more.
        """
        item = self.get(intervention_id)
        if item.status != "pending":
            raise InterventionSettled(
                f"intervention {intervention_id!r} is {item.status}, so it cannot be rejected any more"
                + ('; mark it consumed with status="ignored" instead' if item.status == "inserted" else "")
            )

        del self.pending[item.id]
        self.touched[item.id] = item
        item.status = "rejected"
        item.rejected_us = now_us
        item.reject_reason = reason
        item.rejected_by = author
        return item

    def expire(self, now_us: int) -> list[Intervention]:
        """The run closes: what is still pending found no taker."""
        found = list(self.pending.values())
        self.touched.update(self.pending)
        self.pending.clear()
        for item in found:
            item.status = "expired"
            item.expired_us = now_us

        return found

    def consume(
        self,
        intervention_id: str,
        consumer: str,
        status: str,
        note: str | None,
        metadata: dict[str, Any],
        now_us: int,
    ) -> Intervention:
        """Note that ``consumer`` took an item into account; a later note of the same consumer replaces it.

        Raises:
            InterventionNotFound: the ledger has none of that id.
        """
        item = self.get(intervention_id)
        self.changes += 1
        self.touched[item.id] = item
        item.consumers.setdefault(consumer, []).append([status, note, metadata, now_us, self.changes])
        return item

    # -- snapshot ------------------------------------------------------------------------------------------------

    def dump(self) -> list[Any]:
        """Return the ledger as JSON-safe data."""
        return [self.mode, self.version, self.changes, [item.dump() for item in self.items.values()]]

    def news(self) -> list[Any]:
        """Return what :meth:`dump` would, with those items only that are new or changed since the last call."""
        items = [item.dump() for item in sorted(self.touched.values(), key=lambda item: item.version)]
        self.touched.clear()
        return [self.mode, self.version, self.changes, items]

    def learn(self, news: list[Any]) -> None:
        """Take over what :meth:`news` or :meth:`dump` of the same ledger returned.

        Raises:
            SnapshotError: it is something else.
        """
        told = Ledger.load(news)
        self.mode, self.version, self.changes = told.mode, max(self.version, told.version), told.changes
        self.items.update(told.items)
        for item in told.items.values():
            if item.status == "pending":
                self.pending[item.id] = item
            else:
                self.pending.pop(item.id, None)

    @classmethod
    def load(cls, saved: list[Any]) -> Ledger:
        """Restore what :meth:`dump` wrote.

        Raises:
            SnapshotError: it is something else.
        """
        try:
            mode, version, changes, dumped = saved
            items = [Intervention(*decode(fields)) for fields in dumped]
        except (TypeError, ValueError) as exc:
            raise SnapshotError(f"the saved interventions cannot be read: {exc}") from exc

        if mode not in (PLANNED, AUTO):
            raise SnapshotError(f"the saved interventions have an unknown mode, {mode!r}")

        ledger = cls(mode)
        ledger.items = {item.id: item for item in items}
        ledger.pending = {item.id: item for item in items if item.status == "pending"}
        ledger.version = max([version, *(item.version for item in items)])
        ledger.changes = changes
        return ledger


_BLOCKS: Final = {FOR_EACH: "for_each", BATCH: "batch", ROUTE: "match"}


def address(plan: Plan, op: PlanOp) -> Address:
    """Return the names ``op`` can be targeted by: its own, and its block's where it opens or closes one."""
    group: str | None = None
    group_kind: str | None = None
    if op.kind in (JOIN, MATCH_END):
        opener = plan.ops[op.group]
        group, group_kind = opener.id, _BLOCKS[opener.kind]
    elif op.kind in _BLOCKS:
        group, group_kind = op.id, _BLOCKS[op.kind]
    elif op.kind == COLLECT:
        group, group_kind = str(op.options["collection_name"]), "collect"

    return Address(op.id, op.name, op.operator_kind, group, group_kind)


def filters(
    status: str | None, target: str | None, since_version: int | None, consumed_by: str | None = None
) -> dict[str, Any]:
    """Return the arguments of :meth:`Ledger.select`.

    Raises:
        ValueError: no intervention can have that status.
    """
    if status is not None and status not in _STATUSES:
        raise ValueError(f"get_interventions(status={status!r}): expected one of {', '.join(_STATUSES)}")

    return {"status": status, "target": target, "since_version": since_version, "consumed_by": consumed_by}


def read_state(core: Core, key: str | None, default: Any = None) -> Any:
    """Return a copy of the state as a reader sees it: with the ledger under ``$interventions``, once it was written."""
    if key is None:
        return core.snapshot_data()

    if not key.startswith(STATE_KEY):
        return copy_value(lookup(core.data, key, default))

    ledger = core.ledger
    return lookup({STATE_KEY: ledger.records()} if ledger is not None and ledger.version else {}, key, default)


def _storable(value: Any) -> Any:
    """Return a copy of a signal's value, which may be any object; what could not be saved is named instead."""
    try:
        return copy_value(value)
    except UnencodableValue:
        pass

    try:
        shown = repr(value)[:200]
    except Exception as exc:
        shown = f"<its repr raised {type(exc).__name__}>"

    return {"__repr__": shown, "__type__": type(value).__qualname__}
