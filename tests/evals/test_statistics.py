"""The statistics of verdicts: equal to SciPy, seeded, and honest where there is little to see."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdeck_evals.baselines import Baseline
from flowdeck_evals.cases import ALL, Gate
from flowdeck_evals.gate import judge
from flowdeck_evals.outcomes import CaseOutcome, RoundOutcome
from flowdeck_evals.statistics.agreement import cohen_kappa, krippendorff_alpha
from flowdeck_evals.statistics.intervals import Interval, cluster_bootstrap, jeffreys, pass_rate, percentile, wilson
from flowdeck_evals.statistics.latency import compare_latency
from flowdeck_evals.statistics.paired import equivalent, mcnemar, paired_test, sign_flip, tango
from flowdeck_evals.statistics.power import mcnemar_power, noise_of, smallest_drop
from flowdeck_evals.statistics.repeated import pass_at_k, pass_power, rounds_to_see
from flowdeck_evals.statistics.several import fisher, holm

stats = pytest.importorskip("scipy.stats")


def test_the_methods_are_those_of_scipy() -> None:
    """Wilson, Jeffreys, McNemar, Fisher, Holm, sign flips, bootstrap and quantiles equal SciPy's on random data."""
    import numpy as np

    rng = random.Random(5)
    for _ in range(60):
        n = rng.randint(1, 400)
        k = rng.randint(0, n)
        found = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert wilson(k, n) == pytest.approx((found.low, found.high), abs=1e-12)
        low, high = jeffreys(k, n)
        assert k == 0 or low == pytest.approx(stats.beta.ppf(0.025, k + 0.5, n - k + 0.5), abs=1e-9)
        assert k == n or high == pytest.approx(stats.beta.ppf(0.975, k + 0.5, n - k + 0.5), abs=1e-9)
        assert mcnemar(k, n - k) == pytest.approx(stats.binomtest(k, n, alternative="greater").pvalue, abs=1e-12)
        before, after = rng.randint(1, 40), rng.randint(1, 40)
        a, b = rng.randint(0, before), rng.randint(0, after)
        table = [[b, after - b], [a, before - a]]
        assert fisher(a, before, b, after) == pytest.approx(stats.fisher_exact(table, "less").pvalue, abs=1e-9)

    big = stats.binomtest(1560, 3000, alternative="greater").pvalue
    assert mcnemar(1560, 1440) == pytest.approx(big, rel=1e-6)

    def mean(values: object, axis: int) -> object:
        return np.mean(values, axis=axis)

    for size, tolerance in ((9, 1e-12), (60, 0.012)):
        drops = [rng.choice([-1, -0.8, -0.4, -0.2, 0.2, 0.4]) for _ in range(size)]
        theirs = stats.permutation_test(
            (drops,), mean, permutation_type="samples", alternative="less", n_resamples=20_000, rng=1
        )
        assert sign_flip(drops) == pytest.approx(theirs.pvalue, abs=tolerance)

    means = [rng.random() for _ in range(40)]
    theirs = stats.bootstrap((means,), mean, n_resamples=9_999, method="BCa", rng=2).confidence_interval
    assert cluster_bootstrap(means, seed=1) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert percentile(sorted(means), 0.95) == pytest.approx(float(np.percentile(means, 95)))


