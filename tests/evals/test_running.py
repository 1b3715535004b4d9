"""Rounds, suites in Python, the gate, reports and progress."""

from __future__ import annotations

import asyncio
import io
import json
import xml.etree.ElementTree as ET
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.evals import targets_for_tests as targets

import flowdeck
from flowdeck_evals import Baseline, Case, Gate, Need, Suite
from flowdeck_evals.gate import judge
from flowdeck_evals.outcomes import CaseOutcome, RoundOutcome, gather
from flowdeck_evals.progress import Progress
from flowdeck_evals.reports import FORMATS, Summary, render

SHOP = Suite(
    "shop",
    targets.flow,
    (
        Case(
            id="two",
            input={"n": 2},
            tags=("release",),
            expect={
                "output": {"equals": {"total": 4}},
                "path": [{"in_order": ["run.start", "node.start price", "node.done keep", "run.end"]}],
            },
        ),
        Case(id="wrong", input={"n": 2}, expect={"output": {"equals": {"total": 5}}}, control=True),
    ),
)


def test_a_suite_in_python() -> None:
    """A flow runs, its trajectory and output are checked, and the verdict is a pass."""
    report = SHOP.run_sync(rounds=3)
    verdict = report.judge()
    assert verdict.ok, verdict
    assert verdict.totals == {"passed": 1, "failed": 1}
    assert [one.passed_rounds for one in report.outcomes] == [3, 0]


@pytest.mark.parametrize("case", SHOP.params())
def test_the_pytest_bridge(case: Case[Any, Any]) -> None:
    """Every case of a suite is a test of its own."""
    SHOP.assert_case(case)


def test_the_pytest_bridge_says_why() -> None:
    """A case that does not pass raises with its reasons."""
    suite = Suite("s", targets.wrong, (Case(id="a", input=1, expect={"output": {"equals": 1}}),))
    with pytest.raises(AssertionError, match="output equals: output: 'wrong' instead of 1"):
        suite.assert_case(suite.cases[0])


def test_rounds_are_isolated_from_the_application() -> None:
    """No event of a round reaches the default runtime, and none of one round another."""
    seen: list[Any] = []
    flowdeck.runtime.center.register_hook(seen.append, hook_name="spy")
    counts: list[int] = []

    def count(round: Any) -> bool:
        counts.append(sum(event.kind == "run.start" for event in round.events))
        return True

    try:
        Suite("s", targets.flow, (Case(id="a", input={"n": 1}, rounds=40, checks=(count,)),)).run_sync(jobs=16)
    finally:
        flowdeck.runtime.center.unregister_hook("spy")

    assert seen == []
    assert counts == [1] * 40


def test_a_hook_left_behind_ends_with_its_round() -> None:
    """What a target registers in its Event Center is gone in the next round."""
    seen: list[int] = []

    async def target(value: int) -> int:
        from flowdeck.execution.services import current_services

        center = current_services().center
        seen.append(len(center._hooks))
        center.register_hook(lambda event: None, hook_name=f"h{value}")
        return value

    case = Case(id="a", input=1, rounds=3, expect={"output": {"equals": 1}})
    assert Suite("s", target, (case,)).run_sync(jobs=1).judge().ok
    assert seen == [0, 0, 0]


def test_an_input_cannot_be_altered_for_the_next_round() -> None:
    """Every round gets a copy of its own."""

    async def target(value: dict[str, list[int]]) -> int:
        value["n"].append(1)
        return len(value["n"])

    case = Case(id="a", input={"n": []}, rounds=5, expect={"output": {"equals": 1}})
    assert Suite("s", target, (case,)).run_sync().judge().ok


def test_only_the_infrastructure_is_tried_again() -> None:
    """A connection error is retried twice and counted; an assertion never is."""
    calls: list[str] = []

    async def flaky(value: str) -> str:
        calls.append(value)
        if value == "net" and calls.count("net") < 3:
            raise ConnectionResetError("gone")

        return value

    cases = (
        Case(id="net", input="net", expect={"output": {"equals": "net"}}),
        Case(id="bad", input="bad", expect={"output": {"equals": "good"}}),
    )
    report = Suite("s", flaky, cases).run_sync(jobs=1)
    assert [(one.state, one.rounds[0].attempts) for one in report.outcomes] == [("passed", 3), ("failed", 1)]
    assert calls == ["net", "net", "net", "bad"]


