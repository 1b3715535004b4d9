"""Runs as the Runs screen lists them: one ``RunRow`` per root run, bounded in everything it remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowdeck_devtools.core.status import ENDED, StatusTracker
from flowdeck_devtools.core.wire import Event, decode, head

__all__ = [
    "ACTIVITY_BUCKETS",
    "ACTIVITY_STEP_MS",
    "MAX_OPEN",
    "WAIT_EVENTS",
    "RunRow",
    "chunk_name",
    "error_line",
    "projected_as",
    "wait_ids",
]

ACTIVITY_BUCKETS = 12
ACTIVITY_STEP_MS = 5_000
"""Activity is events per five seconds over the last minute."""


MAX_OPEN = 4_096
"""Open steps and open interrupts remembered per run."""

_WAIT_OPENS = frozenset({"triggerflow.interrupt_raised"})
_WAIT_ENDS = frozenset(
    {
        "triggerflow.interrupt_answered",
        "triggerflow.interrupt_expired",
        "triggerflow.execution_resumed",
        "triggerflow.pending_interrupts_cancelled",
    }
)
WAIT_EVENTS = _WAIT_OPENS | _WAIT_ENDS
"""Events that open or end a wait for an answer; see ``wait_ids``."""


def wait_ids(event: Event) -> tuple[list[str], list[str]]:
    """The interrupts an event opens and those it ends."""
    payload = event.payload_map()
    interrupt = payload.get("interrupt")
    listed = payload.get("interrupts")
    entries = [interrupt, payload.get("interrupt_id"), *(listed if isinstance(listed, list | dict) else ())]
    found = [entry.get("id") if isinstance(entry, dict) else entry for entry in entries]
    ids = [one for one in found if isinstance(one, str)]
    return (ids, []) if event.event_type in _WAIT_OPENS else ([], ids)


def projected_as(event: Event) -> str | None:
    """Under which id the question of a sub flow can be answered in its parent, which tells of it a second time."""
    interrupt = event.payload_map().get("interrupt")
    known = interrupt.get("projected_as") if isinstance(interrupt, dict) else None
    return known if isinstance(known, str) else None


class Activity:
    """Events per bucket over the last minute, on the events' own time."""

    __slots__ = ("counts", "newest")

    def __init__(self) -> None:
        self.newest = 0
        self.counts: list[int] = []

    def add(self, stamp_ms: int) -> None:
        """Count one event at a time in milliseconds; older than a minute counts nowhere."""
        bucket = stamp_ms // ACTIVITY_STEP_MS
        ahead = bucket - self.newest
        if ahead > 0:
            if ahead >= ACTIVITY_BUCKETS or not self.counts:
                self.counts = [0] * ACTIVITY_BUCKETS
            else:
                del self.counts[:ahead]
                self.counts.extend([0] * ahead)
            self.newest = bucket
            self.counts[-1] = 1
        elif ahead > -ACTIVITY_BUCKETS and self.counts:
            self.counts[ahead - 1] += 1

    def last_minute(self, now_us: int) -> list[int]:
        """Counts, oldest first, of the minute that ends now."""
        behind = now_us // 1000 // ACTIVITY_STEP_MS - self.newest
        if behind >= ACTIVITY_BUCKETS or not self.counts:
            return [0] * ACTIVITY_BUCKETS
        if behind <= 0:
            return self.counts[:ACTIVITY_BUCKETS]
        return self.counts[behind:] + [0] * behind


