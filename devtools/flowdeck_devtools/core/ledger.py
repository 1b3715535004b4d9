"""The ledger: everything people did to runs, from the events that say so and from the inbox of the control store.

Four kinds of traces of one act are brought together: the request in the inbox (``state.db``), the event its owner
emitted when it applied it, what was answered or added within a process, and what DevTools recorded itself.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowdeck.durable import ControlClient, InboxEntry
from flowdeck.errors import FlowdeckError
from flowdeck.layout import StoreError
from flowdeck_devtools.core.span import short_json
from flowdeck_devtools.core.text import clean

__all__ = ["SQL", "Entry", "PendingRequests", "merged", "of_inbox", "of_rows"]

INBOX_LIMIT = 500
EVENTS_LIMIT = 2_000
SAME_ACT_US = 10_000_000
"""A request and the event of its application lie no further apart than this, or the owner was away meanwhile."""

_ACTIONS = {"resume": "answer", "intervene": "intervene", "cancel": "cancel", "emit": "emit", "start": "start"}

SQL = f"""
SELECT epoch_us(ts) AS at_us, event_type, execution_id, flow_name, payload::VARCHAR AS payload
FROM events
WHERE event_type IN ('triggerflow.inbox_applied', 'triggerflow.interrupt_answered', 'devtools.action',
  'triggerflow.intervention_received')
ORDER BY ts DESC LIMIT {EVENTS_LIMIT}
"""
"""The ledger's events, newest first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One act. Times are microseconds since the epoch."""

    key: str
    at_us: int
    actor: str
    action: str
    execution_id: str = ""
    flow: str = ""
    target: str = ""
    outcome: str = ""
    """applied, pending, rejected, conflict …"""
    detail: str = ""
    value: Any = None
    """What was sent: the answer, the intervention, the reason."""
    store: Path | None = None
    """Where it was done, of several stores."""

    @property
    def reason(self) -> str:
        """Why, as far as somebody said so."""
        value = self.value
        for name in ("reason", "note", "comment"):
            found = value.get(name) if isinstance(value, dict) else None
            if isinstance(found, str) and found:
                return clean(found)
        return clean(short_json(value, 80)) if value is not None else ""

    @property
    def effect(self) -> str:
        """What came of it, in words."""
        return clean(f"{self.outcome}: {self.detail}" if self.detail else self.outcome)

    def fields(self) -> dict[str, Any]:
        """What a filter may ask of an entry."""
        return {
            "actor": self.actor,
            "kind": self.action,
            "flow": self.flow,
            "run": self.execution_id,
            "execution": self.execution_id,
            "status": self.outcome,
            "target": self.target,
            "ts": self.at_us,
        }


def of_inbox(rows: Iterable[InboxEntry]) -> list[Entry]:
    """Entries of the control store's inbox."""
    return [
        Entry(
            key=f"inbox-{row.id}",
            at_us=row.created_us,
            actor=clean(row.actor or "–"),
            action=_ACTIONS.get(row.kind, row.kind),
            execution_id=row.execution_id,
            target=clean(row.target or ""),
            outcome=row.outcome or "pending",
            detail=clean(row.detail or ""),
            value=row.payload,
        )
        for row in rows
        if row.kind != "timer"
    ]


def of_rows(rows: Sequence[Sequence[Any]], origins: Sequence[Path] = ()) -> list[Entry]:
    """Entries of the events that :data:`SQL` finds. A row that is no act counts for nothing.

    Args:
        rows: What the query found.
        origins: The store of each row, where several were asked.
    """
    found: list[Entry] = []
    for index, row in enumerate(rows):
        entry = _of_event(index, *row)
        if entry is not None:
            found.append(replace(entry, store=origins[index]) if origins else entry)
    return found


