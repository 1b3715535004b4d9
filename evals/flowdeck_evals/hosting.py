"""Running one round in a Runtime of its own.

A place (one per concurrent round) keeps an Event Center between rounds, because making one costs ten times what a
small flow costs to run (330 us against 33). It is used by one round at a time and thrown away as soon as a round may
have left something behind in it: a hook, a sink, or a handler that did not end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from inspect import isawaitable, iscoroutinefunction
from itertools import repeat
from typing import Any, Final, overload

import msgspec

from flowdeck._runtime import Runtime
from flowdeck.events.center import EventCenter
from flowdeck.events.lineage import current_run, run_context
from flowdeck.events.record import EventRecord
from flowdeck.events.sink import Sink
from flowdeck.execution.ports import Clock, Ports, SystemClock
from flowdeck.execution.services import Services
from flowdeck_evals.happenings import Happening, paused_us
from flowdeck_evals.plans import RoundPlan
from flowdeck_evals.rounds import Evidence
from flowdeck_evals.targets import is_flow

__all__ = ["Happenings", "Place"]

GRACE: Final = 1.0
"""Seconds a cancelled target gets to clean up before it is left behind."""
_DECLARED: Final = "triggerflow.definition_declared"
"""Once per Event Center and so no part of a round."""
_decode = msgspec.json.Decoder().decode
_FINAL_RESULT: Final = "$final_result"


class Happenings(Sequence[Happening]):
    """The events of a round, decoded when somebody looks: most rounds nobody does."""

    __slots__ = ("_lines", "_made", "_times")

    def __init__(self, lines: list[bytes], times: list[int]) -> None:
        self._lines = lines
        self._times = times
        """Virtual microseconds of each, or nothing."""
        self._made: list[Happening] | None = None

    def _all(self) -> list[Happening]:
        if self._made is None:
            times = self._times or repeat(None)
            self._made = [Happening.of_line(_decode(line), at) for line, at in zip(self._lines, times, strict=False)]

        return self._made

    @property
    def lines(self) -> list[bytes]:
        """The events as they are stored."""
        return self._lines

    @overload
    def __getitem__(self, index: int) -> Happening: ...
    @overload
    def __getitem__(self, index: slice) -> list[Happening]: ...
    def __getitem__(self, index: int | slice) -> Happening | list[Happening]:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Happening]:
        return iter(self._all())


class _Collector:
    """A sink that keeps the encoded events of the present round, and shows them to its plan."""

    name = "eval-round"

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.times: list[int] = []
        self.clock: Clock | None = None
        self.observers: Sequence[Callable[[EventRecord], None]] = ()

    def accept(self, record: EventRecord) -> None:
        if record.event_type != _DECLARED:
            self.lines.append(record.encoded)
            if self.clock is not None:
                self.times.append(self.clock.time_us())

            for observe in self.observers:
                observe(record)

    def flush(self, timeout: float) -> bool:
        return True

    def close(self, timeout: float) -> None:
        pass

    def statistics(self) -> dict[str, int | float | str]:
        return {"accepted": len(self.lines), "dropped": 0}


class Place:
    """Where one round at a time runs.

    Args:
        journal: gets the events of flows, too, so that results join their runs in the store.
    """

    def __init__(self, journal: Sink | None = None) -> None:
        self._journal = journal
        self._center: EventCenter | None = None
        self._collector = _Collector()
        self._debug = False

    def _ready(self, debug: bool) -> EventCenter:
        center = self._center
        if center is None or debug != self._debug:
            center = self._center = EventCenter()
            self._collector = _Collector()
            self._debug = debug
            center.add_sink(self._collector, None, "DEBUG" if debug else "INFO")
            if self._journal is not None:
                center.add_sink(self._journal, None, "INFO")

        self._collector.lines, self._collector.times = [], []
        return center

    def _clean(self, center: EventCenter) -> bool:
        return not center._hooks and len(center.sinks()) == 1 + (self._journal is not None)

    async def run(
        self,
        target: Any,
        value: Any,
        plan: RoundPlan,
        *,
        timeout: float | None,
        debug: bool = False,
        tags: dict[str, Any] | None = None,
    ) -> Evidence:
        """Run the target once and return what happened. The target's own errors are evidence; nothing is raised.

        Args:
            timeout: seconds on the wall after which it is cancelled.
            debug: also keep DEBUG events.
            tags: enter the meta of the runs it makes.
        """
        center = self._ready(debug or plan.debug)
        collector = self._collector
        services = Services(center=center, clock=plan.clock or SystemClock(), ports=plan.ports or Ports())
        plan.attach(services)
        collector.clock, collector.observers = plan.clock, plan.observers
        runtime = Runtime(services=services)
        evidence = Evidence()
        work = _FlowWork(target, plan, services) if is_flow(target) else _CallableWork(target)
        began_us = services.clock.time_us() if plan.clock is not None else 0
        began = time.perf_counter_ns()
        with runtime.use():
            task = asyncio.ensure_future(self._guarded(work, value, evidence, tags))

        done = await _ended(task, timeout)
        evidence.wall_us = (time.perf_counter_ns() - began) // 1000
        if plan.clock is not None:
            evidence.virtual_us = services.clock.time_us() - began_us

        if not done:
            evidence.timed_out = True
            evidence.error_type, evidence.error_message = "TimeoutError", f"not done after {timeout:g} s"
            task.cancel()
            if not await _ended(task, GRACE):
                evidence.error_message += "; it ignored its cancellation and was left behind"

            await work.stop()

        if not done or not self._clean(center):
            self._center = None  # whatever still runs there goes on writing into the old one

        evidence.run_id, evidence.execution_id = work.run_id, work.execution_id
        evidence.events = Happenings(collector.lines, collector.times)
        evidence.work_us = _work_us(evidence)
        return evidence

    async def _guarded(self, work: Any, value: Any, evidence: Evidence, tags: dict[str, Any] | None) -> None:
        current_run.set(None)
        try:
            await work.run(value, evidence, tags or {})
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise

            _failed(evidence, error)
        except (KeyboardInterrupt, SystemExit) as error:
            # The target's own exit is its failure, not the end of the evaluation.
            _failed(evidence, RuntimeError(f"{type(error).__name__}: {error}"))
        except Exception as error:
            _failed(evidence, error)


class _FlowWork:
    def __init__(self, flow: Any, plan: RoundPlan, services: Services) -> None:
        self._flow, self._plan, self._services = flow, plan, services
        self._made: list[Any] = []
        """One, or one more per restart."""
        self.run_id: str | None = None
        self.execution_id: str | None = None

    async def run(self, value: Any, evidence: Evidence, tags: dict[str, Any]) -> None:
        def make() -> Any:
            with run_context(**tags):
                execution = self._flow.create_execution(auto_close_timeout=0.0, services=self._services)

            self._made.append(execution)
            self.execution_id, self.run_id = execution.id, execution.run_context.run_id
            return execution

        self._plan.make = make
        try:
            snapshot = await self._plan.drive(make(), value)
        except BaseException:
            # Asked for here, so that a failed run, too, ends with its last event.
            if self._made and not self._made[-1].is_closed():
                await self._made[-1].async_cancel(reason="the round ended with an error")

            raise
        finally:
            forget = getattr(self._flow, "remove_execution", lambda execution: None)
            for execution in self._made:
                forget(execution)

        evidence.snapshot = snapshot
        evidence.output = snapshot.get(_FINAL_RESULT, snapshot) if isinstance(snapshot, dict) else snapshot

    async def stop(self) -> None:
        for execution in self._made:
            if not execution.is_closed():
                try:
                    async with asyncio.timeout(GRACE + 1.0):
                        await execution.async_cancel(reason="timeout")
                except Exception:
                    pass  # it is left behind; the round says timed_out either way


class _CallableWork:
    run_id: str | None = None
    execution_id: str | None = None

    def __init__(self, target: Any) -> None:
        self._target = target

    async def run(self, value: Any, evidence: Evidence, tags: dict[str, Any]) -> None:
        target = self._target
        if iscoroutinefunction(target) or iscoroutinefunction(getattr(target, "__call__", None)):  # noqa: B004
            evidence.output = await target(value)
            return

        # In a thread, so that a timeout can leave it; a daemon, so that it cannot keep the process from ending.
        found = await _in_thread(target, value)
        evidence.output = await found if isawaitable(found) else found

    async def stop(self) -> None:
        pass


async def _in_thread(target: Any, value: Any) -> Any:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_result(result) if error is None else future.set_exception(error)

    def work() -> None:
        try:
            outcome, error = context.run(target, value), None
        except BaseException as problem:
            outcome, error = None, problem if isinstance(problem, Exception) else RuntimeError(repr(problem))

        try:
            loop.call_soon_threadsafe(settle, outcome, error)
        except RuntimeError:
            pass  # the loop has ended; nobody waits any more

    threading.Thread(target=work, name="eval-round", daemon=True).start()
    return await future


async def _ended(task: asyncio.Future[Any], timeout: float | None) -> bool:
    """Wait for a task; cancelled from outside, cancel it first and give it its grace."""
    try:
        done, _ = await asyncio.wait((task,), timeout=timeout)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait((task,), timeout=GRACE)
        raise

    return bool(done)


def _failed(evidence: Evidence, error: BaseException) -> None:
    evidence.error = error
    evidence.error_type = type(error).__name__
    evidence.error_message = str(error)[:2000]


def _work_us(evidence: Evidence) -> int | None:
    """Return the wall time less the time the run waited for people; only flows tell of that."""
    if evidence.execution_id is None or not len(evidence.events):
        return evidence.wall_us

    if not any(b'"triggerflow.execution_waiting"' in line for line in evidence.events.lines):  # type: ignore[attr-defined]
        return evidence.wall_us

    return max(0, evidence.wall_us - paused_us(evidence.events))