@dataclass(slots=True, eq=False)
class RunRow:
    """One root run. Times are microseconds since the epoch, ``None`` when not seen."""

    run_id: str
    kind: str = ""
    name: str = ""
    """The flow's name, or what else names the run."""
    execution_id: str | None = None
    started_us: int | None = None
    ended_us: int | None = None
    last_us: int = 0
    events: int = 0
    warnings: int = 0
    errors: int = 0
    """Errors that were not made good by another attempt."""
    retries: int = 0
    error: str | None = None
    """The first error of the run in one line, which is the one that explains the others."""
    task_id: str | None = None
    tenant_id: str | None = None
    user_id: str | None = None
    writer: str = ""
    partial: bool = True
    """The run began before the lines we read: its counts are lower bounds."""
    first_position: int = -1
    lost: bool = False
    """Its writer is gone and it never ended."""
    tracker: StatusTracker = field(default_factory=StatusTracker)
    activity: Activity = field(default_factory=Activity)
    steps_done: int = 0
    open_steps: dict[str, bytes] = field(default_factory=dict)
    """Running chunk attempts by run id, with the line that started each."""
    last_step: bytes | None = None
    waits: dict[str, bytes] = field(default_factory=dict)
    """Open interrupts by id, with the line that raised each."""

    @property
    def status(self) -> str:
        status = self.tracker.status
        return "lost" if self.lost and status not in ENDED else status

    @property
    def is_open(self) -> bool:
        return self.status not in ENDED and not self.lost

    def duration_us(self, now_us: int) -> int | None:
        """From start to end, or to now while open; a lost run lasted to its last sign of life."""
        if self.started_us is None:
            return None

        end = self.ended_us
        if end is None:
            end = now_us if self.is_open else self.last_us
        return max(0, end - self.started_us)

    def step(self) -> str:
        """Where it is: the question it waits for, or the step at work, ``+n`` for others; empty at the end."""
        if self.waits and self.status == "waiting":
            question = _question(decode(next(iter(self.waits.values()))))
            return f"{question} +{len(self.waits) - 1}" if len(self.waits) > 1 else question

        line = next(reversed(self.open_steps.values()), None) if self.open_steps else self.last_step
        if line is None or self.status == "completed":
            return ""

        beside = len(self.open_steps) - 1
        name = chunk_name(decode(line))
        return f"{name} +{beside}" if beside > 0 else name

    def fields(self, now_us: int | None = None) -> Mapping[str, Any]:
        """What a filter may ask of a run; durations, in seconds, where it is said what time it is."""
        lasted = self.duration_us(now_us) if now_us is not None else None
        waits = self.waits.values() if now_us is not None and self.status == "waiting" else ()
        since = min((head(line).time_us for line in waits), default=None)
        return {
            "dur": lasted / 1e6 if lasted is not None else None,
            "waiting": (now_us - since) / 1e6 if now_us is not None and since is not None else None,
            "ts": self.started_us,
            "run": self.run_id,
            "flow": self.name,
            "kind": self.kind,
            "status": self.status,
            "execution": self.execution_id,
            "events": self.events,
            "errors": self.errors,
            "error": self.error,
            "task": self.task_id,
            "tenant": self.tenant_id,
            "user": self.user_id,
        }


_OF_AN_AGENT = {"request": "request", "action_loop": "actions", "model_request": "model", "action": "action"}
"""What the runs of an agent are called."""


def chunk_name(event: Event) -> str:
    """What to call the step an event belongs to: the chunk's own name, else the last part of its scope.

    Agents, models and actions in a chunk inherit its name and its scope; they go by what they are.
    """
    known = event.run.meta if event.run is not None else {}
    kind = (event.run.run_kind if event.run is not None else None) or ""
    if kind == "agent_turn" and event.run is not None:
        return f"agent {event.run.agent_name or ''}".rstrip()
    if kind in _OF_AN_AGENT:
        own = known.get("action_name") if kind == "action" else None
        return own if isinstance(own, str) and own else _OF_AN_AGENT[kind]

    payload = {} if "chunk_name" in known else event.payload_map()
    for key, source in (("chunk_name", known), ("chunk_name", payload), ("action_name", payload), ("name", payload)):
        name = source.get(key)
        if isinstance(name, str) and name:
            return name

    scope = event.meta.get("scope")
    if isinstance(scope, str) and scope:
        return scope.rpartition("/")[2]
    if event.run is not None:
        return event.run.agent_name or event.run.run_kind or ""
    return ""


def _question(event: Event) -> str:
    interrupt = event.payload_map().get("interrupt")
    record = interrupt if isinstance(interrupt, dict) else {}
    payload = record.get("payload")
    for key in ("question", "title", "message"):
        if isinstance(payload, dict) and isinstance(payload.get(key), str):
            return str(payload[key])
    return str(record.get("type") or "an answer")


def error_line(error: Mapping[str, Any] | None) -> str | None:
    """An ErrorInfo as ``Type: message``."""
    if not error:
        return None

    kind, message = error.get("type"), error.get("message")
    parts = [str(part) for part in (kind, message) if part]
    return ": ".join(parts) if parts else None
