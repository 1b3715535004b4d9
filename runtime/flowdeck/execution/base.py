"""What every part of an execution shares: its identity, its core and driver, and how it emits events."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from flowdeck.events.lineage import RunContext
from flowdeck.execution.activity import NONE
from flowdeck.execution.core import Core
from flowdeck.execution.driver import Driver
from flowdeck.execution.observation import SOURCE
from flowdeck.execution.port_events import called_payload, failed_payload, returned_payload
from flowdeck.execution.ports import PortCall
from flowdeck.execution.services import Services
from flowdeck.execution.state import PARKED
from flowdeck.execution.stream import RuntimeStream
from flowdeck.execution.sync import run_sync
from flowdeck.execution.values import copy_loosely

if TYPE_CHECKING:
    from flowdeck.definition.plan import Plan
    from flowdeck.events.center import EventType
    from flowdeck.events.record import Fragment
    from flowdeck.execution.contracts import Contract
    from flowdeck.execution.flow_data import FlowData
    from flowdeck.execution.input_log import InputLog
    from flowdeck.execution.store import CommitStore
    from flowdeck.execution.sub_flow import SubFlowFrame, SubFlowLink

__all__ = ["ExecutionBase"]


def _recorded(plan: Plan, execution_id: str) -> Core:
    from flowdeck.execution.recording import RecordedCore

    return RecordedCore(plan, execution_id)


def make_durable(execution: Any, store: CommitStore) -> None:
    """Let everything the execution's core is told be committed to ``store``."""
    from flowdeck.execution.gate import Gate, GatedStream
    from flowdeck.execution.input_log import InputLog
    from flowdeck.execution.logged_control import LoggedControl

    log = execution._log = execution._core.log = InputLog(execution, store)
    execution._services = execution._driver.services = replace(execution._services, control=LoggedControl(log))
    execution._driver.gate = Gate(log, execution._driver)
    execution._stream = GatedStream(log)


T = TypeVar("T")


