"""One execution inside a replica, and the sub flows it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flowdeck.execution.core import Core
from flowdeck.execution.snapshot import ROWS_FORMAT, dump_core
from flowdeck.execution.state import PARKED
from flowdeck.execution.values import encode

__all__ = ["Frame", "Run"]


class Run:
    """One execution in the replica: the root, or the child of a sub flow."""

    def __init__(self, core: Core, execution_id: str, run: Mapping[str, Any], created_us: int, definition: str) -> None:
        self.core = core
        core.execution_id = execution_id
        self.definition = definition
        self.run = run
        self.lifecycle = "open"
        self.close_reason: str | None = None
        self.created_us = created_us
        self.started_us: int | None = None
        self.closed_us: int | None = None
        self.cancelled = False
        self.settings: tuple[Any, Any] = (False, None)
        self.flow_data: dict[str, Any] = {}
        self.frames: dict[int, Frame] = {}
        self.past_frames: list[dict[str, Any]] = []

    @property
    def status(self) -> str:
        core = self.core
        if core.error is not None:
            return "failed"

        if self.cancelled:
            return "cancelled"

        if self.lifecycle == "closed":
            return "completed"

        if not core.started:
            return "created"

        return "running" if core.active or not core.open_interrupts else "waiting"

    def dump(self, epoch: int, resource_keys: Iterable[str] = ()) -> dict[str, Any]:
        """Return the run in the shape of ``execution.save()``, without its checksum."""
        core = self.core
        state: dict[str, Any] = {
            "format": ROWS_FORMAT,
            "execution_id": core.execution_id,
            "flow": {"name": core.plan.flow_name, "fingerprint": core.plan.fingerprint},
            "epoch": epoch,
            "status": self.status,
            "lifecycle_state": self.lifecycle,
            "auto_close": self.settings[0],
            "auto_close_timeout": self.settings[1],
            "created_at": self.created_us,
            "started_at": self.started_us,
            "state_version": core.version,
            "run_context": dict(self.run),
            "runtime_data": encode(core.data),
            "resource_keys": sorted(resource_keys),
            "core": dump_core(core),
        }
        if self.closed_us is not None or self.close_reason is not None:
            state["closed_at"], state["close_reason"] = self.closed_us, self.close_reason

        if self.flow_data:
            state["flow_data"] = encode(self.flow_data)

        if self.frames or self.past_frames:
            state["sub_flow_frames"] = [*(f.dump(self, epoch) for f in self.frames.values()), *self.past_frames]

        return state


class Frame:
    """One activation of a sub-flow operator."""

    def __init__(self, frame_id: str, num: int, child: Run) -> None:
        self.id = frame_id
        self.num = num
        self.child = child
        self.roots: dict[str, str] = {}
        self.waited = False

    def dump(self, parent: Run, epoch: int) -> dict[str, Any]:
        task = next((t for t in parent.core.tasks.values() if t.num == self.num), None)
        return {
            "frame_id": self.id,
            "task": self.num,
            "status": "waiting" if task is not None and task.status == PARKED else "running",
            "waited": self.waited,
            "projected_interrupts": dict(self.roots),
            "child_saved_state": self.child.dump(epoch),
        }
