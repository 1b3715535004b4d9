"""What stands in an input log beside the inputs of its core.

Sub flows that begin and end, the plans the inputs belong to, interventions, inbox rows that were dealt with: each a
record under a letter of its own, which :mod:`flowdeck.execution.replica_inputs` reads. When records are committed is
the business of :class:`~flowdeck.execution.input_log.InputLog`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowdeck.definition.skeleton import dump_plan, plan_digest
from flowdeck.execution.snapshot import _dump_run
from flowdeck.execution.values import encode

if TYPE_CHECKING:
    from flowdeck.definition.plan import Plan
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.recording import RecordedCore
    from flowdeck.execution.state import Task

__all__ = ["LogRecords"]

ROWS_KEPT: Final = 1_000
"""Inbox rows whose outcome is remembered, in case one is delivered again."""


class LogRecords:
    """The records of one execution and of the sub flows in it."""

    if TYPE_CHECKING:  # supplied by the log

        def add(self, record: list[Any]) -> None: ...
        def enrol(self, child: TriggerFlowExecution, number: int) -> None: ...

    def __init__(self, execution: TriggerFlowExecution) -> None:
        self.execution = execution
        self.seq = 0
        """Inputs recorded so far."""
        self.rows: dict[int, tuple[str, str | None]] = {}
        """Inbox rows that were applied, with their outcomes."""
        self.children: dict[int, TriggerFlowExecution] = {}
        """Executions of sub flows under way, by their number in the log."""
        self.child_count = 0
        self._defined: set[str] = set()
        """Digests of plans that were named here; those that are not written yet, with their skeletons:"""
        self._undefined: dict[str, bytes] = {}
        self._steered: dict[int, tuple[int, int, int]] = {}

    def adopt(self, parent: RecordedCore, task: Task, frame_id: str, child: TriggerFlowExecution) -> None:
        """A sub flow begins: from now on its inputs are in this log too."""
        self.add(
            [
                "o",
                parent.child,
                parent.seq,
                task.num,
                frame_id,
                child.id,
                _dump_run(child.run_context),
                self.define(child._plan),
                encode(child._flow_data.get()),
                [child._core.concurrency, child._core.skip_exceptions],
                child._created_us,
            ]
        )
        self.child_count += 1
        self.enrol(child, self.child_count)

    def drop(self, parent: RecordedCore, num: int, frame_id: str, child: TriggerFlowExecution, record: Any) -> None:
        """A sub flow is over. ``record`` describes it, when people were asked in it."""
        self.add(["q", parent.child, parent.seq, num, frame_id, None if record is None else encode(record)])
        self.children = {n: each for n, each in self.children.items() if each is not child}

    def define(self, plan: Plan) -> str:
        """Return the digest of a plan; its skeleton goes with the next commit."""
        skeleton = dump_plan(plan)
        digest = plan_digest(skeleton)
        if digest not in self._defined:
            self._defined.add(digest)
            self._undefined[digest] = skeleton

        return digest

    def diverged(self, core: RecordedCore, task: Task, tag: str) -> None:
        """A re-run had the same effect with another value: the committed one wins, and somebody should know."""
        owner = self.execution if core.child == 0 else self.children[core.child]
        op = core.ops[task.op]
        payload = {"chunk_id": op.id, "chunk_name": op.name, "scope": core.scope(task), "effect": tag}
        owner._emit_event(
            owner._events.handler_diverged,
            payload,
            message=f"{core.scope(task)}: the re-run came to another value for {tag}; the committed one stays. "
            "Put what is not deterministic into data.step() or data.call().",
        )

    def row(self, row_id: int, kind: str, target: str | None, actor: str | None, outcome: str, detail: Any) -> None:
        """An inbox row has been dealt with; its outcome is committed with what it did."""
        self.rows[row_id] = (outcome, detail)
        if len(self.rows) > ROWS_KEPT:
            del self.rows[next(iter(self.rows))]

        self.add(["w", 0, self.execution._core.seq, row_id, kind, target, actor, outcome, detail])

    def steered(self, core: RecordedCore) -> None:
        """Record the interventions of a core that have changed since they were recorded last; the first time, all."""
        ledger = core.ledger
        if ledger is None:
            return

        stamp = (ledger.version, ledger.changes, len(ledger.pending))
        recorded = self._steered.get(core.child)
        if (recorded or (0, 0, 0)) != stamp:
            self._steered[core.child] = stamp
            news = ledger.news()
            self.add(["i", core.child, core.seq, ledger.dump() if recorded is None else news, core.version])
