"""Two sessions side by side: what regressed, what was fixed, what is flaky, what cannot be compared, and how sure.

Only cases of equal hash are paired. Deterministic cases answer for themselves: any that no longer passes regressed.
Sampled ones are tested together, because one that fails now and passed then may do so by chance.
Source: the evals reference, §3.4, §3.8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from flowdeck_evals.case_results import CaseResult
from flowdeck_evals.reasons import FAILED, INCOMPLETE, PASS, Measure
from flowdeck_evals.statistics.latency import LatencyResult, compare_latency
from flowdeck_evals.statistics.paired import equivalent, paired_test
from flowdeck_evals.statistics.power import noise_of, smallest_drop
from flowdeck_evals.statistics.several import fisher, holm

__all__ = ["CHANGES", "ComparedCase", "SessionComparison", "compare_sessions"]

Change = Literal["regressed", "fixed", "flaky", "changed", "new", "gone", "same"]
CHANGES: Final = ("regressed", "fixed", "flaky", "changed", "new", "gone", "same")
SEED: Final = 0


class ComparedCase(msgspec.Struct, gc=False):
    """One case on both sides."""

    suite: str
    case_id: str
    change: Change
    before: CaseResult | None
    after: CaseResult | None
    p: float | None = None
    """Fisher's, adjusted over cases (Holm); of cases with several rounds on both sides."""


class SessionComparison(msgspec.Struct):
    """What comparing came to. ``state`` is ``regressed``, ``same`` (shown to be within the margin), ``better``,
    ``inconclusive`` or ``nothing to compare``."""

    cases: list[ComparedCase]
    counts: dict[str, int]
    state: str
    code: int
    words: str
    measure: Measure | None
    worse: int
    """Sampled cases that fell."""
    better: int
    sees: float | None
    """The smallest drop that so many sampled cases show (80 % power)."""
    latency: LatencyResult | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "code": self.code,
            "message": self.words,
            "counts": self.counts,
            "measure": None if self.measure is None else self.measure.to_dict(),
            "flips": {"worse": self.worse, "better": self.better},
            "smallest_visible_drop": self.sees,
            "latency": None if self.latency is None else self.latency._asdict(),
            "cases": [
                {
                    "suite": one.suite,
                    "case": one.case_id,
                    "change": one.change,
                    "before": _short(one.before),
                    "after": _short(one.after),
                    "p": one.p,
                }
                for one in self.cases
                if one.change != "same"
            ],
        }


def compare_sessions(
    before: Mapping[tuple[str, str], CaseResult],
    after: Mapping[tuple[str, str], CaseResult],
    *,
    alpha: float = 0.05,
    margin: float = 0.02,
) -> SessionComparison:
    """Compare two sessions by their cases.

    Args:
        margin: a pass rate that differs by less is the same.
    """
    cases = [_compared(before.get(key), after.get(key)) for key in dict.fromkeys((*before, *after))]
    _test_each(cases, alpha)
    paired = [
        (one.before, one.after)
        for one in cases
        if one.before is not None and one.after is not None and one.change not in ("changed", "new", "gone")
    ]
    sampled = [(a, b) for a, b in paired if not (b.deterministic or b.control) and a.judged and b.judged]
    counts: dict[str, int] = dict(Counter(str(one.change) for one in cases))
    broken = [
        one
        for one in cases
        if one.change == "regressed" and one.after is not None and (one.after.deterministic or one.after.control)
    ]
    timed = [(a.wall_us, b.wall_us) for a, b in paired if a.wall_us and b.wall_us]
    latency = compare_latency([a for a, _ in timed], [b for _, b in timed], seed=SEED) if timed else None
    rates = [a.rate for a, _ in sampled], [b.rate for _, b in sampled]
    differences = [after - before for before, after in zip(*rates, strict=True)]
    found = paired_test(*rates, seed=SEED)
    measure = Measure(found.method, found.n, found.effect, found.low, found.high, found.p, seed=SEED)
    sees = smallest_drop(found.n, noise=noise_of(differences)) if found.n else None
    state, code, words = "same", PASS, "every case that can be compared came to the same"
    if not paired:
        state, code, words = "nothing to compare", INCOMPLETE, "the sessions have no case in common that is as it was"
        if not cases:
            words = "there is no case in either session"
    elif broken:
        state, code, words = "regressed", FAILED, f"{len(broken)} deterministic cases no longer come to what they did"
    elif sampled:
        state = _state(found.p, paired_test(rates[1], rates[0], seed=SEED).p, alpha)
        if state == "inconclusive":
            same = equivalent(differences, margin, alpha=alpha, seed=SEED)
            state = "same" if same == "equivalent" else state

        code = FAILED if state == "regressed" else PASS
        words = _words(state, margin, found.low, found.high)

    if measure.n:
        measure.state = "failed" if state == "regressed" else "inconclusive" if state == "inconclusive" else "ok"

    order = {change: index for index, change in enumerate(CHANGES)}
    cases.sort(key=lambda one: (order[one.change], _difference(one), one.suite, one.case_id))
    return SessionComparison(
        cases, counts, state, code, words, measure if found.n else None, found.worse, found.better, sees, latency
    )


