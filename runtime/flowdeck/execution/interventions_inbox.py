"""Interventions from another process: inbox rows of kind ``"intervene"``.

See :class:`flowdeck.execution.control.InboxRow`. To add::

    target    the intervention's target, or None
    actor     its author
    payload   {"payload": <any JSON>, "note": <text or null>, "metadata": <object or null>}

To refuse a pending one::

    target    its id
    actor     who refuses it
    payload   {"action": "reject", "reason": <text or null>}

``note``, ``metadata`` and ``reason`` may be left out, anything else is refused. The outcome's detail is the
intervention's id, followed by ``; `` and a warning when no operator has that target. ``duplicate``: the row's dedup key
was recorded before, in this process or one it was loaded from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from flowdeck.execution.control import InboxRow
    from flowdeck.execution.interventions import InterventionMixin

__all__ = ["apply_row"]

_KEYS: Final = {"append": {"action", "payload", "note", "metadata"}, "reject": {"action", "reason"}}


def apply_row(execution: InterventionMixin, row: InboxRow) -> tuple[str, str | None]:
    """Record or refuse what ``row`` asks for. Returns the outcome and its detail.

    Raises:
        InterventionError: or a relative of it: the execution takes none, or there is no such pending one.
        TypeError: a field is of the wrong type.
    """
    asked = row.payload
    if not isinstance(asked, dict):
        return "rejected", 'the payload must be {"payload": …} or {"action": "reject"}'

    action = asked.get("action", "append")
    known = _KEYS.get(action) if isinstance(action, str) else None
    if known is None:
        return "rejected", f'action {action!r}: expected "append" or "reject"'

    unknown = sorted(set(asked) - known)
    if unknown or (action == "append" and "payload" not in asked):
        return "rejected", f"unknown: {', '.join(unknown)}" if unknown else 'there is no "payload"'

    if action == "reject":
        return "applied", execution._refuse(row.target or "", asked.get("reason"), row.actor).id

    ledger = execution._ledger()
    before = ledger.known(row.dedup_key)
    if before is not None:
        return "duplicate", before.id

    note, metadata = asked.get("note"), asked.get("metadata")
    item = execution._receive(asked["payload"], row.actor, note, row.target, metadata, row.dedup_key)
    unmatched = execution._unmatched(ledger, row.target)
    return "applied", f"{item.id}; {unmatched}" if unmatched else item.id
