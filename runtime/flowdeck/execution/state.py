"""What the core owns: tasks, lanes, joins, await-groups and interrupts, as array-like structs.

Encoding these is the snapshot. Nothing here holds a clock, a callable or a live object, except the values users let
flow through signals.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec.structs import replace

from flowdeck.definition.operators import completion_event
from flowdeck.execution.values import copy_loosely

__all__ = [
    "BACKOFF",
    "CANCELLING",
    "PARKED",
    "QUEUED",
    "RUNNING",
    "Block",
    "Gate",
    "Group",
    "Interrupt",
    "Join",
    "Task",
]

RUNNING: Final = 0
"""Its handler runs (or is about to). After a crash it runs again."""
QUEUED: Final = 1
"""Waits for a place under the execution's ``concurrency``."""
PARKED: Final = 2
"""Waits for an interrupt's answer; holds no asyncio task and no place."""
BACKOFF: Final = 3
"""Waits before its next attempt."""
CANCELLING: Final = 4
"""Told to stop; whatever it still returns is ignored."""


class Task(msgspec.Struct, array_like=True):
    """One operator about to run, running or parked. A linear chain reuses one record for all its steps."""

    rec: int
    """Key of the record; stable while a chain reuses it."""
    num: int
    """Number of the activation: ``execution_id:t<num>`` is the idempotency key, constant over attempts."""
    op: int
    value: Any
    lane: int
    """The innermost enclosing indexed segment (for_each item, batch member); survives ``when``."""
    frame: int
    """The innermost enclosing block instance, for joins; ``when`` resets it."""
    group: int
    status: int
    activation: int
    """How often this operator ran in this lane before."""
    attempt: int
    cause: int
    """``seq`` of the transition that caused it."""
    seq: int
    """``seq`` of its start."""
    sig: int
    source: str
    event: str
    type: str
    depth: int
    """How many awaited emits it is nested in."""
    awaiting: int = 0
    """How many awaited emits of its own are open."""
    resume: str | None = None
    """The interrupt whose answer it carries."""
    interrupt: str | None = None
    """The interrupt it raised and will park on."""
    tags: dict[str, Any] | None = None
    """Committed effects of this activation: tag to outcome."""


class Block(msgspec.Struct, array_like=True, gc=False):
    """One member of a join: a for_each item, a batch member, a taken arm of ``match(mode="hit_all")``."""

    id: int
    lane: int
    """The enclosing lane."""
    frame: int
    """The enclosing frame."""
    join: int
    index: int
    is_lane: bool
    limited: bool
    """Some join around it has a concurrency limit, so activity must be counted."""
    segment: str = ""
    refs: int = 0
    active: int = 0
    arrived: bool = False
    counts: dict[int, int] = msgspec.field(default_factory=dict)


class Join(msgspec.Struct, array_like=True):
    """A fan-out under way and the results that have come in."""

    id: int
    op: int
    lane: int
    frame: int
    group: int
    depth: int
    total: int
    results: dict[int, Any]
    segment: str
    limit: int = 0
    active: int = 0
    next: int = 0
    """The first member not started yet."""
    items: list[Any] | None = None
    """Values of the members, kept while some are not started."""
    sig: int = 0
    cause: int = 0
    waiting: list[list[Any]] = msgspec.field(default_factory=list)
    """Resumptions that wait for a place: ``[interrupt id, group]``."""
    left: int = 0
    """Members that are not over yet, whatever became of them."""


class Group(msgspec.Struct, array_like=True, gc=False):
    """An await-group: the subtree of one signal. It resolves when every member has finished or parked."""

    id: int
    parent: int
    """Record of the task that awaits it; 0 when the caller is outside or nobody waits."""
    tag: str
    pending: int = 0
    failed: bool = False
    error: list[Any] | None = None
    """``[type, message]`` of the first failure."""
    awaited: bool = False
    """Its awaiter is at the await now; after a crash it first has to come there again."""