def _compared(before: CaseResult | None, after: CaseResult | None) -> ComparedCase:
    known = after or before
    assert known is not None
    change: Change = "same"
    if before is None or after is None:
        change = "new" if before is None else "gone"
    elif before.case_hash != after.case_hash:
        change = "changed"
    elif not (before.judged and after.judged):
        change = "same" if before.state == after.state else "regressed" if before.state == "passed" else "fixed"
    elif before.flaky or after.flaky:
        change = "flaky"
    elif before.rate != after.rate:
        change = "regressed" if (after.rate < before.rate) != after.control else "fixed"
    elif before.state != after.state and "passed" in (before.state, after.state):
        change = "regressed" if before.state == "passed" else "fixed"

    return ComparedCase(known.suite, known.case_id, change, before, after)


def _difference(one: ComparedCase) -> float:
    """How much its rate rose; those that fell most come first."""
    return one.after.rate - one.before.rate if one.before is not None and one.after is not None else 0.0


def _test_each(cases: list[ComparedCase], alpha: float) -> None:
    """Tell from a flake what got worse or better for sure: Fisher over a case's rounds, Holm over cases."""
    several = [
        (one, one.before, one.after)
        for one in cases
        if one.change in ("flaky", "regressed", "fixed")
        and one.before is not None
        and one.after is not None
        and min(one.before.rounds, one.after.rounds) > 1
    ]
    worse = holm([fisher(a.passed, a.rounds, b.passed, b.rounds) for _, a, b in several])
    better = holm([fisher(b.passed, b.rounds, a.passed, a.rounds) for _, a, b in several])
    for (one, _, _), down, up in zip(several, worse, better, strict=True):
        one.p = min(down, up)
        if one.change == "flaky" and one.p < alpha:
            one.change = "regressed" if down < up else "fixed"


def _state(p: float, p_better: float, alpha: float) -> str:
    if p < alpha:
        return "regressed"

    return "better" if p_better < alpha else "inconclusive"


def _words(state: str, margin: float, low: float, high: float) -> str:
    between = f"95 % sure between {low:+.1%} and {high:+.1%}"
    return {
        "regressed": f"the pass rate fell, {between}",
        "better": f"the pass rate rose, {between}",
        "same": f"the pass rate is the same within {margin:.0%}, {between}",
        "inconclusive": f"no difference is shown, and sameness within {margin:.0%} neither: {between}",
    }[state]


def _short(one: CaseResult | None) -> dict[str, Any] | None:
    if one is None:
        return None

    return {
        "state": one.state,
        "passed": one.passed,
        "rounds": one.rounds,
        "hash": one.case_hash,
        "wall_us": one.wall_us,
    }
