"""Who listens to an Event Center: sinks and hooks, as they are added, changed and removed."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from flowdeck.events.aliases import matcher
from flowdeck.events.catalogue import LEVELS
from flowdeck.events.delivery import DISPATCHES, DeliveryPolicy, make_hook
from flowdeck.events.hooks import Hook, HookCallback
from flowdeck.events.intake import check_level
from flowdeck.events.interest import Interest, Wanted, narrowed
from flowdeck.events.sink import Sink
from flowdeck.events.troubles import Troubles

if TYPE_CHECKING:
    from flowdeck.events.center import EventCenter

__all__ = ["Listeners"]


class Listeners(Troubles):
    """The part of an Event Center that knows its sinks and hooks. The arguments are those of the center."""

    def __init__(self, hook_queue: int, idle_flush_seconds: float, background_timeout: float | None) -> None:
        super().__init__()
        self._hook_queue = hook_queue
        self._idle_flush_seconds = idle_flush_seconds
        self._background_timeout = background_timeout
        self._interests: tuple[Interest, ...] = ()
        self._hooks: dict[str, Hook] = {}
        self._lock = threading.RLock()

    @abstractmethod
    def _reconnect(self) -> None:
        """Somebody came or went: tell every event type who wants it now."""

    # -- sinks ---------------------------------------------------------------------------------------------------

    def add_sink(self, sink: Sink, event_types: str | Iterable[str] | None = None, min_level: str = "INFO") -> None:
        """Send events to ``sink`` from now on. Adding a sink again changes what it wants.

        Args:
            event_types: names or patterns; ``None`` means all.
            min_level: the lowest level it wants.
        """
        interest = Interest(sink, matcher(event_types), LEVELS[check_level(min_level)], sink.accept)
        with self._lock:
            others = tuple(known for known in self._interests if known.sink is not sink)
            self._interests = (*others, interest)
            self._reconnect()

        attached = getattr(sink, "attached", None)
        if attached is not None:
            attached(self)

    def narrow_sink(self, sink: Sink, wanted: Wanted | None) -> None:
        """Let ``sink`` have only those of its events of which ``wanted(record)`` is true; ``None``: all of them again.

        ``wanted`` is called on the emitting thread, for each event the sink would get.
        """
        with self._lock:
            self._interests = tuple(
                known._replace(accept=narrowed(sink, wanted)) if known.sink is sink else known
                for known in self._interests
            )
            self._reconnect()

    def remove_sink(self, sink: Sink | str) -> None:
        """Stop sending events to ``sink`` (or the sink of that name). The caller closes it. Unknown sinks are
        ignored."""
        with self._lock:
            self._interests = tuple(
                known for known in self._interests if known.sink is not sink and known.sink.name != sink
            )
            self._reconnect()

    def sinks(self) -> tuple[Sink, ...]:
        """Return the sinks in the order they were added."""
        return tuple(interest.sink for interest in self._interests)

    # -- hooks ---------------------------------------------------------------------------------------------------

    def register_hook(
        self,
        callback: HookCallback,
        *,
        event_types: str | list[str] | tuple[str, ...] | None = None,
        hook_name: str | None = None,
        dispatch: str = "await",
        delivery_policy: Mapping[str, Any] | None = None,
    ) -> None:
        """Call ``callback(event)`` for matching events, whatever their level.

        Args:
            callback: a plain or an async function of one :class:`~flowdeck.events.model.ObservationEvent`.
            event_types: a name, a shell-style pattern, a list of them, or ``None`` for all events.
            hook_name: how to unregister it; the callback's own name by default. The same name replaces.
            dispatch: ``"await"``: a user's awaited emit returns after the callback did; ``"background"``: it never
                waits; ``"coalesced"``: it never waits, and events of high frequency (deltas, stream items) come as
                summaries.
            delivery_policy: the details, see :meth:`DeliveryPolicy.of`; an invalid value in it counts as not given.

        Raises:
            ValueError: ``dispatch`` is neither, or no name can be found.
            TypeError: ``callback`` cannot be called, or ``event_types`` holds something else than text.
        """
        if not callable(callback):
            raise TypeError(f"a hook must be callable, not {callback.__class__.__name__}")

        if dispatch not in DISPATCHES:
            raise ValueError(f"dispatch must be one of {', '.join(DISPATCHES)}, not {dispatch!r}")

        name = hook_name or getattr(callback, "__name__", None) or callback.__class__.__name__
        policy = DeliveryPolicy.of(delivery_policy, dispatch)
        if policy.background_timeout is None and self._background_timeout is not None:
            policy = replace(policy, background_timeout=self._background_timeout)

        center = cast("EventCenter", self)
        idle, queue = self._idle_flush_seconds, self._hook_queue
        hook = make_hook(center, name, callback, event_types, policy, queue_limit=queue, idle_flush_seconds=idle)
        with self._lock:
            replaced = self._hooks.get(name)
            self._hooks[name] = hook
            self._reconnect()

        if replaced is not None:
            replaced.flush(0.0)

    def unregister_hook(self, hook_name: str, timeout: float = 5.0) -> None:
        """Remove a hook; what was offered to it before is delivered first. An unknown name is no error.

        On a running loop an async callback cannot be waited for: its queue is delivered behind this call. Use
        :meth:`async_unregister_hook` to wait.
        """
        hook = self._remove_hook(hook_name)
        if hook is not None:
            hook.flush(timeout)

    async def async_unregister_hook(self, hook_name: str, timeout: float | None = None) -> None:
        """Remove a hook after everything offered to it before was delivered. An unknown name is no error."""
        hook = self._remove_hook(hook_name)
        if hook is not None:
            await hook.async_flush(timeout)

    def _remove_hook(self, hook_name: str) -> Hook | None:
        with self._lock:
            hook = self._hooks.pop(hook_name, None)
            if hook is not None:
                self._reconnect()

        return hook
