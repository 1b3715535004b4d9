"""Runtime: one object that hosts flows, and the observations attached to it.

Order of calls for an observation::

    runtime.observe(store=...)  ->  entry point "store" -> sink -> center.add_sink
                                    flowdeck.durable.open_control -> services.control
    ...                             executions run; every event reaches the sinks
    observation.close()         ->  center.remove_sink, control flushed and closed, sinks closed

``flowdeck.runtime`` is the default instance; its open observations are closed at interpreter exit within 2 s
(:data:`EXIT_SECONDS`). At SIGTERM sinks that hold something close themselves, unless the application handles it: then
it turns the signal into an exit (``signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))``).
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowdeck._observation import (
    Observation,
    SinkNotAvailable,
    StoreHandle,
    close_sink,
    create_from_spec,
    create_sink,
    left,
)
from flowdeck.events.center import EventCenter
from flowdeck.events.emitter import Emitter
from flowdeck.events.lineage import RunContext
from flowdeck.events.sink import Sink
from flowdeck.execution.control import ControlPlane
from flowdeck.execution.services import Services, set_default_services, use_services

if TYPE_CHECKING:
    from flowdeck.actions.runtime import ActionRuntime
    from flowdeck.agents.agent import Agent
    from flowdeck.durable.store import Retention
    from flowdeck.durable.using import DurableStore
    from flowdeck.environments.manager import ExecutionEnvironmentManager
    from flowdeck.workspace.manager import WorkspaceManager

__all__ = ["Observation", "Runtime", "SinkNotAvailable", "runtime"]

log = logging.getLogger("flowdeck.runtime")

EXIT_SECONDS: Final = 2.0
"""What closing may take at interpreter exit, all observations together."""


class Runtime:
    """Hosts flows: an Event Center, a clock, ports, a control plane and settings.

    Executions remember the runtime they were created in. ``flowdeck.runtime`` is the default; :meth:`use` selects
    another one for a block, so tests and eval rounds stay apart from the application.
    """

    def __init__(self, *, services: Services | None = None, settings: Mapping[str, Any] | None = None) -> None:
        self.services = services if services is not None else Services(center=EventCenter())
        self.services.settings.update(settings or {})
        self._lock = threading.RLock()
        self._stores: dict[Path, StoreHandle] = {}
        self._observations: list[Observation] = []
        self._durable: list[DurableStore] = []
        self._environment_seen = False
        self._actions: ActionRuntime | None = None
        self._workspaces: WorkspaceManager | None = None

    @property
    def center(self) -> EventCenter:
        """The Event Center every event of this runtime passes."""
        return self.services.center

    @property
    def event_center(self) -> EventCenter:
        """The same as :attr:`center`, under the compatible name."""
        return self.services.center

    @property
    def settings(self) -> dict[str, Any]:
        """Settings by name, such as ``runtime.raise_error``; shared with every execution of this runtime."""
        return self.services.settings

    @property
    def actions(self) -> ActionRuntime:
        """The runtime's actions: register them, call them, put them into flows."""
        if self._actions is None:
            from flowdeck.actions.runtime import ActionRuntime

            self._actions = ActionRuntime(self.services)

        return self._actions

    @property
    def execution_environment(self) -> ExecutionEnvironmentManager:
        """What hands out execution environments."""
        from flowdeck.environments.manager import environments_of

        return environments_of(self.services)

    @property
    def workspace(self) -> WorkspaceManager:
        """What opens workspaces, and the profiles they share."""
        if self._workspaces is None:
            from flowdeck.workspace.manager import WorkspaceManager

            self._workspaces = WorkspaceManager(self.services)

        return self._workspaces

    def create_agent(self, name: str | None = None) -> Agent:
        """Return a new agent: a name that holds a session, a workspace and actions together."""
        from flowdeck.agents.agent import Agent

        self._attached()
        return Agent(name, services=self.services, workspaces=self.workspace, shared_actions=lambda: self.actions)

    @contextmanager
    def use(self) -> Iterator[Runtime]:
        """Host the executions created inside the block."""
        with use_services(self.services):
            yield self

    # -- observing -----------------------------------------------------------------------------------------------

    def observe(
        self,
        store: bool | str | os.PathLike[str] | None = None,
        *,
        console: bool | str | None = None,
        otlp: bool | str | None = None,
        sinks: Iterable[Sink | str] = (),
        event_types: str | Iterable[str] | None = None,
        level: str = "INFO",
    ) -> Observation:
        """Attach sinks; everything that happens from now on reaches them. With no argument: the default store.

        Args:
            store: where to keep every event: a directory, or ``True`` for ``FLOWDECK_STORE``, else ``./.flowdeck``.
                Observed executions also register in the store's ``state.db``, so other processes can list and answer.
            console: ``"simple"`` (also ``True``) or ``"detail"``: print events to stderr.
            otlp: the endpoint to export traces to; ``True`` for the standard ``OTEL_*`` variables. Together with
                ``store`` the export reads the store from a saved cursor on and survives outages and restarts.
            sinks: further sinks: objects, or names of installed ones as ``"name"`` or ``"name:target"``.
            event_types: names or patterns; ``None`` means all.
            level: the lowest level wanted. DEBUG events are many.

        Raises:
            SinkNotAvailable: a sink or the extra it needs is not installed; the message names the command.
            StoreError: the store cannot be used. Nothing stays attached.
            ValueError: ``level`` or an option of a sink is wrong.
        """
        further = list(sinks)
        if store is None and console is None and otlp is None and not further:
            store = True

        wanted: list[Sink | str] = []
        if console is not None and console is not False and console != "off":
            wanted.append(f"console:{'simple' if console is True else console}")

        if otlp is not None and otlp is not False:
            wanted.append("otlp" if otlp is True else f"otlp:{otlp}")

        wanted += further
        with self._lock, ExitStack() as undo:
            held: StoreHandle | None = None
            if store is not None and store is not False:
                held = self._hold(None if store is True else store, event_types, level)
                undo.callback(self._release, held, time.monotonic())

            made: list[Sink] = []
            for item in wanted:
                sink = create_from_spec(item) if isinstance(item, str) else item
                made.append(sink)
                undo.callback(close_sink, sink, time.monotonic())
                bind_store = getattr(sink, "bind_store", None)
                if held is not None and bind_store is not None:
                    bind_store(held.sink)

                self.center.add_sink(sink, event_types, level)
                undo.callback(self.center.remove_sink, sink)

            undo.pop_all()

        observation = Observation(self.center, made, held, self._release)
        # Kept here until it is closed: nobody may hold the handle of `runtime.observe(store=True)` as a statement.
        self._observations = [*self._open(), observation]
        return observation

    # -- durability ----------------------------------------------------------------------------------------------

    def use_store(
        self,
        store: Any = None,
        *,
        durability: str = "full",
        retention: Retention | None = None,
        lease: float = 30.0,
    ) -> DurableStore:
        """Make every execution created from now on durable; no flow changes.

        Args:
            store: a directory; ``None`` for ``FLOWDECK_STORE``, else ``./.flowdeck``; the URL of a PostgreSQL store; or
                an execution store such as :class:`flowdeck.durable.MemoryStore`.
            durability: ``"full"`` survives a power cut, ``"process"`` a killed process, ``"exit"`` commits only when a
                run parks or ends.
            retention: forget finished executions by this policy.
            lease: seconds after which other processes may take over from this one when it is stuck.

        Raises:
            StoreError: the store cannot be used.
            ValueError: an unknown durability.
        """
        from flowdeck.durable.using import open_durable

        with self._lock:
            used = open_durable(self.services, store, durability=durability, retention=retention, lease=lease)
            self._durable.append(used)
            return used

    def observe_from_environment(self, environ: Mapping[str, str] | None = None) -> Observation | None:
        """Attach what ``FLOWDECK_STORE`` and ``FLOWDECK_SINKS`` ask for; called at the first execution or emit.

        ``FLOWDECK_STORE`` is a directory. ``FLOWDECK_SINKS`` is a comma-separated list such as
        ``store,console:detail``; ``off`` attaches nothing. A problem is logged and never raised: the program runs
        unobserved.
        """
        env = os.environ if environ is None else environ
        path = env.get("FLOWDECK_STORE", "").strip()
        names = [name.strip() for name in env.get("FLOWDECK_SINKS", "").split(",") if name.strip()]
        if names == ["off"] or not (path or names):
            return None

        store: str | bool | None = path or None
        console: str | None = None
        others: list[str] = []
        for name in names:
            kind, _, target = name.partition(":")
            if kind == "store":
                store = target or path or True
            elif kind == "console":
                console = target or "simple"
            else:
                others.append(name)

        try:
            return self.observe(store, console=console, sinks=others)
        except Exception as problem:
            log.warning("FLOWDECK_STORE / FLOWDECK_SINKS: %s. The program runs unobserved.", problem)
            return None

    def _first_use(self) -> None:
        """Look at the environment once, when something happens for the first time."""
        with self._lock:
            if self._environment_seen:
                return

            self._environment_seen = True
            self.settings.pop("on_first_use", None)
            self.observe_from_environment()

    def _hold(
        self, target: str | os.PathLike[str] | None, event_types: str | Iterable[str] | None, level: str
    ) -> StoreHandle:
        """Return the shared store of a path, opened when this is its first observation."""
        from flowdeck.layout import resolve_store

        wanted = resolve_store(target).resolve()
        known = self._stores.get(wanted)
        if known is None:
            sink = create_sink("store", str(resolve_store(target)))
            try:
                known = StoreHandle(sink, getattr(sink, "store", wanted), self._open_control(sink, wanted))
                self.center.add_sink(sink, event_types, level)
            except BaseException:
                close_sink(sink, time.monotonic() + 1.0)
                raise

            self._stores[wanted] = known
            if self.services.control is None:
                self.services.control = known.control
        else:
            self.center.narrow_sink(known.sink, None)  # who comes second wants more than what the first one watches

        known.users += 1
        return known

    def _open_control(self, sink: Sink, store: Path) -> ControlPlane | None:
        from flowdeck.durable.control import open_control

        return open_control(store, lambda: str(getattr(sink, "writer", "")), on_problem=self._control_problem)

    def _control_problem(self, kind: str, message: str) -> None:
        """Say as an event what is wrong with the control store; called once per outage, from any thread."""
        log.warning("control store: %s", message)
        self.center.report("runtime.control_problem", {"kind": kind, "message": message})

    def _release(self, store: StoreHandle, deadline: float) -> None:
        with self._lock:
            store.users -= 1
            if store.users:
                return

            self._stores = {path: known for path, known in self._stores.items() if known is not store}
            self.center.remove_sink(store.sink)
            if self.services.control is store.control:
                self.services.control = next((known.control for known in self._stores.values()), None)

        # Control first: its rows name a writer, whose lock the sink gives up.
        if store.control is not None:
            store.control.close(left(deadline))

        close_sink(store.sink, deadline)

    # -- emitting ------------------------------------------------------------------------------------------------

    def emit(self, event: Any) -> None:
        """Emit a mapping or an ObservationEvent. Never raises."""
        self._attached().emit(event)

    async def async_emit(self, event: Any) -> None:
        """Emit a mapping or an ObservationEvent and return after the matching hooks ran. Never raises."""
        await self._attached().async_emit(event)

    emit_observation = emit
    async_emit_observation = async_emit
    emit_runtime = emit
    async_emit_runtime = async_emit

    def create_emitter(
        self,
        source: str | None = None,
        *,
        base_meta: Mapping[str, Any] | None = None,
        base_run: RunContext | None = None,
    ) -> Emitter:
        """Return an emitter that stamps ``source``, ``base_meta`` and ``base_run`` on its events."""
        return self._attached().create_emitter(source, base_meta=base_meta, base_run=base_run)

    def _attached(self) -> EventCenter:
        if not self._environment_seen and "on_first_use" in self.settings:
            self._first_use()

        return self.services.center

    # -- ending --------------------------------------------------------------------------------------------------

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until hooks and observations have everything, at most ``timeout`` seconds. Return whether they have."""
        deadline = time.monotonic() + timeout
        done = self.center.flush(timeout)
        for observation in self._open():
            done = observation.flush(left(deadline)) and done

        return done

    def close(self, timeout: float = 5.0) -> None:
        """Close every observation and the Event Center's sinks, within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        if self.services.environments is not None:
            self.services.environments.close()

        for used in self._durable:
            used.close(left(deadline) / 2)

        self.center.flush(left(deadline) / 2)
        for observation in self._open():
            observation.close(left(deadline))

        self.center.close(left(deadline))

    def statistics(self) -> dict[str, Any]:
        """Return the Event Center's counters: types, quarantine, sinks and hooks."""
        return self.center.statistics()

    def _open(self) -> list[Observation]:
        return [observation for observation in self._observations if not observation.closed]


runtime: Final = Runtime()
"""The default runtime: it hosts every flow nobody placed elsewhere."""

runtime.settings["on_first_use"] = runtime._first_use
set_default_services(runtime.services)


def _close_at_exit() -> None:
    runtime.close(EXIT_SECONDS)


atexit.register(_close_at_exit)
