"""Events as evaluations speak of them: short kinds, a subject and a place.

A pattern such as ``call.done tool.ledger.*`` should not have to know that the framework says ``triggerflow.port_…``.
Each event therefore has two names, the short ``kind`` of :data:`KINDS` and its own ``type``, and patterns match
either. One shape for both sources: :meth:`Happening.of_record` for a run in this process, :meth:`Happening.of_line`
for a stored journal line. Source: the evals reference, §3.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from flowdeck.events.record import EventRecord

__all__ = ["KINDS", "Happening", "paused_us"]

KINDS: Final[dict[str, str]] = {
    "triggerflow.execution_started": "run.start",
    "triggerflow.execution_waiting": "run.paused",
    "triggerflow.execution_resumed": "run.resumed",
    "triggerflow.execution_completed": "run.completed",
    "triggerflow.execution_failed": "run.failed",
    "triggerflow.execution_cancelled": "run.cancelled",
    "triggerflow.execution_closed": "run.end",
    "chunk.started": "node.start",
    "chunk.completed": "node.done",
    "chunk.failed": "node.failed",
    "triggerflow.port_called": "call.start",
    "triggerflow.port_returned": "call.done",
    "triggerflow.port_failed": "call.failed",
    "triggerflow.interrupt_raised": "interrupt.open",
    "triggerflow.interrupt_answered": "interrupt.answered",
    "triggerflow.interrupt_expired": "interrupt.expired",
    "triggerflow.stream_item_emitted": "stream.item",
    "triggerflow.state_changed": "state.set",
    "triggerflow.signal": "signal",
    "triggerflow.result_set": "result.set",
    "triggerflow.intervention_received": "intervention.received",
    "triggerflow.intervention_inserted": "intervention.applied",
    "triggerflow.intervention_consumed": "intervention.consumed",
    "triggerflow.intervention_expired": "intervention.expired",
    "triggerflow.intervention_rejected": "intervention.rejected",
}
"""Short kind by event type; a type that is not listed is its own kind."""

_NOTHING: Final[dict[str, Any]] = {}


class Happening(msgspec.Struct, frozen=True, eq=False):
    """One event of a round. ``time_us`` is microseconds since the epoch; ``payload`` is never altered."""

    kind: str
    type: str
    subject: str
    """What it is about: ``port.name`` of a call, the kind of an interrupt, a chunk's name, a signal, a state key."""
    scope: str
    time_us: int
    payload: Mapping[str, Any]
    level: str = "INFO"
    seq: int = 0
    run_id: str | None = None
    error: Mapping[str, Any] | None = None
    duration_us: int | None = None
    virtual_us: int | None = None
    """The same on the round's own clock, when that is virtual."""

    @classmethod
    def of_record(cls, record: EventRecord) -> Happening:
        """Return a live event."""
        payload = record.payload
        given = payload if isinstance(payload, Mapping) else _NOTHING if payload is None else {"value": payload}
        error = record.error
        return cls(
            KINDS.get(record.event_type, record.event_type),
            record.event_type,
            _subject(record.event_type, given),
            record.scope or _text(given.get("scope")),
            record.time_us,
            given,
            record.level,
            record.seq,
            None if record.run is None else record.run.run_id,
            None if error is None else error.to_dict(),
            record.duration_us,
        )

    @classmethod
    def of_line(cls, line: Mapping[str, Any], virtual_us: int | None = None) -> Happening:
        """Return a stored event: a journal line, or a row of the view ``events`` as JSON."""
        payload = line.get("payload")
        given = payload if isinstance(payload, Mapping) else _NOTHING if payload is None else {"value": payload}
        meta = line.get("meta") or _NOTHING
        run = line.get("run") or _NOTHING
        name = str(line.get("event_type", ""))
        return cls(
            KINDS.get(name, name),
            name,
            _subject(name, given),
            _text(meta.get("scope")) or _text(given.get("scope")),
            int(line.get("timestamp") or 0) * 1000 + int(meta.get("us") or 0),
            given,
            str(line.get("level", "INFO")),
            int(meta.get("seq") or 0),
            run.get("run_id"),
            line.get("error"),
            meta.get("duration_us"),
            virtual_us,
        )

    def field(self, path: str) -> Any:
        """Return what stands at a dotted ``path`` of the payload, or ``None``; ``scope``, ``subject``, ``kind`` too."""
        if path in ("scope", "subject", "kind", "type", "level", "time_us"):
            return getattr(self, path)

        value: Any = self.payload
        for part in path.split("."):
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            else:
                return None

        return value

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.subject, f"at {self.scope}" if self.scope else "")))


def paused_us(events: Iterable[Happening]) -> int:
    """Return how long a run waited for people, from its events in order."""
    total, since = 0, None
    for event in events:
        if event.kind == "run.paused":
            since = event.time_us
        elif since is not None and event.kind in ("run.resumed", "run.end"):
            total, since = total + event.time_us - since, None

    return total


def _subject(name: str, payload: Mapping[str, Any]) -> str:
    if name.startswith("triggerflow.port_"):
        return f"{_text(payload.get('port'))}.{_text(payload.get('name'))}"

    if name.startswith("chunk."):
        return _text(payload.get("chunk_name"))

    if name.startswith("triggerflow.interrupt_"):
        interrupt = payload.get("interrupt")
        return _text((interrupt if isinstance(interrupt, Mapping) else payload).get("type"))

    if name == "triggerflow.signal":
        return _text(payload.get("EVENT"))

    if name.startswith("triggerflow.intervention_"):
        found = payload.get("intervention")
        return _text(found.get("target")) if isinstance(found, Mapping) else ""

    if name.startswith("action."):
        return _text(payload.get("action_name"))

    return _text(payload.get("key") if name == "triggerflow.state_changed" else payload.get("name"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
