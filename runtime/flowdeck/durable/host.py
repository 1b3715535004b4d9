"""The host of a process's durable executions: it lets parked ones go and takes them up again.

A parked execution is a few rows in the store. If the program holds its handle, that stays usable; if not, the object
is dropped, and the host makes it anew from the store when a request comes or its time has come. The host also says
that the process lives (a lease, one row for all), so that others know when they may take over.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

from flowdeck.durable._alarm import Alarm
from flowdeck.durable._hosted import HostedStore
from flowdeck.durable._overtaken import overtaken, tell_overtaken
from flowdeck.durable.recovery import BlockedVersion, restore
from flowdeck.durable.store import Claim, Stored
from flowdeck.errors import ExecutionError, FlowdeckError, MissingResource, SnapshotError
from flowdeck.execution.control import InboxRow
from flowdeck.execution.ports import SystemClock
from flowdeck.execution.services import Services
from flowdeck.layout import StoreError
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution

__all__ = ["LEASE_SECONDS", "Host", "Hosted"]

LEASE_SECONDS: Final = 30.0
"""After so long without a beat a living process counts as stuck, and others may take its executions over."""

_log = logging.getLogger("flowdeck.durable")


class Hosted:
    """What the inbox delivers to: an execution of this process, in memory or not."""

    __slots__ = ("flow", "host", "id", "loop", "resources", "strong", "token", "wake_us", "weak")

    def __init__(self, host: Host, execution: TriggerFlowExecution) -> None:
        self.host = host
        self.id = execution.id
        self.flow: TriggerFlow = execution._definition
        self.strong: TriggerFlowExecution | None = execution
        self.weak = weakref.ref(execution)
        self.loop = execution._driver.loop
        self.resources: dict[str, Any] = {}
        self.token = 1
        self.wake_us: int | None = None

    @property
    def execution(self) -> TriggerFlowExecution | None:
        """The object, if it is in memory."""
        return self.strong if self.strong is not None else self.weak()

    def deliver(self, row: InboxRow) -> None:
        """Take an inbox row, on the watcher's thread."""
        execution = self.execution
        loop = self.loop if execution is None else execution._driver.loop
        if loop is None or loop.is_closed():
            self.host.let_go(self)
        elif execution is not None:
            execution.deliver(row)
        else:
            loop.call_soon_threadsafe(self.host.revive, self)