def test_as_many_rounds_at_a_time_as_jobs() -> None:
    """The limit is reached and never passed."""
    running = most = 0

    async def target(value: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running -= 1
        return value

    case = Case(id="a", input=1, rounds=50, expect={"output": {"equals": 1}})
    assert Suite("s", target, (case,)).run_sync(jobs=7).judge().ok
    assert most == 7


def outcome(state: str, name: str = "a", *, deterministic: bool = True, control: bool = False) -> CaseOutcome:
    rounds = [RoundOutcome("s", name, "h", 1, state)]
    return CaseOutcome("s", name, "h", deterministic, control, Need("all"), rounds, state, "why")


def test_too_few_rounds_are_no_pass() -> None:
    """A case that was stopped half way, or run less often than it needs, is missing; one that is red stays red."""

    def state(need: Need, wanted: int, *states: str) -> str:
        rounds = {("s", "a"): [RoundOutcome("s", "a", "h", n, each) for n, each in enumerate(states, 1)]}
        (found,) = gather([("s", Case(id="a", input=1, need=need), True, wanted)], rounds)
        return found.state

    most, every = Need("count", 2, 3), Need("all")
    assert state(most, 3, "passed", "failed", "passed") == "passed"
    assert state(most, 3, "passed", "passed") == "missing"
    assert state(most, 2, "passed", "failed") == "missing"
    assert state(most, 3, "failed") == "failed"
    assert state(every, 3, "passed", "passed") == "missing"
    assert state(every, 3, "passed", "failed") == "failed"
    assert state(Need("pass^k", 0.9, 3), 2, "passed", "passed") == "missing"
    two_of_four = ("passed", "failed", "passed", "failed")
    assert state(Need("pass^k", 0.16, 2), 4, *two_of_four) == "passed"
    assert state(Need("pass^k", 0.17, 2), 4, *two_of_four) == "failed"
    assert state(Need("pass@k", 0.83, 2), 4, *two_of_four) == "passed"
    assert state(Need("pass@k", 0.84, 2), 4, *two_of_four) == "failed"


def code(*cases: CaseOutcome, gate: Gate | None = None, **options: Any) -> int:
    return judge([("s", gate or Gate(), list(cases))], **options).code


def test_the_gate() -> None:
    """Rules for deterministic and sampled cases, and the precedence 3 > 1 > 4."""
    good, bad, diverged, unscored = (outcome(s) for s in ("passed", "failed", "diverged", "unscored"))
    assert code(good) == 0
    assert code(good, bad) == 1
    assert code(good, diverged) == 4
    assert code(bad, diverged) == 1
    assert code(bad, diverged, unscored) == 3
    assert code() == 3
    assert code(good, bad, gate=Gate(new_failures=1)) == 0
    assert code(good, outcome("passed", "c", control=True)) == 1
    assert code(good, outcome("unscored", "c", control=True)) == 3
    sampled = [outcome("passed", f"p{n}", deterministic=False) for n in range(9)]
    red = outcome("failed", "x", deterministic=False)
    assert code(*sampled, red) == 1
    assert code(*sampled, red, gate=Gate(pass_rate=0.9)) == 0
    assert code(*sampled, red, gate=Gate(pass_rate_lower=0.6)) == 1
    assert code(*sampled, red, gate=Gate(pass_rate_lower=0.5)) == 0


def test_known_failures_need_the_same_case_and_a_day() -> None:
    """A known failure is excused until it expires and only as the case was."""
    known = {"case": "a", "hash": "h", "why": "#12", "expires": "2026-12-31"}
    baselines = {"s": Baseline("main", "s", known_failures=[known])}
    assert code(outcome("passed"), outcome("failed"), baselines=baselines, today=date(2026, 12, 31)) == 0
    assert code(outcome("failed"), baselines=baselines, today=date(2027, 1, 1)) == 1
    other = {"s": Baseline("main", "s", known_failures=[{**known, "hash": "other"}])}
    assert code(outcome("failed"), baselines=other, today=date(2026, 12, 31)) == 1


def test_reports_survive_hostile_text() -> None:
    """Every format holds control characters, markup and newlines without harm."""
    evil = outcome("failed")
    evil.reason = "</failure>\x1b[31m|`<script>]]>\x00\n::error::x%"
    evil.rounds[0].reason = evil.reason
    summary = Summary("id", judge([("s", Gate(), [evil, outcome("passed", "b")])]), [evil, outcome("passed", "b")])
    texts = {name: render(name, summary) for name in FORMATS}
    assert all("\x1b" not in text and "\x00" not in text for text in texts.values())
    found = ET.fromstring(texts["junit"]).find("testsuite")
    assert found is not None
    assert (found.get("tests"), found.get("failures")) == ("2", "1")
    assert json.loads(texts["json"])["code"] == 1
    assert "<script>" not in texts["md"]
    assert texts["github"].count("\n::error::x") == 0


def test_progress_off_a_terminal_is_a_line_per_tenth() -> None:
    """Without a terminal at most one line per 10 % comes; on one the line is redrawn at most ten times a second."""
    now = [0.0]
    report = Suite("s", targets.wrong, (Case(id="a", input=1, expect={"output": {"equals": 1}}),)).run_sync()
    for terminal in (False, True):
        stream = io.StringIO()
        progress = Progress(stream, clock=lambda: now[0], terminal=terminal)
        progress.started(1000, 0)
        for _ in range(1000):
            now[0] += 0.01
            progress.finished(report.rounds[0])

        progress.ended()
        lines = stream.getvalue()
        assert 9 <= lines.count("\r" if terminal else "\n") <= (110 if terminal else 10)
        assert "/s" in lines


def test_baselines_say_what_is_wrong(tmp_path: Path) -> None:
    """A known failure without a reason or an end is refused; versions are appended, never altered."""
    from flowdeck.errors import EvalError
    from flowdeck_evals.baselines import append_baseline, baseline_path, load_baseline, read_versions

    path = baseline_path(tmp_path / "s.yaml", "main")
    assert path == tmp_path / "baselines" / "main.json"
    known = {"case": "a", "hash": "h", "why": "#12", "expires": "2026-12-31"}
    case = {"hash": "h", "state": "failed", "passed": 0, "rounds": 1}
    append_baseline(path, Baseline("main", "s", "id", {"a": case}, [known]))
    first = read_versions(path)["s"][0]
    assert load_baseline(path, "s") == Baseline("main", "s", "id", {"a": case}, [known])
    append_baseline(path, Baseline("main", "s", "later"))
    append_baseline(path, Baseline("main", "other", "id"))
    assert read_versions(path)["s"] == [first, Baseline("main", "s", "later", version=2)]
    assert load_baseline(tmp_path / "none.json", "s") is None
    append_baseline(path, Baseline("main", "s", known_failures=[{"case": "a", "why": "x", "expires": "soon"}]))
    with pytest.raises(EvalError, match="expires"):
        load_baseline(path, "s")

    path.write_text('{"format": 2}')
    with pytest.raises(EvalError, match="not a baseline of format 1"):
        append_baseline(path, first)

    with pytest.raises(EvalError, match="a name is lower case"):
        baseline_path(path, "../main")
