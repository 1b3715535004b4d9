"""How a round meets the world: ports, clock, people and interventions. The seam between runner and replay.

Order of calls, for one round::

    plan = await planner(case, number, level)   may raise Missing: the round is a harness_error, the session incomplete
    if plan.evidence is not None: ...             history: nothing runs, the target is not even imported
    services = Services(center, clock=plan.clock, ports=plan.ports); plan.attach(services)
    plan.make = ...                               creates an execution of the flow on these services
    execution = plan.make()                                            or  value = callable(input)
    snapshot = await plan.drive(execution, input)    may make further ones; the last one counts
    findings = plan.finish(evidence)              always, also after an error or a timeout

A tape is a handle on the plan, never a global: two rounds of one process cannot mix theirs up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from flowdeck.errors import PendingInterruptsError
from flowdeck.execution.ports import Clock, Ports
from flowdeck_evals.cases import Case, Level
from flowdeck_evals.rounds import Evidence, Finding

if TYPE_CHECKING:
    from flowdeck.events.record import EventRecord
    from flowdeck.execution.services import Services

__all__ = ["Missing", "Planner", "RoundPlan", "plan_round"]


class Missing(Exception):
    """Something a round needs is not there (a tape, a part of a lossy tape); names the thing and the mend."""


class RoundPlan:
    """How one round meets the world. The base class is level ``live``: everything real, nobody answers questions.

    A replay subclasses it (or fills its attributes). One object serves one round.
    """

    def __init__(
        self,
        *,
        ports: Ports | None = None,
        clock: Clock | None = None,
        answerer: Any = None,
        interventions: Any = None,
        evidence: Evidence | None = None,
        debug: bool = False,
    ) -> None:
        self.ports = ports
        """Answers port calls; ``None``: the world does."""
        self.clock = clock
        """The run's time; ``None``: the machine's."""
        self.answerer = answerer
        """Answers interrupts; ``None``: nobody does, and a run that asks fails."""
        self.interventions = interventions
        self.evidence = evidence
        """When set, nothing runs: this is what happened (level ``history``)."""
        self.debug = debug
        """Whether the plan needs DEBUG events collected (port calls and signals)."""
        self.findings: list[Finding] = []
        self.observers: list[Callable[[EventRecord], None]] = []
        """Called with every event of the round, in the middle of the transition that emitted it. A sink of the Event
        Center would do the same; connecting one costs more than a small flow."""
        self.make: Callable[[], Any] | None = None
        """Creates an execution of what is evaluated; ``None`` for a callable. The round's result is the last one's."""

    def attach(self, services: Services) -> None:
        """Prepare what hosts the run; called before the execution is created."""

    async def drive(self, execution: Any, value: Any) -> Any:
        """Run an execution to its end and return its close snapshot.

        The base class answers no interrupt: a question left open is a ``failed`` finding, and the run is cancelled.
        """
        execution.auto_close = False
        await execution.async_start(value)
        try:
            return await execution.async_close(reason="finished")
        except PendingInterruptsError:
            for record in execution.get_pending_interrupts().values():
                kind, scope = record.get("type"), record.get("scope") or ""
                self.findings.append(
                    Finding("failed", f"interrupt {kind!r} waits and no human rule answers it", scope=scope)
                )

            return await execution.async_cancel(reason="nobody answers")

    def finish(self, evidence: Evidence) -> Sequence[Finding]:
        """Return what was noticed: divergences, rules and interventions never used."""
        return self.findings


Planner = Callable[[Case[Any, Any], int, Level], Awaitable[RoundPlan]]
"""``(case, round number from 1, level)`` -> the plan of that round."""


async def plan_round(case: Case[Any, Any], number: int, level: Level) -> RoundPlan:
    """Return the plan of a round as its case says.

    Raises:
        Missing: it needs a recording that is not there.
    """
    from flowdeck_evals.planning import plan_case  # it builds on this module

    return plan_case(case, number, level)
