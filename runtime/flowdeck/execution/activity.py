"""Who is active: tasks, the lanes and places they hold, and the await-groups they belong to.

The lowest part of the core's state. :class:`~flowdeck.execution.routing.Router` says where values go; this says what
becomes of a task from its creation to its end, and appends to ``out`` what the driver must do: a :class:`Task` is to be
run, ``(RESOLVED, group)`` tells an awaiter, ``(CANCEL, record)`` stops a handler (see :mod:`.cancelling`).
"""

from __future__ import annotations

import hashlib
from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flowdeck.definition.plan import CHUNK, SUB_FLOW, Plan, PlanOp
from flowdeck.execution.interventions_ledger import Ledger
from flowdeck.execution.places import Places
from flowdeck.execution.state import QUEUED, RUNNING, Block, Gate, Group, Interrupt, Join, Task

__all__ = ["CANCEL", "NONE", "RESOLVED", "Activity"]

RESOLVED: Final = "resolved"
CANCEL: Final = "cancel"

_DEPTH_LIMIT: Final = 64
"""Scopes deeper than this have their prefix hashed."""

_NOBODY: Final[deque[int]] = deque()
"""The queue of every execution in which nobody has had to wait for a place yet; never appended to."""

NONE: Final[Any] = MappingProxyType({})
"""A table of every execution that does not need it now; a parked execution has not got what its flow does not use."""

Command = Task | tuple[str, int]


