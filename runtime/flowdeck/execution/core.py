"""The core: inputs in, commands out. Deterministic, not immutable.

``Core`` mutates state that it alone owns. It has no clock, no randomness, no I/O and runs no user code: time, chance
and the outcome of conditions come in as inputs. The driver (:mod:`flowdeck.execution.driver`) feeds it and carries
out what it appends to ``out``. The same inputs in the same order give byte-identical state, so a recorded input log
is a replayable truth, and the core can be simulated with thousands of seeds.

It is built in layers, each a file and a class on top of the one before: :mod:`~flowdeck.execution.state` (the structs),
``places``, ``activity``, ``cancelling``, ``routing``, ``asking``, ``waiting``, and here the inputs.

Order of calls for one chunk: ``fire`` makes a task -> the driver runs its handler -> the handler's effects come in
one by one (:meth:`emit`, :meth:`set_state`, :meth:`pause`, :meth:`mark`) -> :meth:`done` or :meth:`failed` ends the
task and starts what follows. Source: the design's §3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from flowdeck.definition.plan import LAST_RUNNABLE, POINT, ROUTE, Plan
from flowdeck.errors import EmitDepthExceeded, HandlerDiverged
from flowdeck.execution.activity import NONE
from flowdeck.execution.dotted_keys import append, assign, delete
from flowdeck.execution.interventions_ledger import STATE_KEY
from flowdeck.execution.state import BACKOFF, CANCELLING, PARKED, QUEUED, RUNNING, Group, Task
from flowdeck.execution.values import copy_value, keeps_in_json
from flowdeck.execution.waiting import Waiting

__all__ = ["EMIT_DEPTH_LIMIT", "CommittedFailure", "Core"]

EMIT_DEPTH_LIMIT: Final = 1_000


class CommittedFailure(Exception):
    """An awaited emit that failed in an earlier attempt of the same handler. The driver turns it into an error."""

    def __init__(self, error: Sequence[Any]) -> None:
        self.type, self.message = error[0], error[1]
        super().__init__(self.message)


class Core(Waiting):
    """The state of one execution and every input it understands."""

    __slots__ = ("data", "started", "streamed")

    def __init__(self, plan: Plan, execution_id: str, concurrency: int = 0) -> None:
        super().__init__(plan, concurrency)
        self.execution_id = execution_id
        self.data: dict[str, Any] = NONE
        """Execution state: JSON plus tagged types, only ever replaced, never handed out."""
        self.version = 0
        self.error: list[Any] | None = None
        """``[type, message]`` of the failure nobody caught, or ``None``."""
        self.started = False
        self.early: dict[str, list[Any]] = NONE
        """Answers that came before their interrupt: id to ``[value, actor]``."""
        self.interrupt_count = 0
        self.plain = True
        self.streamed = 0
        """Items put on the runtime stream so far."""

    # -- what is so --------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether any task runs, is queued or backs off."""
        return any(task.status != PARKED for task in self.tasks.values())

    # -- inputs: signals -----------------------------------------------------------------------------------------

    def signal(self, name: str, value: Any, source: str, kind: str = "event") -> int:
        """A signal from outside any chunk (start, ``execution.emit``). Returns its await-group."""
        self.signals += 1
        group = self.open_group()
        targets = self.plan.listeners(kind, name)
        sig = self.signals
        for index in targets:
            self.fire(index, value, 0, 0, group, sig, source, name, 0, kind)

        self._unhold(group)
        return group

    def emit(self, task: Task, tag: str, name: str, value: Any, awaited: bool, kind: str = "event") -> int:
        """A signal from inside a handler.

        Returns the await-group to wait for, or 0 when nothing is left to wait for.

        Raises:
            EmitDepthExceeded: awaited emits are nested more than 1,000 deep.
            CommittedFailure: the re-run of an emit that had failed before the crash.
        """
        known = task.tags.get(tag) if task.tags is not None else None
        if known is not None:
            if known[0] == "err":
                raise CommittedFailure(known[1:])

            waiting = self.groups.get(known[1]) if known[0] == "wait" else None
            if waiting is None:
                return 0

            self._await(task, waiting)
            return waiting.id

        targets = self.plan.listeners(kind, name)
        if task.tags is None:
            task.tags = {}

        self.signals += 1
        if not targets:
            task.tags[tag] = _OK
            return 0

        if awaited and task.depth >= EMIT_DEPTH_LIMIT:
            raise EmitDepthExceeded(
                f"emit({name!r}): awaited emits are nested more than {EMIT_DEPTH_LIMIT} deep in "
                f"{self.scope(task)}; use emit_nowait, or end the recursion"
            )

        sig = self.signals
        group = self.open_group(task.rec if awaited else 0, tag)
        depth = task.depth + 1 if awaited else 0
        source = "chunk" if kind == "event" else kind
        if awaited:
            task.tags[tag] = ["wait", group]
            self._await(task, self.groups[group])
        else:
            task.tags[tag] = _OK

        for index in targets:
            self.fire(index, value, task.lane, 0, group, sig, source, name, depth, kind)

        self.seal_group(group)
        return group if awaited and group in self.groups else 0

    # -- inputs: state and stream --------------------------------------------------------------------------------

    def mark(self, task: Task, tag: str, value: Any = None) -> bool:
        """Commit an effect that has no outcome. Returns ``False`` when an earlier attempt committed it already.

        ``value`` is what the effect carries; only a recording core looks at it, to notice a re-run with another one.
        """
        if task.tags is None:
            task.tags = {tag: _OK}
            return True

        if tag in task.tags:
            return False

        task.tags[tag] = _OK
        return True

    def remember(self, task: Task, tag: str, value: Any) -> None:
        """Keep the result of a memoised step. ``value`` must be the core's own copy."""
        if task.tags is None:
            task.tags = {}

        task.tags[tag] = ["val", value]
        self.plain = self.plain and keeps_in_json(value)

    def set_state(self, key: str, value: Any) -> None:
        """Replace ``key`` (dotted: nested). ``value`` must be the core's own copy."""
        if self.data is NONE:
            self.data = {}

        assign(self.data, key, value)
        self.version += 1

    def append_state(self, key: str, value: Any) -> Any:
        """Append to the list at ``key``, creating it. Returns the whole list."""
        if self.data is NONE:
            self.data = {}

        held = append(self.data, key, value)
        self.version += 1
        return held

    def del_state(self, key: str) -> bool:
        """Delete ``key``. Returns whether it was there."""
        gone = delete(self.data, key)
        self.version += gone
        return gone

    # -- inputs: the end of a task -------------------------------------------------------------------------------

    def done(self, task: Task, value: Any) -> Task | None:
        """The handler returned ``value``. Returns the task to go on with, when the chain is linear."""
        if task.status == CANCELLING:
            self.stopped(task)
            return None

        self.seq += 1
        if task.interrupt is not None:
            return self._park(task)

        op = self.ops[task.op]
        following = op.next
        self.signals += 1
        if len(following) == 1 and not task.awaiting:
            index = following[0]
            target = self.ops[index]
            if target.kind <= LAST_RUNNABLE:
                self.numbers += 1
                counts = self.blocks[task.lane].counts
                nth = counts.get(index, 0)
                counts[index] = nth + 1
                task.num = self.numbers
                task.op = index
                task.value = value
                task.activation = nth
                task.attempt = 1
                task.cause = self.seq
                task.sig = self.signals
                task.source = "chunk"
                task.event = op.emits
                task.type = "event"
                task.resume = None
                task.tags = None
                if target.kind != ROUTE and target.kind != POINT:
                    self.seq += 1
                    task.seq = self.seq

                return task

        sig = self.signals
        for index in following:
            self.fire(index, value, task.lane, task.frame, task.group, sig, "chunk", op.emits, task.depth)

        self._finish(task)
        return None

    def routed(self, task: Task, hits: Sequence[int]) -> None:
        """The conditions of a match were tried: ``hits`` are the cases that hold, in declaration order."""
        if task.status == CANCELLING:
            self.stopped(task)
            return

        op = self.ops[task.op]
        value, lane, frame, group, sig, depth = task.value, task.lane, task.frame, task.group, task.sig, task.depth
        if hits and op.hits_all and op.end >= 0:
            self._fan_out(op, [value] * len(hits), lane, frame, group, sig, depth, arms=hits)
        else:
            if hits:
                arms = [(i, op.case_events[k]) for k in hits for i in op.case_next[k]]
            elif op.else_next is not None:
                arms = [(i, op.emits) for i in op.else_next]
            else:
                arms = [(i, op.emits) for i in op.next]

            for index, event in arms:
                self.fire(index, value, lane, frame, group, sig, "chunk", event, depth)

        self._finish(task)

    def materialised(self, task: Task, items: list[Any]) -> None:
        """The generator that reached a for_each has been drawn out."""
        if task.status == CANCELLING:
            self.stopped(task)
            return

        op = self.ops[task.op]
        self._split(op, items, task.lane, task.frame, task.group, task.sig, task.depth, task.activation)
        self._finish(task)

    def retry(self, task: Task, due_us: int = 0) -> None:
        """The attempt failed and another will follow after a wait, which ends at ``due_us``; see :meth:`again`.

        The next attempt is a fresh run: what this one emitted, set or streamed stays, and happens again. Only the
        interrupts it opened, the answers it gave and its ``data.step`` results are found again. What it still awaited
        is stopped.
        """
        self.seq += 1
        task.attempt += 1
        awaited = self._awaited(task)
        if awaited:
            self._cancel([group.id for group in awaited], ())
            self._forget_awaited(task)

        if task.awaiting:
            task.awaiting = 0
            self.running += 1

        if self._forget_guest(task) and task.lane and self.blocks[task.lane].limited:
            self._enter(self.blocks[task.lane])

        if task.tags is not None:
            task.tags = {tag: outcome for tag, outcome in task.tags.items() if tag[0] in "pmr"}

        if task.status != CANCELLING:
            task.status = BACKOFF

    def again(self, task: Task) -> bool:
        """The wait before the next attempt is over. Returns ``False`` when the task was stopped meanwhile."""
        if task.status == CANCELLING:
            self.stopped(task)
            return False

        task.status = RUNNING
        task.cause = self.seq
        self.seq += 1
        task.seq = self.seq
        return True

    def failed(self, task: Task, error_type: str, message: str) -> None:
        """The handler raised for good. Siblings in its await-group stop; the awaiter will get the error."""
        if task.status == CANCELLING:
            self.stopped(task)
            return

        self.seq += 1
        if not self.skip_exceptions:
            group = self.groups[task.group]
            if not group.failed:
                group.failed = True
                group.error = [error_type, message]

            self.poison(task)
            self._cancel([task.group, *(group.id for group in self._awaited(task))], (task.rec,))
            self._forget_awaited(task)

        self._finish(task)

    def refuse(self, error_type: str, message: str) -> None:
        """The run fails before anything of it has begun: its input is not what the flow takes."""
        self.seq += 1
        self.error = [error_type, message]

    def _root_resolved(self, group: Group) -> None:
        """A group nobody inside waits for has ended."""
        if self.error is None:
            self.error = group.error

    def check_rerun(self, task: Task, seen: set[str]) -> None:
        """A re-run handler has ended; its committed emits and pauses must all have come again.

        Raises:
            HandlerDiverged: some did not.
        """
        missing = [tag for tag in task.tags or () if tag[0] in "ep" and tag not in seen]
        if missing:
            raise HandlerDiverged(
                f"{self.scope(task)}: the re-run did not repeat {len(missing)} committed effect(s): "
                f"{', '.join(sorted(missing)[:5])}. Put what is not deterministic into data.step() or data.call()."
            )

    def set_concurrency(self, concurrency: int) -> None:
        """Change how many handlers may run at once; 0 is no limit."""
        self.concurrency = concurrency
        if self.queue:
            self.running += 1
            self._free_place()

    def restart(self) -> set[int]:
        """After a load: let everything that was active run again. Returns the numbers of those activations."""
        self.out.clear()
        self.queue.clear()
        self.running = 0
        for group in self.groups.values():
            group.awaited = False

        for join in self.joins.values():
            join.waiting = [entry for entry in join.waiting if entry[0]]

        for rec in sorted(self.away or ()):  # what had lent its places runs again, and holds them
            self._enter_lane(self.tasks[rec])

        self.guests = self.away = None
        for group in [g for g in self.groups.values() if not g.pending]:
            del self.groups[group.id]

        again: set[int] = set()
        tasks = list(self.tasks.values())
        for task in tasks:
            task.awaiting = 0

        while stopping := [t for t in tasks if t.status == CANCELLING and t.rec in self.tasks]:
            for task in stopping:  # may tell others to stop
                self.running += 1
                self.stopped(task)

        for task in tasks:
            if task.status != PARKED and task.rec in self.tasks:
                if task.status != QUEUED:
                    again.add(task.num)
                    task.attempt += 1

                self._issue(task)

        return again

    def snapshot_data(self) -> dict[str, Any]:
        """Return a copy of the execution state that the caller may keep."""
        data = copy_value(self.data) if self.data else {}
        if self.ledger is not None and self.ledger.version:
            data[STATE_KEY] = self.ledger.records()

        return data


_OK = ["ok"]
