"""From outcomes to a verdict: rules in a fixed order, each with its reason; the exit code follows from the worst.

Order: controls failed as they must -> completeness -> deterministic cases (any new failure or divergence blocks) ->
sampled cases. Precedence of codes: 2 > 130 > 3 > 1 > 4; an untrustworthy session outranks what it found, and the
verdict still lists everything. Source: the evals reference, §3.4, §3.9. Statistics over baselines are another room's;
a gate that asks for them without one is incomplete, never passed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import msgspec

from flowdeck_evals.baselines import Baseline
from flowdeck_evals.cases import Gate
from flowdeck_evals.outcomes import CaseOutcome

__all__ = ["CODES", "PRECEDENCE", "Reason", "Verdict", "judge", "wilson_lower"]

PASS, FAILED, USAGE, INCOMPLETE, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 4, 130
CODES: Final = {
    PASS: "pass",
    FAILED: "fail",
    USAGE: "usage",
    INCOMPLETE: "incomplete",
    DIVERGED: "diverged",
    INTERRUPTED: "interrupted",
}
PRECEDENCE: Final = (USAGE, INTERRUPTED, INCOMPLETE, FAILED, DIVERGED, PASS)
_BAD: Final = ("failed", "errored", "timed_out")
_SHOWN: Final = 5


class Reason(msgspec.Struct):
    """What one rule says."""

    rule: str
    code: int
    """0 when it holds."""
    message: str
    cases: list[str] = []


class Verdict(msgspec.Struct):
    """What the session came to. ``code`` is the exit code, ``totals`` counts cases by state."""

    code: int
    reasons: list[Reason]
    totals: dict[str, int]
    excused: dict[str, str] = {}
    """Known failures that failed again, and why they may."""
    flaky: list[str] = []

    @property
    def ok(self) -> bool:
        return self.code == PASS

    @property
    def word(self) -> str:
        return CODES[self.code]

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.word,
            "code": self.code,
            "reasons": [msgspec.to_builtins(one) for one in self.reasons if one.code],
            "totals": self.totals,
            "excused": self.excused,
            "flaky": self.flaky,
        }


def judge(
    suites: Sequence[tuple[str, Gate, Sequence[CaseOutcome]]],
    *,
    baselines: dict[str, Baseline] | None = None,
    extra: Sequence[Reason] = (),
    without_baseline: bool = False,
    today: date | None = None,
) -> Verdict:
    """Return the verdict over the suites of a session.

    Args:
        suites: ``(name, gate, outcomes)``.
        baselines: by suite name.
        extra: what the session itself knows: interrupted, results lost, a time limit.
        without_baseline: rules that compare are left out on request (``--baseline none``).
        today: for the end of known failures.
    """
    day = today or date.today()
    reasons = list(extra)
    totals: Counter[str] = Counter()
    excused: dict[str, str] = {}
    flaky: list[str] = []
    if not any(cases for _, _, cases in suites):
        reasons.append(Reason("cases", INCOMPLETE, "no case was selected, so nothing was evaluated"))

    for name, gate, cases in suites:
        totals.update(one.state for one in cases)
        flaky += [f"{name}/{one.case_id}" for one in cases if one.flaky]
        baseline = (baselines or {}).get(name)
        many = len(suites) > 1
        reasons += _controls(cases, name, many)
        reasons += _completeness([one for one in cases if not one.control], gate, name, many)
        normal = [one for one in cases if not one.control]
        reasons += _deterministic(
            [one for one in normal if one.deterministic], gate, baseline, day, excused, name, many
        )
        reasons += _sampled([one for one in normal if not one.deterministic], gate, name, many)
        if gate.more and not without_baseline:
            words = ", ".join(gate.more)
            reasons.append(
                Reason(
                    "baseline",
                    INCOMPLETE,
                    f"{name}: {words} compare with a baseline of sessions and none was given; "
                    "--baseline none leaves them out",
                )
            )

    code = next((code for code in PRECEDENCE if any(one.code == code for one in reasons)), PASS)
    return Verdict(code, reasons, dict(totals), excused, flaky)


def _controls(cases: Sequence[CaseOutcome], name: str, many: bool) -> list[Reason]:
    controls = [one for one in cases if one.control]
    good = [one for one in controls if one.state == "passed"]
    unknown = [one for one in controls if one.state in ("missing", "harness_error", "unscored")]
    out = []
    if good:
        out.append(
            _reason("controls", FAILED, "must fail and passed: what is checked there cannot fail", good, name, many)
        )

    if unknown:
        out.append(_reason("controls", INCOMPLETE, "must fail and could not be judged", unknown, name, many))

    return out


def _completeness(cases: Sequence[CaseOutcome], gate: Gate, name: str, many: bool) -> list[Reason]:
    out = []
    for rule, states, most, words in (
        ("harness_error", ("harness_error",), gate.harness_error, "could not be run"),
        ("unscored", ("unscored",), gate.unscored, "could not be scored"),
        ("missing", ("missing",), 0, "did not run as often as they must"),
    ):
        found = [one for one in cases if one.state in states]
        if len(found) > most:
            out.append(_reason(rule, INCOMPLETE, words, found, name, many))

    skipped = [one for one in cases if one.state == "skipped"]
    if skipped and (len(skipped) == len(cases) or len(skipped) > gate.skipped * len(cases)):
        share = f"skipped ({len(skipped)} of {len(cases)}, at most {gate.skipped:.0%})"
        out.append(_reason("skipped", INCOMPLETE, share, skipped, name, many))

    return out


def _deterministic(
    cases: Sequence[CaseOutcome],
    gate: Gate,
    baseline: Baseline | None,
    day: date,
    excused: dict[str, str],
    name: str,
    many: bool,
) -> list[Reason]:
    out, new = [], []
    for one in cases:
        if one.state in _BAD:
            why = baseline.excuses(one, day) if baseline is not None else None
            if why is None:
                new.append(one)
            else:
                excused[f"{name}/{one.case_id}"] = why

    diverged = [one for one in cases if one.state == "diverged"]
    if len(new) > gate.new_failures:
        out.append(_reason("deterministic.new_failures", FAILED, "failed", new, name, many))

    if len(diverged) > gate.divergences:
        out.append(_reason("deterministic.divergences", DIVERGED, "diverged from the recording", diverged, name, many))

    return out


def _sampled(cases: Sequence[CaseOutcome], gate: Gate, name: str, many: bool) -> list[Reason]:
    judged = [one for one in cases if one.state in ("passed", "diverged", *_BAD)]
    if not judged:
        return []

    failed = [one for one in judged if one.state != "passed"]
    share = 1 - len(failed) / len(judged)
    if gate.pass_rate_lower is not None:
        lower = wilson_lower(len(judged) - len(failed), len(judged))
        if lower < gate.pass_rate_lower:
            words = (
                f"pass rate {share:.1%}, at least {lower:.1%} with 95 % confidence; "
                f"{gate.pass_rate_lower:.1%} needed; failed:"
            )
            return [_reason("sampled.pass_rate", FAILED, words, failed, name, many)]

        return []

    if gate.pass_rate is not None:
        if share < gate.pass_rate:
            words = f"pass rate {share:.1%}, {gate.pass_rate:.1%} needed; failed:"
            return [_reason("sampled.pass_rate", FAILED, words, failed, name, many)]

        return []

    return [_reason("sampled.failures", FAILED, "failed", failed, name, many)] if failed else []


def wilson_lower(passed: int, cases: int, z: float = 1.959964) -> float:
    """Return the lower end of Wilson's 95 % interval of a share."""
    if not cases:
        return 0.0

    share = passed / cases
    middle = share + z * z / (2 * cases)
    spread = z * math.sqrt(share * (1 - share) / cases + z * z / (4 * cases * cases))
    return (middle - spread) / (1 + z * z / cases)


def _reason(rule: str, code: int, words: str, cases: Sequence[CaseOutcome], suite: str, many: bool) -> Reason:
    ids = [f"{suite}/{one.case_id}" if many else one.case_id for one in cases]
    shown = ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
    return Reason(rule, code, f"{len(ids)} {words}: {shown}" if ids else words, ids)
