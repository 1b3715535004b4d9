"""One intervention: what was added, by whom, where it became visible, and who took it into account."""

from __future__ import annotations

from typing import Any

import msgspec

from flowdeck.execution.values import copy_value, encode

__all__ = ["Intervention"]


class Intervention(msgspec.Struct, array_like=True):
    """One addition from outside. :meth:`record` gives the shape users and observers see."""

    id: str
    version: int
    """1, 2, … in the order of arrival."""
    payload: Any
    target: str | None
    author: str | None
    note: str | None
    metadata: dict[str, Any]
    created_us: int
    key: str | None = None
    """The dedup key it came with from another process."""
    status: str = "pending"
    """``pending``, then ``inserted``, ``rejected`` or ``expired``."""
    inserted_us: int | None = None
    insertion: list[Any] | None = None
    """``[mode, operator id, name, kind, group id, group kind, signal, scope, policy]``."""
    change: int = 0
    """The ledger's change that inserted it."""
    rejected_us: int | None = None
    reject_reason: str | None = None
    rejected_by: str | None = None
    expired_us: int | None = None
    consumers: dict[str, list[list[Any]]] = msgspec.field(default_factory=dict)
    """Who took it: name to its marks, ``[status, note, metadata, consumed_us, change]`` each; the last one counts."""

    def record(self, before: int | None = None) -> dict[str, Any]:
        """Return a copy as users see it; times in seconds since the Unix epoch.

        Args:
            before: leave out what consumers said after this change.
        """
        taken = {
            name: [mark for mark in marks if before is None or mark[4] <= before]
            for name, marks in self.consumers.items()
        }
        return {
            "id": self.id,
            "version": self.version,
            "status": self.status,
            "payload": copy_value(self.payload),
            "target": self.target,
            "author": self.author,
            "note": self.note,
            "metadata": copy_value(self.metadata),
            "created_at": self.created_us / 1e6,
            "inserted_at": _seconds(self.inserted_us),
            "insertion": None if self.insertion is None else self._insertion(self.insertion),
            "rejected_at": _seconds(self.rejected_us),
            "reject_reason": self.reject_reason,
            "rejected_by": self.rejected_by,
            "expired_at": _seconds(self.expired_us),
            "consumers": {name: _mark(*marks[-1]) for name, marks in taken.items() if marks},
        }

    def _insertion(self, fields: list[Any]) -> dict[str, Any]:
        mode, op, name, kind, group, group_kind, signal, scope, policy = fields
        sig_id, event, trigger_type, value, source = signal
        found: dict[str, Any] = {
            "mode": mode,
            "operator_id": op,
            "operator_name": name,
            "operator_kind": kind,
            "group_id": group,
            "group_kind": group_kind,
            "signal": {
                "id": sig_id,
                "trigger_event": event,
                "trigger_type": trigger_type,
                "value": copy_value(value),
                "source": source,
            },
            "scope": scope,
            "inserted_at": _seconds(self.inserted_us),
        }
        if policy is not None:
            found["policy"] = policy

        return found

    def dump(self) -> Any:
        """Return the item as JSON-safe data: its fields, in order."""
        return encode(list(msgspec.structs.astuple(self)), f"intervention {self.id}")


def _mark(status: str, note: str | None, metadata: dict[str, Any], consumed_us: int, change: int) -> dict[str, Any]:
    return {"status": status, "note": note, "metadata": copy_value(metadata), "consumed_at": consumed_us / 1e6}


def _seconds(us: int | None) -> float | None:
    return None if us is None else us / 1e6
