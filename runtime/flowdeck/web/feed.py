"""A run's stream for readers that come and go: every frame has a position, and a reader goes on after its last one.

Order of one feed: what the reader has not seen yet -> live items as they are put (in a durable run: committed) ->
``waiting`` each time the run comes to wait for somebody -> ``closed`` or ``failed``, and the end. A reader that comes
back to another epoch is told ``reset`` with the number of items that still stand; one that is too late for what the
stream keeps is told ``gap``. When the run is taken over by another process, ``dropped`` is the last: it has not ended.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, NamedTuple

import msgspec

from flowdeck.product import product_event
from flowdeck.triggerflow import TriggerFlowExecution

__all__ = ["BATCH", "Frame", "Position", "Translate", "encode_item", "feed", "run_problem"]

BATCH: Final = 256
"""Items handed on at once."""

Translate = Callable[[Any, str, str | None], Any]


class Position(NamedTuple):
    """Where a reader stands: so many items of that epoch seen, and perhaps the end."""

    epoch: int
    offset: int
    ended: bool = False

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}" + (":end" if self.ended else "")

    @classmethod
    def parse(cls, text: str | None) -> Position | None:
        """Read a position back; ``None`` for none.

        Raises:
            ValueError: it is no position of ours.
        """
        if not text:
            return None

        parts = text.split(":")
        if len(parts) not in (2, 3) or not all(p.isascii() and p.isdigit() and len(p) < 16 for p in parts[:2]):
            raise ValueError(f"position {text[:40]!r}: expected epoch:offset")

        if parts[2:] not in ([], ["end"]):
            raise ValueError(f"position {text[:40]!r}: expected epoch:offset")

        return cls(int(parts[0]), int(parts[1]), len(parts) == 3)


class Frame(NamedTuple):
    """Something to send."""

    event: str
    """``item``, or one of the feed's own: ``waiting``, ``closed``, ``failed``, ``reset``, ``gap``, ``dropped``."""
    position: Position
    data: Any


def run_problem(execution: TriggerFlowExecution, expose: bool) -> dict[str, Any] | None:
    """Return why a run failed, as far as a client may know; ``None`` when it has not."""
    error = execution._driver.failure
    if execution.get_status() != "failed":
        return None

    if expose and error is not None:
        return {"type": type(error).__name__, "message": str(error)[:2_000]}

    return {"type": "RunFailed", "message": f"the run failed; `flowdeck why {execution.id}` shows where"}


async def feed(
    execution: TriggerFlowExecution,
    after: Position | None = None,
    *,
    until_waiting: bool = False,
    expose_errors: bool = False,
    translate: Translate | None = product_event,
    heartbeat: float = 15.0,
) -> AsyncGenerator[list[Frame], None]:
    """Yield frames in batches, live, until the run has ended; an empty batch is a heartbeat.

    Args:
        after: the last position the reader has seen.
        until_waiting: end after the first ``waiting``, too.
        translate: turns items into what the reader may see; ``None`` hands them on as they are.
        heartbeat: seconds without a frame after which an empty batch is yielded.
    """
    stream, epoch = execution.stream, execution.epoch
    offset, told = 0, False
    if after is not None:
        offset = min(after.offset, len(stream))
        if after.epoch != epoch or offset < after.offset:
            yield [Frame("reset", Position(epoch, offset), {"epoch": epoch, "offset": offset})]

    task_id = execution.run_context.meta.get("task_id")
    changed: asyncio.Future[None] | None = None
    try:
        while True:
            frames: list[Frame] = []
            if offset < stream.first:
                missed, offset = stream.first - offset, stream.first
                frames.append(Frame("gap", Position(epoch, offset), {"missed": missed}))

            for item in stream.since(offset, BATCH):
                offset += 1
                told = False
                shown = item if translate is None else translate(item, execution.id, task_id)
                if shown is not None:
                    frames.append(Frame("item", Position(epoch, offset), shown))

            here = offset == len(stream)
            if here and stream.closed:
                if execution.is_closed():
                    frames.append(_end(execution, Position(epoch, offset, True), expose_errors))
                else:
                    reason = {"reason": "the run was taken over by another server; connect again to go on"}
                    frames.append(Frame("dropped", Position(epoch, offset), reason))

                yield frames
                return

            if here and stream.resting and not told:
                told = True
                frames.append(_rest(execution, Position(epoch, offset), expose_errors))

            if frames:
                yield frames
                if told and until_waiting:
                    return

                continue

            if not here:
                continue

            if changed is None:
                changed = stream.changed()

            done, _ = await asyncio.wait([changed], timeout=heartbeat)
            if done:
                changed = None
            else:
                yield []
    finally:
        if changed is not None:
            stream.forget(changed)


def _rest(execution: TriggerFlowExecution, position: Position, expose: bool) -> Frame:
    status = execution.get_status()
    data: dict[str, Any] = {"execution_id": execution.id, "status": status}
    data["interrupt_ids"] = list(execution.get_pending_interrupts())
    problem = run_problem(execution, expose)
    if problem is not None:
        data["error"] = problem  # another branch has failed; what is asked can be answered all the same

    return Frame("waiting", position, data)


def _end(execution: TriggerFlowExecution, position: Position, expose: bool) -> Frame:
    status = execution.get_status()
    data: dict[str, Any] = {"execution_id": execution.id, "status": status}
    problem = run_problem(execution, expose)
    if problem is not None:
        data["error"] = problem

    return Frame("failed" if status == "failed" else "closed", position, data)


def encode_item(data: Any) -> bytes:
    """Return JSON of one line; what JSON does not know becomes its text."""
    try:
        return msgspec.json.encode(data, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError):  # half a surrogate pair, an integer as a key
        return json.dumps(data, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_none=True) if dump is not None else str(value)
