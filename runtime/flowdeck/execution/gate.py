"""The commit gate: what a durable execution's driver asks before and after each handler.

No handler starts, and no stream item leaves, before the inputs that led to it are committed. A step that must not run
twice (``replay_safe=False``) is noted as begun, and that is committed, before it runs; if the process ends in it,
nobody runs it again: an interrupt asks *retry*, *skip with value* or *fail*.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from flowdeck.definition.plan import PlanOp
from flowdeck.errors import HandlerFailed
from flowdeck.execution.recording import shorten
from flowdeck.execution.state import CANCELLING, Task
from flowdeck.execution.stream import Deferred, RuntimeStream
from flowdeck.execution.streaming import InterruptItem
from flowdeck.execution.values import copy_loosely, encode

if TYPE_CHECKING:
    from flowdeck.execution.driver import Driver
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.input_log import InputLog
    from flowdeck.execution.recording import RecordedCore

__all__ = ["RERUN_SCHEMA", "Gate", "GatedStream"]

_BEGUN: Final = "B:begun:0"
RERUN_SCHEMA: Final = {
    "type": "object",
    "properties": {"action": {"enum": ["retry", "skip", "fail"]}, "value": {}, "reason": {"type": "string"}},
    "required": ["action"],
    "additionalProperties": False,
}
"""What an answer to ``replay_unsafe`` looks like; ``value`` is the step's result when it is skipped."""
_SCALARS: Final = frozenset({int, bool, type(None)})


class Gate:
    """One driver's side of the log; a sub flow's driver has its own, over the same log."""

    __slots__ = ("_driver", "log")

    def __init__(self, log: InputLog, driver: Driver) -> None:
        self.log = log
        self._driver = driver

    @property
    def error(self) -> BaseException | None:
        """Why nothing is committed any more, if so."""
        return self.log.error

    async def committed(self) -> None:
        """Return once everything recorded so far is committed."""
        await self.log.committed()

    def leaves(self, task: Task, exc: BaseException) -> bool:
        """Whether a handler ended because its process stops or has lost the run: then the run goes on elsewhere."""
        if self.log.error is not None:
            return True

        current = asyncio.current_task()
        if not isinstance(exc, asyncio.CancelledError) or task.status == CANCELLING or current is None:
            return False

        if not current.cancelling():
            return False

        self.log.suspend()
        return True

    async def enter(self, task: Task, op: PlanOp) -> bool:
        """Wait until ``task`` may run. Returns ``False`` when it shall not: it was stopped, asked about or skipped."""
        core = self._core
        log = self.log
        if core.ledger is not None:
            self._record_view(core, task)

        try:
            await log.committed()
            if log.due:
                await self._back_off(core, task)

            go = op.replay_safe or await self._may_run(core, task, op)
        except asyncio.CancelledError:
            return self._stopped(task)
        except Exception:
            if log.error is None:
                raise

            return False

        if task.status == CANCELLING:
            core.stopped(task)
            return False

        return go

    @property
    def _core(self) -> RecordedCore:
        core: RecordedCore = self._driver.core  # type: ignore[assignment]
        return core

    def _record_view(self, core: RecordedCore, task: Task) -> None:
        """The interventions an activation sees were fixed right before: keep that with its tags."""
        self.log.steered(core)
        for tag, outcome in (task.tags or {}).items():
            if outcome and outcome[0] == "view" and core.log is not None:
                core.log.add(["v", core.child, core.seq, task.rec, tag, outcome])

    async def _back_off(self, core: RecordedCore, task: Task) -> None:
        """A retry's wait goes on where the process that ended had left it."""
        due = self.log.due.pop((core.child, task.num), 0)
        clock = self._driver.services.clock
        while (left := due - clock.time_us()) > 0:
            await clock.sleep(left / 1e6)

    def _stopped(self, task: Task) -> bool:
        """The branch was cancelled while it waited: by the core, with the whole loop, or because the run moved on."""
        if self.log.error is not None:
            return False

        if task.status != CANCELLING:
            self.log.suspend()
            raise asyncio.CancelledError

        current = asyncio.current_task()
        if current is not None:
            current.uncancel()

        self._driver.core.stopped(task)
        return False

    # -- sub flows -----------------------------------------------------------------------------------------------

    def adopt(self, task: Task, frame_id: str, child: TriggerFlowExecution) -> None:
        """A sub flow begins: its inputs go to the same log."""
        self.log.adopt(self._core, task, frame_id, child)

    def drop(self, num: int, frame_id: str, child: TriggerFlowExecution, record: Any) -> None:
        """A sub flow is over."""
        self.log.drop(self._core, num, frame_id, child, record)

    # -- steps that must not run twice ---------------------------------------------------------------------------

    async def _may_run(self, core: RecordedCore, task: Task, op: PlanOp) -> bool:
        tags = task.tags or {}
        if _BEGUN not in tags:
            core.mark(task, _BEGUN)
            await self.log.committed()
            return True

        asked = tags.get(f"q:rerun:{task.attempt}")
        if asked is None:
            self._ask(core, task, op)
            return False

        verdict = core.interrupts[asked[1]].response
        task.interrupt = None
        if verdict["action"] == "retry":
            self._driver.runs_again(task.num, True)
            return True

        self._driver.runs_again(task.num, False)
        if verdict["action"] == "skip":
            following = core.done(task, verdict.get("value"))
            if following is not None:
                core.out.append(following)
        else:
            reason = verdict.get("reason") or "given up after a crash"
            error = HandlerFailed(f"chunk {op.name!r} must not run twice: {reason}")
            self._driver.keep_error(task.group, error)
            core.failed(task, "HandlerFailed", str(error))

        return False

    def _ask(self, core: RecordedCore, task: Task, op: PlanOp) -> None:
        driver = self._driver
        payload = {
            "question": f"Step {op.name!r} must not run twice, and was running when its process ended. "
            "Retry it, skip it with a value, or fail?",
            "chunk": op.name,
            "scope": core.scope(task),
            "attempt": task.attempt,
            "idempotency_key": f"{core.execution_id}:t{task.num}",
            "input": copy_loosely(task.value),
        }
        now = driver.services.clock.time_us()
        interrupt = core.ask_rerun(task, f"q:rerun:{task.attempt}", now, payload, RERUN_SCHEMA)
        driver.runs_again(task.num, False)
        driver.execution._announce(interrupt, "pause", driver.run)
        core.done(task, None)

    # -- results, data and items ---------------------------------------------------------------------------------

    def prepare(self, task: Task, result: Any) -> None:
        """Check a handler's result while its failure can still be the handler's.

        Raises:
            UnencodableValue: the result goes on to another step and cannot be stored; names the operator and the path.
        """
        core = self._core
        if type(result) not in _SCALARS and core.wants(task):
            self.log.prepared = (result, encode(result, core._where(task)))

    def check(self, task: Task, value: Any) -> None:
        """Refuse a value that cannot be stored.

        Raises:
            UnencodableValue: names the operator and the path.
        """
        encode(value, self._core._where(task))

    def begun(self, started_us: int) -> None:
        """The execution has started."""
        core = self._core
        self.log.add(["B", core.child, core.seq, started_us])

    def flow_data_changed(self, kind: str, key: str, value: Any) -> None:
        """A handler has changed the flow's shared data; a fresh process finds it again."""
        core = self._core
        self.log.add(["f", core.child, core.seq, kind, key, encode(value)])

    def lifecycle(self) -> None:
        """The execution was sealed, unsealed, cancelled or closed."""
        execution = self._driver.execution
        core = self._core
        self.log.add(
            [
                "l",
                core.child,
                core.seq,
                execution._lifecycle,
                execution._close_reason,
                execution._closed_us,
                execution._cancelled,
                core.version,
                execution._intent(),
            ]
        )