def test_holm_as_worked_by_hand() -> None:
    """Adjusted values keep the order, never fall, and end at 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_rounds_of_one_case() -> None:
    """pass@k and pass^k are the shares of all choices of k rounds, and 14 rounds show a flake of one in five."""
    from itertools import combinations

    rounds = [True, True, False, True, False]
    choices = list(combinations(rounds, 2))
    assert pass_at_k(5, 3, 2) == pytest.approx(sum(map(any, choices)) / len(choices))
    assert pass_power(5, 3, 2) == pytest.approx(sum(map(all, choices)) / len(choices))
    assert [rounds_to_see(rate) for rate in (0.5, 0.2, 0.1, 0.05)] == [5, 14, 29, 59]
    with pytest.raises(ValueError, match="k = 6 needs at least 6 rounds"):
        pass_power(5, 3, 6)


def test_the_power_table() -> None:
    """The exact power of the paired test is the simulated one of the literature, and the smallest drop follows it."""
    table = {
        50: (0.00, 0.01, 0.04, 0.11, 0.50),
        100: (0.02, 0.08, 0.18, 0.44, 0.90),
        200: (0.10, 0.23, 0.49, 0.83, 1.0),
        500: (0.26, 0.69, 0.91, 1.0, 1.0),
        1000: (0.52, 0.92, 1.0, 1.0, 1.0),
    }
    for n, powers in table.items():
        found = [mcnemar_power(n, drop) for drop in (0.01, 0.02, 0.03, 0.05, 0.10)]
        assert found == pytest.approx(powers, abs=0.035)
        assert mcnemar_power(n, 0.0) <= 0.05

    assert smallest_drop(3) is None
    assert smallest_drop(200) == pytest.approx(0.05, abs=0.005)
    drop = smallest_drop(100)
    assert drop is not None and mcnemar_power(100, drop) == pytest.approx(0.8, abs=0.01)
    assert smallest_drop(10_000) == pytest.approx(0.0037, abs=0.0005)


def test_intervals_never_pretend() -> None:
    """All rounds passed, or nothing changed: the interval still has the width that so few cases leave."""
    assert pass_rate([1.0] * 10).low == pytest.approx(wilson(10, 10)[0])
    assert pass_rate([0.0, *[1.0] * 29]).method == "Wilson"
    assert pass_rate([0.8, *[1.0] * 29]).method == "Wilson over cases"
    assert "bootstrap" in pass_rate([0.8, 0.6, 1.0] * 10).method
    assert equivalent([0.0] * 20, 0.02) == "inconclusive"
    assert equivalent([0.0] * 400, 0.02) == "equivalent"
    assert equivalent([-1.0] * 60 + [0.0] * 40, 0.05) == "different"
    low, high = tango(0, 0, 100)
    assert low == pytest.approx(-high) and high == pytest.approx(3.8415 / 103.8415, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40), st.integers(0, 3))
def test_paired_comparisons_are_seeded_and_fair(pairs: list[tuple[int, int]], seed: int) -> None:
    """The same seed gives the same answer; before and after exchanged, the interval is mirrored and p answers."""
    before, after = [a / 5 for a, _ in pairs], [b / 5 for _, b in pairs]
    found = paired_test(before, after, seed=seed)
    assert found == paired_test(before, after, seed=seed)
    turned = paired_test(after, before, seed=seed)
    assert turned.effect == pytest.approx(-found.effect, abs=1e-12)
    assert (turned.worse, turned.better) == (found.better, found.worse)
    assert found.p + turned.p >= 1 - 1e-9 or "20,000" in found.method
    assert found.low <= found.effect + 1e-9 and found.effect - 1e-9 <= found.high


def test_slower_is_a_ratio_with_an_interval() -> None:
    """Half as slow again is seen, the same times are not, and the same seed says the same."""
    rng = random.Random(3)
    before = [rng.uniform(5_000, 50_000) for _ in range(60)]
    slow = compare_latency(before, [one * 1.5 for one in before], 0.95)
    assert slow.low > 1.25 and slow.p < 0.01
    times = [one * rng.uniform(0.95, 1.05) for one in before]
    same = compare_latency(before, times, 0.95)
    assert same.low < 1.25 and same == compare_latency(before, times, 0.95)


def test_agreement_of_judges() -> None:
    """Kappa and alpha take out chance; one label only says nothing; alpha equals Krippendorff's own example."""
    assert cohen_kappa("yynn", "yynn") == 1.0
    assert cohen_kappa("yynn", "ynyn") == 0.0
    assert cohen_kappa("yyyy", "yyyy") == 0.0
    no = None
    raters = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, no, no, no],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, no, 3],
        [no, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, no],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, no],
    ]
    assert krippendorff_alpha(list(zip(*raters, strict=True))) == pytest.approx(0.743, abs=0.001)


def test_the_drop_that_is_printed_is_seen() -> None:
    """Cases of five rounds that flake, some of them broken: the smallest drop is seen at least four times of five."""
    rng = random.Random(11)
    n, flake = 60, 0.1

    def session(broken: int = 0) -> list[float]:
        return [0.0 if i < broken else sum(rng.random() >= flake for _ in range(5)) / 5 for i in range(n)]

    seen = 0
    for run in range(50):
        before = session()
        drop = smallest_drop(n, noise=noise_of([b - a for a, b in zip(before, session(), strict=True)]))
        assert drop is not None and drop < 0.2
        after = session(round(drop * n / (1 - flake)))
        seen += sign_flip([b - a for a, b in zip(before, after, strict=True)], seed=run, flips=500) < 0.05

    assert seen >= 40
    assert noise_of([]) == noise_of([-1.0] * 50) == 0.01
    assert noise_of([-1.0, 1.0, 0.0, 0.0]) == 0.25


RUNS = 10_000
ALPHA = 0.05
Alarm = Callable[[random.Random, int], bool]
"""One pair of sessions between which nothing changed (the seed is the run's number): does the method cry wolf?"""


def _rounds(rng: random.Random, rounds: int) -> tuple[list[int], list[int]]:
    """Passed rounds of the same cases, before and after."""
    rates = [rng.choice((0.9, 0.95, 0.8, 0.99)) for _ in range(rng.choice((12, 30, 80)))]
    before, after = ([sum(rng.random() < rate for _ in range(rounds)) for rate in rates] for _ in range(2))
    return before, after


def _mcnemar(rng: random.Random, run: int) -> bool:
    before, after = _rounds(rng, 1)
    return mcnemar(sum(map(operator.gt, before, after)), sum(map(operator.lt, before, after))) < ALPHA


def _sign_flip(rng: random.Random, run: int) -> bool:
    return sign_flip([(b - a) / 5 for a, b in zip(*_rounds(rng, 5), strict=True)], seed=run, flips=400) < ALPHA


def _fisher_holm(rng: random.Random, run: int) -> bool:
    return min(holm([fisher(a, 10, b, 10) for a, b in zip(*_rounds(rng, 10), strict=True)])) < ALPHA


