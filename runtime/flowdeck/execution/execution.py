"""One run of a flow: the handle users hold.

The way of a run: ``create_execution`` -> :meth:`TriggerFlowExecution.async_start` -> core and driver -> the runtime
stream, interrupts and state while it works -> :meth:`async_close` with the close snapshot.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowdeck.definition.operators import START
from flowdeck.definition.settings import Settings, SettingsScope
from flowdeck.errors import MissingResource
from flowdeck.events.lineage import RunContext
from flowdeck.execution.contracts import Contract, ContractMixin
from flowdeck.execution.data import check_event_name
from flowdeck.execution.execution_state import StateMixin
from flowdeck.execution.flow_data import FlowData, FlowDataScope
from flowdeck.execution.interventions_ledger import Ledger
from flowdeck.execution.lifecycle import IDLE_REASON
from flowdeck.execution.older_names import LANES, OlderExecutionNames, ignored
from flowdeck.execution.result import FinalResultMixin
from flowdeck.execution.saving import SavingMixin
from flowdeck.execution.streaming import StreamMixin
from flowdeck.execution.values import encode

if TYPE_CHECKING:
    from flowdeck.definition.plan import Plan
    from flowdeck.execution.services import Services

__all__ = ["TriggerFlowExecution"]


class TriggerFlowExecution(
    StateMixin,
    SavingMixin,
    ContractMixin,
    FinalResultMixin,
    StreamMixin,
    OlderExecutionNames,
    FlowDataScope,
    SettingsScope,
):
    """An execution of a flow. Create one with :meth:`flowdeck.TriggerFlow.create_execution`."""

    _settings: Settings | None = None

    def __init__(
        self,
        plan: Plan,
        services: Services,
        run: RunContext,
        execution_id: str,
        *,
        concurrency: int = 0,
        resources: dict[str, Any] | None = None,
        auto_close: bool = True,
        auto_close_timeout: float | None = 10.0,
        handle_exposed: bool = True,
        skip_exceptions: bool = False,
        entrypoint: str | None = None,
        definition: Any = None,
        flow_data: FlowData | None = None,
        depth: int = 0,
        ledger: Ledger | None = None,
        policy: Any = None,
        contract: Contract | None = None,
    ) -> None:
        super().__init__(
            plan,
            services,
            run,
            execution_id,
            concurrency,
            resources,
            auto_close,
            auto_close_timeout,
            handle_exposed,
            flow_data or FlowData(),
            depth,
        )
        self._core.skip_exceptions = skip_exceptions
        if ledger is not None:
            self._core.ledger = ledger
            self._policy = policy

        if contract is not None:
            self._contract = contract

        self._closing = False
        self._closed_waiters = ()
        self._idle_timer = None
        self._snapshot = None
        self._starting = False
        self._entrypoint = entrypoint
        self._definition = definition

    def __repr__(self) -> str:
        return f"<TriggerFlowExecution {self._plan.flow_name!r} {self.id} {self.get_status()}>"

    # -- starting ------------------------------------------------------------------------------------------------

    async def async_start(
        self, initial_value: Any = None, *, timeout: float | None = -1.0, wait_for_result: Any = None
    ) -> Any:
        """Begin the run with ``initial_value``.

        With ``auto_close`` it returns the close snapshot once the execution has closed by itself; otherwise the
        execution, as soon as everything the start led to has finished or paused. Starting again changes nothing.

        Args:
            timeout: sets ``auto_close_timeout`` (seconds; ``None``: never), when given.

        Raises:
            Exception: whatever a chunk raised and nobody caught.
        """
        if timeout is None or timeout >= 0:
            self.auto_close_timeout = timeout

        if wait_for_result is not None:
            ignored("wait_for_result=", "auto_close says what a start waits for")

        if self._lifecycle != "open":
            self._reject(START, initial_value, "start")
            return self

        await self._settle_start(initial_value)
        if not self.auto_close:
            self._on_idle()
            return self

        if self._idle_now():
            snapshot = await self.async_close(reason=IDLE_REASON)
        else:
            self._on_idle()
            await self.wait_closed()
            snapshot = await self.async_close()

        if self._driver.failure is not None:
            raise self._driver.failure  # of a branch nobody awaits; who waits for the whole run must hear of it

        return snapshot

    async def _settle_start(self, initial_value: Any) -> None:
        """Begin the run, and return as soon as everything the start led to has finished or paused."""
        self._thread = threading.get_ident()
        if self._lease is not None:
            await self._lease.open(self)

        if self._restored and self._core.started:
            await self.async_recover()

        self._bind()
        if not self._core.started:
            self._begin(initial_value)
            self._starting = True
            try:
                admitted = initial_value if self._contract is None else self._admitted(initial_value)
                group = self._core.signal(START, admitted, "start")
                waiter = self._driver.begin(group)
                if waiter is not None:
                    await self._driver.wait(group, waiter)
            except BaseException:
                self._starting = False
                self._on_idle()
                raise

            self._starting = False

    def _launch(self, initial_value: Any) -> None:
        """Begin as a sub flow: the operator that runs it waits for its branches."""
        self._thread = threading.get_ident()
        self._bind()
        self._begin(initial_value)
        self._core.signal(START, self._admitted(initial_value), "start")
        self._driver.drain()

    def start(self, initial_value: Any = None, *, timeout: float | None = -1.0, wait_for_result: Any = None) -> Any:
        """Synchronous twin of :meth:`async_start`; needs ``auto_close``, as its event loop ends with the call."""
        if not self.auto_close:
            raise ValueError("start() runs its own event loop; use await async_start() when auto_close is False")

        return self._sync(self.async_start(initial_value, timeout=timeout, wait_for_result=wait_for_result))

    def _idle_now(self) -> bool:
        """Whether the run may close at once: nothing left to do and no idle time asked for."""
        return (
            self.auto_close_timeout is not None
            and self.auto_close_timeout <= 0
            and not self._closing
            and self.is_idle()
            and not self._core.open
        )

    def _begin(self, initial_value: Any) -> None:
        if self._log is not None:
            encode(initial_value, "initial_value")  # refused here, before there is a run

        self._core.started = True
        self._started_us = self._services.clock.time_us()
        if self._driver.gate is not None:
            self._driver.gate.begun(self._started_us)

        if self._deadline_s is not None:
            self._deadline_us = self._started_us + round(self._deadline_s * 1e6)
            self._arm_deadline()

        self._declare()
        if self._services.control is not None:
            self._register()

        event = self._events.execution_started
        if event.sinks:
            payload = {
                "initial_value": initial_value,
                "definition": self._plan.fingerprint,
                "entrypoint": self._entrypoint,
            }
            self._emit_event(event, payload)
        else:
            self._core.seq += 1

        self._signalled(START, initial_value, "start", "event")

    def _declare(self) -> None:
        """Tell observers the definition, once per definition, Event Center and process."""
        event = self._events.definition_declared
        self._core.seq += 1
        if not event.sinks or self._definition is None:
            return

        payload = self._definition.declare_to(self._services.center, self._plan.fingerprint, self._entrypoint)
        if payload is not None:
            self._emit_event(event, payload, seq=self._core.seq)

    def _register(self) -> None:
        control = self._services.control
        if control is None:
            return

        self._observed = True
        run = self.run_context
        meta = run.meta
        control.opened(
            self,
            {
                "flow_name": self._plan.flow_name,
                "entrypoint": self._entrypoint,
                "run_id": run.run_id,
                "root_run_id": run.root_run_id,
                "parent_execution_id": meta.get("parent_execution_id"),
                "definition": self._plan.fingerprint,
                "task_id": meta.get("task_id"),
                "tenant_id": meta.get("tenant_id"),
                "user_id": meta.get("user_id"),
                "started_us": self._started_us,
            },
        )
        control.status(self.id, "running")

    # -- signals from outside ------------------------------------------------------------------------------------

    async def async_emit(self, event: str, value: Any = None, _layer_marks: Any = None) -> None:
        """Emit a signal from outside and wait until its handlers have finished or paused.

        On a sealed or closed execution it is refused with a warning and ``triggerflow.event_rejected``.
        """
        if _layer_marks is not None:
            ignored("_layer_marks=", LANES)

        if self._lifecycle != "open":
            self._reject(event, value, "runtime")
            return

        self._bind()
        try:
            await self._driver.settle(self._emit_external(event, value))
        finally:
            self._on_idle()

    def emit(self, event: str, value: Any = None, _layer_marks: Any = None) -> None:
        """Synchronous twin of :meth:`async_emit`."""
        self._sync(self.async_emit(event, value, _layer_marks))

    def emit_nowait(self, event: str, value: Any = None, _layer_marks: Any = None) -> None:
        """Emit a signal from outside and return at once. Needs the running loop the execution lives on."""
        if _layer_marks is not None:
            ignored("_layer_marks=", LANES)

        if self._lifecycle != "open":
            self._reject(event, value, "runtime")
            return

        self._bind()
        self._emit_external(event, value)
        self._driver.drain()
        self._on_idle()

    async def async_emit_nowait(self, event: str, value: Any = None, _layer_marks: Any = None) -> None:
        """The same as :meth:`emit_nowait`."""
        self.emit_nowait(event, value, _layer_marks)

    def _emit_external(self, name: str, value: Any) -> int:
        check_event_name(name)
        self._active()
        self._core.started = True
        self._signalled(name, value, "runtime", "event")
        if self._core.open:
            self._answered_by_emit(name, value)

        return self._core.signal(name, value, "runtime")

    def _emit_late(self, name: str, value: Any, kind: str) -> int:
        """A handler that has ended left something running, and that emits: a signal from outside by now."""
        if self._lifecycle != "open":
            self._reject(name, value, "chunk")
            return 0

        if kind == "event":
            return self._emit_external(name, value)

        self._active()
        return self._core.signal(name, value, kind, kind)

    def _reject(self, event: str, value: Any, source: str) -> None:
        self._warn(f"signal {event!r} refused, it is {self._lifecycle}")
        signal = {"trigger_event": event, "trigger_type": "event", "value": value, "source": source}
        self._emit_event(self._events.event_rejected, {"lifecycle_state": self._lifecycle, "signal": signal})

    # -- settings ------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """Settings of this execution; what is not set here is the flow's, and then the runtime's."""
        if self._settings is None:
            flow, host = self._definition, self._services.settings
            self._settings = Settings(lambda: (host,) if flow is None else (flow.settings.own, host))

        return self._settings

    # -- runtime resources ---------------------------------------------------------------------------------------

    def get_runtime_resources(self) -> dict[str, Any]:
        """Return the live objects injected into this execution (a new dict, the same objects)."""
        return dict(self._resources)

    def get_runtime_resource(self, key: str, default: Any = None) -> Any:
        return self._resources.get(key, default)

    def require_runtime_resource(self, key: str) -> Any:
        """Return a live object.

        Raises:
            MissingResource: it was not injected.
        """
        if key not in self._resources:
            raise MissingResource(f"runtime resource {key!r} was not injected")

        return self._resources[key]

    def set_runtime_resource(self, key: str, value: Any) -> None:
        self._own_resources()[key] = value

    def del_runtime_resource(self, key: str) -> None:
        self._own_resources().pop(key, None)

    def update_runtime_resources(self, resources: Mapping[str, Any] | None = None, **more: Any) -> None:
        self._own_resources().update(resources or {}, **more)

    def clear_runtime_resources(self) -> None:
        self._own_resources().clear()

    # -- other -----------------------------------------------------------------------------------------------------

    def set_concurrency(self, concurrency: int | None) -> None:
        """Change how many handlers may run at once; ``None`` or 0 is no limit. Running ones are not stopped."""
        self._core.set_concurrency(concurrency or 0)
        self._driver.drain()
