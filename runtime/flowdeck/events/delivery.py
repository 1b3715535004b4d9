"""How a hook gets its events: at once, behind the emitter's back, or gathered into summaries.

A :class:`DeliveryPolicy` is what a user asks for; :class:`CoalescingHook` is a hook that gathers events of high
frequency (model deltas, stream items) and delivers one summary for many. What it gathers is bounded: it keeps the last
``max_summary_items`` events in compact form and counts the rest, so a flood costs no memory.

Source: the compatible API's delivery policies (4.1.3.2).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flowdeck.events.hooks import Hook, HookCallback
from flowdeck.events.intake import make_record
from flowdeck.events.lanes import running_loop
from flowdeck.events.record import EventRecord

if TYPE_CHECKING:
    from flowdeck.events.center import EventCenter

__all__ = ["DISPATCHES", "CoalescingHook", "DeliveryPolicy", "is_high_frequency", "make_hook"]

DISPATCHES: Final = ("await", "background", "coalesced")
SUMMARY_ITEMS: Final = 20
"""Events a summary holds in compact form; the others are counted."""
_FREQUENT_TYPES: Final = frozenset(
    {"triggerflow.stream_item_emitted", "model.streaming", "model.response.delta", "response.delta"}
)


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How a hook wants its events. Times in seconds; ``None`` is no limit."""

    dispatch: str = "await"
    """``await``: a user's awaited emit returns after the callback did; ``background``: it never waits."""
    summary: bool = False
    """Gather events of high frequency and deliver summaries."""
    emit_interval: float | None = None
    """A summary is delivered when its first event is this old; looked at when a further one arrives."""
    max_items: int | None = None
    """A summary is delivered when it stands for this many events."""
    high_frequency_only: bool = True
    """Other events are delivered one by one, after what was gathered before them. ``False`` gathers everything."""
    max_summary_items: int = SUMMARY_ITEMS
    idle_flush_seconds: float | None = None
    """A summary is delivered after so long without a further event; ``None``: as the Event Center has it."""
    background_timeout: float | None = None
    """A flush without a timeout of its own waits so long for this hook, then cancels what it is doing."""

    @classmethod
    def of(cls, given: Mapping[str, Any] | None, dispatch: str = "await") -> DeliveryPolicy:
        """Read a policy as the compatible API takes it; an invalid value counts as not given.

        ``{"mode": "raw" | "summary", "dispatch": "await" | "background", "emit_interval", "max_items",
        "high_frequency_only", "max_summary_items", "idle_flush_seconds", "background_timeout"}``; ``interval`` and
        ``batch_size`` are other names of ``emit_interval`` and ``max_items``; ``None``, -1 and 0 unset a number.
        """
        given = given if isinstance(given, Mapping) else {}
        wanted = given.get("dispatch", dispatch)
        interval = _number(given.get("emit_interval", given.get("interval")))
        items = _number(given.get("max_items", given.get("batch_size")))
        shown = _number(given.get("max_summary_items"))
        return cls(
            dispatch="background" if wanted in ("background", "coalesced") else "await",
            summary=given.get("mode") == "summary" or "coalesced" in (wanted, dispatch) or bool(interval or items),
            emit_interval=interval,
            max_items=None if items is None else max(1, int(items)),
            high_frequency_only=given.get("high_frequency_only") is not False,
            max_summary_items=SUMMARY_ITEMS if shown is None else max(1, int(shown)),
            idle_flush_seconds=_number(given.get("idle_flush_seconds")),
            background_timeout=_number(given.get("background_timeout")),
        )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        return None

    return float(value)


def is_high_frequency(record: EventRecord) -> bool:
    """Whether an event is one of many that say little alone: deltas, stream items, and what its meta calls so."""
    name = record.event_type
    if name in _FREQUENT_TYPES or name.endswith((".delta", "_delta")):
        return True

    meta = record._meta
    if meta and (meta.get("high_frequency") is True or meta.get("frequency") == "high"):
        return True

    payload = record._payload
    return isinstance(payload, Mapping) and (
        payload.get("event_type") == "delta" or isinstance(payload.get("delta"), str)
    )


def make_hook(
    center: EventCenter,
    name: str,
    callback: HookCallback,
    event_types: str | list[str] | tuple[str, ...] | None,
    policy: DeliveryPolicy,
    *,
    queue_limit: int,
    idle_flush_seconds: float,
) -> Hook:
    """Return the hook a policy asks for."""
    kind = CoalescingHook if policy.summary else Hook
    hook = kind(center, name, callback, event_types, dispatch=policy.dispatch, queue_limit=queue_limit)
    if policy.dispatch == "background":
        hook.patience = policy.background_timeout

    if isinstance(hook, CoalescingHook):
        hook.policy = policy
        hook.idle_flush_seconds = policy.idle_flush_seconds or idle_flush_seconds

    return hook


