"""The rules of a gate for sampled cases: pass rate, regression, latency; each with its numbers.

A test fails a session only when it is significant (after Holm's correction over all tests of the session) *and* the
effect is as large as the suite says it must be. Where a margin is asked for, no significant drop is not enough: the
interval must lie within it, else the rule is ``inconclusive`` and the session incomplete. Source: the evals reference,
§3.8-3.9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from flowdeck_evals.baselines import Baseline
from flowdeck_evals.case_results import CaseResult, of_baseline, of_outcomes
from flowdeck_evals.cases import Gate
from flowdeck_evals.outcomes import CaseOutcome
from flowdeck_evals.reasons import FAILED, INCOMPLETE, JUDGED, PASS, Measure, Reason, reason_for
from flowdeck_evals.statistics.intervals import pass_rate
from flowdeck_evals.statistics.latency import compare_latency
from flowdeck_evals.statistics.paired import equivalent, paired_test
from flowdeck_evals.statistics.power import NOISE, noise_of, smallest_drop
from flowdeck_evals.statistics.several import fisher, holm

__all__ = ["SEED", "Tested", "sampled_rules", "settle", "visible_drop"]

SEED: Final = 0
ALPHA: Final = 0.05
ROUNDS_TO_JUDGE_ONE: Final = 10
"""Rounds a single case needs on both sides before it may fail a session by itself."""


@dataclass(slots=True)
class Tested:
    """A rule that rests on a p value, before the values of the whole session are adjusted."""

    reason: Reason
    measure: Measure
    alpha: float
    large: bool
    """Whether the effect is as large as it must be to matter."""
    holds: bool = True
    """Whether sameness is shown, where that is asked for."""


def sampled_rules(
    cases: Sequence[CaseOutcome], gate: Gate, baseline: Baseline | None, name: str, many: bool
) -> tuple[list[Reason], list[Tested]]:
    """Return what is settled, and what :func:`settle` has to adjust first.

    Args:
        cases: the sampled ones of a suite, without controls and without those in quarantine.
        baseline: what the suite is compared with; ``None`` compares nothing.
    """
    judged = [one for one in cases if one.state in JUDGED]
    if not judged:
        return [], []

    reasons = _pass_rate(judged, gate, name, many)
    if baseline is None:
        return reasons, []

    pairs = _pairs(judged, baseline, name)
    tested = []
    if "regression" in gate.more:
        more, found = _regression(pairs, gate.more["regression"], name, many)
        reasons += more
        tested += found

    for rule, share in (("latency_p50", 0.5), ("latency_p95", 0.95)):
        if rule in gate.more:
            found_latency = _latency(pairs, gate.more[rule], rule, share, name, many)
            if isinstance(found_latency, Reason):
                reasons.append(found_latency)
            else:
                tested.append(found_latency)

    return reasons, tested


def settle(tested: Sequence[Tested]) -> list[Reason]:
    """Adjust all p values of a session (Holm) and return what each rule comes to."""
    out = []
    adjusted = holm([one.measure.p if one.measure.p is not None else 1.0 for one in tested])
    for one, p in zip(tested, adjusted, strict=True):
        measure, reason = one.measure, one.reason
        measure.adjusted_p = p
        if p < one.alpha and one.large:
            measure.state, reason.code = "failed", FAILED
        elif not one.holds:
            measure.state, reason.code = "inconclusive", INCOMPLETE
        elif one.large or p < one.alpha or (measure.p or 1.0) < one.alpha:
            measure.state = "inconclusive"  # as large as it may not be, but perhaps chance; or sure, and too small

        reason.message = f"{measure.state}: {reason.message}, p {p:.2g} ({measure.method}, {measure.n} cases)"
        reason.measure = measure
        out.append(reason)

    return out


def visible_drop(cases: Sequence[CaseOutcome], baseline: Baseline | None) -> tuple[int, float | None]:
    """Return the cases that can be compared, and the smallest drop of their pass rate that 80 % of sessions show."""
    judged = [one for one in cases if one.state in JUDGED]
    n, noise = len(judged), NOISE
    if baseline is not None and judged:
        pairs = _pairs(judged, baseline, judged[0].suite)
        if pairs:
            n, noise = len(pairs), noise_of([b.rate - a.rate for a, b in pairs])

    return n, smallest_drop(n, noise=noise)


def _pairs(judged: Sequence[CaseOutcome], baseline: Baseline, name: str) -> list[tuple[CaseResult, CaseResult]]:
    before = of_baseline(name, baseline.cases)
    out = []
    for key, now in of_outcomes(judged).items():
        then = before.get(key)
        if then is not None and then.case_hash == now.case_hash and then.judged:
            out.append((then, now))

    return out


def _pass_rate(judged: Sequence[CaseOutcome], gate: Gate, name: str, many: bool) -> list[Reason]:
    failed = [one for one in judged if one.state != "passed"]
    found = pass_rate(_rates(judged), seed=SEED)
    measure = Measure(found.method, len(judged), found.value, found.low, found.high, seed=SEED)
    words = f"pass rate {found.value:.1%}, 95 % sure between {found.low:.1%} and {found.high:.1%}"
    if gate.pass_rate_lower is not None:
        rule, bad = "sampled.pass_rate", found.low < gate.pass_rate_lower
        words += f"; at least {gate.pass_rate_lower:.1%} needed for sure"
    elif gate.pass_rate is not None:
        rule, bad = "sampled.pass_rate", 1 - len(failed) / len(judged) < gate.pass_rate
        words += f"; {gate.pass_rate:.1%} needed"
    else:
        rule, bad = "sampled.failures", bool(failed)

    reason = Reason(rule, PASS, f"{name}: {words}" if many else words)
    if bad:
        measure.state, reason.code = "failed", FAILED
        if failed:
            which = reason_for(rule, FAILED, "failed", failed, name, many)
            reason.cases = which.cases
            reason.message = which.message if rule == "sampled.failures" else f"{reason.message}; {which.message}"

    reason.measure = measure
    return [reason]


def _rates(judged: Sequence[CaseOutcome]) -> list[float]:
    """One number per case: with a need of its own whether it was met, else the share of rounds that passed."""
    return [
        float(one.state == "passed") if one.need.kind != "all" else one.passed_rounds / len(one.rounds)
        for one in judged
    ]


def _regression(
    pairs: Sequence[tuple[CaseResult, CaseResult]], rule: Mapping[str, float], name: str, many: bool
) -> tuple[list[Reason], list[Tested]]:
    if not pairs:
        return [_nothing("sampled.regression", name)], []

    alpha, least = rule.get("alpha", ALPHA), rule.get("min_drop", 0.0)
    before, after = [one.rate for one, _ in pairs], [one.rate for _, one in pairs]
    found = paired_test(before, after, seed=SEED)
    words = (
        f"{name + ': ' if many else ''}pass rate {found.effect:+.1%}, 95 % sure between {found.low:+.1%} and "
        f"{found.high:+.1%}; {found.worse} worse, {found.better} better"
    )
    holds = True
    if "margin" in rule:
        same = equivalent([b - a for a, b in zip(before, after, strict=True)], rule["margin"], alpha=alpha, seed=SEED)
        holds = same == "equivalent" or found.low > -rule["margin"]
        words += f"; {same} within {rule['margin']:.1%}"

    worse = [one for (then, one) in pairs if one.rate < then.rate]
    reason = Reason(
        "sampled.regression", PASS, words, [f"{name}/{one.case_id}" if many else one.case_id for one in worse]
    )
    measure = Measure(found.method, found.n, found.effect, found.low, found.high, found.p, seed=SEED)
    tested = [Tested(reason, measure, alpha, large=-found.effect >= least, holds=holds)]

    enough = [(then, now) for then, now in pairs if min(then.rounds, now.rounds) >= ROUNDS_TO_JUDGE_ONE]
    if enough:
        ps = holm([fisher(then.passed, then.rounds, now.passed, now.rounds) for then, now in enough])
        index = min(range(len(ps)), key=lambda i: ps[i])
        then, now = enough[index]
        dropped = then.rate - now.rate
        words = f"{name}/{now.case_id}" if many else now.case_id
        words += f" passed {then.passed} of {then.rounds} rounds, now {now.passed} of {now.rounds}"
        one = Reason("sampled.case_regression", PASS, words, [now.case_id])
        numbers = Measure("Fisher, Holm over cases", len(enough), -dropped, p=ps[index])
        tested.append(Tested(one, numbers, alpha, large=dropped > 0 and dropped >= least))

    return [], tested


def _latency(
    pairs: Sequence[tuple[CaseResult, CaseResult]],
    rule: Mapping[str, float],
    word: str,
    share: float,
    name: str,
    many: bool,
) -> Tested | Reason:
    timed = [(a.wall_us, b.wall_us) for a, b in pairs if a.wall_us is not None and b.wall_us is not None]
    if not timed:
        return _nothing(word, name)

    ratio, floor_us = rule.get("max_ratio", 1.0), rule.get("min_delta", 0.0) * 1e6
    found = compare_latency([a for a, _ in timed], [b for _, b in timed], share, limit=ratio, seed=SEED)
    words = (
        f"{name + ': ' if many else ''}{found.before_us / 1e3:.3g} ms, now {found.after_us / 1e3:.3g} ms: "
        f"{found.ratio:.3g} times, {found.low:.3g} to {found.high:.3g}; at most {ratio:g} times"
    )
    if floor_us:
        words += f" and {floor_us / 1e3:g} ms more"

    measure = Measure("paired bootstrap of the ratio", found.n, found.ratio, found.low, found.high, found.p, seed=SEED)
    large = found.ratio > ratio and found.after_us - found.before_us > floor_us
    return Tested(Reason(word, PASS, words), measure, rule.get("alpha", ALPHA), large)


def _nothing(rule: str, name: str) -> Reason:
    return Reason(
        rule,
        INCOMPLETE,
        f"{name}: no sampled case of the baseline is as it was and has what is compared; "
        "`evals baseline set` accepts a session anew, --baseline none compares nothing",
    )
