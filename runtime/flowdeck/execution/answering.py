"""Asking the answerer: whoever answers interrupts in the place of people.

``ask(execution, interrupt)`` is called when an interrupt has been applied. The answerer is asked in a task of its own,
so the handler that paused has had its say; in a durable execution everything up to the pause is committed first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowdeck.errors import InterruptError, UnencodableValue
from flowdeck.execution.ports import Question, Reply
from flowdeck.execution.values import copy_value

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.state import Interrupt

__all__ = ["ask"]


def ask(execution: Any, interrupt: Interrupt) -> None:
    """Let the answerer be asked about ``interrupt``.

    The innermost execution asks, for it knows the place; before it has an event loop that waits for the loop.
    """
    key = f"ask:{interrupt.id}"
    loop = execution._driver.loop
    if loop is not None and interrupt.frame is None and key not in execution._timers:
        execution._keep_timer(key, loop.create_task(_ask(execution, key, interrupt.id)))


async def _ask(execution: TriggerFlowExecution, key: str, interrupt_id: str) -> None:
    try:
        if execution._driver.gate is not None:
            await execution._driver.gate.committed()

        interrupt = _waiting(execution, interrupt_id)
        reply = _consult(execution, interrupt) if interrupt is not None else None
        if reply is None:
            return

        if reply.after > 0:
            await execution._services.clock.sleep(reply.after)
    finally:
        if key in execution._timers:
            del execution._timers[key]

    _deliver(execution, interrupt_id, reply)


def _waiting(execution: TriggerFlowExecution, interrupt_id: str) -> Interrupt | None:
    if execution._lifecycle != "open":
        return None

    interrupt = execution._core.interrupts.get(interrupt_id)
    return interrupt if interrupt is not None and interrupt.status == "waiting" else None


def _outermost(execution: TriggerFlowExecution, interrupt_id: str) -> tuple[TriggerFlowExecution, str]:
    """Return the execution that can be answered from outside, and the interrupt's id there."""
    link = execution._link
    if link is None:
        return execution, interrupt_id

    target = link.root_id(interrupt_id)
    while execution._link is not None:
        execution = execution._link.parent

    return execution, target


def _consult(execution: TriggerFlowExecution, interrupt: Interrupt) -> Reply | None:
    outermost, target = _outermost(execution, interrupt.id)
    question = Question(
        outermost.id,
        target,
        interrupt.type,
        execution._place(interrupt.scope),
        copy_value(interrupt.payload),
        interrupt.schema,
        interrupt.expires_us,
    )
    answerer = execution._services.answerer
    assert answerer is not None
    try:
        return answerer.answer(question)
    except Exception as exc:
        execution._warn(f"nobody answers {interrupt.type!r} at {question.scope!r}: {type(exc).__name__}: {exc}")
        return None


def _deliver(execution: TriggerFlowExecution, interrupt_id: str, reply: Reply) -> None:
    interrupt = _waiting(execution, interrupt_id)
    if interrupt is None:
        return  # somebody else was quicker

    if reply.declined:
        execution._expire(interrupt)
        return

    outermost, target = _outermost(execution, interrupt_id)
    if _waiting(outermost, target) is None:
        return

    try:
        outermost._answer(target, reply.value, reply.actor)
    except (InterruptError, UnencodableValue) as exc:
        detail = f"{type(exc).__name__}: {exc}"
        outermost._tell_applied("resume", target, reply.actor, "rejected", detail)
        outermost._warn(f"the answer to {target!r} was refused: {detail}")
    else:
        outermost._driver.drain()
        outermost._on_idle()
