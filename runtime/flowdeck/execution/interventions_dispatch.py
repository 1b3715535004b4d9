"""Where interventions become visible: what the driver does right before an operator of a steered execution is reached.

Order: a re-run sees what it saw before the crash -> the built-in rules, or the user's policy, select pending items ->
the ledger inserts them -> the activation's view is fixed (one integer in its committed tags) -> the operator runs.
An execution without a ledger never comes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextvars import copy_context
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, Final

from flowdeck.definition.plan import POINT
from flowdeck.errors import InterventionPolicyError
from flowdeck.events.lineage import current_run
from flowdeck.execution.interventions_ledger import BUILTIN, PLANNED, VIEW, Ledger, address
from flowdeck.execution.state import CANCELLING, Task
from flowdeck.execution.values import copy_loosely

if TYPE_CHECKING:
    from flowdeck.definition.plan import PlanOp
    from flowdeck.execution.driver import Driver

__all__ = ["admit"]

_SPARE_IDS: Final = 100
"""Ids a policy may return beyond one for each intervention there is."""


async def admit(driver: Driver, task: Task, op: PlanOp) -> bool:
    """Let ``task`` reach its operator. Returns ``False`` when it was stopped while a policy was asked."""
    core = driver.core
    ledger = core.ledger
    assert ledger is not None
    if task.tags is not None and VIEW in task.tags:
        return True

    if ledger.pending:
        policy = driver.execution._policy
        if ledger.mode == PLANNED:
            if op.kind == POINT:
                driver.execution._insert(ledger.due(core.plan, op), task, op, None)
        elif policy is None:
            driver.execution._insert(ledger.due(core.plan, op), task, op, BUILTIN)
        else:
            name = str(getattr(policy, "__name__", type(policy).__name__))
            try:
                ids = await _asked(driver, ledger, task, op, name)
            except asyncio.CancelledError:
                return _stopped(driver, task)

            driver.execution._insert(ids, task, op, name)
            if task.status == CANCELLING:
                core.stopped(task)
                return False

    if task.tags is None:
        task.tags = {}

    task.tags[VIEW] = ["view", ledger.changes]
    return True


def _stopped(driver: Driver, task: Task) -> bool:
    """The branch was cancelled while its policy was asked: by the core, or with the whole event loop."""
    if task.status != CANCELLING:
        if driver.gate is not None:
            driver.gate.log.suspend()
            raise asyncio.CancelledError

        driver.core.failed(task, "CancelledError", "the event loop was stopped")
        driver.drain()
        raise asyncio.CancelledError

    current = asyncio.current_task()
    if current is not None:
        current.uncancel()

    driver.core.stopped(task)
    return False


async def _asked(driver: Driver, ledger: Ledger, task: Task, op: PlanOp, name: str) -> list[str]:
    """Return what the user's policy selects. Whatever is wrong with it is told in an event; the flow goes on."""
    execution = driver.execution
    policy = execution._policy
    assert policy is not None
    current_run.set(driver.run)
    variables = copy_context()  # what a policy sets must not reach the operator
    try:
        chosen = variables.run(policy, _context(driver, ledger, task, op))
        if isawaitable(chosen):
            answer = chosen if iscoroutine(chosen) else _wait(chosen)
            chosen = await asyncio.get_running_loop().create_task(answer, context=variables)

        ids, strange = _ids(chosen, ledger)
    except (Exception, asyncio.CancelledError) as exc:
        current = asyncio.current_task()
        if isinstance(exc, asyncio.CancelledError) and current is not None and current.cancelling():
            raise  # it is the branch that was cancelled, not something the policy waited for

        error = InterventionPolicyError(f"intervention policy {name!r} raised before {op.key!r}: {exc!r}")
        error.__cause__ = exc
        execution._policy_failed(op, name, error, [])
        return []

    if strange:
        error = InterventionPolicyError(
            f"intervention policy {name!r} selected what is not there before {op.key!r}: "
            f"{', '.join(strange[:5])}; it returns None, the id of a pending intervention, or several"
        )
        execution._policy_failed(op, name, error, strange)

    return ids


async def _wait(answer: Any) -> Any:
    return await answer


def _context(driver: Driver, ledger: Ledger, task: Task, op: PlanOp) -> dict[str, Any]:
    """Return what a policy decides by: copies only."""
    core = driver.core
    place = address(core.plan, op)
    return {
        "execution_id": core.execution_id,
        "flow_name": core.plan.flow_name,
        "signal": {
            "id": f"s{task.sig}",
            "trigger_event": task.event,
            "trigger_type": task.type,
            "value": copy_loosely(task.value),
            "source": task.source,
        },
        "operator": {**place._asdict(), "key": op.key, "options": dict(op.options)},
        "operator_id": place.id,
        "operator_name": place.name,
        "operator_kind": place.kind,
        "group_id": place.group_id,
        "group_kind": place.group_kind,
        "scope": core.scope(task),
        "pending_interventions": [item.record() for item in ledger.pending.values()],
        "state": core.snapshot_data(),
        "latest_inserted_version": ledger.latest_inserted,
    }


def _ids(chosen: Any, ledger: Ledger) -> tuple[list[str], list[str]]:
    """Return the ids the ledger knows, and what else the policy returned, as text."""
    if chosen is None:
        return [], []

    several = isinstance(chosen, Iterable) and not isinstance(chosen, str | bytes | dict)
    ids: list[str] = []
    strange: list[str] = []
    for count, each in enumerate(chosen if several else [chosen]):
        if count >= len(ledger.items) + _SPARE_IDS:  # it may never end
            strange.append(f"more than {count} ids")
            break

        if isinstance(each, str) and each in ledger.items:
            ids.append(each)
        else:
            strange.append(repr(each)[:100])

    return ids, strange
