"""From open to closed: sealing, draining, auto close, cancelling, and the close snapshot.

Order of a close: refuse while interrupts wait (or cancel them) -> seal -> drain what runs -> check the interrupts
again -> snapshot -> completed -> stream ends -> closed. Anything raised on the way rolls it back to open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from flowdeck.errors import PendingInterruptsError
from flowdeck.execution.frames import FramesMixin
from flowdeck.execution.state import Interrupt
from flowdeck.execution.values import copy_value

__all__ = ["CANCEL_GRACE", "IDLE_REASON", "LifecycleMixin"]

IDLE_REASON: Final = "auto_close_idle_timeout"
"""Why an execution closed that had nothing left to do."""
CANCEL_GRACE: Final = 1.0
"""Seconds a cancelled handler gets to clean up before it is left behind."""


class LifecycleMixin(FramesMixin):
    """The part of an execution that ends it."""

    _closing: bool
    """A close is under way."""
    _other_closers: asyncio.Future[dict[str, Any]] | None = None
    """What those wait for who wanted to close meanwhile."""
    _closed_waiters: tuple[asyncio.Future[None], ...]
    _idle_timer: asyncio.Task[None] | None
    _deadline_timer: asyncio.Task[None] | None = None
    _background: set[asyncio.Task[Any]] | None = None
    _snapshot: dict[str, Any] | None
    _cancel_reason: str | None = None
    _starting: bool
    _lease: Any = None
    """The execution environments it has while it runs; none for most."""

    def get_lifecycle_state(self) -> str:
        """``open``, ``sealed`` or ``closed``."""
        return self._lifecycle

    def is_open(self) -> bool:
        return self._lifecycle == "open"

    def is_sealed(self) -> bool:
        return self._lifecycle == "sealed"

    def is_closed(self) -> bool:
        return self._lifecycle == "closed"

    def seal(self, reason: str = "manual") -> Any:
        """Refuse new signals from outside; what is under way goes on."""
        if self._lifecycle == "open":
            self._lifecycle = "sealed"
            self._core.version += 1
            if self._driver.gate is not None:
                self._driver.gate.lifecycle()

            event = self._events.execution_sealed
            if event.sinks:
                sealed_at = self._services.clock.time_us() / 1e6
                self._emit_event(event, {"reason": reason, "sealed_at": sealed_at})
            else:
                self._core.seq += 1

        return self

    def unseal(self, reason: str = "manual") -> Any:
        """Accept signals again. A closed execution stays closed (a warning and an event say so)."""
        if self._lifecycle == "closed":
            self._warn("unseal() refused, it is closed")
            self._emit_event(self._events.unseal_rejected, {"reason": reason})
        elif self._lifecycle == "sealed":
            self._lifecycle = "open"
            self._core.version += 1
            self._record_lifecycle()
            self._emit_event(self._events.execution_unsealed, {"reason": reason})
            self._on_idle()

        return self

    # -- idleness ------------------------------------------------------------------------------------------------

    def _on_idle(self) -> None:
        """No branch is left. Says that the run waits, or starts the clock of the auto close."""
        driver, core = self._driver, self._core
        if (driver._live and driver.live) or self._lifecycle == "closed" or not core.started:
            return

        if core.open:
            if not self._waiting_announced and core.error is None:
                self._waiting_announced = True
                event = self._events.execution_waiting
                if event.sinks:
                    self._emit_event(event, {"interrupt_ids": list(core.open)})
                else:
                    core.seq += 1

                if self._services.control is not None:
                    self._tell_control("waiting")

            self._stream.rest()  # a gated stream keeps the word until what led here is out
            return

        timeout = self.auto_close_timeout
        if self._starting and timeout is not None and timeout <= 0:
            return  # async_start is about to look, and closes without a task of its own

        if self.auto_close and timeout is not None and not self._closing:
            self._active()
            if self._idle_timer is None and self._driver.loop is not None:
                self._idle_timer = self._driver.loop.create_task(self._auto_close())

    def _active(self) -> None:
        """Something happened: the idle clock starts anew."""
        self._last_active_us = self._services.clock.time_us()

    async def _auto_close(self) -> None:
        """Close once nothing has happened for the timeout."""
        clock = self._services.clock
        while True:
            timeout = self.auto_close_timeout
            if timeout is None or self._lifecycle != "open" or self._closing or not self._at_rest():
                self._idle_timer = None
                return

            left = self._last_active_us + round(timeout * 1e6) - clock.time_us()
            if left <= 0:
                break

            await clock.sleep(left / 1e6)

        self._idle_timer = None
        if self._events.auto_close_timeout.sinks:
            self._emit_debug(self._events.auto_close_timeout, {"timeout": timeout})

        await self.async_close(reason=IDLE_REASON)

    def _at_rest(self) -> bool:
        """Whether nothing runs and nobody is asked."""
        return self.is_idle() and not self._core.open

    def _services_task(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run something of the execution's own beside its branches, and keep a reference to it."""
        task = asyncio.get_running_loop().create_task(coroutine)
        if self._background is None:
            self._background = set()

        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- failure -------------------------------------------------------------------------------------------------

    def _on_failed(self, error: BaseException) -> None:
        """An error nobody caught has ended a branch: the run has failed, though it stays open until closed."""
        self._core.version += 1
        self._emit_event(
            self._events.execution_failed,
            {"last_signal": self.get_last_signal(), "origin_run_id": getattr(error, "_flowdeck_origin", None)},
            duration_us=self._age_us(),
            message=f"flow {self._plan.flow_name!r} failed: {type(error).__name__}: {error}"[:500],
            error=error,
        )
        self._tell_control("failed")

    def _age_us(self) -> int | None:
        return None if self._started_us is None else max(self._services.clock.time_us() - self._started_us, 0)

    # -- closing -------------------------------------------------------------------------------------------------

    async def async_close(
        self,
        *,
        reason: str = "manual",
        timeout: float | None = None,
        seal: bool = True,
        pending_interrupts: str = "error",
    ) -> dict[str, Any]:
        """End the execution and return the close snapshot: a copy of its state.

        Args:
            timeout: seconds to let running work finish; after that it is cancelled. ``None`` waits for it.
            pending_interrupts: ``"error"`` refuses to close while interrupts wait, ``"cancel"`` gives them up.

        Raises:
            PendingInterruptsError: interrupts wait; the execution stays open and usable.
            ValueError: an unknown policy.
        """
        if self._snapshot is not None:
            if self._log is not None:
                await self._log.settled()

            return _own(self._snapshot)

        while self._closing:
            closed = await self._other_close()
            if closed is not None:
                return _own(closed)

        if pending_interrupts not in ("error", "cancel"):
            raise ValueError(f'pending_interrupts={pending_interrupts!r}: expected "error" or "cancel"')

        if self._cancel_reason is not None:  # it is being cancelled, whoever closes it first
            reason, pending_interrupts = self._cancel_reason, "cancel"

        self._bind()
        if self._core.open:
            self._check_pending(reason, pending_interrupts)

        self._closing = True
        self._close_reason = reason
        was_sealed = self._lifecycle == "sealed"
        try:
            if seal:
                self.seal(reason)

            if self._driver._live:
                self._active()
                await self._drain_work(timeout)

            if self._core.open:
                self._check_pending(reason, pending_interrupts)

            if self._frames:
                await self._close_children(reason)

            if self._lease is not None:
                await self._lease.close(self)

            snapshot = self._finish_close(reason)
        except BaseException as exc:
            self._closing = False
            self._close_reason = None
            others, self._other_closers = self._other_closers, None
            if not was_sealed:
                self.unseal("close_failed")

            if others is None:
                pass
            elif isinstance(exc, asyncio.CancelledError):
                _in_its_loop(others, others.cancel)  # whoever waited for this close goes on with it
            else:
                _in_its_loop(others, _fail, others, exc)

            raise

        if self._other_closers is not None:
            _in_its_loop(self._other_closers, self._other_closers.set_result, snapshot)

        if self._log is not None:
            await self._log.settled()

        return _own(snapshot)

    async def _other_close(self) -> dict[str, Any] | None:
        """Wait for a close that is under way. ``None`` when its caller was cancelled, so somebody else must close."""
        closed = self._other_closers
        if closed is None:
            closed = self._other_closers = asyncio.get_running_loop().create_future()

        try:
            return await asyncio.shield(closed)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if closed.cancelled() and not (current is not None and current.cancelling()):
                return None

            raise

    def close(self, **options: Any) -> dict[str, Any]:
        """Synchronous twin of :meth:`async_close`."""
        return self._sync(self.async_close(**options))

    async def async_cancel(self, *, reason: str = "cancelled") -> dict[str, Any]:
        """Stop every running handler, give up every interrupt, and close.

        A handler that does not end within a second of its cancellation is left behind, with a warning.
        """
        if self._lifecycle == "closed":
            return await self.async_close()

        self._bind()
        self._cancelled = True
        self._cancel_reason = reason
        self._record_lifecycle()
        await self._stop_work()
        return await self.async_close(reason=reason, pending_interrupts="cancel")

    def cancel(self, *, reason: str = "cancelled") -> dict[str, Any]:
        """Synchronous twin of :meth:`async_cancel`."""
        return self._sync(self.async_cancel(reason=reason))

    def _check_pending(self, reason: str, policy: str) -> None:
        pending = self._core.open_interrupts
        ids = sorted(interrupt.id for interrupt in pending)
        if policy == "error":
            payload = {
                "reason": reason,
                "pending_interrupt_ids": ids,
                "pending_interrupts": [self._record(interrupt) for interrupt in pending],
            }
            error = PendingInterruptsError(self.id, ids)
            self._emit_event(self._events.pending_interrupts_close_rejected, payload, message=str(error))
            raise error

        self._give_up(pending, reason)

    def _give_up(self, pending: list[Interrupt], reason: str) -> None:
        now = self._services.clock.time_us()
        for interrupt in pending:
            self._core.cancel_interrupt(interrupt.id, now, reason)
            self._disarm(interrupt.id)
            self._closed_interrupt(interrupt)

        self._cancelled = True
        records = [self._record(interrupt) for interrupt in pending]
        self._emit_event(self._events.pending_interrupts_cancelled, {"reason": reason, "interrupts": records})

    async def _drain_work(self, timeout: float | None) -> None:
        own = self._driver.own_records()
        if own:
            self._step_aside(own[0])

        besides = len(own)
        if self._driver.live <= besides:
            return

        try:
            async with self._services.clock.timeout(timeout):
                await self._driver.idle(besides)
        except TimeoutError:
            count = self._driver.live - besides
            if count <= 0:
                return  # the last of it ended in the turn in which the time was up

            self._warn(f"close() cancels {count} piece(s) of work still running after {timeout} s")
            payload = {"pending_task_count": count, "timeout": timeout}
            self._emit_event(self._events.pending_tasks_cancelled, payload)
            await self._stop_work()

    def _step_aside(self, record: int) -> None:
        """A handler closes its execution: what waits for its place is to end before, so it gets that place."""
        core = self._core
        task = core.tasks.get(record)
        if task is not None and not (core.guests and task.group in core.guests):
            core.lend(task, task.group)
            self._driver.drain()

    async def _stop_work(self) -> None:
        """Cancel everything but the caller's own branch, and leave behind what swallows its cancellation."""
        own = self._driver.own_records()
        self._core.cancel_all(own)
        self._driver.drain()
        if self._driver.live <= len(own):
            return

        try:
            async with self._services.clock.timeout(CANCEL_GRACE):
                await self._driver.idle(len(own))
        except TimeoutError:
            left = self._driver.abandon()
            self._warn(f"{left} handler(s) swallowed their cancellation and were left behind")

    def _finish_close(self, reason: str) -> dict[str, Any]:
        if self._core.ledger is not None:
            self._expire_interventions()

        snapshot = self._core.snapshot_data()
        status = self.get_status()
        if status == "cancelled":
            self._emit_event(self._events.execution_cancelled, {"reason": reason}, duration_us=self._age_us())
        elif status != "failed":
            status = "completed"
            event = self._events.execution_completed
            if event.sinks:
                self._emit_event(event, {"result": snapshot}, duration_us=self._age_us())
            else:
                self._core.seq += 1

        self.stop_stream()
        self._closed_us = self._services.clock.time_us()
        self._lifecycle = "closed"
        self._core.version += 1
        self._record_lifecycle()
        self._driver.closed = True
        self._snapshot = snapshot
        event = self._events.execution_closed
        if event.sinks:
            closed_at = self._closed_us / 1e6
            self._emit_event(event, {"reason": reason, "closed_at": closed_at, "status": status, "result": snapshot})
        else:
            self._core.seq += 1

        if self._services.control is not None and self._observed:
            self._services.control.finished(self.id, status)

        if self._timers:
            for timer in list(self._timers.values()):
                timer.cancel()

        if self._deadline_timer is not None and self._deadline_timer is not asyncio.current_task():
            self._deadline_timer.cancel()

        for waiter in self._closed_waiters:
            if not waiter.done():
                waiter.set_result(None)

        return snapshot

    def _record_lifecycle(self) -> None:
        if self._driver.gate is not None:
            self._driver.gate.lifecycle()

    def stop_stream(self) -> None:
        """End the runtime stream; calling it again changes nothing."""
        if self._stream.close():
            event = self._events.stream_closed
            if event.sinks:
                self._emit_event(event, {"execution_id": self.id})
            else:
                self._core.seq += 1

    async def wait_closed(self) -> None:
        """Return once the execution is closed."""
        if self._lifecycle != "closed":
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._closed_waiters = (*self._closed_waiters, waiter)
            await waiter


def _own(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Return a copy the caller may change."""
    copied: dict[str, Any] = copy_value(snapshot) if snapshot else {}
    return copied


def _in_its_loop(future: asyncio.Future[Any], act: Callable[..., Any], *args: Any) -> None:
    """Do something to a future that a caller in another thread may wait for."""
    loop = future.get_loop()
    if loop is asyncio.get_running_loop():
        act(*args)
    elif not loop.is_closed():
        loop.call_soon_threadsafe(act, *args)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    future.set_exception(error)
    future.exception()  # they may be gone; that is no error of theirs