class Activity(Places):
    """Tasks and what they hold."""

    __slots__ = (
        "_prefixes",
        "block_count",
        "blocks",
        "concurrency",
        "gates",
        "group_count",
        "groups",
        "interrupts",
        "joins",
        "ledger",
        "numbers",
        "open",
        "ops",
        "out",
        "plan",
        "queue",
        "records",
        "seq",
        "signals",
        "skip_exceptions",
        "sub",
        "tasks",
        "version",
    )

    version: int

    if TYPE_CHECKING:  # what the layers above do: the router, what waits, and the core

        def _check_complete(self, join: Join, group: int, sig: int, depth: int) -> None: ...
        def _resume_waiting(self, interrupt_id: str, group_id: int) -> None: ...
        def _root_resolved(self, group: Group) -> None: ...

    def __init__(self, plan: Plan, concurrency: int = 0) -> None:
        self.plan = plan
        self.ops = plan.ops
        self.out: list[Command] = []
        self.tasks: dict[int, Task] = {}
        self.blocks: dict[int, Block] = {0: Block(0, 0, 0, 0, 0, True, False)}
        self.joins: dict[int, Join] = NONE
        self.groups: dict[int, Group] = NONE
        self.guests: dict[int, int] | None = None
        """Groups that handlers wait for without having emitted their signal (see :meth:`lend`): group to record."""
        self.away: set[int] | None = None
        """Records that have lent the place of their lane: :attr:`guests`, and the handlers that await those."""
        self.gates: dict[tuple[int, int], Gate] = NONE
        self.interrupts: dict[str, Interrupt] = NONE
        self.open: dict[str, Interrupt] = NONE
        """Those of them that wait for an answer, oldest first; the same table as long as all of them do."""
        self.queue: deque[int] = _NOBODY
        """Records waiting for a place (positive) and groups whose awaiter does (negative)."""
        self.concurrency = concurrency
        self.running = 0
        self.seq = 0
        self.sub = 0
        self.records = 0
        self.numbers = 0
        self.signals = 0
        self.group_count = 0
        self.block_count = 0
        self.skip_exceptions = False
        self.ledger: Ledger | None = None
        """Interventions; ``None`` when the execution takes none."""
        self._prefixes: dict[int, str] = NONE

    def _ledger_changed(self) -> None:
        """Count a change of the ledger. A core that records its inputs writes the ledger down here."""
        self.version += 1

    # -- beginning -----------------------------------------------------------------------------------------------

    def _create(
        self,
        op: PlanOp,
        value: Any,
        lane: int,
        frame: int,
        group: int,
        sig: int,
        source: str,
        event: str,
        depth: int,
        kind: str,
        resume: str | None,
    ) -> None:
        self.records += 1
        self.numbers += 1
        block = self.blocks[lane]
        index = op.index
        nth = block.counts.get(index, 0)
        block.counts[index] = nth + 1
        task = Task(
            self.records,
            self.numbers,
            index,
            value,
            lane,
            frame,
            group,
            RUNNING,
            nth,
            1,
            self.seq,
            0,
            sig,
            source,
            event,
            kind,
            depth,
            0,
            resume,
        )
        self.tasks[self.records] = task
        self.groups[group].pending += 1
        if lane:
            block.refs += 1
            if block.limited:
                self._enter(block)

        if frame and frame != lane:
            self.blocks[frame].refs += 1

        self._issue(task)

    def _issue(self, task: Task) -> None:
        """Let a task run, or queue it when the execution's places are taken."""
        if self.concurrency and self.running >= self.concurrency:
            task.status = QUEUED
            self._enqueue(task.rec)
            return

        self.running += 1
        task.status = RUNNING
        kind = self.ops[task.op].kind
        if kind in (CHUNK, SUB_FLOW):  # the others have no event of their own to begin with
            self.seq += 1
            task.seq = self.seq

        self.out.append(task)

    def _enqueue(self, entry: int) -> None:
        if self.queue is _NOBODY:
            self.queue = deque()

        self.queue.append(entry)

    def _free_place(self) -> None:
        """Give a place under the execution's concurrency to whoever waits longest."""
        self.running -= 1
        queue = self.queue
        while queue and (not self.concurrency or self.running < self.concurrency):
            waiting = queue.popleft()
            if waiting < 0 and self.guests and -waiting in self.guests:
                self._resolve(self.groups[-waiting])
            elif waiting < 0:
                group = self.groups.pop(-waiting)
                parent = self.tasks.get(group.parent)
                if parent is not None:
                    self.running += parent.awaiting == 1  # else it has emitted again meanwhile, and waits on
                    parent.awaiting -= 1

                self.out.append((RESOLVED, group.id))
            else:
                task = self.tasks.get(waiting)
                if task is not None and task.status == QUEUED:
                    self._issue(task)

    # -- leaving -------------------------------------------------------------------------------------------------

    def _vacate(self, task: Task) -> None:
        """The task stops being active: it gives its places back. New tasks it caused exist already."""
        if task.status != QUEUED and not task.awaiting:
            if self.queue:
                self._free_place()
            else:
                self.running -= 1

        away = self.guests and self._forget_guest(task)
        if task.lane:
            block = self.blocks[task.lane]
            if block.limited and not away:
                self._exit(block)

    def _finish(self, task: Task) -> None:
        """The task is over."""
        if task.awaiting:
            self._leave_awaited(task)

        self._vacate(task)
        self._drop(task)
        self._unhold(task.group)

    def _awaited(self, task: Task) -> list[Group]:
        """Return the await-groups of the emits ``task`` has made and whose end has not reached it."""
        found = [self.groups.get(outcome[1]) for outcome in (task.tags or {}).values() if outcome[0] == "wait"]
        if task.awaiting and self.queue:  # those that have resolved, and whose awaiter queues for its place
            found += [self.groups[-entry] for entry in self.queue if entry < 0]

        return [group for group in found if group is not None and group.parent == task.rec]

    def _leave_awaited(self, task: Task) -> None:
        """The handler has ended before its awaited emits did: nobody waits for them any more."""
        awaited = self._awaited(task)
        for group in awaited:
            group.parent = 0

        if awaited and self.away:
            self._settle_away()

    def _forget_awaited(self, task: Task) -> None:
        """The handler has failed or was stopped, and with it what it awaited: errors in there are its own now."""
        awaited = self._awaited(task)
        for group in awaited:
            group.parent, group.error = 0, None

        if awaited and self.away:
            self._settle_away()

    def _drop(self, task: Task) -> None:
        """Forget the record, and the lanes nobody stands in any more."""
        del self.tasks[task.rec]
        if task.lane:
            self._release(task.lane)

        if task.frame and task.frame != task.lane:
            self._release(task.frame)

    def _release(self, block_id: int) -> None:
        while block_id:
            block = self.blocks[block_id]
            block.refs -= 1
            if block.refs:
                return

            del self.blocks[block_id]
            if block_id in self._prefixes:
                del self._prefixes[block_id]

            if self.gates:
                for gate in self.plan.gates:  # nothing can arrive in this place any more
                    self.gates.pop((gate, block_id), None)

            join = self.joins.get(block.join)
            if join is not None:
                self._member_gone(join, block)

            if block.frame != block.lane and block.frame:
                self._release(block.frame)

            block_id = block.lane

    def _member_gone(self, join: Join, block: Block) -> None:
        join.left -= 1
        if not block.arrived:
            # Nobody is left who could bring this member's value: it failed under skip_exceptions, or went its own
            # way. The others must not wait for it for ever.
            join.total -= 1
            self._check_complete(join, join.group, join.sig, join.depth)

        if not join.left and join.id in self.joins:  # a member has failed, so it will never complete
            self._close_join(join)

    def _close_join(self, join: Join) -> None:
        del self.joins[join.id]
        while join.waiting:  # side branches of members: nothing limits them any more
            self._resume_waiting(*join.waiting.pop(0))

        for outer in {join.lane, join.frame}:
            if outer:
                self._release(outer)

    def _resolve(self, group: Group) -> None:
        parent = self.tasks.get(group.parent) if group.parent else None
        if parent is None:
            if group.error is not None:
                self._root_resolved(group)

            if self.guests and group.id in self.guests and not self._take_back(group):
                return  # whoever waits for it goes on when it has its places again

            del self.groups[group.id]
            self.out.append((RESOLVED, group.id))
            return

        if parent.tags is not None:
            parent.tags[group.tag] = ["err", *group.error] if group.error else ["ok"]

        if not group.awaited:
            del self.groups[group.id]
            return

        if parent.awaiting == 1:
            if self.concurrency and self.running >= self.concurrency:
                self._enqueue(-group.id)  # the awaiter goes on when it has a place again
                return

            self.running += 1

        parent.awaiting -= 1
        del self.groups[group.id]
        self.out.append((RESOLVED, group.id))

    # -- await-groups --------------------------------------------------------------------------------------------

    def open_group(self, parent: int = 0, tag: str = "") -> int:
        """Begin an await-group. It holds itself open until :meth:`seal_group`."""
        self.group_count += 1
        if self.groups is NONE:
            self.groups = {}

        self.groups[self.group_count] = Group(self.group_count, parent, tag, 1)
        return self.group_count

    def seal_group(self, group_id: int) -> None:
        """All first members of the group exist: from now on it resolves when none is left."""
        self._unhold(group_id)

    def _await(self, task: Task, group: Group) -> None:
        """The handler waits for ``group`` now, and lends its place to others meanwhile."""
        group.awaited = True
        task.awaiting += 1
        if task.awaiting == 1:
            if self.queue:
                self._free_place()
            else:
                self.running -= 1

    def _unhold(self, group_id: int) -> None:
        group = self.groups[group_id]
        group.pending -= 1
        if not group.pending:
            self._resolve(group)

    # -- places in words -----------------------------------------------------------------------------------------

    def scope(self, task: Task) -> str:
        """Return the task's place: ``for_each[3]/classify#1``. The same over attempts and interleavings."""
        segment = self.ops[task.op].segment
        prefix = self._prefix(task.lane) if task.lane else ""
        return f"{prefix}{segment}#{task.activation}" if task.activation else prefix + segment

    def _prefix(self, lane: int) -> str:
        known = self._prefixes.get(lane) if lane else ""
        if known is None:
            block = self.blocks[lane]
            name, _, nth = block.segment.partition("#")
            segment = f"{name}[{block.index}]#{nth}" if nth else f"{name}[{block.index}]"
            known = f"{self._prefix(block.lane)}{segment}/"
            if known.count("/") > _DEPTH_LIMIT:
                known = f"~{hashlib.sha1(known.encode(), usedforsecurity=False).hexdigest()[:16]}/"

            if self._prefixes is NONE:
                self._prefixes = {}

            self._prefixes[lane] = known

        return known
