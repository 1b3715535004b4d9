"""The Event Center: where every observation event enters, and from where sinks and hooks get it.

:meth:`EventCenter.type` gives framework code its :class:`~flowdeck.events.eventtype.EventType`; users call
:meth:`emit`, :meth:`async_emit` or an emitter. Nothing here raises into an emitter: a bad event is quarantined, a
failing sink or hook is counted and reported as an event. Source: seed 004; the design's §2.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

from flowdeck.errors import FlowdeckError
from flowdeck.events.catalogue import CATALOGUE, LEVELS, OPEN_FAMILIES, is_framework_type
from flowdeck.events.emitter import Emitter
from flowdeck.events.encoding import describe
from flowdeck.events.eventtype import Accept, EventType
from flowdeck.events.hooks import Hook, inside_hook
from flowdeck.events.intake import DEFAULT_SOURCE, check_level, infer_source, record_from_event
from flowdeck.events.lanes import HookThread, running_loop
from flowdeck.events.lineage import RunContext
from flowdeck.events.listeners import Listeners
from flowdeck.events.record import EventRecord
from flowdeck.events.sink import Sink
from flowdeck.events.troubles import QuarantinedEvent

__all__ = ["EventCenter", "EventType", "QuarantinedEvent", "Sink", "UnlistedEvent"]

log = logging.getLogger("flowdeck.events")

TYPE_LIMIT: Final = 10_000
"""Event types kept; names beyond (an id inside a type name, say) are made anew each time."""
HOOK_QUEUE: Final = 10_000
"""Events that may wait for one hook."""
IDLE_FLUSH_S: Final = 0.1
"""Seconds without an event after which a summary is delivered."""


class UnlistedEvent(FlowdeckError, LookupError):
    """A strict Event Center was asked for a framework event that the catalogue does not list."""


class EventCenter(Listeners):
    """Routes events to sinks and hooks.

    Args:
        strict_catalogue: refuse framework types the catalogue does not list; for tests.
        hook_queue: events that may wait for one hook before further ones are dropped and counted.
        idle_flush_seconds: when a hook that gathers events gets its summary, if no further event comes.
        background_timeout: seconds :meth:`async_flush` waits for a background hook before it cancels what that is
            doing; ``None`` waits for it.
    """

    def __init__(
        self,
        *,
        strict_catalogue: bool = False,
        hook_queue: int = HOOK_QUEUE,
        idle_flush_seconds: float = IDLE_FLUSH_S,
        background_timeout: float | None = None,
    ) -> None:
        super().__init__(hook_queue, idle_flush_seconds, background_timeout)
        self.strict_catalogue = strict_catalogue
        self.hook_thread = HookThread()
        self._types: dict[tuple[str, str | None], EventType] = {}
        self.enter_run: Callable[[RunContext], None] | None = None
        """Called once per execution, in the context its branches inherit; set by a sink that has ``enter_run``."""
        _centers.add(self)
        weakref.finalize(self, self.hook_thread.stop).atexit = False

    # -- types ---------------------------------------------------------------------------------------------------

    def type(self, name: str, level: str | None = None) -> EventType:
        """Return the event type ``name``, the same object every time. Any name is welcome.

        Args:
            level: another level than the type's own (the catalogue's, else INFO).

        Raises:
            UnlistedEvent: only with ``strict_catalogue``.
            InvalidEvent: ``level`` is none of the five.
        """
        found = self._types.get((name, level))
        return found if found is not None else self._make_type(name, level)

    def _make_type(self, name: str, level: str | None) -> EventType:
        spec = CATALOGUE.get(name)
        if spec is None and self.strict_catalogue and is_framework_type(name) and not name.startswith(OPEN_FAMILIES):
            raise UnlistedEvent(f"{name!r} is not in the catalogue; add its row to events/_catalogue_rows.py")

        own = "INFO" if spec is None else spec.level
        actual = own if level is None else check_level(level)
        with self._lock:
            made = self._types.get((name, actual))
            if made is None:
                made = EventType(self, name, actual, DEFAULT_SOURCE if spec is None else spec.source)
                self._connect(made)

            if len(self._types) < TYPE_LIMIT:
                self._types[name, actual] = made
                if level is None:
                    self._types[name, None] = made

            return made

    def _connect(self, event_type: EventType) -> None:
        """Fill in who wants the type. The tuple :attr:`EventType.sinks` is swapped last and at once."""
        name = event_type.name
        rank = LEVELS[event_type.level]
        direct: tuple[Accept, ...] = tuple(
            interest.accept for interest in self._interests if rank >= interest.rank and interest.matches(name)
        )
        hooks = tuple(hook for hook in self._hooks.values() if hook.matches(name))
        event_type.hooks = hooks
        event_type.direct = direct
        event_type.sinks = direct + tuple(hook.offer for hook in hooks)

    def _reconnect(self) -> None:
        entries = (getattr(interest.sink, "enter_run", None) for interest in self._interests)
        entry = next((entry for entry in entries if entry is not None), None)
        self.enter_run = None if entry is None else _guarded(entry)
        for event_type in set(self._types.values()):
            self._connect(event_type)

    # -- emit ----------------------------------------------------------------------------------------------------

    def emit(self, event: Any) -> None:
        """Emit a mapping, an ObservationEvent or an EventRecord. Never raises; a bad event is quarantined.

        Sinks have it when this returns; so have hooks with plain callbacks (see :meth:`Hook.deliver_sync`).
        """
        record = self._take(event)
        if record is None:
            return

        for hook in self._to_sinks(record):
            try:
                hook.offer(record) if hook.dispatch == "background" or inside_hook() else hook.deliver_sync(record)
            except Exception as problem:
                self.hook_failed(hook, record, problem)

    async def async_emit(self, event: Any) -> None:
        """Emit like :meth:`emit` and return after the matching hooks ran. Hooks of one event run side by side."""
        record = self._take(event)
        if record is None:
            return

        awaited: list[Hook] = []
        for hook in self._to_sinks(record):
            if hook.dispatch == "background" or inside_hook():
                hook.offer(record)
            else:
                awaited.append(hook)

        if len(awaited) == 1:
            await awaited[0].deliver(record)
        elif awaited:
            await asyncio.gather(*(hook.deliver(record) for hook in awaited))

    def _take(self, event: Any) -> EventRecord | None:
        try:
            return record_from_event(event)
        except Exception as problem:
            self.quarantine_event(event, problem)
            return None

    def _to_sinks(self, record: EventRecord) -> tuple[Hook, ...]:
        """Hand a user's record to the sinks; return the hooks that want it."""
        try:
            event_type = self.type(record.event_type, record.level)
        except UnlistedEvent as problem:
            self.quarantine_event(record, problem)
            return ()

        for accept in event_type.direct:
            try:
                accept(record)
            except Exception as problem:
                self.sink_failed(accept, record, problem)

        return event_type.hooks

    def create_emitter(
        self,
        source: str | None = None,
        *,
        base_meta: Mapping[str, Any] | None = None,
        base_run: RunContext | None = None,
    ) -> Emitter:
        """Return an emitter that stamps ``source``, ``base_meta`` and ``base_run`` on its events."""
        return Emitter(self, source or infer_source(), base_meta=base_meta, base_run=base_run)

    create_observation_emitter = create_emitter

    # -- waiting and ending --------------------------------------------------------------------------------------

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until sinks and hooks have everything, at most ``timeout`` seconds. Return whether they have.

        On a running loop, use :meth:`async_flush`: this one cannot wait for async hooks of that loop.
        """
        deadline = time.monotonic() + timeout
        done = True
        for hook in list(self._hooks.values()):
            done = hook.flush(max(0.0, deadline - time.monotonic())) and done

        for sink in self.sinks():
            done = self._flush_sink(sink, max(0.0, deadline - time.monotonic())) and done

        return done

    async def async_flush(self, hook_name: str | None = None, *, timeout: float | None = None) -> bool:
        """Wait until the hook (all hooks and sinks without a name) has everything. Return whether it has."""
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - time.monotonic())

        hooks = [hook for name, hook in list(self._hooks.items()) if hook_name in (None, name)]
        done = True
        for hook in hooks:
            done = await hook.async_flush(left()) and done

        if hook_name is None:
            loop = asyncio.get_running_loop()
            for sink in self.sinks():
                seconds = left()
                wait = 60.0 if seconds is None else seconds
                done = await loop.run_in_executor(None, self._flush_sink, sink, wait) and done

        return done

    def _flush_sink(self, sink: Sink, timeout: float) -> bool:
        try:
            return sink.flush(timeout)
        except Exception:
            log.warning("sink %r raised at flush", sink.name, exc_info=True)
            return False

    def close(self, timeout: float = 5.0) -> None:
        """Flush hooks, close and remove every sink, within ``timeout`` seconds. Safe to call twice."""
        deadline = time.monotonic() + timeout
        for hook in list(self._hooks.values()):
            hook.flush(max(0.0, deadline - time.monotonic()))

        for sink in self.sinks():
            self.remove_sink(sink)
            try:
                sink.close(max(0.0, deadline - time.monotonic()))
            except Exception:
                log.warning("sink %r raised at close", sink.name, exc_info=True)

        if running_loop() is None:
            self.hook_thread.stop()

    def statistics(self) -> dict[str, Any]:
        """Return counters: types, quarantined, per sink and per hook what was delivered, dropped and failed."""
        sinks: dict[str, Any] = {}
        for sink in self.sinks():
            name = sink.name
            number = 2
            while name in sinks:
                name, number = f"{sink.name}#{number}", number + 1

            try:
                sinks[name] = {**sink.statistics(), "failures": self._sink_failures.get(sink.name, 0)}
            except Exception as problem:
                sinks[name] = {"error": describe(problem)["$repr"]}

        return {
            "types": len({key[0] for key in list(self._types)}),
            "quarantined": self._quarantined,
            "sinks": sinks,
            "hooks": {name: hook.statistics() for name, hook in list(self._hooks.items())},
        }

    def _reset_after_fork(self) -> None:
        self._lock = threading.RLock()
        self.hook_thread.reset_after_fork()
        for hook in self._hooks.values():
            hook.reset_after_fork()


def _guarded(enter: Callable[[RunContext], None]) -> Callable[[RunContext], None]:
    """Keep what a sink does at the beginning of an execution from failing it."""

    def entered(run: RunContext) -> None:
        try:
            enter(run)
        except Exception:
            log.warning("a sink's enter_run raised", exc_info=True)

    return entered


_centers: weakref.WeakSet[EventCenter] = weakref.WeakSet()


def _reset_centers() -> None:
    # Threads do not survive a fork; a lock one of them held would stay held for ever.
    for center in list(_centers):
        center._reset_after_fork()


os.register_at_fork(after_in_child=_reset_centers)
