"""Polling: a system that cannot call us is asked what is new. A record that is seen twice is one task."""

from collections.abc import Awaitable, Callable

from .office import Office

Fetch = Callable[[int], Awaitable[list[dict]]]
"""``fetch(after)`` returns records ``{"number", "topic"}`` with numbers above ``after``, in order."""


async def poll_once(office: Office, fetch: Fetch) -> int:
    """Open a task for each new record. The cursor is the highest task there is: it cannot run ahead of the work."""
    await office.catch_up()
    seen = [int(task.task_id.removeprefix("record-")) for task in office.tasks("task_id LIKE 'record-%'")]
    count = 0
    for record in await fetch(max(seen, default=0)):
        count += await office.open_task(f"record-{record['number']:08}", record["topic"])

    return count
