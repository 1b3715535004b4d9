"""Sessions beside each other: the sampled gate, baselines, compare, score, parts and what puts them together."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flowdeck_evals.baselines import Baseline
from flowdeck_evals.case_results import CaseResult
from flowdeck_evals.cases import ALL, Gate
from flowdeck_evals.cli.app import run_command
from flowdeck_evals.gate import judge
from flowdeck_evals.outcomes import CaseOutcome, RoundOutcome
from flowdeck_evals.session_comparison import compare_sessions
from flowdeck_evals.sharding import assign, case_list_hash
from flowdeck_sinks.store import query

BROKEN: set[str] = set()
"""Inputs for which :func:`target` gives something else."""


def target(value: str) -> str:
    return "broken" if value in BROKEN else f"{value} is well"


def scored(round: Any) -> float:
    return len(round.output) / 10


Evals = Callable[..., tuple[int, str]]


@pytest.fixture
def evals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Evals:
    """The command line in a folder of its own: ``(exit code, stdout and stderr)``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWDECK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("FLOWDECK_PUBLISH", "off")
    BROKEN.clear()

    def run(*args: str) -> tuple[int, str]:
        code = run_command(list(args))
        said = capfd.readouterr()
        return code, said.out + said.err

    return run


def write(folder: Path, count: int = 40, **more: Any) -> None:
    cases = [
        {"case": f"c{n}", "input": f"c{n}", "expect": {"output": {"contains": "well"}, "checks": f"{__name__}:scored"}}
        for n in range(count)
    ]
    body = {"suite": "shop", "target": f"{__name__}:target", "cases": cases, **more}
    (folder / "shop.json").write_text(json.dumps(body))


def test_a_drop_is_seen_and_noise_is_not(evals: Evals, tmp_path: Path) -> None:
    """One failure of forty is inconclusive, six fail the session; the row has method, N, effect, interval, p, seed."""
    write(tmp_path, gate={"sampled": {"pass_rate": "50%", "regression": {"min_drop": "2%"}}})
    code, text = evals("run", "-q")
    assert code == 3 and "regression compare with a baseline" in text
    assert evals("baseline", "set", "main")[0] == 2  # an incomplete session is no base
    assert evals("run", "-q", "--baseline", "none")[0] == 0
    assert evals("baseline", "set", "main", "--why", "first")[0] == 0
    BROKEN.add("c1")
    code, text = evals("run", "-q")
    assert code == 0, text
    assert (
        "inconclusive: pass rate -2.5%" in text and "1 worse, 0 better, p 0.5 (exact McNemar; Tango, 40 cases)" in text
    )
    assert "smallest drop that 40 sampled cases of shop can show (80 % power): about 18." in text
    assert "advice: shop/scored 1." in text and "scores never block" in text
    BROKEN.update(f"c{n}" for n in range(6))
    code, text = evals("run", "-q", "--json")
    assert code == 1
    row = next(one for one in json.loads(text.splitlines()[-1])["rules"] if one["rule"] == "sampled.regression")
    assert row["measure"]["state"] == "failed" and row["measure"]["n"] == 40 and row["measure"]["seed"] == 0
    assert row["measure"]["effect"] == pytest.approx(-0.15) and row["measure"]["p"] == pytest.approx(2**-6)
    assert row["measure"]["low"] < -0.15 < row["measure"]["high"] < 0
    asked = "state, code, method, n, effect, p, seed, ci_low < effect AND effect < ci_high"
    (told,) = query(tmp_path / "store", f"SELECT {asked} FROM eval_rules WHERE p < 0.05")
    assert tuple(told) == ("failed", 1, row["measure"]["method"], 40, row["measure"]["effect"], 2**-6, 0, True)
    assert evals("run", "-q", "--baseline", "none")[0] == 0
    stored = evals("report", "last", "--format", "json")[1]
    assert "sampled.pass_rate" in stored

    code, text = evals("compare", "last~3", "last~1")
    assert code == 1 and " regressed  shop/c0  passed 1/1 -> failed 0/1" in text
    assert "regressed: the pass rate fell" in text and "6 sampled cases are worse, 0 better" in text
    code, text = evals("compare", "last~1", "last~3", "--json")
    assert code == 0 and json.loads(text)["state"] == "better" and json.loads(text)["counts"]["fixed"] == 6
    code, text = evals("compare", "last~1", "last")
    assert code == 0 and "inconclusive: no difference is shown, and sameness within 2% neither" in text
    assert evals("compare", "last", "last")[0] == 2 and evals("compare", "last~9", "last")[0] == 2


