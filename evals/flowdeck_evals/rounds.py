"""What a round came to: the events it left, what it returned, what the checks said.

A round is one execution of one case. Its life::

    planner(case, n, level, directory)  -> RoundPlan     how it meets the world (flowdeck_evals.plans)
    target runs in a Runtime of its own -> Evidence      output, error, events, times
    checks                              -> CheckResult   ok, or unscored when a check raises
    state_of(round)                     -> state         exactly one of STATES
    results.round(round)                -> eval.round    one lossless event in the store
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from flowdeck_evals.cases import Case
from flowdeck_evals.happenings import Happening

__all__ = ["STATES", "CheckResult", "Evidence", "Finding", "Round", "State"]

State = Literal["passed", "failed", "errored", "timed_out", "diverged", "skipped", "unscored", "harness_error"]
STATES: Final[tuple[State, ...]] = (
    "passed",
    "failed",
    "errored",
    "timed_out",
    "diverged",
    "skipped",
    "unscored",
    "harness_error",
)


@dataclass(slots=True)
class Finding:
    """Something the plan noticed that no check asked for.

    ``kind`` decides what it does to the round: ``"divergence"`` makes it ``diverged`` (unless it failed), ``"failed"``
    makes it ``failed`` (an intervention that never fired, a question nobody answers), ``"missing"`` makes it
    ``harness_error`` (no tape, a lossy one), ``"warning"`` changes nothing.
    """

    kind: Literal["divergence", "failed", "missing", "warning"]
    message: str
    scope: str = ""
    recorded: Any = None
    actual: Any = None
    source: str = ""
    """``file:line`` in the flow, when known."""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"kind": self.kind, "message": self.message}
        for name in ("scope", "source"):
            if getattr(self, name):
                out[name] = getattr(self, name)

        if self.recorded is not None or self.actual is not None:
            out["recorded"], out["actual"] = self.recorded, self.actual

        if self.detail:
            out["detail"] = dict(self.detail)

        return out


@dataclass(slots=True)
class CheckResult:
    """What one check said of one round."""

    name: str
    ok: bool | None = None
    """``None``: it only scores, or it raised."""
    score: float | None = None
    label: str | None = None
    detail: str = ""
    """Why it failed, for people."""
    error: str = ""
    """The check itself raised: the round is unscored."""

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"name": self.name, "ok": self.ok}
        for key in ("score", "label", "detail", "error"):
            value = getattr(self, key)
            if value is not None and value != "":
                out[key] = value

        return out


@dataclass(slots=True)
class Evidence:
    """What happened, whoever it comes from: a run in this process, or the events of a stored one (``history``)."""

    output: Any = None
    """What a callable returned; of a flow its result, else its close snapshot."""
    snapshot: Mapping[str, Any] | None = None
    """The close snapshot of a flow."""
    error: BaseException | None = None
    error_type: str = ""
    error_message: str = ""
    timed_out: bool = False
    events: Sequence[Happening] = ()
    run_id: str | None = None
    execution_id: str | None = None
    wall_us: int = 0
    """From start to end on the wall."""
    work_us: int | None = None
    """Time the target spent itself: without waiting for people and for a place to run. ``None``: not known."""
    virtual_us: int | None = None
    """From start to end on the run's own clock, when that is virtual."""


@dataclass(slots=True)
class Round:
    """One execution of one case, as checks and reports see it."""

    case: Case[Any, Any]
    number: int
    """1-based."""
    evidence: Evidence
    level: str = "live"
    suite: str = ""
    state: State = "passed"
    checks: list[CheckResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    attempts: int = 1
    """More than 1: infrastructure failed and the round was started again."""
    reason: str = ""
    """Why it is in its state, on one line."""

    @property
    def input(self) -> Any:
        return self.case.input

    @property
    def output(self) -> Any:
        return self.evidence.output

    @property
    def error(self) -> BaseException | None:
        return self.evidence.error

    @property
    def events(self) -> Sequence[Happening]:
        """What happened, in order."""
        return self.evidence.events

    @property
    def calls(self) -> list[Happening]:
        """What the run asked of the world: ``call.*``."""
        return [event for event in self.evidence.events if event.kind.startswith("call.")]

    @property
    def human(self) -> list[Happening]:
        """What the run asked of people, and their answers: ``interrupt.*``."""
        return [event for event in self.evidence.events if event.kind.startswith("interrupt.")]

    @property
    def run_id(self) -> str | None:
        return self.evidence.run_id

    @property
    def metrics(self) -> dict[str, float]:
        """Wall, work, tokens, cost and steps, as budgets measure them; what is not known is left out."""
        from flowdeck_evals.budgets import metrics_of

        return metrics_of(self.evidence)
