"""How one event changes what is remembered of its run. The result does not depend on the order events come in.

Starts keep the earliest time, ends the best by rank, everything else is keyed by event id; so an event that comes twice
changes nothing, and any order within the mapper's grace gives the same state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flowdeck_sinks.otlp import conventions as names
from flowdeck_sinks.otlp.content import Limits, clip
from flowdeck_sinks.otlp.kinds import CONTINUES, ENRICHES, QUIET
from flowdeck_sinks.otlp.payloads import (
    brief,
    end_content,
    end_facts,
    enrich,
    interrupts_of,
    record_error,
    start_attributes,
)
from flowdeck_sinks.otlp.reading import Event, Run
from flowdeck_sinks.otlp.state import FIRST_RANK, FlowState, RunState, TraceState, WaitState, retry_key

__all__ = [
    "fold_end",
    "fold_enriching",
    "fold_flow",
    "fold_identity",
    "fold_note",
    "fold_start",
    "fold_waits",
    "merge_extra",
]

_STATUSES: Final = {"completed", "failed", "cancelled", "waiting"}
_LEVELS: Final = {"WARNING", "ERROR", "CRITICAL"}
_IDLE_DEBUG: Final = "triggerflow.signal"
"""The one DEBUG event that is a span event: signals are what moves a flow."""


def fold_identity(state: RunState, run: Run, writer: str) -> None:
    """Take over who the run is. Called once per run, and again for a ghost when its own events come."""
    if state.ghost:
        state.first_us = state.last_us = 0

    state.kind = run.run_kind
    state.ghost = False
    state.execution_id = run.execution_id
    state.session_id = run.session_id
    state.agent_id = run.agent_id
    state.agent_name = run.agent_name
    state.response_id = run.response_id
    state.meta = run.meta
    state.writer = writer


def merge_extra(state: RunState, found: dict[str, object]) -> None:
    """Add attributes from a payload; the first value of a name stays."""
    if not found:
        return

    if state.extra is None:
        state.extra = found
    else:
        for key, value in found.items():
            state.extra.setdefault(key, value)


def fold_start(state: RunState, event: Event, time_us: int, limits: Limits, capture: bool) -> None:
    """A run began; of several starts the earliest counts."""
    if state.start_us == 0 or time_us < state.start_us:
        state.start_us = time_us

    meta = event.meta
    if meta is not None:
        if meta.attempt:
            state.attempt = meta.attempt

        if meta.scope is not None and state.kind == "chunk_execution":
            state.scope = meta.scope

    merge_extra(state, start_attributes(state.kind, event.payload, limits, capture))


def fold_end(
    trace: TraceState, state: RunState, event: Event, status: str | None, time_us: int, limits: Limits, capture: bool
) -> bool:
    """A run ended. Of several ends the newest epoch's first one counts, ``execution_closed`` last of all.

    Returns whether a recorded duration was negative.
    """
    meta = event.meta
    seq = meta.seq if meta is not None and meta.seq else time_us
    rank = (0 if status is not None else 1, -(meta.epoch if meta is not None else 0), seq)
    said, will_retry, propagated = end_facts(event.payload)
    if status is None:
        status = said if said in _STATUSES else "completed"
        if status == "waiting":
            status = "completed"
    elif said in ("waiting", "cancelled") and state.kind == "chunk_execution":
        status = said

    negative = False
    if rank < state.end_rank or state.end_rank == FIRST_RANK:
        state.end_rank = rank
        state.end_us = time_us
        state.outcome = status
        state.propagated = propagated
        if meta is not None and meta.duration_us is not None:
            negative = meta.duration_us < 0
            state.duration_us = -1 if negative else int(meta.duration_us)

        if status == "failed":
            _fold_error(state, event)

        if capture:
            merge_extra(state, end_content(state.kind, event.payload, limits))

    if meta is not None and state.kind == "chunk_execution":
        state.attempt = state.attempt or meta.attempt
        if state.scope is None:
            state.scope = meta.scope

    if will_retry:
        merge_extra(state, {names.WILL_RETRY: True})
        if meta is not None:
            trace.retries[retry_key(state.execution_id, meta.scope, meta.attempt)] = state.span_id

    return negative


def _fold_error(state: RunState, event: Event) -> None:
    error = event.error
    if error is not None:
        state.error_type = clip(error.type, 200) if error.type else None
        state.error_module = error.module
        state.error_message = None if error.message is None else clip(error.message, 8192)
        state.error_stack = error.traceback
        if state.error_type in ("CancelledError",):
            state.outcome = "cancelled"
    elif state.kind == "action":
        state.error_message = record_error(event.payload)


def fold_note(state: RunState, event: Event, event_type: str, time_us: int, limits: Limits) -> None:
    """An event that is no boundary becomes a span event: all from INFO on that say something, and signals."""
    if event_type in QUIET or (event.level == "DEBUG" and event_type != _IDLE_DEBUG):
        return

    notes = state.notes
    if notes is None:
        notes = state.notes = {}

    if event.event_id in notes:
        return

    if len(notes) >= limits.events:
        state.notes_dropped += 1
        newest = max(notes, key=lambda key: (notes[key][0], key), default="")
        if not newest or (time_us, event.event_id) > (notes[newest][0], newest):
            return

        del notes[newest]  # the earliest stay, in whatever order they come

    attributes: dict[str, object] = {names.LOG_UID: event.event_id, **brief(event.payload, limits)}
    if event.level in _LEVELS:
        attributes[names.EVENT_LEVEL] = event.level

    if event.message:
        attributes[names.EVENT_MESSAGE] = clip(event.message, min(limits.value, 1024))

    notes[event.event_id] = (time_us, clip(event.event_type, 200), attributes)


def fold_enriching(state: RunState, event: Event, event_type: str, limits: Limits, capture: bool) -> None:
    """What the events inside a model call say about it."""
    if event_type in ENRICHES:
        merge_extra(state, enrich(event_type, event.payload, limits, capture))


def fold_flow(trace: TraceState, state: RunState, event: Event, event_type: str, time_us: int, longest_us: int) -> bool:
    """Keep a change between active and waiting. Returns whether it is new.

    An answer after more than ``longest_us`` of waiting breaks the root's trace in two.
    """
    flow = state.flow
    if flow is None:
        flow = state.flow = FlowState()

    meta = event.meta
    epoch, seq = (0, 0) if meta is None else (meta.epoch, meta.seq)
    key = (epoch, seq or time_us)
    if key <= flow.done or any(mark[:2] == key for mark in flow.marks):
        return False

    kind = CONTINUES.get(event_type, "end")
    if kind == "resume" and state.run_id == trace.root_run_id:
        paused_us = _paused_us(event)
        if paused_us and time_us - paused_us > longest_us and (time_us, paused_us) not in trace.breaks:
            trace.breaks.append((time_us, paused_us))
            trace.breaks.sort()
            trace.break_writers[time_us] = max(event.writer, trace.break_writers.get(time_us, ""))

    flow.marks.append((*key, kind, time_us, event.writer))
    return True


def _paused_us(event: Event) -> int:
    """Return when the question was asked that this event answers, 0 when it does not say."""
    times = [item.get("created_at") for item in interrupts_of(event.payload)]
    known = [round(value * 1e6) for value in times if isinstance(value, int | float) and value > 0]
    return min(known, default=0)


def fold_waits(state: RunState, event: Event, event_type: str, time_us: int) -> list[WaitState]:
    """Keep what an event says of questions. Returns those that now have both ends."""
    flow = state.flow
    if flow is None:
        flow = state.flow = FlowState()

    complete = []
    for item in interrupts_of(event.payload):
        interrupt_id = str(item["id"])
        wait = flow.waits.get(interrupt_id)
        if wait is None:
            wait = flow.waits[interrupt_id] = WaitState(interrupt_id)

        _fold_wait(wait, item, event, event_type, time_us)
        if wait.start_us and wait.end_us and not wait.ripe:
            complete.append(wait)

    return complete


def _fold_wait(wait: WaitState, item: Mapping[str, Any], event: Event, event_type: str, time_us: int) -> None:
    if event_type == "triggerflow.interrupt_raised":
        wait.start_us = time_us
        source = item.get("source_execution_id")
        wait.hidden = isinstance(source, str) and event.run is not None and source != event.run.execution_id
    else:
        if not wait.start_us:
            paused = item.get("created_at")
            if isinstance(paused, int | float) and paused > 0:
                wait.start_us = round(paused * 1e6)

        if not wait.end_us or time_us < wait.end_us:
            wait.end_us, wait.writer = time_us, event.writer

        wait.resolution = _resolution(wait.resolution, event_type, item)

    for key, name in (("type", "kind"), ("source_operator_name", "step"), ("actor", "actor")):
        value = item.get(key)
        if isinstance(value, str) and value:
            setattr(wait, name, value)


_WEIGHT: Final = {None: 0, "answered": 1, "signal": 2, "cancelled": 3, "expired": 4}


def _resolution(now: str | None, event_type: str, item: Mapping[str, Any]) -> str:
    if event_type == "triggerflow.interrupt_expired":
        new = "expired"
    elif event_type == "triggerflow.pending_interrupts_cancelled":
        new = "cancelled"
    elif event_type == "triggerflow.execution_resumed" and "status" in item:
        new = "signal"  # answered by an emit: the event holds whole records
    else:
        new = "answered"

    return new if now is None or _WEIGHT[new] > _WEIGHT.get(now, 0) else now
