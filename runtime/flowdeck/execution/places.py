"""Places: the one under the execution's ``concurrency``, the one of a lane in a limited join; and lending them.

A handler that waits for what is not its own has work ahead that may need its places. So others have them meanwhile, and
it goes on once it has them again. Whoever awaits such a handler holds the same lane, or one around it, and so lends,
too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowdeck.execution.state import CANCELLING, RUNNING, Block, Group, Join, Task

if TYPE_CHECKING:
    from flowdeck.definition.plan import Plan

__all__ = ["Places"]


class Places:
    """The part of the core's activity that gives, lends and takes back places."""

    __slots__ = ("away", "guests", "running")

    away: set[int] | None
    guests: dict[int, int] | None
    running: int

    if TYPE_CHECKING:
        blocks: dict[int, Block]
        concurrency: int
        groups: dict[int, Group]
        joins: dict[int, Join]
        plan: Plan
        tasks: dict[int, Task]

        def _enqueue(self, entry: int) -> None: ...
        def _free_place(self) -> None: ...
        def _refill(self, join: Join) -> None: ...

    # -- lending ---------------------------------------------------------------------------------------------------

    def lend(self, task: Task, group_id: int, tag: str = "") -> None:
        """A handler waits for a group that is not its own: for an answer it gave, or a signal sent through the handle.

        What it waits for may need its places, so others have them meanwhile: the one under ``concurrency``, and the
        one of its lane in a limited join. With a ``tag`` a re-run finds the group instead of causing it again.
        """
        if self.tasks.get(task.rec) is not task:
            return  # it was left behind, and has no place to lend

        if tag:
            if task.tags is None:
                task.tags = {}

            task.tags[tag] = ["ans", group_id]

        if group_id not in self.groups or task.status not in (RUNNING, CANCELLING):
            return  # a handler that was told to stop and goes on needs what it waits for like any other

        if self.guests is None:
            self.guests = {}

        self.guests[group_id] = task.rec
        task.awaiting += 1
        if task.awaiting == 1:
            self._free_place()

        if self.plan.limited:
            self._lend_lane(task)

    def _take_back(self, group: Group) -> bool:
        """Give a handler that lent its places for ``group`` the places back. Returns ``False`` while it has to wait."""
        assert self.guests is not None
        task = self.tasks[self.guests[group.id]]
        last = sum(rec == task.rec for rec in self.guests.values()) == 1
        limited = last and task.lane and self.blocks[task.lane].limited
        full = self._full_join(task.lane) if limited else None
        if full is not None:
            full.waiting.append(["", group.id])
            return False

        if task.awaiting == 1 and self.concurrency and self.running >= self.concurrency:
            self._enqueue(-group.id)
            return False

        del self.guests[group.id]
        self.running += task.awaiting == 1
        task.awaiting -= 1
        if last and self.plan.limited:
            self._return_lane(task)

        return True

    def _forget_guest(self, task: Task) -> bool:
        """The task waits for nobody's group any more. Returns whether it had lent its places."""
        if not self.guests or task.rec not in self.guests.values():
            return False

        self.guests = {group: rec for group, rec in self.guests.items() if rec != task.rec}
        if self.away and task.rec in self.away:
            self.away.remove(task.rec)
            if self._awaiter(task) is not None:
                self._settle_away()

        return True

    def _awaiter(self, task: Task) -> Task | None:
        """Return the handler that awaits the emit ``task`` has come from."""
        group = self.groups.get(task.group)
        return self.tasks.get(group.parent) if group is not None and group.parent else None

    def _lend_lane(self, task: Task) -> None:
        """``task`` has lent its place. So have those who await it: they hold the same one, or one around it."""
        if self.away is None:
            self.away = set()

        if task.rec not in self.away:
            self.away.add(task.rec)
            self._exit_lane(task)

        if self._awaiter(task) is not None:
            self._settle_away()

    def _return_lane(self, task: Task) -> None:
        if self.away and task.rec in self.away:
            self.away.remove(task.rec)
            self._enter_lane(task)
            if self._awaiter(task) is not None:
                self._settle_away()

    def _settle_away(self) -> None:
        """Bring :attr:`away` and the lanes up to date, after something has changed for those who await a guest.

        One by one: a place that gets free may let another guest go on, which changes it again.
        """
        assert self.away is not None
        while True:
            wanted = self._lenders()
            if back := self.away - wanted:
                self.away.remove(rec := min(back))
                self._enter_lane(self.tasks.get(rec))
            elif more := wanted - self.away:
                self.away.add(rec := min(more))
                self._exit_lane(self.tasks.get(rec))
            else:
                return

    def _lenders(self) -> set[int]:
        found: set[int] = set()
        for rec in (self.guests or {}).values():
            task = self.tasks.get(rec)
            while task is not None and task.rec not in found:
                found.add(task.rec)
                task = self._awaiter(task)

        return found

    def _enter_lane(self, task: Task | None) -> None:
        if task is not None and task.lane and self.blocks[task.lane].limited:
            self._enter(self.blocks[task.lane])

    def _exit_lane(self, task: Task | None) -> None:
        if task is not None and task.lane and self.blocks[task.lane].limited:
            self._exit(self.blocks[task.lane])

    # -- places in a limited join --------------------------------------------------------------------------------

    def _enter(self, block: Block) -> None:
        while True:
            block.active += 1
            if block.active > 1:
                return

            join = self.joins.get(block.join)
            if join is not None and join.limit:
                join.active += 1

            if not block.lane or not self.blocks[block.lane].limited:
                return

            block = self.blocks[block.lane]

    def _exit(self, block: Block) -> None:
        while True:
            block.active -= 1
            if block.active:
                return

            join = self.joins.get(block.join)
            outer = self.blocks[block.lane] if block.lane else None
            if join is not None and join.limit:
                join.active -= 1
                if join.waiting or join.items is not None:
                    self._refill(join)

            if outer is None or not outer.limited:
                return

            block = outer

    def _full_join(self, lane: int) -> Join | None:
        """Return the join whose places keep a member in ``lane`` from becoming active, if any."""
        while lane:
            block = self.blocks[lane]
            if not block.limited or block.active:
                return None

            join = self.joins.get(block.join)
            if join is not None and join.limit and join.active >= join.limit:
                return join

            lane = block.lane

        return None
