"""The parent's side of sub flows: its frames, the interrupts it projects, and what it saves of its children."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from flowdeck.errors import SnapshotError
from flowdeck.execution.activity import NONE
from flowdeck.execution.inbox import InboxMixin
from flowdeck.execution.snapshot import load_state
from flowdeck.execution.state import Interrupt
from flowdeck.execution.sub_flow import SubFlowFrame, SubFlowLink, bound_resources, projected_id
from flowdeck.execution.values import copy_loosely, decode, encode

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["FramesMixin"]


class FramesMixin(InboxMixin):
    """The part of an execution that has children."""

    if TYPE_CHECKING:  # supplied by the other parts

        def _put_item(self, item: Any, origin: dict[str, Any] | None, run: Any) -> None: ...

    _past_frames: dict[str, dict[str, Any]] = NONE
    """Records of completed frames that had waited."""

    def get_sub_flow_frames(self) -> dict[str, dict[str, Any]]:
        """Return the records of the sub flows that run or wait, and of those that waited once; by frame id.

        Raises:
            UnencodableValue: a waiting child holds a value that cannot be stored.
        """
        past: dict[str, dict[str, Any]] = copy_loosely(self._past_frames)
        return {**past, **{frame.id: frame.describe(self._self()) for frame in self._frames.values()}}

    def _self(self) -> TriggerFlowExecution:
        return self  # type: ignore[return-value]

    # -- what a child tells --------------------------------------------------------------------------------------

    def _bridge(self, item: Any, origin: dict[str, Any] | None) -> None:
        """A child has put an item on its stream: it goes on to this one."""
        if self._lifecycle != "closed":
            if self._contract is not None and not _is_system(item):
                self._check_item(item, origin, self.run_context)

            self._active()
            self._put_item(item, origin, self.run_context)

    def _child_closed(self, frame: SubFlowFrame, child: Interrupt) -> None:
        """A child's interrupt does not wait any more, and not because its projection was answered here."""
        root = self._core.interrupts.get(projected_id(frame, child))
        if root is None or root.status != "waiting":
            return

        self._core.child_closed(root.id, child)
        if root.status == "expired":
            self._tell_expired(root)
            self._closed_interrupt(root)
        elif root.status == "resumed":
            self._answered(root)
        else:
            self._closed_interrupt(root)

        self._waiting_announced = False
        if self._lifecycle != "closed":
            self._driver.drain()

    def _record_of_caller(self) -> int:
        """Return the record of the operator whose child's handler calls, or 0."""
        for frame in self._frames.values():
            if frame.child._driver.own_records():
                return frame.task.rec

        return 0

    # -- projecting ----------------------------------------------------------------------------------------------

    def _project(self, frame: SubFlowFrame) -> None:
        """Open an interrupt of our own for each that waits in the child."""
        core = self._core
        for child in frame.child._core.open_interrupts:
            root_id = projected_id(frame, child)
            known = core.interrupts.get(root_id)
            if known is not None and known.status == "waiting":
                continue

            root = core.project(frame.task, frame.id, child)
            frame.roots[root_id] = child.id
            frame.waited = True
            self._announce(root, "project", self.run_context)

    def _deliver_to_child(self, root: Interrupt) -> None:
        """A projected interrupt was answered. A parked operator hands it on when it has a place to run again."""
        frame = next((f for f in self._frames.values() if root.id in f.roots), None)
        if frame is not None and frame.status == "running":
            self._deliver_all(frame)

    def _deliver_all(self, frame: SubFlowFrame) -> None:
        child = frame.child
        child._bind()
        for root_id, local_id in frame.roots.items():
            root, local = self._core.interrupts.get(root_id), child._core.interrupts.get(local_id)
            if root is not None and root.status == "resumed" and local is not None and local.status == "waiting":
                _, group, _ = child._answer(local_id, root.response, root.actor)
                frame.answers[root_id] = waiter = child._driver.waiter(group)
                waiter.add_done_callback(_look)

        child._driver.drain()

    def _withdraw(self, frame: SubFlowFrame, reason: str) -> None:
        """Nobody needs to answer the frame's interrupts any more."""
        now = self._services.clock.time_us()
        given_up: list[Interrupt] = []
        for root_id in frame.roots:
            root = self._core.interrupts.get(root_id)
            if root is not None and root.status == "waiting":
                given_up.append(self._core.cancel_interrupt(root_id, now, reason))
                self._closed_interrupt(root)

        if given_up:
            records = [self._record(root) for root in given_up]
            self._emit_event(self._events.pending_interrupts_cancelled, {"reason": reason, "interrupts": records})

    async def _sub_flow_settled(self, interrupt: Interrupt) -> None:
        """Return once the child's branch that an answer resumed has, and its operator if that was the last one.

        Raises:
            Exception: whatever the branch raised.
        """
        frame = next((f for f in self._frames.values() if interrupt.id in f.roots), None)
        if frame is None or frame.status != "running":
            return

        answered = frame.answers.pop(interrupt.id, None)
        if answered is not None:
            await asyncio.shield(answered)

        if frame.status == "running" and not frame.child._driver.live:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            frame.settled.append(waiter)
            await waiter

    # -- the end -------------------------------------------------------------------------------------------------

    def _drop_frame(self, frame: SubFlowFrame) -> None:
        """The child is closed. A record stays if people were asked in it."""
        if frame.task.num in self._frames:
            del self._frames[frame.task.num]

        frame.status = "completed" if frame.child.get_status() == "completed" else "cancelled"
        record = frame.describe(self._self()) if frame.waited else None
        if record is not None:
            self._keep_past(frame.id, record)

        if self._driver.gate is not None:
            self._driver.gate.drop(frame.task.num, frame.id, frame.child, record)

        frame.child._link = None

    async def _close_children(self, reason: str) -> None:
        """Cancel the children of operators that will not run again, but not the one whose handler closes us."""
        own = self._driver.own_records()
        for frame in [each for each in self._frames.values() if each.task.rec not in own]:
            await frame.child.async_cancel(reason=reason)
            self._drop_frame(frame)
            frame.release()

    def _keep_frame(self, frame: SubFlowFrame) -> None:
        if self._frames is NONE:
            self._frames = {}

        self._frames[frame.task.num] = frame

    def _keep_past(self, frame_id: str, record: dict[str, Any]) -> None:
        if self._past_frames is NONE:
            self._past_frames = {}

        self._past_frames[frame_id] = record

    # -- saving --------------------------------------------------------------------------------------------------

    def _save_frames(self) -> list[dict[str, Any]]:
        live = [
            {
                "frame_id": frame.id,
                "task": frame.task.num,
                "status": frame.status,
                "waited": frame.waited,
                "projected_interrupts": dict(frame.roots),
                "child_saved_state": frame.child.save(),
            }
            for frame in self._frames.values()
        ]
        past = [{"frame_id": each, "record": encode(record)} for each, record in self._past_frames.items()]
        return [*live, *past]

    def _load_frames(self, saved: list[dict[str, Any]]) -> None:
        """Bring the children back. Their definitions are those of the flow objects, not of the saved state.

        Raises:
            MissingResource: a child is bound to a resource that was not injected.
            SnapshotError: an operator runs no sub flow any more, or a child's state cannot be loaded.
        """
        tasks = {task.num: task for task in self._core.tasks.values()} if saved else {}
        for each in saved:
            if "record" in each:
                self._keep_past(each["frame_id"], decode(each["record"]))
                continue

            task = tasks[each["task"]]
            op = self._plan.ops[task.op]
            if op.sub_flow is None:
                raise SnapshotError(f"operator {op.key!r} ran a sub flow when the state was saved; now it runs none")

            state = each["child_saved_state"]
            child: TriggerFlowExecution = op.sub_flow.flow.create_child(
                parent=self._self(),
                execution_id=state["execution_id"],
                run=self.run_context,
                resources=bound_resources(self._self(), op),
                concurrency=op.sub_flow.concurrency,
            )
            load_state(child, state, "utf-8", resources_needed=False, trusted="sha256" not in state)
            child._restored = True
            frame = SubFlowFrame(each["frame_id"], task, op, child, self._core.scope(task))
            frame.status, frame.waited = each["status"], each["waited"]
            frame.roots = dict(each["projected_interrupts"])
            child._link = SubFlowLink(self._self(), frame)
            self._keep_frame(frame)


def _look(answered: asyncio.Future[None]) -> None:
    """Take note of a branch's failure: when nobody awaits the answer, the operator still raises it."""
    if not answered.cancelled():
        answered.exception()


def _is_system(item: Any) -> bool:
    """Whether the framework itself put the item on a child's stream, so that no contract speaks of it."""
    return isinstance(item, dict) and item.get("type") in ("interrupt", "intervention") and "execution_id" in item
