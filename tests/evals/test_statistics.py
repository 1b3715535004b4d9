"""The statistics of verdicts: equal to SciPy, seeded, and honest where there is little to see."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdeck_evals.statistics.agreement import cohen_kappa, krippendorff_alpha
from flowdeck_evals.statistics.intervals import cluster_bootstrap, jeffreys, pass_rate, percentile, wilson
from flowdeck_evals.statistics.latency import compare_latency
from flowdeck_evals.statistics.paired import equivalent, mcnemar, paired_test, sign_flip, tango
from flowdeck_evals.statistics.power import mcnemar_power, smallest_drop
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
    theirs = stats.bootstrap((means,), mean, n_resamples=9_999, method="percentile", rng=2).confidence_interval
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


RUNS = 10_000
FLAKES = (0.9, 0.95, 0.8, 0.99)


@pytest.mark.parametrize("runs", [150, pytest.param(RUNS, marks=pytest.mark.slow)])
def test_false_alarms(runs: int) -> None:
    """Nothing changed, seeded sessions in pairs: each method cries wolf at most as often as it says."""
    rng = random.Random(20_261_121)
    alarms = dict.fromkeys(("mcnemar", "sign flip", "fisher + holm", "gate p50", "gate p95"), 0)
    alpha = 0.05
    for run in range(runs):
        n, rounds = rng.choice((12, 30, 80)), 5
        rates = [rng.choice(FLAKES) for _ in range(n)]
        one = [[[rng.random() < rate for _ in range(rounds)] for rate in rates] for _ in range(2)]
        worse = sum(a[0] and not b[0] for a, b in zip(*one, strict=True))
        better = sum(b[0] and not a[0] for a, b in zip(*one, strict=True))
        alarms["mcnemar"] += mcnemar(worse, better) < alpha
        drops = [(sum(b) - sum(a)) / rounds for a, b in zip(*one, strict=True)]
        alarms["sign flip"] += sign_flip(drops, seed=run, flips=400) < alpha
        ps = [fisher(sum(a), rounds, sum(b), rounds) for a, b in zip(*one, strict=True)]
        alarms["fisher + holm"] += min(holm(ps)) < alpha
        if run % 10 == 0:
            speeds = [rng.lognormvariate(9, 1) for _ in range(n)]
            took = [[speed * rng.lognormvariate(0, 0.1) for speed in speeds] for _ in range(2)]
            for name, share in (("gate p50", 0.5), ("gate p95", 0.95)):
                alarms[name] += compare_latency(*took, share, limit=1.1, seed=run).low > 1.1

    for name, count in alarms.items():
        made = runs / 10 if name.startswith("gate") else runs
        allowed = alpha * made + 3 * (alpha * (1 - alpha) * made) ** 0.5
        assert count <= allowed, f"{name}: {count} of {made:.0f}"


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


def _holds(found: object, truth: float) -> bool:
    return found.low <= truth <= found.high  # type: ignore[attr-defined]
