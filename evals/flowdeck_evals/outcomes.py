"""What is kept of a round for the verdict: small, so that ten thousand of them do not weigh anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from flowdeck_evals.budgets import model_usage
from flowdeck_evals.cases import ALL, Case, Need
from flowdeck_evals.rounds import Round
from flowdeck_evals.statistics.repeated import pass_at_k, pass_power

__all__ = ["CaseOutcome", "RoundOutcome", "gather"]


class RoundOutcome(msgspec.Struct, gc=False):
    """One round as the gate sees it."""

    suite: str
    case_id: str
    case_hash: str
    round: int
    state: str
    reason: str = ""
    wall_us: int = 0
    run_id: str | None = None
    attempts: int = 1
    failed_checks: tuple[str, ...] = ()
    tokens: float | None = 0
    """``None``: a model was asked and nobody told."""
    cost_usd: float | None = 0
    scores: dict[str, float] | None = None
    """Of checks that only score, such as judges."""

    @classmethod
    def of(cls, round: Round) -> RoundOutcome:
        tokens, cost = model_usage(round.evidence)
        return cls(
            round.suite,
            round.case.id,
            round.case.hash,
            round.number,
            round.state,
            round.reason,
            round.evidence.wall_us,
            round.run_id,
            round.attempts,
            tuple(one.name for one in round.checks if one.ok is False or one.error) if round.checks else (),
            tokens,
            cost,
            {one.name: one.score for one in round.checks if one.score is not None and one.ok is None} or None
            if round.checks
            else None,
        )


class CaseOutcome(msgspec.Struct):
    """All rounds of one case. ``state`` is ``passed`` only when as many rounds passed as the case needs."""

    suite: str
    case_id: str
    case_hash: str
    deterministic: bool
    control: bool
    need: Need
    rounds: list[RoundOutcome]
    state: str = ""
    reason: str = ""
    file: str = ""
    line: int = 0
    tags: tuple[str, ...] = ()
    why: str = ""
    quarantine: tuple[str, str, str] | None = None
    """Owner, why, last day; it runs and is shown, and does not block."""

    @property
    def passed_rounds(self) -> int:
        return sum(one.state == "passed" for one in self.rounds)

    @property
    def flaky(self) -> bool:
        """Whether its rounds disagree."""
        return len({one.state == "passed" for one in self.rounds if one.state not in ("skipped", "harness_error")}) > 1

    @property
    def wall_us(self) -> int:
        return sum(one.wall_us for one in self.rounds)


_UNTRUSTED = ("harness_error", "unscored")
_ORDER = ("timed_out", "errored", "failed", "diverged")


def gather(
    cases: Iterable[tuple[str, Case[Any, Any], bool, int]], rounds: Mapping[tuple[str, str], list[RoundOutcome]]
) -> list[CaseOutcome]:
    """Return one outcome per case, in the given order: ``(suite, case, deterministic, rounds wanted)`` and their
    rounds by ``(suite, case id)``."""
    out = []
    for suite, case, deterministic, wanted in cases:
        found = CaseOutcome(
            suite,
            case.id,
            case.hash,
            deterministic,
            case.control,
            case.need,
            sorted(rounds.get((suite, case.id), []), key=lambda one: one.round),
            file=case.place.file if case.place else "",
            line=case.place.line if case.place else 0,
            tags=case.tags,
            why=case.why,
            quarantine=case.quarantine,
        )
        found.state, found.reason = _state(found, case, wanted)
        out.append(found)

    return out


def _state(found: CaseOutcome, case: Case[Any, Any], wanted: int) -> tuple[str, str]:
    if case.skip:
        return "skipped", case.skip

    rounds = found.rounds
    if len(rounds) < 1:
        return "missing", "it did not run"

    for state in _UNTRUSTED:
        for one in rounds:
            if one.state == state:
                return state, one.reason

    passed = found.passed_rounds
    worst = next((one for state in _ORDER for one in rounds if one.state == state), None)
    if len(rounds) < wanted and worst is None:
        return "missing", f"{len(rounds)} of {wanted} rounds ran"

    if _enough(case.need, passed, len(rounds)):
        return "passed", ""

    if worst is None or wanted <= len(rounds) < case.need.of:
        return "missing", f"{len(rounds)} rounds ran, {case.need} needs {case.need.of}"

    if len(rounds) == 1:
        return worst.state, worst.reason

    needed = "all" if case.need == ALL else str(case.need)
    return worst.state, f"{passed} of {len(rounds)} rounds passed, {needed} needed; {worst.reason}"


def _enough(need: Need, passed: int, rounds: int) -> bool:
    if need.kind == "all":
        return passed == rounds

    if need.kind == "count":
        return rounds >= need.of and passed * need.of >= need.amount * rounds

    estimate = pass_at_k if need.kind == "pass@k" else pass_power
    return rounds >= need.of and estimate(rounds, passed, need.of) >= need.amount