class ExecutionBase:
    """State and helpers under the public execution. See :class:`TriggerFlowExecution`."""

    if TYPE_CHECKING:  # supplied by the other parts

        def _take_over(self) -> None: ...
        def _arm_all(self) -> None: ...
        def _check_item(self, item: Any, origin: dict[str, Any] | None, run: RunContext) -> None: ...

    # What is rarely set is no slot: thousands may be parked at a time.
    _contract: Contract | None = None
    _log: InputLog | None = None
    """The input log of a durable execution; a sub flow is in its parent's."""
    _deadline_s: float | None = None
    _deadline_us: int | None = None
    _origin: Mapping[str, Any] = NONE
    """Of a fork: ``forked_from``, ``forked_at``, ``actor``; and ``initial_value`` until it has begun."""
    _link: SubFlowLink | None = None
    _frames: dict[int, SubFlowFrame] = NONE
    """Sub flows that run or wait, by the number of their operator's activation."""

    __slots__ = (
        "_cancelled",
        "_close_reason",
        "_closed_us",
        "_closed_waiters",
        "_closing",
        "_core",
        "_created_us",
        "_definition",
        "_depth",
        "_driver",
        "_entrypoint",
        "_epoch",
        "_events",
        "_flow_data",
        "_handle_exposed",
        "_idle_timer",
        "_last_active_us",
        "_last_signal",
        "_lifecycle",
        "_observed",
        "_plan",
        "_resources",
        "_restored",
        "_services",
        "_snapshot",
        "_started_us",
        "_starting",
        "_stream",
        "_thread",
        "_waiting_announced",
        "auto_close",
        "auto_close_timeout",
        "run_context",
    )

    def __init__(
        self,
        plan: Plan,
        services: Services,
        run: RunContext,
        execution_id: str,
        concurrency: int,
        resources: dict[str, Any] | None,
        auto_close: bool,
        auto_close_timeout: float | None,
        handle_exposed: bool,
        flow_data: FlowData,
        depth: int,
    ) -> None:
        self._plan = plan
        self._services = services
        self._events = services._events or services.events
        self._core = Core(plan, execution_id, concurrency) if services.store is None else _recorded(plan, execution_id)
        self._driver = Driver(self, self._core, services, self._events, run)  # type: ignore[arg-type]
        self._resources: dict[str, Any] = resources or NONE
        self._stream = RuntimeStream()
        self._thread = threading.get_ident()
        self._epoch = 1
        self._handle_exposed = handle_exposed
        self.run_context = run
        self.auto_close = auto_close
        self.auto_close_timeout = auto_close_timeout
        self._lifecycle = "open"
        self._close_reason: str | None = None
        self._created_us = services.clock.time_us()
        self._started_us: int | None = None
        self._closed_us: int | None = None
        self._cancelled = False
        self._waiting_announced = False
        self._last_signal: tuple[int, str, str, Any, str] | None = None
        """Number, event, type, value and source of the last signal that was emitted by name."""
        self._observed = False
        self._restored = False
        self._flow_data = flow_data
        self._depth = depth
        """How many sub flows it stands in."""
        self._last_active_us = self._created_us
        if services.store is not None:
            self._core.concurrency = concurrency
            if not depth:
                make_durable(self, services.store)

    def _own_resources(self) -> dict[str, Any]:
        """Return the live objects' table, to be changed."""
        if self._resources is NONE:
            self._resources = {}

        return self._resources

    # -- identity and status -------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The execution's id; constant over save, load and recovery."""
        return self._core.execution_id

    def get_status(self) -> str:
        """``created``, ``running``, ``waiting``, ``completed``, ``failed`` or ``cancelled``.

        Waiting is derived, never stored: nothing is active and an interrupt is open.
        """
        if self._core.error is not None:
            return "failed"

        if self._cancelled:
            return "cancelled"

        if self._lifecycle == "closed":
            return "completed"

        if not self._core.started:
            return "created"

        return "waiting" if self.is_waiting() else "running"

    def is_waiting(self) -> bool:
        """Whether nothing is active and at least one interrupt waits for an answer."""
        core = self._core
        return bool(core.open) and self.is_idle()

    def is_idle(self) -> bool:
        """Whether no handler runs and none is about to."""
        if self._driver.live:
            return False

        for task in self._core.tasks.values():  # noqa: SIM110  # half the time of all()
            if task.status != PARKED:
                return False

        return True

    # -- events --------------------------------------------------------------------------------------------------

    def _emit_event(
        self,
        event: EventType,
        payload: Any,
        *,
        run: RunContext | None = None,
        static: Fragment | None = None,
        scope: str | None = None,
        cause: int = 0,
        seq: int | None = None,
        duration_us: int | None = None,
        message: str | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Emit a lifecycle event. ``seq`` advances whether or not anyone listens, so observers change nothing."""
        core = self._core
        if seq is None:
            core.seq += 1
            seq = core.seq

        if event.sinks:
            event.emit(
                payload,
                static,
                run or self.run_context,
                self._epoch,
                seq,
                0,
                scope,
                cause,
                0,
                duration_us,
                message,
                error,
                {"execution_id": self.id},
                SOURCE,
            )

    def _emit_debug(self, event: EventType, payload: Any, run: RunContext | None = None) -> None:
        core = self._core
        core.sub += 1
        event.emit(
            payload, None, run or self.run_context, self._epoch, core.seq, core.sub, None, core.seq, 0, None, None,
            None, {"execution_id": self.id}, SOURCE,
        )  # fmt: skip

    def _signalled(self, name: str, value: Any, source: str, kind: str, run: RunContext | None = None) -> None:
        """Remember the last signal and tell whoever wants every one of them."""
        self._last_signal = (self._core.signals + 1, name, kind, value, source)
        if self._events.signal.sinks:
            payload = {
                "SIGNAL_ID": f"s{self._last_signal[0]}",
                "TYPE": kind,
                "EVENT": name,
                "VALUE": value,
                "SOURCE": source,
                "META": {},
            }
            self._emit_debug(self._events.signal, payload, run)

    def get_last_signal(self) -> dict[str, Any] | None:
        """Return the last signal that was emitted by name, or ``None``."""
        if self._last_signal is None:
            return None

        number, name, kind, value, source = self._last_signal
        return {"id": f"s{number}", "trigger_event": name, "trigger_type": kind, "value": value, "source": source}

    def _state_changed(self, key: str, value: Any, run: RunContext | None = None) -> None:
        if self._events.state_changed.sinks:
            payload = {"key": key, "version": self._core.version, "value": value}
            self._emit_debug(self._events.state_changed, payload, run)

    def _place(self, scope: str) -> str:
        """Return the full place of ``scope``: below the operators that run this execution as their sub flow."""
        link = self._link
        return scope if link is None else f"{link.parent._place(link.frame.scope)}/{scope}"

    async def _through_port(self, call: PortCall, fn: Callable[..., Awaitable[Any] | Any], run: RunContext) -> Any:
        """Perform a port call, with the two events that a tape can be made from."""
        if self._events.port_called.sinks:
            self._emit_debug(self._events.port_called, called_payload(call, self._services.settings), run)

        ports, events = self._services.ports, self._events
        if not events.port_returned.sinks and not events.port_failed.sinks:
            try:
                return await ports.call(call, fn)
            finally:
                self._core.seq += 1

        # What the arguments were, not what the call made of them.
        payload = called_payload(call, self._services.settings)
        began = time.perf_counter_ns()
        try:
            result = await ports.call(call, fn)
        except BaseException as exc:
            self._emit_port(events.port_failed, {**payload, **failed_payload(exc)}, run, began, exc)
            raise

        self._emit_port(events.port_returned, {**payload, **returned_payload(result)}, run, began)
        return result

    async def _stream_through_port(
        self, call: PortCall, fn: Callable[..., AsyncIterator[Any]], run: RunContext
    ) -> AsyncIterator[Any]:
        """Perform a port call that gives chunks; one event at its end holds all that were taken."""
        settings, events = self._services.settings, self._events
        if events.port_called.sinks:
            self._emit_debug(events.port_called, called_payload(call, settings), run)

        observed = bool(events.port_returned.sinks or events.port_failed.sinks)
        payload = called_payload(call, settings) if observed else {}
        chunks: list[Any] = []
        began = time.perf_counter_ns()
        error: BaseException | None = None
        try:
            async for chunk in self._services.ports.stream(call, fn):
                if observed:
                    chunks.append(copy_loosely(chunk))

                yield chunk
        except GeneratorExit:
            raise  # whoever reads has enough: that is no failure
        except BaseException as exc:
            error = exc
            raise
        finally:
            if not observed:
                self._core.seq += 1
            elif error is None:
                told = {**payload, **returned_payload(chunks), "stream": True}
                self._emit_port(events.port_returned, told, run, began)
            else:
                told = {**payload, **returned_payload(chunks), **failed_payload(error), "stream": True}
                self._emit_port(events.port_failed, told, run, began, error)

    def _port_returned(self, call: PortCall, run: RunContext, value: Any) -> None:
        """A port that takes no time has answered."""
        if self._events.port_returned.sinks:
            payload = {**called_payload(call, self._services.settings), **returned_payload(value)}
            self._emit_port(self._events.port_returned, payload, run, time.perf_counter_ns())
        else:
            self._core.seq += 1

    def _emit_port(
        self, event: EventType, payload: dict[str, Any], run: RunContext, began: int, error: BaseException | None = None
    ) -> None:
        duration_us = (time.perf_counter_ns() - began) // 1000
        self._emit_event(event, payload, run=run, scope=payload["scope"], duration_us=duration_us, error=error)

    def _bind(self) -> None:
        """Attach to the running loop; after a load, let what was running go on."""
        driver = self._driver
        bound = driver.loop is not None
        if not bound:
            driver.bind()

        if self._restored:
            self._restored = False
            self._thread = threading.get_ident()
            self._take_over()
        elif not bound and self._core.interrupts:
            self._arm_all()

    # -- control plane -------------------------------------------------------------------------------------------

    def _tell_control(self, status: str) -> None:
        if self._services.control is not None and self._observed:
            self._services.control.status(self.id, status)

    # -- threads -------------------------------------------------------------------------------------------------

    def _sync(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run an async method for a synchronous caller.

        Without a loop it starts one; in another thread than the execution's loop it waits for that loop. On the
        loop's own thread waiting would block the loop itself, so that is refused.
        """
        loop = self._driver.loop
        if loop is not None and loop.is_running():
            if threading.get_ident() == self._thread:
                coroutine.close()
                raise RuntimeError(
                    "a synchronous call cannot wait on the event loop it runs on; await the async_ method instead"
                )

            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

        return run_sync(coroutine)

    def _warn(self, text: str) -> None:
        warnings.warn(f"execution {self.id}: {text}", RuntimeWarning, stacklevel=3)