class CoalescingHook(Hook):
    """A hook that gathers events and delivers summaries. Its order is kept: a summary goes before what follows it."""

    policy = DeliveryPolicy(summary=True)
    idle_flush_seconds = 0.1

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gathered = _Gathered()
        self._gathering = threading.RLock()
        self._watching: asyncio.AbstractEventLoop | None = None
        """The loop that looks for the idle moment, while something is gathered."""

    # -- in ------------------------------------------------------------------------------------------------------

    def offer(self, record: EventRecord) -> None:
        """Gather one record, or queue it behind the summary of what was gathered before."""
        for each in self._take(record):
            super().offer(each)

    async def deliver(self, record: EventRecord) -> None:
        """Gather one record; deliver and wait when it completes a summary or is none to gather."""
        for each in self._take(record):
            await super().deliver(each)

    def deliver_sync(self, record: EventRecord) -> None:
        """The same from synchronous code; see :meth:`Hook.deliver_sync`."""
        for each in self._take(record):
            super().deliver_sync(each)

    def _take(self, record: EventRecord) -> list[EventRecord]:
        """Return what must be delivered now that ``record`` has come."""
        if self._is_inside():
            return []

        policy = self.policy
        with self._gathering:
            gathered = self._gathered
            if policy.high_frequency_only and not is_high_frequency(record):
                return [*self._summary(), record]

            gathered.add(record, policy.max_summary_items)
            full = policy.max_items is not None and gathered.count >= policy.max_items
            old = policy.emit_interval is not None and gathered.age() >= policy.emit_interval
            if full or old:
                return self._summary()

            loop = self.center.hook_thread.loop()
            if self._watching is not loop:
                self._watching = loop
                loop.call_soon_threadsafe(self._watch, loop)

        return []

    def _summary(self) -> list[EventRecord]:
        with self._gathering:
            gathered, self._gathered = self._gathered, _Gathered()
            return [gathered.summary()] if gathered.count else []

    # -- the idle flush ------------------------------------------------------------------------------------------

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the Event Center's thread: deliver the summary once nothing has come for a while."""
        with self._gathering:
            left = self.idle_flush_seconds - self._gathered.idle()
            if self._gathered.count and left > 0:
                loop.call_later(left, self._watch, loop)
                return

            self._watching = None
            self._queue_summary()

    def _queue_summary(self) -> None:
        """Queue the summary where its last event came from, or on the Event Center's thread when that has ended."""
        with self._gathering:
            loop = self._gathered.loop
            for record in self._summary():
                if loop is None or loop.is_closed():
                    super().offer(record)
                else:
                    self._lane_on(loop).put(record)

    # -- out -----------------------------------------------------------------------------------------------------

    async def async_flush(self, timeout: float | None = None) -> bool:
        """Deliver what is gathered, and wait until everything is delivered. Return whether it is."""
        self._queue_summary()
        return await super().async_flush(timeout)

    def flush(self, timeout: float) -> bool:
        """Synchronous twin of :meth:`async_flush`; see :meth:`Hook.flush`."""
        self._queue_summary()
        return super().flush(timeout)

    def queued(self) -> int:
        """Return how many events wait; a summary not delivered yet counts as one."""
        return super().queued() + (1 if self._gathered.count else 0)

    def reset_after_fork(self) -> None:
        """Forget what the parent process gathered: it delivers that itself."""
        super().reset_after_fork()
        self._gathering = threading.RLock()
        self._gathered = _Gathered()
        self._watching = None


class _Gathered:
    """Events on their way into one summary."""

    __slots__ = ("count", "first", "first_at", "items", "last", "last_at", "loop")

    def __init__(self) -> None:
        self.count = 0
        self.items: deque[dict[str, Any]] = deque()
        self.first: EventRecord | None = None
        self.last: EventRecord | None = None
        self.first_at = 0.0
        self.last_at = 0.0
        """Monotonic seconds."""
        self.loop: asyncio.AbstractEventLoop | None = None

    def add(self, record: EventRecord, limit: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.first_at = record, now

        self.last, self.last_at, self.loop = record, now, running_loop()
        self.count += 1
        self.items.append(_compact(record))
        if len(self.items) > limit:
            self.items.popleft()

    def age(self) -> float:
        return time.monotonic() - self.first_at

    def idle(self) -> float:
        return time.monotonic() - self.last_at

    def summary(self) -> EventRecord:
        first, last = self.first, self.last
        assert first is not None and last is not None
        meta = {key: value for key, value in (last._meta or {}).items() if key not in ("high_frequency", "frequency")}
        now_ms = time.time() * 1000
        monotonic = time.monotonic()
        meta |= {
            "coalesced": True,
            "coalesced_count": self.count,
            "coalesced_event_type": last.event_type,
            "first_event_id": first.event_id,
            "last_event_id": last.event_id,
            "first_event_at": first.timestamp,
            "last_event_at": last.timestamp,
            "buffer_first_seen_at": int(now_ms - (monotonic - self.first_at) * 1000),
            "buffer_last_seen_at": int(now_ms - (monotonic - self.last_at) * 1000),
        }
        return make_record(
            last.event_type,
            level=last.level,
            source=last.source,
            message=f"{self.count} coalesced runtime events",
            payload={
                "count": self.count,
                "events": list(self.items),
                "last_payload": last.payload,
                "truncated": self.count > len(self.items),
            },
            error=last.error,
            run=last.run,
            meta=meta,
        )


def _compact(record: EventRecord) -> dict[str, Any]:
    return {
        "event_id": record.event_id,
        "event_type": record.event_type,
        "source": record.source,
        "level": record.level,
        "message": record.message,
        "payload": record.payload,
        "run": record.run.to_dict() if record.run is not None else None,
        "meta": record.meta,
        "timestamp": record.timestamp,
    }
