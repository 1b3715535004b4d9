"""What a case came to, in the few numbers that are compared: from a session's file, a baseline, or an outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import msgspec

from flowdeck_evals.outcomes import CaseOutcome
from flowdeck_evals.session_files import SessionFile

__all__ = ["CaseResult", "of_baseline", "of_outcomes", "of_session", "row_of"]


class CaseResult(msgspec.Struct, gc=False, frozen=True):
    """One case in one session."""

    suite: str
    case_id: str
    case_hash: str
    state: str
    passed: int
    rounds: int
    control: bool = False
    deterministic: bool = False
    wall_us: float | None = None
    """Median of its rounds."""

    @property
    def rate(self) -> float:
        return self.passed / self.rounds if self.rounds else 0.0

    @property
    def flaky(self) -> bool:
        return 0 < self.passed < self.rounds

    @property
    def judged(self) -> bool:
        """Whether it says something about its target."""
        return self.rounds > 0 and self.state in ("passed", "failed", "errored", "timed_out", "diverged")


def row_of(one: CaseOutcome) -> list[Any]:
    """Return the row of a session file; see :class:`~flowdeck_evals.session_files.SessionFile`."""
    return [
        one.case_hash,
        one.state,
        one.passed_rounds,
        len(one.rounds),
        one.control,
        one.deterministic,
        one.file,
        one.line,
        median_wall(one),
    ]


def median_wall(one: CaseOutcome) -> int | None:
    times = [round.wall_us for round in one.rounds if round.state in ("passed", "failed", "diverged")]
    return int(median(times)) if times else None


def of_session(file: SessionFile) -> dict[tuple[str, str], CaseResult]:
    """Return the cases of a stored session by ``(suite, case id)``."""
    out = {}
    for suite, cases in file.cases.items():
        for case_id, row in cases.items():
            wall = row[8] if len(row) > 8 else None
            out[suite, case_id] = CaseResult(suite, case_id, row[0], row[1], row[2], row[3], row[4], row[5], wall)

    return out


def of_baseline(suite: str, cases: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], CaseResult]:
    """Return the cases of a baseline's version."""
    return {
        (suite, case_id): CaseResult(
            suite,
            case_id,
            str(case.get("hash", "")),
            str(case.get("state", "")),
            int(case.get("passed", 0)),
            int(case.get("rounds", 0)),
            bool(case.get("control")),
            bool(case.get("deterministic")),
            case.get("wall_us"),
        )
        for case_id, case in cases.items()
    }


def of_outcomes(outcomes: Iterable[CaseOutcome]) -> dict[tuple[str, str], CaseResult]:
    """Return the cases of a session that just ended."""
    return {
        (one.suite, one.case_id): CaseResult(
            one.suite,
            one.case_id,
            one.case_hash,
            one.state,
            one.passed_rounds,
            len(one.rounds),
            one.control,
            one.deterministic,
            median_wall(one),
        )
        for one in outcomes
    }