class GatedStream(RuntimeStream):
    """A runtime stream whose items leave once what led to them is committed. They are part of the log."""

    __slots__ = ("_ending", "_execution", "_log")

    def __init__(self, log: InputLog) -> None:
        super().__init__()
        self._log = log
        self._execution = log.execution
        self._ending = False

    def put(self, item: Any) -> None:
        """Record ``item`` and hold it back.

        Raises:
            UnencodableValue: the item cannot be stored.
        """
        if self._ending or self._log.error is not None:
            return

        core = self._execution._core
        if isinstance(item, InterruptItem) and item._execution_id == core.execution_id:
            self._log.add(["U", 0, core.seq, item._action, shorten(item._interrupt.id, core.execution_id)])
        else:
            built = item.build() if isinstance(item, Deferred) else item
            self._log.add(["u", 0, core.seq, encode(built, "stream item")])

        if self._log.gated:
            self._log.hold(item)
        else:
            super().put(item)

    def close(self) -> bool:
        """End the stream after the last item that is held back."""
        was_open, self._ending = not self._ending, True
        if self._log.gated and self._log.error is None and not self._log.idle:
            self._log.hold(_END)
        else:
            super().close()

        return was_open

    def rest(self) -> None:
        """The run waits: readers hear of it after the last item that is held back."""
        if self._log.gated and self._log.error is None and not self._log.idle:
            self._log.hold_behind(_REST)
        else:
            super().rest()

    def release(self, item: Any) -> None:
        """Hand out an item that is committed."""
        if item is _END:
            RuntimeStream.close(self)
        elif item is _REST:
            RuntimeStream.rest(self)
        else:
            RuntimeStream.put(self, item)

    def refill(self, items: list[Any]) -> None:
        """Begin with what was put before the execution was taken up."""
        for item in items:
            RuntimeStream.put(self, item)


_END: Final = object()
_REST: Final = object()