def _latency(share: float) -> Alarm:
    def alarm(rng: random.Random, run: int) -> bool:
        speeds = [rng.lognormvariate(9, 1) for _ in range(rng.choice((5, 12, 45)))]
        before, after = ([speed * rng.lognormvariate(0, 0.1) for speed in speeds] for _ in range(2))
        return compare_latency(before, after, share, seed=run, resamples=200).p < ALPHA

    return alarm


def _wilson_bound(rng: random.Random, run: int) -> bool:
    """The suite is as good as it must be and no better: it may be passed by chance only."""
    return pass_rate([float(rng.random() < 0.9) for _ in range(rng.choice((30, 100)))]).low >= 0.9


def _bootstrap_bound(rng: random.Random, run: int) -> bool:
    rates = [rng.betavariate(18, 2) for _ in range(rng.choice((30, 40, 60)))]
    passed = [sum(rng.random() < rate for _ in range(5)) / 5 for rate in rates]
    return cluster_bootstrap(passed, seed=run, resamples=200)[0] >= 0.9


def _equivalence(rng: random.Random, run: int) -> bool:
    """The drop is as large as the margin: sameness may be said by chance only."""
    drawn = (rng.random() for _ in range(rng.choice((100, 400))))
    return equivalent([-1.0 if u < 0.08 else 1.0 if u < 0.11 else 0.0 for u in drawn], 0.05) == "equivalent"


def _gate(rng: random.Random, run: int) -> bool:
    """Three suites in one session, each with a rule of its own: Holm over all."""
    suites, baselines = [], {}
    for name in "abc":
        before, after = _rounds(rng, 1)
        baselines[name] = Baseline(
            "main", name, cases={f"c{n}": _case(passed) for n, passed in enumerate(before)}, session="s"
        )
        outcomes = [_outcome(name, n, passed) for n, passed in enumerate(after)]
        suites.append((name, Gate(pass_rate=0.0, more={"regression": {"alpha": ALPHA}}), outcomes))

    return judge(suites, baselines=baselines).code != 0


def _case(passed: int) -> dict[str, Any]:
    return {"hash": "h", "state": "passed" if passed else "failed", "passed": passed, "rounds": 1}


def _outcome(suite: str, n: int, passed: int) -> CaseOutcome:
    state = "passed" if passed else "failed"
    rounds = [RoundOutcome(suite, f"c{n}", "h", 1, state)]
    return CaseOutcome(suite, f"c{n}", "h", False, False, ALL, rounds, state)


ALARMS: dict[str, tuple[Alarm, float]] = {
    "mcnemar": (_mcnemar, ALPHA),
    "sign flip": (_sign_flip, ALPHA),
    "fisher and holm": (_fisher_holm, ALPHA),
    "latency p50": (_latency(0.5), ALPHA),
    "latency p95": (_latency(0.95), ALPHA),
    "wilson bound": (_wilson_bound, ALPHA),
    "bootstrap bound": (_bootstrap_bound, ALPHA),
    "equivalence": (_equivalence, ALPHA),
    "the gate": (_gate, ALPHA),
}


@pytest.mark.parametrize("method", ALARMS)
@pytest.mark.parametrize("runs", [100, pytest.param(RUNS, marks=pytest.mark.slow)])
def test_false_alarms(method: str, runs: int) -> None:
    """Nothing changed, seeded sessions in pairs: each method cries wolf at most as often as it says."""
    alarm, alpha = ALARMS[method]
    rng = random.Random(20_261_121)
    count = sum(alarm(rng, run) for run in range(runs))
    assert count <= alpha * runs + 3 * (alpha * (1 - alpha) * runs) ** 0.5
    if runs == RUNS:
        print(f"{method}: {count} of {runs}")


@pytest.mark.slow
def test_intervals_hold_what_they_promise() -> None:
    """Of 10,000 seeded 95 % intervals about 95 % hold the truth: one round, five rounds, paired differences."""
    rng = random.Random(7)
    held = dict.fromkeys(("one round", "five rounds", "tango"), 0)
    for run in range(RUNS):
        n = rng.choice((30, 60))
        spread = [rng.betavariate(8, 2) for _ in range(n)]  # cases are drawn, too: the truth is the mean of the law
        held["one round"] += _holds(pass_rate([float(rng.random() < p) for p in spread]), 0.8)
        if run % 5 == 0:
            rates = [sum(rng.random() < p for _ in range(5)) / 5 for p in spread]
            held["five rounds"] += 5 * _holds(pass_rate(rates, seed=run), 0.8)

        worse = better = 0
        for _ in range(n):
            u = rng.random()
            worse, better = worse + (u < 0.1), better + (0.1 <= u < 0.15)

        low, high = tango(worse, better, n)
        held["tango"] += low <= -0.05 <= high

    assert held["one round"] >= 0.94 * RUNS, held
    assert held["tango"] >= 0.94 * RUNS, held
    assert held["five rounds"] >= 0.925 * RUNS, held


def _holds(found: Interval, truth: float) -> bool:
    return found.low <= truth <= found.high
