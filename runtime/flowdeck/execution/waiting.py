"""Interrupts that wait: the branch that is parked, and what an answer, an expiry or a give-up does with it.

Deterministic like all of the core: no clock, no user code. The rest of the execution goes on meanwhile.
"""

from __future__ import annotations

from typing import Any

from flowdeck.errors import InterruptError, InterruptNotFound
from flowdeck.execution.activity import NONE
from flowdeck.execution.asking import RERUN, Asking
from flowdeck.execution.state import CANCELLING, PARKED, RUNNING, Interrupt, Task
from flowdeck.execution.values import keeps_in_json

__all__ = ["Waiting"]


class Waiting(Asking):
    """The part of the core that waits. :class:`flowdeck.execution.core.Core` adds signals, state and task ends."""

    __slots__ = ()

    # -- parking -------------------------------------------------------------------------------------------------

    def park(self, task: Task) -> None:
        """The sub flow that ``task`` runs waits for answers, and so does its branch."""
        if task.status == CANCELLING:
            self.stopped(task)
            return

        self.seq += 1
        self._vacate(task)
        task.status = PARKED
        self._unhold(task.group)

    def _park(self, task: Task) -> Task | None:
        """The handler returned with an interrupt: its branch waits for it, everything else goes on."""
        interrupt = self.interrupts[task.interrupt or ""]
        group = task.group
        task.status = RUNNING
        if task.awaiting:
            self._leave_awaited(task)

        self._vacate(task)
        task.status, task.awaiting = PARKED, 0
        if interrupt.status == "waiting":
            pass
        elif interrupt.given_up:
            self._end_branch(task, interrupt)
        else:  # the answer was faster than the handler
            self._resume(task, interrupt, group)

        self._unhold(group)
        return None

    # -- answers -------------------------------------------------------------------------------------------------

    def keep_early(self, interrupt_id: str, entry: list[Any]) -> None:
        """An answer came before its interrupt: ``[value, actor, row]``."""
        if self.early is NONE:
            self.early = {}

        self.early[interrupt_id] = entry

    def take_early(self, interrupt_id: str) -> list[Any]:
        """The interrupt has come: hand out the answer that was kept for it."""
        return self.early.pop(interrupt_id)

    def answer(self, interrupt_id: str, value: Any, now_us: int, actor: str | None, status: str = "resumed") -> int:
        """An answer has come. Returns the await-group of the resumed branch.

        Raises:
            InterruptNotFound: no such interrupt.
            InterruptError: it is not waiting any more.
        """
        interrupt = self.waiting(interrupt_id)
        self._close(interrupt, value, now_us, actor, status)
        group = self.open_group()
        task = self.tasks.get(interrupt.task)
        if task is None and isinstance(interrupt.target, dict):
            self._fire_event(interrupt, 0, group)
        elif task is not None and task.status == PARKED:
            self._resume(task, interrupt, group)

        self._unhold(group)
        return group

    def waiting(self, interrupt_id: str) -> Interrupt:
        """Return an interrupt that waits for an answer.

        Raises:
            InterruptNotFound: no such interrupt.
            InterruptError: it is not waiting any more.
        """
        interrupt = self.interrupts.get(interrupt_id)
        if interrupt is None:
            raise InterruptNotFound(f"execution {self.execution_id}: interrupt {interrupt_id!r} not found")

        if interrupt.status != "waiting":
            raise InterruptError(
                f"execution {self.execution_id}: interrupt {interrupt_id!r} is not waiting (it is {interrupt.status})"
            )

        return interrupt

    def _close(self, interrupt: Interrupt, value: Any, now_us: int, actor: str | None, status: str) -> None:
        self.seq += 1
        self.version += 1
        self._not_open(interrupt.id)
        interrupt.status = status
        interrupt.response = value
        self.plain = self.plain and keeps_in_json(value)
        interrupt.resumed_us = now_us
        interrupt.actor = actor

    def _not_open(self, interrupt_id: str) -> None:
        if self.open is self.interrupts:  # until now all of them waited
            self.open = self.interrupts.copy()

        del self.open[interrupt_id]

    def _resume(self, task: Task, interrupt: Interrupt, group: int) -> None:
        full = self._full_join(task.lane) if task.lane else None
        if full is not None:
            self.groups[group].pending += 1
            full.waiting.append([interrupt.id, group])
            return

        target = interrupt.resume_to if interrupt.status == "resumed" else interrupt.target
        if interrupt.frame is not None or target == RERUN:
            self._wake(task, group)
        elif target == "self":
            self._resume_self(task, interrupt, group)
        elif target == "next":
            op = self.ops[task.op]
            self.signals += 1
            sig = self.signals
            for index in op.next:
                self.fire(
                    index, interrupt.response, task.lane, task.frame, group, sig, "interrupt", op.emits, task.depth,
                    "event", interrupt.id,
                )  # fmt: skip

            self._drop(task)
        else:
            self._fire_event(interrupt, task.lane, group)
            self._drop(task)

    def _fire_event(self, interrupt: Interrupt, lane: int, group: int) -> None:
        self.signals += 1
        event = interrupt.target["event"]
        for index in self.plan.events.get(event, ()):
            self.fire(
                index, interrupt.response, lane, 0, group, self.signals, "interrupt", event, 0, "event", interrupt.id
            )

    def _resume_self(self, task: Task, interrupt: Interrupt, group: int) -> None:
        self.numbers += 1
        counts = self.blocks[task.lane].counts
        task.activation = counts.get(task.op, 0)
        counts[task.op] = task.activation + 1
        task.num = self.numbers
        task.attempt = 1
        task.source = "interrupt"
        task.resume = interrupt.id
        task.interrupt = None
        task.tags = None
        self._wake(task, group)

    def _wake(self, task: Task, group: int) -> None:
        """A parked task becomes active again, as a member of ``group``."""
        task.group = group
        task.cause = self.seq
        self.groups[group].pending += 1
        if task.lane and self.blocks[task.lane].limited:
            self._enter(self.blocks[task.lane])

        self._issue(task)

    def _resume_waiting(self, interrupt_id: str, group_id: int) -> None:
        if not interrupt_id:  # a handler that had lent its place, see `lend`
            if group_id in self.groups:
                self._resolve(self.groups[group_id])

            return

        interrupt = self.interrupts[interrupt_id]
        task = self.tasks.get(interrupt.task)
        if task is not None and task.status == PARKED:
            self._resume(task, interrupt, group_id)

        self._unhold(group_id)

    def answers_by_emit(self, name: str) -> list[Interrupt]:
        """Return the interrupts that an event of this name answers. A sub flow's wait for the child's events only."""
        return [
            i
            for i in self.open.values()
            if i.frame is None and isinstance(i.resume_to, dict) and i.resume_to["event"] == name
        ]

    def answered_by_emit(self, interrupt: Interrupt, value: Any, now_us: int) -> None:
        """The event an interrupt waits for has come: it is answered, and its branch ends there."""
        self._close(interrupt, value, now_us, None, "resumed")
        interrupt.resumed_by_signal = f"s{self.signals + 1}"
        task = self.tasks.get(interrupt.task)
        if task is not None and task.status == PARKED:
            self._drop(task)

    # -- nobody answered -----------------------------------------------------------------------------------------

    def expire(self, interrupt_id: str, now_us: int) -> int:
        """Its time is over: do what its ``on_expire`` says. Returns the await-group of what that starts, or 0."""
        interrupt = self.waiting(interrupt_id)
        how = interrupt.on_expire
        if isinstance(how, dict):
            return self.answer(interrupt_id, how.get("value"), now_us, None, "expired")

        self._give_up(interrupt, now_us, "expired", "expired")
        if how == "fail" and self.error is None:
            self.error = ["InterruptExpired", f"interrupt {interrupt_id!r} ({interrupt.type}) expired unanswered"]

        return 0

    def cancel_interrupt(self, interrupt_id: str, now_us: int, reason: str) -> Interrupt:
        """Give up waiting. The branch that paused ends."""
        interrupt = self.waiting(interrupt_id)
        self._give_up(interrupt, now_us, "cancelled", reason)
        return interrupt

    def _give_up(self, interrupt: Interrupt, now_us: int, status: str, reason: str) -> None:
        self.seq += 1
        self.version += 1
        self._not_open(interrupt.id)
        interrupt.status = status
        interrupt.cancelled_us = now_us
        interrupt.cancel_reason = reason
        task = self.tasks.get(interrupt.task)
        if task is not None and task.status == PARKED:
            self._end_branch(task, interrupt)

    def _end_branch(self, task: Task, interrupt: Interrupt) -> None:
        """The branch ends where it paused.

        When it was cancelled, the blocks around it end with it. When nobody answered in time, they go on without
        its value: one silent person must not lose the work of the others.
        """
        if interrupt.status == "cancelled":
            self.poison(task)

        self._drop(task)

    def child_closed(self, root_id: str, child: Interrupt) -> int:
        """A projected interrupt was closed in the child, not through the parent. Returns the await-group it wakes."""
        root = self.waiting(root_id)
        self.plain = False
        self.seq += 1
        self.version += 1
        self._not_open(root_id)
        for name in ("status", "response", "resumed_us", "actor", "resumed_by_signal", "cancelled_us", "cancel_reason"):
            setattr(root, name, getattr(child, name))

        group = self.open_group()
        task = self.tasks.get(root.task)
        if task is not None and task.status == PARKED:
            self._wake(task, group)

        self.seal_group(group)
        return group