def test_parts_are_one_session_or_nothing(evals: Evals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged parts give the verdict of the whole; a missing, doubled, unfinished, foreign or changed one gives 3."""
    write(tmp_path, 7)
    BROKEN.add("c3")
    stores = [str(tmp_path / f"part{n}") for n in (1, 2, 3)]
    codes = []
    for number, store in enumerate(stores, 1):
        code, text = evals("run", "-q", "--shard", f"{number}/3", "--store", store)
        codes.append(code)
        assert f"part {number} of 3" in text and f" part={number}/3 " in text

    assert sorted(codes) == [0, 0, 1]  # what fails for sure is said at once

    assert evals("baseline", "set", "main", "--store", stores[0])[0] == 2
    code, text = evals("merge", *stores)
    assert code == 1 and "7 cases (1 failed, 6 passed), 7 rounds" in text and "sampled.failures: 1 failed" in text
    assert "passed" in evals("list")[1]
    code, text = evals("report", "last")
    assert code == 0, text
    assert evals("merge", *stores[:2]) == (3, "verdict=incomplete code=3\nevals: part 3/3 is missing\n")
    code, text = evals("merge", *stores, stores[1])
    assert code == 3 and "part 2/3 is there 2 times" in text
    session = next((Path(stores[2]) / "evals").glob("*.json"))
    kept = session.read_text()
    for change, words in (
        ({"git": "another"}, "its commit (another) is not that of"),
        ({"code": None}, "it did not finish"),
        ({"case_list": "0"}, "its list of cases and their hashes (0)"),
        ({"rounds": 5}, "its asking"),
        ({"shard": [1, 3]}, "part 1/3 is there 2 times"),
    ):
        session.write_text(json.dumps({**json.loads(kept), **change}))
        code, text = evals("merge", *stores)
        assert code == 3 and words in text, text

    session.write_text(kept)
    write(tmp_path, 7, target=f"{__name__}:scored")
    assert evals("merge", *stores)[0] == 1  # the cases are the same: nothing runs
    write(tmp_path, 6)
    code, text = evals("merge", *stores)
    assert code == 3 and "is in no suite here" in text
    assert evals("run", "--shard", "4/3")[0] == 2 and evals("run", "--shard", "9/9")[0] == 2
    assert evals("merge", str(tmp_path / "nowhere"))[0] == 3


def test_a_part_that_was_stopped_goes_on_as_the_same_part(evals: Evals, tmp_path: Path) -> None:
    """Parts that stop at their first case are refused; resumed, they run what was theirs, and the whole is judged."""
    write(tmp_path, 7)
    BROKEN.update(f"c{n}" for n in range(7))
    stores = [str(tmp_path / f"part{n}") for n in (1, 2)]
    for number, store in enumerate(stores, 1):
        asked = ("--shard", f"{number}/2", "--store", store)
        assert evals("run", "-q", "-j", "1", "--fail-fast", *asked)[0] == 1

    code, text = evals("merge", *stores)
    assert code == 3 and text.count("is in no part") == 5
    (session,) = (Path(stores[0]) / "evals").glob("*.json")
    kept = session.read_text()
    session.write_text(json.dumps({**json.loads(kept), "code": None}))  # as kill -9 leaves it
    code, text = evals("score", "--store", stores[0])
    assert code == 2 and "did not finish" in text
    session.write_text(kept)
    BROKEN.clear()
    for store in stores:
        assert evals("run", "-q", "--resume", "last", "--store", store)[0] == 1

    code, text = evals("merge", *stores)
    assert code == 1 and "7 cases (2 failed, 5 passed), 7 rounds" in text
    assert " part=1/2 " in evals("score", "--store", stores[0])[1]
    assert evals("run", "--shard", "1/2", "--failed-last")[0] == 2


@pytest.mark.parametrize(
    "version",
    [
        {"cases": 3},
        {"cases": {"c0": 5}},
        {"cases": {"c0": {"hash": "h", "state": "passed", "passed": "1", "rounds": 1}}},
        {"known_failures": 5},
        {"known_failures": [{"case": "c0", "why": "?", "expires": "never"}]},
    ],
)
def test_a_baseline_that_is_none_is_an_error_of_its_file(evals: Evals, tmp_path: Path, version: Any) -> None:
    """It is named, and nothing runs."""
    write(tmp_path, 1)
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "main.json").write_text(json.dumps({"format": 1, "suites": {"shop": [version]}}))
    code, text = evals("run", "-q")
    assert code == 2 and "main.json: " in text and "Traceback" not in text


def test_stored_rounds_are_looked_at_again(evals: Evals, tmp_path: Path) -> None:
    """Today's checks judge what ran yesterday; the target is not even imported."""
    write(tmp_path, 3)
    assert evals("run", "-q")[0] == 0
    body = json.loads((tmp_path / "shop.json").read_text())
    body["target"] = "nowhere.at.all:target"
    (tmp_path / "shop.json").write_text(json.dumps(body))
    code, text = evals("score")
    assert code == 0 and "3 cases (3 passed), 3 rounds" in text, text
    body["cases"][1]["expect"] = {"output": {"equals": "c1 is ill"}}
    (tmp_path / "shop.json").write_text(json.dumps(body))
    code, text = evals("score")
    assert code == 1 and "sampled.failures: 1 failed: c1" in text, text
    body["cases"].append({"case": "new", "input": 1, "expect": {"output": {"equals": 1}}})
    (tmp_path / "shop.json").write_text(json.dumps(body))
    assert evals("score")[0] == 1  # what did not run then is not asked for


def test_longest_first_and_the_same_everywhere() -> None:
    """Parts are equally long, whatever the order of the cases, and cover every case once."""
    rng = random.Random(4)
    keys = [("s", f"c{n}") for n in range(200)]
    durations = {key: rng.expovariate(1) for key in keys[:150]}
    parts = assign(keys, durations, 5)
    rng.shuffle(keys)
    assert assign(keys, durations, 5) == parts and set(parts.values()) == {1, 2, 3, 4, 5}
    loads = [sum(durations.get(key, 0.7) for key, part in parts.items() if part == n) for n in range(1, 6)]
    assert max(loads) < 1.05 * min(loads)
    listed = [("s", f"c{n}", "h") for n in range(9)]
    assert case_list_hash(listed) == case_list_hash(listed[::-1]) != case_list_hash(listed[1:])


def outcome(case_id: str, passed: int, rounds: int = 1, **more: Any) -> CaseOutcome:
    found = [
        RoundOutcome("s", case_id, "h", n + 1, "passed" if n < passed else "failed", wall_us=more.get("wall_us", 1000))
        for n in range(rounds)
    ]
    more = {"quarantine": None, "deterministic": False} | {k: v for k, v in more.items() if k != "wall_us"}
    state = "passed" if passed == rounds else "failed"
    return CaseOutcome("s", case_id, "h", more.pop("deterministic"), False, ALL, found, state, **more)


def then(**cases: tuple[int, int, int]) -> dict[str, Baseline]:
    rows = {
        name: {"hash": "h", "state": "passed", "passed": passed, "rounds": rounds, "wall_us": wall}
        for name, (passed, rounds, wall) in cases.items()
    }
    return {"s": Baseline("main", "s", "session", rows)}


def test_rules_of_the_sampled_gate() -> None:
    """Latency needs ratio and floor, one case ten rounds on both sides, sameness a margin; budgets are sums."""
    loose = {"pass_rate": 0.0}
    before = then(**{f"c{n}": (1, 1, 10_000 + n) for n in range(40)})

    def slower(wall_us: int, **rule: float) -> int:
        cases = [outcome(f"c{n}", 1, wall_us=wall_us + n) for n in range(40)]
        return judge([("s", Gate(more={"latency_p95": rule}), cases)], baselines=before).code

    assert slower(10_100, max_ratio=1.25) == 0
    assert slower(15_000, max_ratio=1.25) == 1
    assert slower(15_000, max_ratio=1.25, min_delta=0.02) == 0

    gate = Gate(**loose, more={"regression": {}})
    assert judge([("s", gate, [outcome("a", 2, 10)])], baselines=then(a=(10, 10, 1))).code == 1
    few = judge([("s", gate, [outcome("a", 0, 5)])], baselines=then(a=(5, 5, 1)))
    assert few.code == 0
    margin = Gate(**loose, more={"regression": {"margin": 0.02}})
    shown = judge([("s", margin, [outcome("a", 1)])], baselines=then(a=(1, 1, 1)))
    assert shown.code == 3 and shown.reasons[-1].measure is not None
    assert shown.reasons[-1].measure.state == "inconclusive"
    many = [outcome(f"c{n}", 1) for n in range(400)]
    assert judge([("s", margin, many)], baselines=then(**{f"c{n}": (1, 1, 1) for n in range(400)})).code == 0
    assert judge([("s", gate, [outcome("b", 1)])], baselines=then(a=(1, 1, 1))).code == 3

    assert judge([("s", Gate(budget={"wall": 0.01}), [outcome("a", 3, 3, wall_us=4000)])]).code == 1
    assert judge([("s", Gate(budget={"wall": 0.02}), [outcome("a", 3, 3, wall_us=4000)])]).code == 0
    silent = outcome("a", 1)
    silent.rounds[0].tokens = None
    assert judge([("s", Gate(budget={"tokens": 10}), [silent])]).code == 3


def test_quarantine_has_an_owner_an_end_and_a_limit(evals: Evals, tmp_path: Path) -> None:
    """One of twenty may fail for a while and is shown; two of twenty, or one whose day has passed, block."""
    held = ("ada", "issue 12", "2026-12-31")
    good = [outcome(f"c{n}", 1) for n in range(19)]
    for day, cases, code in (
        (date(2026, 12, 31), [*good, outcome("q", 0, quarantine=held)], 0),
        (date(2027, 1, 1), [*good, outcome("q", 0, quarantine=held)], 1),
        (date(2027, 1, 1), [*good, outcome("q", 1, quarantine=held)], 0),
        (date(2026, 12, 1), [*good[:18], *(outcome(q, 0, quarantine=held) for q in "qr")], 1),
    ):
        found = judge([("s", Gate(), cases)], today=day)
        assert found.code == code

    assert found.quarantined["s/q"] == "failed; until 2026-12-31, ada: issue 12"
    write(tmp_path, 1)
    body = json.loads((tmp_path / "shop.json").read_text())
    body["cases"][0]["quarantine"] = {"owner": "ada", "why": "?", "expires": "2026-13-01"}
    (tmp_path / "shop.json").write_text(json.dumps(body))
    assert evals("run")[0] == 2


def result(case_id: str, passed: int, rounds: int = 1, case_hash: str = "h", **more: Any) -> CaseResult:
    state = "passed" if passed == rounds else "failed"
    return CaseResult("s", case_id, case_hash, state, passed, rounds, wall_us=100.0, **more)


def test_every_change_has_a_name() -> None:
    """Regressed, fixed, flaky, changed, new, gone and same; a flake that is one for sure is a regression."""
    before = [result("a", 1), result("b", 0), result("c", 5, 5), result("d", 1), result("e", 1), result("same", 1)]
    after = [result("a", 0), result("b", 1), result("c", 4, 5), result("d", 1, case_hash="i"), result("f", 1)]
    before.append(result("sure", 30, 30))
    after += [result("same", 1), result("sure", 3, 30)]
    found = compare_sessions(keyed(before), keyed(after))
    assert {one.case_id: one.change for one in found.cases} == {
        "a": "regressed", "b": "fixed", "c": "flaky", "d": "changed", "e": "gone", "f": "new", "same": "same",
        "sure": "regressed",
    }  # fmt: skip
    assert compare_sessions({}, {}).code == 3
    assert compare_sessions(keyed([result("a", 1)]), keyed([result("a", 1, case_hash="i")])).code == 3
    fixed = compare_sessions(keyed([result("a", 1, deterministic=True)]), keyed([result("a", 0, deterministic=True)]))
    assert fixed.code == 1 and fixed.measure is None


def keyed(results: list[CaseResult]) -> dict[tuple[str, str], CaseResult]:
    return {(one.suite, one.case_id): one for one in results}
