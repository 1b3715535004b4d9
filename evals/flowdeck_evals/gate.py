"""From outcomes to a verdict: rules in a fixed order, each with its reason; the exit code follows from the worst.

Order: controls failed as they must -> completeness -> deterministic cases (any new failure or divergence blocks) ->
sampled cases (:mod:`flowdeck_evals.sampled_gate`) -> budgets. Precedence of codes: 2 > 130 > 3 > 1 > 4; an
untrustworthy session outranks what it found, and the verdict still lists everything. A gate that compares and has no
baseline is incomplete, never passed. Source: the evals reference, §3.4, §3.9.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import msgspec

from flowdeck_evals.baselines import Baseline
from flowdeck_evals.cases import Gate
from flowdeck_evals.outcomes import CaseOutcome
from flowdeck_evals.reasons import (
    BAD,
    CODES,
    DIVERGED,
    FAILED,
    INCOMPLETE,
    INTERRUPTED,
    PASS,
    PRECEDENCE,
    USAGE,
    Measure,
    Reason,
    reason_for,
)
from flowdeck_evals.sampled_gate import Tested, sampled_rules, settle, visible_drop

__all__ = ["CODES", "INCOMPLETE", "INTERRUPTED", "PRECEDENCE", "USAGE", "Reason", "Verdict", "judge"]

MOST_QUARANTINED: Final = 0.05
"""Share of a suite's cases that may be in quarantine."""


class Verdict(msgspec.Struct):
    """What the session came to. ``code`` is the exit code, ``totals`` counts cases by state."""

    code: int
    reasons: list[Reason]
    totals: dict[str, int]
    excused: dict[str, str] = {}
    """Known failures that failed again, and why they may."""
    flaky: list[str] = []
    quarantined: dict[str, str] = {}
    """Cases that do not block for now: until when, by whose word and why."""
    sees: dict[str, tuple[int, float | None]] = {}
    """By suite: sampled cases, and the smallest drop of their pass rate it can see (80 % power); none: too few."""
    advice: dict[str, tuple[int, float, float | None, float | None]] = {}
    """By suite and score: cases, mean, 95 % interval. Scores never block."""
    part: tuple[int, int] | None = None
    """``(2, 5)``: of the second part of five; the whole is judged when they are merged."""

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
            "reasons": [one.to_dict() for one in self.reasons if one.code],
            "rules": [one.to_dict() for one in self.reasons if one.measure is not None],
            "totals": self.totals,
            "excused": self.excused,
            "flaky": self.flaky,
            "quarantined": self.quarantined,
            "sees": self.sees,
            "advice": self.advice,
            "part": self.part,
        }


def judge(
    suites: Sequence[tuple[str, Gate, Sequence[CaseOutcome]]],
    *,
    baselines: dict[str, Baseline] | None = None,
    extra: Sequence[Reason] = (),
    without_baseline: bool = False,
    today: date | None = None,
    part: tuple[int, int] | None = None,
) -> Verdict:
    """Return the verdict over the suites of a session.

    Args:
        suites: ``(name, gate, outcomes)``.
        baselines: by suite name.
        extra: what the session itself knows: interrupted, results lost, a time limit.
        without_baseline: rules that compare are left out on request (``--baseline none``).
        today: for the end of known failures.
        part: it is one of several parts of a session (``--shard``), the second of five: what fails for sure is said,
            and not what the other parts have a say in.
    """
    day = today or date.today()
    reasons = list(extra)
    totals: Counter[str] = Counter()
    excused: dict[str, str] = {}
    flaky: list[str] = []
    if not any(cases for _, _, cases in suites):
        reasons.append(Reason("cases", INCOMPLETE, "no case was selected, so nothing was evaluated"))

    tested: list[Tested] = []
    quarantined: dict[str, str] = {}
    sees: dict[str, tuple[int, float | None]] = {}
    many = len(suites) > 1
    for name, gate, cases in suites:
        totals.update(one.state for one in cases)
        flaky += [f"{name}/{one.case_id}" for one in cases if one.flaky]
        baseline = (baselines or {}).get(name)
        held = [one for one in cases if one.quarantine and date.fromisoformat(one.quarantine[2]) >= day]
        quarantined |= {f"{name}/{one.case_id}": _held(one) for one in held}
        reasons += [] if part is not None else _quarantine(cases, held, name, many)
        counted = [one for one in cases if one not in held] if held else cases
        reasons += _controls(counted, name, many)
        normal = [one for one in counted if not one.control]
        reasons += _completeness(normal, gate, name, many)
        reasons += _deterministic(
            [one for one in normal if one.deterministic], gate, baseline, day, excused, name, many
        )
        sampled = [one for one in normal if not one.deterministic]
        if part is not None:
            if gate.pass_rate is None and gate.pass_rate_lower is None:  # every one must pass, in whatever part
                reasons += [one for one in sampled_rules(sampled, gate, None, name, many)[0] if one.code]

            continue

        compared = None if without_baseline or baseline is None or not baseline.cases else baseline
        settled, open_ = sampled_rules(sampled, gate, compared, name, many)
        reasons += settled
        tested += open_
        reasons += _budget(cases, gate, name)
        if sampled:
            sees[name] = visible_drop(sampled, compared)

        if gate.more and compared is None and not without_baseline:
            words = ", ".join(gate.more)
            reasons.append(
                Reason(
                    "baseline",
                    INCOMPLETE,
                    f"{name}: {words} compare with a baseline and there is none of a session; "
                    "run with --baseline none and accept that: evals baseline set main",
                )
            )

    reasons += settle(tested)
    code = next((code for code in PRECEDENCE if any(one.code == code for one in reasons)), PASS)
    return Verdict(code, reasons, dict(totals), excused, flaky, quarantined, sees, _advice(suites), part)


