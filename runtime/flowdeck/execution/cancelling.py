"""Stopping tasks: those of an await-group, all of them, and what a stopped one leaves behind.

Who fails stops its siblings. A task that has not begun ends at once; a running handler is told to stop (``CANCEL``),
and its task ends when the driver says so: :meth:`Cancelling.stopped`.
"""

from __future__ import annotations

from collections.abc import Collection

from flowdeck.execution.activity import CANCEL, Activity
from flowdeck.execution.state import CANCELLING, PARKED, QUEUED, Task

__all__ = ["Cancelling"]


class Cancelling(Activity):
    """Activity that can be stopped."""

    __slots__ = ()

    def poison(self, task: Task) -> None:
        """The task failed or was stopped: the joins it belongs to must not complete as if it had never been.

        Blocks around a handler that awaits it are spared: that handler gets the error, and may catch it.
        """
        group = self.groups.get(task.group)
        awaiter = self.tasks.get(group.parent) if group is not None else None
        spared = awaiter.lane if awaiter is not None else 0
        for block_id in (task.frame, task.lane):
            while block_id and block_id != spared:
                block = self.blocks[block_id]
                block.arrived = True
                block_id = block.frame or block.lane

    def cancel_group(self, group_id: int, spare: int = 0) -> None:
        """Stop every active task of a group's subtree, except ``spare``. Parked ones stay parked."""
        awaiter = self.tasks.get(self.groups[group_id].parent)
        if awaiter is None or awaiter.status != CANCELLING:  # else the whole subtree has been told with it
            self._cancel([group_id], (spare,))

    def cancel_all(self, spare: Collection[int] = ()) -> None:
        """Stop every active task, except those whose records are in ``spare``."""
        self._cancel(list(self.groups), spare)

    def _cancel(self, roots: list[int], spare: Collection[int]) -> None:
        """Stop the subtrees of ``roots``. Without recursion: awaited emits nest a thousand deep."""
        members: dict[int, list[Task]] = {}
        for task in self.tasks.values():
            if task.rec not in spare and task.status not in (PARKED, CANCELLING):
                members.setdefault(task.group, []).append(task)

        children: dict[int, list[int]] = {}
        for group in self.groups.values():
            children.setdefault(group.parent, []).append(group.id)

        reached: dict[int, None] = {}
        stack = roots[::-1]
        while stack:
            group_id = stack.pop()
            if group_id not in reached:
                reached[group_id] = None
                for task in members.get(group_id, ()):
                    stack.extend(children.get(task.rec, ()))

        spared = {self.tasks[rec].group for rec in spare if rec in self.tasks}
        for group_id in reached.keys() - spared:
            self.groups[group_id].failed = True  # all of it has been told, and no error in it counts any more

        for join in list(self.joins.values()):
            if join.items is not None and join.group in reached:
                unstarted = len(join.items) - join.next
                join.total -= unstarted
                join.left -= unstarted
                join.items = None
                self._unhold(join.group)

        doomed = [task for group_id in reached for task in members.get(group_id, ())]
        for task in doomed:  # before any of them ends: then nobody knows any more who awaited whom
            self.poison(task)

        for task in doomed:
            if task.status == QUEUED:
                self._forget_awaited(task)
                self._finish(task)
            else:
                task.status = CANCELLING
                self.out.append((CANCEL, task.rec))

    def stopped(self, task: Task) -> None:
        """A handler that was told to stop has ended, or is not waited for any more."""
        if self.tasks.get(task.rec) is not task:
            return

        self.seq += 1
        if task.status != CANCELLING:
            self.poison(task)

        fresh = [group.id for group in self._awaited(task) if not group.failed]
        if fresh:  # it went on emitting after it had been told
            self._cancel(fresh, ())

        self._forget_awaited(task)
        self._finish(task)
