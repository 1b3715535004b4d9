"""Interrupts that begin: what a pause opens, under which id, and where its answer will go.

Deterministic like all of the core: no clock, no user code. An interrupt belongs to the branch that paused. Interrupts
of a sub flow are *projected*: the parent holds a copy (``frame`` and ``local`` are set) whose answer wakes the operator
that runs the child.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from flowdeck.errors import InterruptError
from flowdeck.execution.activity import NONE
from flowdeck.execution.routing import Router
from flowdeck.execution.state import Interrupt, Task
from flowdeck.execution.values import KEPT, keeps_in_json

__all__ = ["RERUN", "Asking"]

RERUN = "rerun"
"""``resume_to`` of an interrupt that asks about a re-run: its answer wakes the activation it belongs to."""

_SIGNALS: Final = tuple(f"s{number}" for number in range(32))
"""The names of the first signals, so that thousands of small executions share them."""


class Asking(Router):
    """The part of the core that opens interrupts. :class:`~flowdeck.execution.waiting.Waiting` closes them."""

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

        target = "next" if resume_to.__class__ is str and resume_to == "next" else _target(resume_to, resume_event)
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
            [
                _SIGNALS[task.sig] if task.sig < len(_SIGNALS) else f"s{task.sig}",
                task.event,
                task.type,
                task.value,
                task.source,
            ]
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


def _target(resume_to: Any, resume_event: str | None) -> Any:
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
