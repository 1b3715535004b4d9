"""One audit as the demo runs it, the same with and without a terminal: observed, answered, accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdeck_devtools.cli._example import load
from flowdeck_devtools.cli._observe import lost_events, observe
from flowdeck_devtools.cli._stopping import run_stoppable

if TYPE_CHECKING:
    from flowdeck import Observation

__all__ = ["Order", "Outcome", "run_audit"]

_STORED_WITHIN_S = 2.0
_APPLIED_WITHIN_S = 5.0


@dataclass(frozen=True)
class Order:
    """What to audit and where things go."""

    paths: tuple[str, ...]
    out: str
    store: Path
    policy: Any = None
    """The example's ``Policy``, or ``None`` to wait for people."""


@dataclass
class Outcome:
    """What came of it."""

    summary: dict[str, Any] = field(default_factory=dict)
    execution_id: str = ""
    remarks: list[str] = field(default_factory=list)


def run_audit(order: Order, on_event: Callable[[Mapping[str, Any]], None]) -> Outcome:
    """Run the audit observed into ``order.store``.

    Raises:
        AuditError: a path or the output folder is unusable.
        flowdeck.layout.StoreError: the store cannot be used.
        Stopped: a signal came; the run is recorded as cancelled.
    """
    outcome = Outcome()

    def listen(event: Mapping[str, Any]) -> None:
        outcome.execution_id = str(event["execution_id"])
        on_event(event)

    with observe(order.store) as observation:
        answer = _Answering(observation, order.policy).answer if order.policy is not None else None
        audit = load("service").audit
        outcome.summary = run_stoppable(
            audit(order.paths, order.out, task_id="licence-audit", on_event=listen, answer=answer)
        )

    losses = lost_events(observation)
    if losses:
        outcome.remarks.append(losses)

    return outcome


class _Answering:
    """Answers by policy through the same door as people: a row in the store's inbox."""

    def __init__(self, observation: Observation, policy: Any) -> None:
        self._observation = observation
        self._policy = policy
        self._inbox_works = True

    async def answer(self, execution: Any, interrupt: Mapping[str, Any]) -> None:
        value = self._policy.answer(interrupt["payload"])
        actor = f"policy:{self._policy.name}"
        if await asyncio.to_thread(self._through_inbox, interrupt["id"], value, actor):
            return

        # The inbox is of no use (its disk is full, say). The audit can still be finished from here.
        self._inbox_works = False
        if interrupt["id"] in execution.get_pending_interrupts():
            with suppress(Exception):  # what fails after the answer fails the run, which reports it itself
                await execution.async_continue_with(interrupt["id"], value, actor=actor)

    def _through_inbox(self, interrupt_id: str, value: Any, actor: str) -> bool:
        from flowdeck.durable import ControlClient
        from flowdeck.layout import StoreError

        store = self._observation.store
        if not self._inbox_works or store is None or not self._observation.flush(_STORED_WITHIN_S):
            return False

        try:
            with ControlClient(store) as client:
                sent = client.answer(interrupt_id, value, actor)
                if sent.outcome is None and sent.row_id is not None:
                    sent = client.wait_outcome(sent.row_id, _APPLIED_WITHIN_S)

                return sent.outcome == "applied"
        except StoreError:
            return False