class Host:
    """Keeps the durable executions of one runtime.

    Args:
        store: where they are committed.
        services: what executions that are taken up are hosted by.
        lease: seconds; see :data:`LEASE_SECONDS`.
    """

    def __init__(self, store: HostedStore, services: Services, *, lease: float = LEASE_SECONDS) -> None:
        self.store = store
        self.services = services
        self.lease = lease
        self.flows: weakref.WeakValueDictionary[str, TriggerFlow] = weakref.WeakValueDictionary()
        self.resources: Callable[[], Mapping[str, Any]] | None = None
        """Gives the runtime resources of every execution that is taken up; a worker's ``--resources``."""
        self.on_taken_up: Callable[[TriggerFlowExecution, Claim], None] | None = None
        self.on_ended: Callable[[TriggerFlowExecution], None] | None = None
        self.on_refused: Callable[[str, FlowdeckError], None] | None = None
        self._hosted: dict[str, Hosted] = {}
        self._reviving: dict[str, asyncio.Task[Any]] = {}
        self._taking: dict[str, asyncio.Task[TriggerFlowExecution]] = {}
        self._alarms: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Alarm] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None
        store.on_host, store.on_rest, store.on_open = self._new, self._rests, self._stand_in
        store.on_reopen = self.reopen

    # -- what the store tells ------------------------------------------------------------------------------------

    def _new(self, execution: TriggerFlowExecution) -> None:
        flow = execution._definition
        if flow is not None:
            self.flows[flow.name] = flow

    def _stand_in(self, execution: Any) -> Any:
        """Return what the inbox shall deliver to, in place of an execution that is being registered."""
        log = getattr(execution, "_log", None)
        if log is None or execution._definition is None:
            return execution  # the child of a sub flow

        hosted = self._hosted.get(execution.id)
        if hosted is None or hosted.weak() is not execution:
            hosted = Hosted(self, execution)
            self._hosted[execution.id] = hosted

        hosted.token = log.token
        self._beat()
        return hosted

    def _rests(self, execution: TriggerFlowExecution, wake_us: int | None) -> None:
        """It has come to rest, or (with -1) stirs again. Called on its loop."""
        hosted = self._hosted.get(execution.id)
        if hosted is None or hosted.weak() is not execution:
            return

        registry = hosted.flow._executions
        log = execution._log
        if execution.is_closed() or (log is not None and log.error is not None):
            self._hosted.pop(execution.id, None)
            if execution.is_closed() and self.on_ended is not None:
                self.on_ended(execution)
        elif wake_us == -1:
            hosted.strong = execution
            registry.stir(execution)
            execution._rearm()
        elif _may_leave(execution):
            hosted.loop = execution._driver.loop
            own = execution._resources
            hosted.resources = {k: v for k, v in own.items() if hosted.flow._resources.get(k) is not v}
            hosted.strong, hosted.wake_us = None, wake_us
            registry.rest(execution)
            execution._rest()
            if wake_us is not None and hosted.loop is not None:
                self._alarm(hosted.loop).set(hosted, wake_us)

    def let_go(self, hosted: Hosted) -> None:
        """Nobody can run it here any more: its event loop has ended. Another process may take it up."""
        if self._hosted.pop(hosted.id, None) is not None:
            try:
                self.store.release(hosted.id, hosted.token)
            except (StoreError, ExecutionError) as problem:
                _log.warning("execution %s could not be released: %s", hosted.id, problem)

    # -- taking up -----------------------------------------------------------------------------------------------

    def revive(self, hosted: Hosted) -> None:
        """A request or the time has come for a parked execution of this process. Called on its loop."""
        execution = hosted.execution
        if execution is not None:
            self._rests(execution, -1)
            execution._on_idle()
        elif hosted.id not in self._reviving:
            task = asyncio.get_running_loop().create_task(self._revive(hosted))
            self._reviving[hosted.id] = task

    async def _revive(self, hosted: Hosted) -> None:
        try:
            await self.take_up(hosted.id, flow=hosted.flow, resources=hosted.resources, token=hosted.token)
        except (FlowdeckError, StoreError) as problem:
            _log.warning("execution %s could not be taken up again: %s", hosted.id, problem)
        finally:
            self._reviving.pop(hosted.id, None)

    async def take_up(
        self,
        execution_id: str,
        *,
        flow: TriggerFlow | None = None,
        resources: Mapping[str, Any] | None = None,
        token: int | None = None,
        force: bool = False,
    ) -> TriggerFlowExecution:
        """Claim an execution, make it anew from the store, and let it go on in the running loop.

        Who asks while it is being taken up here gets the same: a second claim would fence the first one out.

        Raises:
            ExecutionNotFound, ExecutionBusy, ExecutionError: it cannot be claimed.
            BlockedVersion, MissingResource, SnapshotError: it cannot go on here; it is given back.
        """
        loop = asyncio.get_running_loop()
        taking = self._taking.get(execution_id)
        if taking is not None and taking.get_loop() is loop:
            return await asyncio.shield(taking)

        taking = self._taking[execution_id] = loop.create_task(
            self._take_up(execution_id, flow, resources, token, force)
        )
        taking.add_done_callback(lambda done: self._taken(execution_id, done))
        return await asyncio.shield(taking)

    def _taken(self, execution_id: str, task: asyncio.Task[TriggerFlowExecution]) -> None:
        if self._taking.get(execution_id) is task:
            del self._taking[execution_id]

        if not task.cancelled():
            task.exception()  # whoever asked may be gone

    async def _take_up(
        self,
        execution_id: str,
        flow: TriggerFlow | None,
        resources: Mapping[str, Any] | None,
        token: int | None,
        force: bool,
    ) -> TriggerFlowExecution:
        claim = await self.store.claim_soon(execution_id, token=token, force=force)
        flow = flow or self.flows.get(claim.flow_name)
        try:
            if flow is None:
                raise SnapshotError(f"execution {execution_id} runs flow {claim.flow_name!r}, which is not here")

            execution = restore(flow, claim, self.services, self._resources_for(flow, resources))
        except FlowdeckError as problem:
            await asyncio.to_thread(self._give_back, claim, problem)
            if self.on_refused is not None:
                self.on_refused(execution_id, problem)

            raise

        if self.on_taken_up is not None:
            self.on_taken_up(execution, claim)

        if execution._lease is not None:
            await execution._lease.open(execution)

        execution._bind()
        intent = execution._log.take_intent() if execution._log is not None else None
        if intent is not None:
            execution._services_task(_finish(execution, *intent))

        return execution

    async def reopen(self, flow: TriggerFlow, execution_id: str) -> TriggerFlowExecution | None:
        """Return the handle of an execution that the store has, or ``None``: one that lives here, else it is taken up;
        of a finished one a closed handle with its result.

        Raises:
            ExecutionBusy: another process runs it.
            BlockedVersion, MissingResource, SnapshotError: it cannot go on here.
        """
        row = None
        if self._here(execution_id) is None:
            row = await asyncio.to_thread(self.store.get_execution, execution_id)

        here = self._here(execution_id)  # again: a second claim would fence out who has taken it up meanwhile
        if here is not None or row is None:
            return here

        if row.finished_us is None:
            try:
                return await self.take_up(execution_id, flow=flow)
            except ExecutionError:
                row = await asyncio.to_thread(self.store.get_execution, execution_id)
                if row is None or row.finished_us is None:
                    raise  # it has not ended meanwhile

        stored = await asyncio.to_thread(self.store.load, execution_id)
        fields = {name: getattr(stored, name) for name in Stored.__struct_fields__}
        ended = restore(
            flow, Claim(**fields, token=1, flow_name=flow.name), self.services, dict.fromkeys(stored.resource_keys)
        )
        ended.stream.end()  # its items are all there; whoever reads them must not wait for more
        return ended

    def _here(self, execution_id: str) -> TriggerFlowExecution | None:
        hosted = self._hosted.get(execution_id)
        return hosted.execution if hosted is not None else None

    def _resources_for(self, flow: TriggerFlow, more: Mapping[str, Any] | None) -> dict[str, Any]:
        given = self.resources() if self.resources is not None else {}
        return {**flow.provided_resources(), **given, **(more or {})}

    def _give_back(self, claim: Claim, problem: FlowdeckError) -> None:
        # A missing resource is this process's lack; anything else stays wrong until somebody changes something.
        blocked = None if isinstance(problem, MissingResource) else str(problem)
        self.store.release(claim.execution_id, claim.token, blocked=blocked)
        if isinstance(problem, BlockedVersion):
            _log.warning("%s", problem)

    # -- time ----------------------------------------------------------------------------------------------------

    def _alarm(self, loop: asyncio.AbstractEventLoop) -> Alarm:
        alarm = self._alarms.get(loop)
        if alarm is None:
            alarm = self._alarms[loop] = Alarm(self, loop)

        return alarm

    def _beat(self) -> None:
        """Begin to say that this process lives, if it does not yet."""
        if self._beating is not None:
            return

        with self._lock:
            if self._beating is None and not self._stop.is_set():
                self._beating = threading.Thread(target=self._beats, name="flowdeck-lease", daemon=True)
                self._beating.start()

    def _beats(self) -> None:
        while True:
            try:
                self.store.heartbeat(self.lease)
            except StoreError as problem:
                _log.warning("the lease could not be renewed: %s", problem)

            self._tell_all()
            self.look_around()
            if self._stop.wait(self.lease / 3):
                return

            with self._lock:
                if not self._hosted:
                    self._beating = None
                    return

    def _tell_all(self) -> None:
        # A method of its own: what the thread's frame refers to while it sleeps could not leave the memory.
        for hosted in list(self._hosted.values()):
            _tell_alive(hosted)

    def look_around(self) -> None:
        """Let those that another process has taken over meanwhile know, and their readers with them."""
        try:
            for hosted in overtaken(self.store, self._hosted.values()):
                tell_overtaken(hosted)
        except StoreError as problem:
            _log.warning("it could not be seen who was taken over: %s", problem)

    def leave(self, hosted: Hosted) -> bool:
        """Another process has claimed it meanwhile. Tell whether it can be taken up anew; in memory it ends first."""
        if hosted.execution is not None:
            tell_overtaken(hosted)
            return False

        return self._hosted.get(hosted.id) is hosted and self._hosted.pop(hosted.id, None) is not None

    # -- the end -------------------------------------------------------------------------------------------------

    @property
    def hosted(self) -> dict[str, Hosted]:
        """Open executions of this process, in memory or parked."""
        return dict(self._hosted)

    def close(self, timeout: float) -> None:
        """Commit what is left of every execution and let them all go."""
        self._stop.set()
        for hosted in list(self._hosted.values()):
            execution = hosted.execution
            if execution is not None and execution._log is not None:
                execution._log.suspend()

        self._hosted.clear()
        self.store.close(timeout)


def _may_leave(execution: TriggerFlowExecution) -> bool:
    """Whether a parked execution can be made anew from the store alone, and nothing in this process waits for it."""
    services = execution._services
    return isinstance(services.clock, SystemClock) and services.answerer is None and execution._policy is None


def _tell_alive(hosted: Hosted) -> None:
    """Let an active execution say that it lives, on its own loop."""
    execution = hosted.strong
    loop = None if execution is None else execution._driver.loop
    if execution is not None and loop is not None and not loop.is_closed():
        try:
            loop.call_soon_threadsafe(execution._heartbeat)
        except RuntimeError:
            pass  # it was closed just now


async def _finish(execution: TriggerFlowExecution, action: str, reason: str) -> None:
    """Go on with what was under way when the process ended: the run was being cancelled, or closed."""
    try:
        if action == "cancel":
            await execution.async_cancel(reason=reason)
        else:
            await execution.async_close(reason=reason)
    except ExecutionError as problem:
        _log.warning("execution %s could not be ended: %s", execution.id, problem)