class Gate(msgspec.Struct, array_like=True):
    """Values a ``when(and)`` or a ``collect`` has gathered in one lane."""

    op: int
    place: int
    values: dict[str, Any]


class Interrupt(msgspec.Struct, array_like=True):
    """One request for an answer from outside. :meth:`record` gives the shape users and stores see."""

    id: str
    type: str
    payload: Any
    resume_to: Any
    resume_event: str | None
    task: int
    op: str | None
    chunk: str | None
    flow: str
    execution: str
    signal: list[Any]
    """``[id, event, type, value, source]`` of the signal that triggered the paused chunk."""
    created_us: int
    schema: Any = None
    expires_us: int | None = None
    on_expire: Any = None
    assignees: list[str] | None = None
    status: str = "waiting"
    response: Any = None
    resumed_us: int | None = None
    actor: str | None = None
    resumed_by_signal: str | None = None
    cancelled_us: int | None = None
    cancel_reason: str | None = None
    lane: int = 0
    scope: str = ""
    seq: int = 0
    frame: str | None = None
    """The sub-flow frame it was projected from, when a child of the execution asked."""
    local: str | None = None
    """Its id in the child."""

    @property
    def target(self) -> Any:
        """Where the answer goes: ``resume_to``, unless it expired and ``on_expire`` names an event."""
        if self.status == "expired" and isinstance(self.on_expire, dict) and "event" in self.on_expire:
            return self.on_expire

        return self.resume_to

    @property
    def given_up(self) -> bool:
        """Whether nobody's answer will ever reach the branch that paused."""
        return self.cancelled_us is not None

    def as_asked(self) -> Interrupt:
        """Return it as it was when it was opened; only its outcome ever changes."""
        if self.status == "waiting":
            return self

        return replace(
            self,
            status="waiting",
            response=None,
            resumed_us=None,
            actor=None,
            resumed_by_signal=None,
            cancelled_us=None,
            cancel_reason=None,
        )

    def record(self) -> dict[str, Any]:
        """Return the public record: the compatible fields plus schema, expiry, assignees, actor. Times in seconds.

        Its values are copies, except for a signal's value that cannot be stored: that is the object itself.
        """
        sig_id, event, kind, value, source = self.signal
        record: dict[str, Any] = {
            "id": self.id,
            "type": self.type,
            "payload": None if self.payload is None else copy_loosely(self.payload),
            "resume_event": self.resume_event,
            "resume_to": self.resume_to if self.resume_to.__class__ is str else copy_loosely(self.resume_to),
            "status": self.status,
            "source_execution_id": self.execution,
            "source_flow_name": self.flow,
            "source_operator_id": self.op,
            "source_operator_name": self.chunk,
            "source_signal": {
                "id": sig_id,
                "trigger_event": event,
                "trigger_type": kind,
                "value": value if value.__class__ in _SCALARS else copy_loosely(value),
                "source": source,
            },
            "continuation_event": None if self.op is None else completion_event(self.chunk or "", self.op),
            "scope": self.scope,
            "created_at": self.created_us / 1e6,
            "resumed_at": None if self.resumed_us is None else self.resumed_us / 1e6,
            "resume_value": None if self.response is None else copy_loosely(self.response),
            "schema": None if self.schema is None else copy_loosely(self.schema),
            "expires_at": None if self.expires_us is None else self.expires_us / 1e6,
            "on_expire": None if self.on_expire is None else copy_loosely(self.on_expire),
            "assignees": None if self.assignees is None else list(self.assignees),
        }
        if self.status in ("resumed", "expired"):
            record["response"] = record["resume_value"]
            record["actor"] = self.actor
            if self.resumed_by_signal:
                record["resumed_by_signal_id"] = self.resumed_by_signal

        if self.cancelled_us is not None:
            record["cancelled_at"] = self.cancelled_us / 1e6
            record["cancel_reason"] = self.cancel_reason

        if self.frame is not None:
            child = {**record, "id": self.local}
            record.update(local_interrupt_id=self.local, sub_flow_frame_id=self.frame, child_interrupt=child)

        return record


_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
