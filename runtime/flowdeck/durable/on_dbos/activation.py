"""What DBOS knows of us: a queue for each flow, and one workflow of one step. Only its public names are used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from flowdeck.durable.postgres.address import Address
from flowdeck.layout import StoreError

try:
    from dbos import DBOS, SetWorkflowID
    from sqlalchemy.exc import SQLAlchemyError
except ImportError as error:  # pragma: no cover
    raise StoreError("executions on DBOS need the package dbos: pip install 'flowdeck[dbos]'") from error

__all__ = [
    "PROBLEMS",
    "Queued",
    "Running",
    "hand_over",
    "join",
    "leave",
    "listen",
    "pending",
    "queue_of",
    "resume",
    "unfinished",
]

VERSION: Final = "flowdeck-1"
"""What DBOS calls the application's version: ours, not that of the flows. Whether a flow that has changed can go on is
decided by us, and shown as ``blocked_version``; DBOS would let it lie without a word."""
APPLICATION: Final = "flowdeck"
MAX_ATTEMPTS: Final = 1_000_000
"""DBOS gives a workflow up after so many recoveries; an activation is never given up."""
OPEN: Final = ["PENDING", "ENQUEUED", "DELAYED"]
AT_ONCE: Final = 500
PROBLEMS: Final = (SQLAlchemyError,)
"""What DBOS raises when the server refuses; while it cannot be reached, DBOS waits."""

Activate = Callable[[str, str, int], Awaitable[str]]
_serving: Activate | None = None


class Queued:
    """An activation that shall run: of which execution, and which token it may claim; 0: it shall be started."""

    __slots__ = ("execution_id", "flow_name", "id", "token")

    def __init__(self, flow_name: str, execution_id: str, token: int) -> None:
        self.flow_name = flow_name
        self.execution_id = execution_id
        self.token = token
        self.id = f"{execution_id}:{token}"
        """The workflow's id."""


class Running:
    """A workflow that somebody has taken from its queue."""

    __slots__ = ("executor", "id", "queue")

    def __init__(self, id: str, executor: str, queue: str) -> None:
        self.id = id
        self.executor = executor
        self.queue = queue


@DBOS.workflow(name="flowdeck_activation", max_recovery_attempts=MAX_ATTEMPTS)
async def _activation(flow_name: str, execution_id: str, token: int) -> str:
    outcome: str = await DBOS.run_step_async({"name": "activation"}, _step, flow_name, execution_id, token)
    return outcome


async def _step(flow_name: str, execution_id: str, token: int) -> str:
    if _serving is None:  # it stops: nothing is recorded, so the workflow stays pending and is handed on
        raise asyncio.CancelledError

    return await _serving(flow_name, execution_id, token)


def queue_of(flow_name: str) -> str:
    """Return the name of the queue that the workers of a flow listen to."""
    return f"flowdeck.{flow_name}"


def join(address: Address, executor: str, activate: Activate, flows: Iterable[str]) -> None:
    """Launch DBOS in this process. To be called on the loop that flows run on.

    Raises:
        StoreError: this process runs DBOS already, or it cannot be launched.
    """
    global _serving
    schema = "dbos" if address.schema == "flowdeck" else f"{address.schema}_dbos"
    if _serving is not None:
        raise StoreError("this process serves flows on DBOS already")

    try:
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": address.url,
                "dbos_system_schema": schema,
                "executor_id": executor,
                "application_version": VERSION,
                "log_level": "ERROR",
            }
        )
        if DBOS.executor_id != executor:  # one that was there has won; under its name our work would be taken for dead
            raise StoreError("this process runs DBOS for something else; serve flows in a process of their own")

        DBOS.listen_queues([queue_of(name) for name in flows])
        _serving = activate
        DBOS.launch()
    except StoreError:
        raise
    except Exception as problem:
        _serving = None
        DBOS.destroy()
        raise StoreError(f"DBOS cannot be launched over {address}: {problem}") from problem


def listen(flows: Iterable[str], limits: dict[str, Any]) -> None:
    """Say which queues there are, and how much of them may run. Not on a running loop."""
    for name in flows:
        DBOS.register_queue(queue_of(name), **limits)


def leave() -> None:
    """Take nothing more, and end DBOS in this process. Not on a running loop."""
    global _serving
    _serving = None
    logging.getLogger("dbos").setLevel(logging.CRITICAL)  # of work that is under way and goes on elsewhere
    DBOS.destroy()


def hand_over(wanted: Sequence[Queued]) -> int:
    """Enqueue what DBOS does not have yet. Returns how much that was. Not on a running loop."""
    count = 0
    for start in range(0, len(wanted), AT_ONCE):
        some = {each.id: each for each in wanted[start : start + AT_ONCE]}
        found = DBOS.list_workflows(workflow_ids=list(some), load_input=False, load_output=False)
        known = {status.workflow_id: status.status for status in found}
        for each in some.values():
            if each.id not in known:
                count += _enqueue(each, each.id)
            elif known[each.id] not in OPEN:
                count += _again(each)

    return count


def _enqueue(queued: Queued, id: str) -> int:
    with SetWorkflowID(id):
        DBOS.enqueue_workflow(
            queue_of(queued.flow_name), _activation, queued.flow_name, queued.execution_id, queued.token
        )

    return 1


def _again(queued: Queued) -> int:
    """Its workflow has ended, and yet there is work under the same token: it was cancelled, or came at a bad moment."""
    tries = DBOS.list_workflows(workflow_id_prefix=f"{queued.id}+", load_input=False, load_output=False)
    if any(status.status in OPEN for status in tries):
        return 0

    return _enqueue(queued, f"{queued.id}+{len(tries) + 1}")


def pending(flows: Iterable[str]) -> list[Running]:
    """Return what was taken from the queues of these flows and has not ended. Not on a running loop."""
    found = DBOS.list_workflows(
        status="PENDING", queue_name=[queue_of(name) for name in flows], load_input=False, load_output=False
    )
    return [Running(each.workflow_id, each.executor_id or "", each.queue_name or "") for each in found]


def unfinished(flows: Iterable[str]) -> bool:
    """Tell whether anything is enqueued or under way. Not on a running loop."""
    queues = [queue_of(name) for name in flows]
    return bool(DBOS.list_workflows(status=OPEN, queue_name=queues, limit=1, load_input=False, load_output=False))


def resume(running: Running) -> None:
    """Put a workflow whose process is gone back into its queue. Not on a running loop."""
    DBOS.resume_workflow(running.id, queue_name=running.queue)
