"""What the host of an execution asks of it: to rest while it is parked, to keep time, to show life, to step back."""

from __future__ import annotations

from typing import Any, Final

from flowdeck.execution.activity import NONE
from flowdeck.execution.lifecycle import LifecycleMixin
from flowdeck.execution.state import RUNNING

__all__ = ["HostedMixin"]

_DEADLINE_REASON: Final = "deadline exceeded"


class HostedMixin(LifecycleMixin):
    """The part of an execution that its host, or the process that owns it, talks to."""

    def _intent(self) -> list[Any] | None:
        """Return what was under way to end the run: whoever takes it up after a crash goes on with that."""
        if self._lifecycle == "closed":
            return None

        if self._cancel_reason is not None:
            return ["cancel", self._cancel_reason]

        return ["close", self._close_reason] if self._closing else None

    def _rest(self) -> None:
        """It is parked, and its host keeps the time: hold no asyncio task."""
        for timer in [*self._timers.values(), *filter(None, [self._idle_timer, self._deadline_timer])]:
            timer.cancel()

        if self._timers:
            self._timers = NONE

        self._idle_timer = self._deadline_timer = None

    def _rearm(self) -> None:
        """It works again: keep the time here."""
        self._arm_all()
        self._arm_deadline()

    def _arm_deadline(self) -> None:
        loop = self._driver.loop
        if self._deadline_us is not None and self._deadline_timer is None and loop is not None and self.is_open():
            self._deadline_timer = loop.create_task(self._end_at(self._deadline_us))

    async def _end_at(self, due_us: int) -> None:
        clock = self._services.clock
        while (left := due_us - clock.time_us()) > 0:
            await clock.sleep(left / 1e6)

        self._deadline_timer = None
        if self._lifecycle != "closed" and not self._closing:
            await self.async_cancel(reason=_DEADLINE_REASON)

    def _heartbeat(self) -> None:
        """Say that the run is alive, to whoever wants to know."""
        event = self._events.execution_heartbeat
        if event.sinks and self._lifecycle != "closed":
            core = self._core
            age_us = self._age_us()
            payload = {
                "running": sum(task.status == RUNNING for task in core.tasks.values()),
                "waiting": len(core.open),
                "age_s": None if age_us is None else age_us / 1e6,
                "seq": self._log.seq if self._log is not None else None,
            }
            self._emit_debug(event, payload)

    def _superseded(self, error: BaseException) -> None:
        """Another process has taken the run over: stop here without a word to anybody but the observers."""
        self._driver.closed = True
        self._emit_event(self._events.execution_superseded, {"epoch": self._epoch}, message=str(error))
        for frame in self._frames.values():
            frame.child._superseded(error)

        self._rest()
        self._driver.leave(error)
        for waiter in self._closed_waiters:
            if not waiter.done():
                waiter.set_exception(error)

        self._stream.end()