def _of_event(
    index: int, at_us: int | None, kind: str, execution: str | None, flow: str | None, text: str
) -> Entry | None:
    try:
        payload = json.loads(text) if text else {}
    except ValueError:
        return None
    if not isinstance(payload, dict):
        return None
    base = Entry(
        key=f"{kind}-{at_us}-{execution}-{index}",
        at_us=at_us or 0,
        actor=_text(payload.get("actor")) or "–",
        action="",
        execution_id=execution or "",
        flow=clean(flow or ""),
        target=_text(payload.get("target")),
        outcome=_text(payload.get("outcome")) or "applied",
        detail=_text(payload.get("detail")),
    )
    match kind:
        case "triggerflow.inbox_applied":
            if payload.get("kind") == "timer":
                return None
            action = _text(payload.get("kind"))
            return replace(base, action=_ACTIONS.get(action, action))
        case "triggerflow.interrupt_answered":
            target = _text(payload.get("interrupt_id"))
            return replace(base, action="answer", target=target, value=payload.get("value"))
        case "triggerflow.intervention_received":
            record = payload.get("intervention")
            record = record if isinstance(record, dict) else {}
            value = {"payload": record.get("payload"), "note": record.get("note")}
            who = _text(record.get("author")) or base.actor
            return replace(base, actor=who, action="intervene", target=_text(record.get("target")), value=value)
    target = base.target
    return replace(base, action=_text(payload.get("action")), execution_id=target, target="", value=payload.get("more"))


def merged(events: Sequence[Entry], inbox: Sequence[Entry]) -> list[Entry]:
    """One entry per act, newest first: an inbox row carries what was sent, the events what it came to and the flow."""
    kept: list[Entry] = list(inbox)
    by_act: dict[tuple[str, str, str, str], list[int]] = {}
    flows: dict[str, str] = {}
    for place, entry in enumerate(kept):
        by_act.setdefault(_act(entry), []).append(place)
    # The application of a request, an answer and an addition are told twice: by themselves and by the inbox.
    for entry in sorted(events, key=lambda one: (one.at_us, not one.key.startswith("triggerflow.inbox"))):
        if entry.flow:
            flows[entry.execution_id] = entry.flow
        same = [place for place in by_act.get(_act(entry), ()) if _one_act(kept[place], entry)]
        if same and entry.action in ("answer", "intervene", "cancel", "emit"):
            known = kept[same[0]]
            value = known.value if known.value is not None else entry.value
            outcome = entry.outcome if known.outcome == "pending" else known.outcome
            target, detail = known.target or entry.target, known.detail or entry.detail
            kept[same[0]] = replace(known, value=value, outcome=outcome, target=target, detail=detail)
            continue
        by_act.setdefault(_act(entry), []).append(len(kept))
        kept.append(entry)
    named = [entry if entry.flow else replace(entry, flow=flows.get(entry.execution_id, "")) for entry in kept]
    return sorted(named, key=lambda entry: (-entry.at_us, entry.key))


def _act(entry: Entry) -> tuple[str, str, str, str]:
    about = entry.target if entry.action == "answer" else entry.actor
    return str(entry.store or ""), entry.execution_id, entry.action, about


def _one_act(known: Entry, entry: Entry) -> bool:
    # An interrupt is answered once; of the rest only what lies close together is one.
    if known.action == "answer":
        return known.actor == entry.actor
    return abs(known.at_us - entry.at_us) < SAME_ACT_US and known.outcome in (entry.outcome, "pending", "applied")


def _text(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


class PendingRequests:
    """The inboxes of control stores, read in a thread when asked to. ``version`` rises when they brought something."""

    def __init__(self, *stores: Path) -> None:
        self.stores = stores
        self.entries: list[Entry] = []
        self.version = 0
        self.problem: str | None = None
        self._busy = threading.Event()

    def look(self) -> None:
        """Read it soon; while it is being read nothing more happens."""
        if not self._busy.is_set():
            self._busy.set()
            threading.Thread(target=self._read, name="flowdeck-ledger", daemon=True).start()

    def _read(self) -> None:
        found: list[Entry] = []
        problem = None
        for store in self.stores:
            try:
                with ControlClient(store) as client:
                    entries = of_inbox(client.list_inbox(limit=INBOX_LIMIT))
            except (FlowdeckError, StoreError, OSError) as error:
                problem = clean(str(error))
                found += [entry for entry in self.entries if entry.store in (store, None)]
                continue
            found += entries if len(self.stores) == 1 else [replace(entry, store=store) for entry in entries]
        if found != self.entries or problem != self.problem:
            self.entries, self.problem = found, problem
            self.version += 1
        self._busy.clear()
