"""What the mapper remembers of runs that have not ended: plain structs, so that a snapshot is their encoding."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from flowdeck_sinks.otlp.ids import Traceparent, parse_traceparent, trace_id_of

__all__ = ["FIRST_RANK", "FlowState", "Mark", "RunState", "SpanNote", "TraceState", "WaitState", "retry_key"]

FIRST_RANK: Final = (9, 0, 0)
"""Ranks after every real end."""


def retry_key(execution_id: str | None, scope: str | None, attempt: int) -> str:
    """Return what names an attempt of a step within a trace."""
    return f"{execution_id}\0{scope}\0{attempt}"


Mark = tuple[int, int, str, int, str]
"""A change between active and waiting: ``(epoch, seq, kind, time_us, writer)``.

Kinds are start, wait, resume, recover and end."""
SpanNote = tuple[int, str, dict[str, Any]]
"""A span event: ``(time_us, name, attributes)``."""


class WaitState(msgspec.Struct, gc=False):
    """One question to a person or program."""

    interrupt_id: str
    start_us: int = 0
    end_us: int = 0
    kind: str | None = None
    step: str | None = None
    actor: str | None = None
    resolution: str | None = None
    writer: str = ""
    """Who wrote its end."""
    hidden: bool = False
    """The same question shows in the sub flow that asked it."""
    ripe: bool = False


class FlowState(msgspec.Struct, gc=False):
    """What only executions have: periods and questions."""

    marks: list[Mark] = []
    """Not yet consumed."""
    done: tuple[int, int] = (-1, -1)
    """``(epoch, seq)`` of the last consumed mark."""
    segment: int = 0
    """Ordinal of the newest segment."""
    since_us: int = 0
    """Start of the segment that is active, 0 while waiting."""
    since_writer: str = ""
    waits: dict[str, WaitState] = {}
    last_us: dict[int, int] = {}
    """Time of the last event seen of each epoch."""


class RunState(msgspec.Struct, gc=False):
    """One run. A *ghost* is known from a child's lineage only."""

    run_id: str
    kind: str
    span_id: int
    parent_run_id: str | None = None
    execution_id: str | None = None
    session_id: str | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    response_id: str | None = None
    meta: dict[str, Any] = {}
    writer: str = ""
    epoch: int = 0
    scope: str | None = None
    attempt: int = 0
    start_us: int = 0
    """0: no start was seen."""
    end_us: int = 0
    """0: no end was seen."""
    end_rank: tuple[int, int, int] = FIRST_RANK
    """Orders competing ends: the smallest wins."""
    first_us: int = 0
    last_us: int = 0
    below_us: int = 0
    """When anything below it was last seen."""
    outcome: str = ""
    error_type: str | None = None
    error_message: str | None = None
    error_module: str | None = None
    error_stack: str | None = None
    propagated: bool = False
    """The error came from further in and is told there."""
    duration_us: int = -1
    ripe: bool = False
    """Queued for export."""
    ghost: bool = False
    extra: dict[str, Any] | None = None
    """Attributes taken from payloads."""
    notes: dict[str, SpanNote] | None = None
    """Span events by event id."""
    notes_dropped: int = 0
    child_errors: list[str] | None = None
    """Errors that children failed with."""
    flow: FlowState | None = None


class TraceState(msgspec.Struct, gc=False):
    """One root run and everything open below it."""

    root_run_id: str
    traceparent: str | None = None
    runs: dict[str, RunState] = {}
    root_done: bool = False
    sampled: bool | None = None
    closing: bool = False
    """Queued for the end of the trace."""
    linger_until: float = 0.0
    retries: dict[str, int] = {}
    """Span id of the failed attempt that is tried again, by :func:`retry_key`."""
    breaks: list[tuple[int, int]] = []
    """Very long waits of the root, ``(resumed_us, paused_us)``: a new trace begins after each."""
    break_writers: dict[int, str] = {}
    """Who wrote the answer that a break begins with, by its time: the trace before it ends there."""
    starts: dict[str, int] = {}
    """Starts of exported runs, kept once there is a break: children must know which trace their parent is in."""
    breaks_done: int = 0
    """Breaks whose preceding root span is exported."""

    @property
    def caller(self) -> Traceparent | None:
        """The traced call that started the root run."""
        return parse_traceparent(self.traceparent) if self.traceparent else None

    def trace_id(self, generation: int = 0) -> int:
        """Return the trace id; of a continuation for ``generation`` > 0."""
        if generation == 0 and self.traceparent:
            caller = self.caller
            if caller is not None:
                return caller.trace_id

        return trace_id_of(self.root_run_id, generation)

    def generation(self, time_us: int) -> int:
        """Return which trace of the run something that began at ``time_us`` belongs to."""
        return sum(1 for resumed_us, _ in self.breaks if time_us >= resumed_us)
