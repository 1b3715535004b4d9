"""Interrupts inside the core: opening them, parking the branch, and what an answer, an expiry or a give-up does.

Everything here is an input of the core: deterministic, no clock, no user code. An interrupt belongs to the branch that
paused; the rest of the execution goes on. Interrupts of a sub flow are *projected*: the parent holds a copy (``frame``
and ``local`` are set) whose answer wakes the operator that runs the child.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from flowdeck.errors import InterruptError, InterruptNotFound
from flowdeck.execution.activity import NONE
from flowdeck.execution.routing import Router
from flowdeck.execution.state import CANCELLING, PARKED, RUNNING, Interrupt, Task
from flowdeck.execution.values import KEPT, keeps_in_json

__all__ = ["RERUN", "Waiting", "resume_target"]

RERUN = "rerun"
"""``resume_to`` of an interrupt that asks about a re-run: its answer wakes the activation it belongs to."""


_SIGNALS: Final = tuple(f"s{number}" for number in range(32))
"""The names of the first signals, so that thousands of small executions share them."""


class Waiting(Router):
    """The part of the core that waits. :class:`flowdeck.execution.core.Core` adds signals, state and task ends."""

    __slots__ = ("early", "error", "execution_id", "interrupt_count", "plain")

    execution_id: str
    error: list[Any] | None
    early: dict[str, list[Any]]
    interrupt_count: int
    plain: bool
    """Whether JSON keeps every user's value in interrupts and memos; then a save need not look at thousands of them."""

    @property
    def open_interrupts(self) -> list[Interrupt]:
        """Interrupts that wait for an answer, oldest first."""
        return list(self.open.values())

    # -- opening -------------------------------------------------------------------------------------------------

    def pause(
        self,
        task: Task | None,
        tag: str,
        now_us: int,
        *,
        type: str,
        payload: Any,
        resume_to: Any,
        resume_event: str | None,
        interrupt_id: str | None,
        schema: Any = None,
        expires_us: int | None = None,
        on_expire: Any = None,
        assignees: list[str] | None = None,
    ) -> tuple[Interrupt, bool]:
        """Open an interrupt. Returns it, and whether it is new (a re-run finds the one it committed).

        Raises:
            InterruptError: ``resume_to`` is not valid, an interrupt of that id waits already, or the chunk has one.
        """
        known = task.tags.get(tag) if task is not None and task.tags is not None else None
        if known is not None and task is not None:
            interrupt = self.interrupts[known[1]]
            task.interrupt = interrupt.id
            return interrupt, False

        target = resume_target(resume_to, resume_event)
        if task is None and target in ("next", "self"):
            raise InterruptError(
                f"pause_for(resume_to={target!r}) outside a chunk has no step to return to; "
                'give resume_to={"event": "Name"}'
            )

        op = self.ops[task.op] if task is not None else None
        if task is not None and task.interrupt is not None and self.interrupts[task.interrupt].status == "waiting":
            raise InterruptError(
                f"chunk {self.ops[task.op].name!r} waits for interrupt {task.interrupt!r} already; a chunk waits for "
                "one at a time. Ask several people in parallel branches, or with batch()."
            )

        if interrupt_id is not None:
            self._claim(interrupt_id)

        self.interrupt_count += 1
        new_id = interrupt_id or f"{self.execution_id}-i{self.interrupt_count}"
        signal = (
            [_name_of(task.sig), task.event, task.type, task.value, task.source]
            if task is not None
            else [None, None, None, None, None]
        )
        self.seq += 1
        interrupt = Interrupt(  # by position: names would cost as much again
            new_id,
            type,
            payload,
            target,
            resume_event,
            task.rec if task is not None else 0,
            op.id if op else None,
            op.name if op else None,
            self.plan.flow_name,
            self.execution_id,
            signal,
            now_us,
            schema,
            expires_us,
            on_expire,
            assignees,
        )
        interrupt.seq = self.seq
        if task is not None:
            interrupt.lane = task.lane
            interrupt.scope = self.scope(task)

        self._opened(interrupt)
        if self.plain:
            self.plain = keeps_in_json(payload) and signal[3].__class__ in KEPT and schema is None and on_expire is None

        self.version += 1
        if task is not None:
            if task.tags is None:
                task.tags = {}

            task.tags[tag] = ["int", new_id]
            task.interrupt = new_id

        return interrupt, True

    def _claim(self, interrupt_id: str) -> None:
        """Make sure nobody waits under this id. One that was answered may be asked again: its record is replaced."""
        known = self.interrupts.get(interrupt_id)
        if known is None:
            return

        parked = self.tasks.get(known.task)
        if known.status == "waiting" or (parked is not None and parked.interrupt == interrupt_id):
            raise InterruptError(
                f"interrupt id {interrupt_id!r} is taken in execution {self.execution_id}; "
                "every pause that waits needs an id of its own"
            )

        del self.interrupts[interrupt_id]  # the new one goes to the end: they are listed oldest first

    def project(self, task: Task, frame: str, child: Interrupt) -> Interrupt:
        """A sub flow that ``task`` runs has opened ``child``: the parent waits for it under an id of its own."""
        self.seq += 1
        self.version += 1
        root_id = f"{frame}:{child.id}"
        self.plain = False
        if root_id in self.interrupts:
            del self.interrupts[root_id]  # the child asks again under an id it had used before: it goes to the end
        root = replace(
            child,
            id=root_id,
            task=task.rec,
            lane=task.lane,
            scope=self.scope(task),
            seq=self.seq,
            frame=frame,
            local=child.id,
        )
        self._opened(root)
        return root

    def _opened(self, interrupt: Interrupt) -> None:
        if self.interrupts is NONE:
            self.interrupts = self.open = {}

        self.interrupts[interrupt.id] = self.open[interrupt.id] = interrupt

    def _not_open(self, interrupt_id: str) -> None:
        if self.open is self.interrupts:  # until now all of them waited
            self.open = self.interrupts.copy()

        del self.open[interrupt_id]

    def ask_rerun(self, task: Task, tag: str, now_us: int, payload: Any, schema: Any) -> Interrupt:
        """A step that must not run twice was running when the process ended: somebody has to say what becomes of it.

        The answer wakes the same activation (:data:`RERUN`); the driver acts on it.
        """
        interrupt, _ = self.pause(
            task, tag, now_us, type="replay_unsafe", payload=payload, resume_to="self", resume_event=None,
            interrupt_id=None, schema=schema,
        )  # fmt: skip
        interrupt.resume_to = RERUN
        return interrupt

    def keep_early(self, interrupt_id: str, entry: list[Any]) -> None:
        """An answer came before its interrupt: ``[value, actor, row]``."""
        if self.early is NONE:
            self.early = {}

        self.early[interrupt_id] = entry

    def take_early(self, interrupt_id: str) -> list[Any]:
        """The interrupt has come: hand out the answer that was kept for it."""
        return self.early.pop(interrupt_id)

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

    def stopped(self, task: Task) -> None:
        raise NotImplementedError

    # -- answers -------------------------------------------------------------------------------------------------

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

        self.seal_group(group)
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

    def _resume(self, task: Task, interrupt: Interrupt, group: int) -> None:
        full = self._full_join(task.lane)
        if full is not None:
            self.groups[group].pending += 1
            full.waiting.append([interrupt.id, group])
            return

        target = interrupt.target
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


def _name_of(signal: int) -> str:
    return _SIGNALS[signal] if signal < len(_SIGNALS) else f"s{signal}"


def resume_target(resume_to: Any, resume_event: str | None) -> Any:
    """Return the normalised ``resume_to`` of a pause.

    Raises:
        InterruptError: it is not one of the accepted forms.
    """
    if resume_to is None:
        if resume_event is not None and (not isinstance(resume_event, str) or not resume_event):
            raise InterruptError(f"pause_for(resume_event={resume_event!r}): expected the name of an event")

        return {"event": resume_event} if resume_event else "next"

    if isinstance(resume_to, str) and resume_to in ("next", "self"):
        return resume_to

    if isinstance(resume_to, dict) and set(resume_to) == {"event"}:
        event = resume_to["event"]
        if isinstance(event, str) and event:
            return {"event": event}

    raise InterruptError(f'pause_for(resume_to={resume_to!r}): expected "next", "self" or {{"event": "Name"}}')
