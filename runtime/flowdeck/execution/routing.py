"""Where a value goes next: fan-outs, joins, choices and gates.

It knows operators and state. What runs user code becomes a task (:mod:`flowdeck.execution.activity`); everything else
happens here and now. Deterministic: the same inputs in the same order give the same state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowdeck.definition.plan import (
    BATCH,
    COLLECT,
    FOR_EACH,
    GATE,
    JOIN,
    LAST_RUNNABLE,
    MATCH_END,
    PlanOp,
)
from flowdeck.execution.activity import CANCEL, NONE, RESOLVED
from flowdeck.execution.cancelling import Cancelling
from flowdeck.execution.state import CANCELLING, Block, Gate, Join, Task

__all__ = ["CANCEL", "RESOLVED", "Router"]


class Router(Cancelling):
    """Routing on top of activity. :class:`flowdeck.execution.core.Core` adds the inputs."""

    __slots__ = ()

    # -- firing --------------------------------------------------------------------------------------------------

    def fire(
        self,
        index: int,
        value: Any,
        lane: int,
        frame: int,
        group: int,
        sig: int,
        source: str,
        event: str,
        depth: int = 0,
        kind: str = "event",
        resume: str | None = None,
    ) -> None:
        """Let ``value`` reach operator ``index``. User code becomes a task; the rest happens here and now."""
        op = self.ops[index]
        what = op.kind
        if what <= LAST_RUNNABLE:
            self._create(op, value, lane, frame, group, sig, source, event, depth, kind, resume)
        elif self.ledger is not None and self.ledger.steers:
            # A policy is asked before any operator is reached, and only the driver can: see `passed`.
            self._create(op, value, lane, frame, group, sig, source, event, depth, kind, None)
        elif what == JOIN:
            self._arrive(op, value, frame, group, sig, depth)
        elif what == MATCH_END:
            if self._member(frame, op.group) is not None:
                self._arrive(op, value, frame, group, sig, depth)
            else:
                self._pass(op, value, lane, frame, group, sig, depth)
        elif what == FOR_EACH:
            self._split(op, value, lane, frame, group, sig, depth)
        elif what == BATCH:
            self._fan_out(op, [value] * len(op.members), lane, frame, group, sig, depth)
        elif what == GATE:
            self._gate(op, value, lane, group, sig, event, depth, kind)
        else:
            assert what == COLLECT
            self._collect(op, value, lane, frame, group, sig, depth)

    def passed(self, task: Task) -> None:
        """What had to be done before a fan-out, join or gate is done: its value reaches the operator now."""
        if task.status == CANCELLING:
            self.stopped(task)
            return

        op = self.ops[task.op]
        value, lane, frame, group, sig, depth = task.value, task.lane, task.frame, task.group, task.sig, task.depth
        if op.kind == FOR_EACH:
            self._split(op, value, lane, frame, group, sig, depth, task.activation)
        elif op.kind == BATCH:
            self._fan_out(op, [value] * len(op.members), lane, frame, group, sig, depth, nth=task.activation)
        elif op.kind == GATE:
            self._gate(op, value, lane, group, sig, task.event, depth, task.type)
        elif op.kind == COLLECT:
            self._collect(op, value, lane, frame, group, sig, depth)
        elif op.kind == JOIN or self._member(frame, op.group) is not None:
            self._arrive(op, value, frame, group, sig, depth)
        else:
            self._pass(op, value, lane, frame, group, sig, depth)

        self._finish(task)

    def _pass(self, op: PlanOp, value: Any, lane: int, frame: int, group: int, sig: int, depth: int) -> None:
        for index in op.next:
            self.fire(index, value, lane, frame, group, sig, "chunk", op.emits, depth)

    # -- fan-out and join ----------------------------------------------------------------------------------------

    def _split(
        self, op: PlanOp, value: Any, lane: int, frame: int, group: int, sig: int, depth: int, nth: int | None = None
    ) -> None:
        if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
            items = list(value)
        elif hasattr(value, "__next__") or hasattr(value, "__anext__"):
            # A generator is the user's code: a task of the driver's draws it out and comes back with a list.
            self._create(op, value, lane, frame, group, sig, "chunk", op.emits, depth, "event", None)
            return
        else:
            items = [value]

        if items:
            self._fan_out(op, items, lane, frame, group, sig, depth, nth=nth)
        elif op.end >= 0:
            self._pass(self.ops[op.end], [], lane, frame, group, sig, depth)

    def _fan_out(
        self,
        op: PlanOp,
        items: list[Any],
        lane: int,
        frame: int,
        group: int,
        sig: int,
        depth: int,
        arms: Sequence[int] | None = None,
        nth: int | None = None,
    ) -> None:
        """Start a member for each item.

        Args:
            arms: the case of each member, for ``match(mode="hit_all")``.
            nth: the activation it has been given already.
        """
        if nth is None:
            counts = self.blocks[lane].counts
            nth = counts.get(op.index, 0)
            counts[op.index] = nth + 1

        self.block_count += 1
        join = Join(
            self.block_count,
            op.index,
            lane,
            frame,
            group,
            depth,
            len(items),
            {},
            op.segment if not nth else f"{op.segment}#{nth}",
            op.concurrency,
        )
        join.sig, join.cause, join.left = sig, self.seq, len(items)
        if self.joins is NONE:
            self.joins = {}

        self.joins[join.id] = join
        for outer in {lane, frame}:
            if outer:
                self.blocks[outer].refs += 1

        if join.limit and len(items) > join.limit:
            join.items = items
            self.groups[group].pending += 1  # members not started yet keep the group open
            self._refill(join)
            return

        limited = bool(join.limit) or self.blocks[lane].limited
        for index, item in enumerate(items):
            self._start_member(join, op, index, item, limited, None if arms is None else arms[index])

    def _start_member(
        self, join: Join, op: PlanOp, index: int, item: Any, limited: bool, arm: int | None = None
    ) -> None:
        self.block_count += 1
        block_id = self.block_count
        block = Block(block_id, join.lane, join.frame, join.id, index, arm is None, limited, join.segment, 1)
        self.blocks[block_id] = block
        if join.lane:
            self.blocks[join.lane].refs += 1

        if join.frame and join.frame != join.lane:
            self.blocks[join.frame].refs += 1

        targets = (op.members[index],) if op.kind == BATCH else op.next if arm is None else op.case_next[arm]
        event = op.emits if arm is None else op.case_events[arm]
        lane = block_id if arm is None else join.lane
        for target in targets:
            self.fire(target, item, lane, block_id, join.group, join.sig, "chunk", event, join.depth)

        self._release(block_id)

    def _refill(self, join: Join) -> None:
        """Start or resume members while places are free."""
        op = self.ops[join.op]
        while join.active < join.limit:
            if join.waiting:
                interrupt_id, group_id = join.waiting.pop(0)
                self._resume_waiting(interrupt_id, group_id)
            elif join.items is not None:
                index = join.next
                join.next += 1
                item = join.items[index]
                last = join.next == len(join.items)
                self._start_member(join, op, index, item, True)
                if last:
                    join.items = None
                    self._unhold(join.group)
            else:
                return

    def _member(self, frame: int, op_index: int) -> Block | None:
        """Return the enclosing member of a join that operator ``op_index`` opened."""
        while frame:
            block = self.blocks[frame]
            join = self.joins.get(block.join)
            if join is not None and join.op == op_index:
                return block

            frame = block.frame

        return None

    def _arrive(self, op: PlanOp, value: Any, frame: int, group: int, sig: int, depth: int) -> None:
        block = self._member(frame, op.group)
        if block is None:
            return  # a chunk of the block, started from elsewhere

        join = self.joins[block.join]
        block.arrived = True
        join.results[block.index] = value
        self._check_complete(join, group, sig, depth)

    def _check_complete(self, join: Join, group: int, sig: int, depth: int) -> None:
        if len(join.results) < join.total:
            return

        del self.joins[join.id]
        op = self.ops[join.op]
        results = join.results
        order = sorted(results)
        value: Any
        if op.kind == BATCH:
            value = {self.ops[op.members[i]].name: results[i] for i in order}
        else:
            value = [results[i] for i in order]

        if op.end >= 0 and (results or op.kind != BATCH):
            alive = self.groups.get(group)
            detached = 0
            if alive is None or not alive.pending:
                group = detached = self.open_group()

            self._pass(self.ops[op.end], value, join.lane, join.frame, group, sig, depth)
            if detached:
                self.seal_group(detached)

        while join.waiting:  # side branches of members: nothing limits them any more
            self._resume_waiting(*join.waiting.pop(0))

        for outer in {join.lane, join.frame}:
            if outer:
                self._release(outer)

    # -- gates ---------------------------------------------------------------------------------------------------

    def _gate(self, op: PlanOp, value: Any, lane: int, group: int, sig: int, event: str, depth: int, kind: str) -> None:
        if op.mode == "or":
            self._pass(op, (kind, event, value), lane, 0, group, sig, depth)
        elif op.mode == "simple_or":
            self._pass(op, value, lane, 0, group, sig, depth)
        else:
            gate = self._gate_at(op.index, lane)
            gate.values[f"{kind}:{event}"] = value
            if len(gate.values) < len(op.triggers):
                return

            del self.gates[op.index, lane]
            gathered: dict[str, dict[str, Any]] = {}
            for trigger in op.triggers:
                gathered.setdefault(trigger.type, {})[trigger.name] = gate.values[trigger.id]

            self._pass(op, gathered, lane, 0, group, sig, depth)

    def _gate_at(self, index: int, place: int) -> Gate:
        if self.gates is NONE:
            self.gates = {}

        return self.gates.setdefault((index, place), Gate(index, place, {}))

    def _collect(self, op: PlanOp, value: Any, lane: int, frame: int, group: int, sig: int, depth: int) -> None:
        name = op.options["collection_name"]
        branches = [o for o in self.ops if o.kind == COLLECT and o.options["collection_name"] == name]
        gate = self._gate_at(branches[0].index, frame)
        gate.values[op.options["branch_id"]] = value
        if len(gate.values) < len(branches):
            return

        gathered = {o.options["branch_id"]: gate.values[o.options["branch_id"]] for o in branches}
        if op.mode == "filled_then_empty":
            del self.gates[branches[0].index, frame]

        self._pass(op, gathered, lane, frame, group, sig, depth)