def _controls(cases: Sequence[CaseOutcome], name: str, many: bool) -> list[Reason]:
    controls = [one for one in cases if one.control]
    good = [one for one in controls if one.state == "passed"]
    unknown = [one for one in controls if one.state in ("missing", "harness_error", "unscored")]
    out = []
    if good:
        out.append(
            reason_for("controls", FAILED, "must fail and passed: what is checked there cannot fail", good, name, many)
        )

    if unknown:
        out.append(reason_for("controls", INCOMPLETE, "must fail and could not be judged", unknown, name, many))

    return out


def _held(one: CaseOutcome) -> str:
    owner, why, expires = one.quarantine or ("", "", "")
    return f"{one.state}; until {expires}, {owner}: {why}"


def _quarantine(cases: Sequence[CaseOutcome], held: Sequence[CaseOutcome], name: str, many: bool) -> list[Reason]:
    out = []
    if len(held) > MOST_QUARANTINED * len(cases):
        share = f"in quarantine ({len(held) / len(cases):.0%} of {len(cases)} cases, at most {MOST_QUARANTINED:.0%})"
        out.append(reason_for("quarantine", FAILED, share, held, name, many))

    over = [one for one in cases if one.quarantine and one not in held and (one.state == "passed") == one.control]
    if over:
        out.append(reason_for("quarantine", FAILED, "fail and their quarantine has ended", over, name, many))

    return out


def _budget(cases: Sequence[CaseOutcome], gate: Gate, name: str) -> list[Reason]:
    """What all rounds of a suite used together."""
    out = []
    rounds = [one for case in cases for one in case.rounds]
    for what, most in gate.budget.items():
        used = [one.wall_us / 1e6 if what == "wall" else getattr(one, what) for one in rounds]
        known = [value for value in used if value is not None]
        if len(known) < len(used):
            words = f"{name}: {what} is not known of {len(used) - len(known)} of {len(used)} rounds: no event tells it"
            out.append(Reason(f"budget.{what}", INCOMPLETE, words))
        else:
            code = FAILED if sum(known) > most else PASS
            measure = Measure("sum of all rounds", len(cases), sum(known), state="failed" if code else "ok")
            words = f"{name}: {sum(known):.6g}, at most {most:g}"
            out.append(Reason(f"budget.{what}", code, words, measure=measure))

    return out


def _advice(
    suites: Sequence[tuple[str, Gate, Sequence[CaseOutcome]]],
) -> dict[str, tuple[int, float, float | None, float | None]]:
    """The mean of every score over cases, with its interval: judges and other checks that only score."""
    from flowdeck_evals.statistics.intervals import mean_score

    found: dict[str, list[float]] = {}
    for name, _, cases in suites:
        for case in cases:
            scores: dict[str, list[float]] = {}
            for round in case.rounds:
                for check, score in (round.scores or {}).items():
                    scores.setdefault(check, []).append(score)

            for check, values in scores.items():
                found.setdefault(f"{name}/{check}", []).append(sum(values) / len(values))

    return {check: (len(means), *mean_score(means)) for check, means in found.items()}


def _completeness(cases: Sequence[CaseOutcome], gate: Gate, name: str, many: bool) -> list[Reason]:
    out = []
    for rule, states, most, words in (
        ("harness_error", ("harness_error",), gate.harness_error, "could not be run"),
        ("unscored", ("unscored",), gate.unscored, "could not be scored"),
        ("missing", ("missing",), 0, "did not run as often as they must"),
    ):
        found = [one for one in cases if one.state in states]
        if len(found) > most:
            out.append(reason_for(rule, INCOMPLETE, words, found, name, many))

    skipped = [one for one in cases if one.state == "skipped"]
    if skipped and (len(skipped) == len(cases) or len(skipped) > gate.skipped * len(cases)):
        share = f"skipped ({len(skipped)} of {len(cases)}, at most {gate.skipped:.0%})"
        out.append(reason_for("skipped", INCOMPLETE, share, skipped, name, many))

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
        if one.state in BAD:
            why = baseline.excuses(one, day) if baseline is not None else None
            if why is None:
                new.append(one)
            else:
                excused[f"{name}/{one.case_id}"] = why

    diverged = [one for one in cases if one.state == "diverged"]
    if len(new) > gate.new_failures:
        out.append(reason_for("deterministic.new_failures", FAILED, "failed", new, name, many))

    if len(diverged) > gate.divergences:
        out.append(
            reason_for("deterministic.divergences", DIVERGED, "diverged from the recording", diverged, name, many)
        )

    return out
