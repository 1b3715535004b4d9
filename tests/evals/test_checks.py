"""What checks say of an output, a budget and an error, and what state that makes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from flowdeck_evals import Case, CheckResult, Finding, Round, check
from flowdeck_evals.checks import compile_checks, state_of
from flowdeck_evals.happenings import Happening
from flowdeck_evals.rounds import Evidence


def judged(
    expect: dict[str, Any], *checks: Callable[..., Any], findings: tuple[Finding, ...] = (), **evidence: Any
) -> Round:
    compiled = compile_checks(Case(id="c", input=None, expect=expect, checks=checks))
    round = Round(Case(id="c", input=None), 1, Evidence(**evidence), findings=list(findings))
    asyncio.run(compiled.run(round))
    state_of(round, compiled)
    return round


@dataclass
class Refund:
    amount: float
    tags: tuple[str, ...]


OUTPUT = {"status": "refunded", "amount": 42.5, "meta": {"ts": 1, "ref": "x"}, "items": [{"n": 1}, {"n": 2}]}
CASES: list[tuple[dict[str, Any], Any, str]] = [
    ({"equals": 1}, 1.0, ""),
    ({"equals": 1}, True, "output: True instead of 1"),
    ({"equals": OUTPUT}, OUTPUT, ""),
    ({"equals": {"a": 1}}, {"a": 1, "b": 2}, "b: not expected, it is 2"),
    ({"match": {"a": 1}}, {"a": 1, "b": 2}, ""),
    ({"match": {"status": "refunded", "items": [{"n": 1}, {}]}}, OUTPUT, ""),
    ({"match": {"items": [{"n": 1}]}}, OUTPUT, "items: 2 items instead of 1"),
    ({"match": {"meta": {"gone": 1}}}, OUTPUT, "meta.gone: missing, expected 1"),
    ({"equals": {**OUTPUT, "meta": {}}, "ignore": ["meta.*"]}, OUTPUT, ""),
    ({"equals": {**OUTPUT, "meta": {"ts": 2, "ref": "x"}}, "ignore": ["*.ts"]}, OUTPUT, ""),
    ({"match": {"amount": 42.6}, "tolerance": 0.2}, OUTPUT, ""),
    ({"match": {"amount": 42.6}, "tolerance": {"rel": 0.0001}}, OUTPUT, "amount: 42.5 instead of 42.6"),
    ({"match": {"amount": 42.6}, "tolerance": {"abs": 1, "paths": "other"}}, OUTPUT, "amount: 42.5"),
    ({"where": {"amount": {"ge": 42, "lt": 43}, "items.1.n": 2, "gone": {"exists": False}}}, OUTPUT, ""),
    ({"where": {"status": {"gt": 3}}}, OUTPUT, "status: 'refunded' is not {'gt': 3}"),
    ({"where": {"status": {"any_of": [{"like": "ref*"}, {"eq": 1}]}, "amount": {"in": [42.5]}}}, OUTPUT, ""),
    ({"regex": "^ref"}, "refunded", ""),
    ({"regex": {"status": "^nope"}}, OUTPUT, "status: 'refunded' does not match '^nope'"),
    ({"contains": "refunded"}, OUTPUT, ""),
    ({"equals": {"amount": 1.0, "tags": ["a"]}}, Refund(1.0, ("a",)), ""),
]


@pytest.mark.parametrize(("expect", "output", "words"), CASES)
def test_outputs(expect: dict[str, Any], output: Any, words: str) -> None:
    """An output that fits passes; one that does not is named by its path."""
    round = judged({"output": expect}, output=output)
    assert round.state == ("failed" if words else "passed"), round.reason
    assert words in round.reason


def test_json_schema() -> None:
    """The output is checked against the schema; what the schema says and cannot be checked leaves it unscored."""
    assert judged({"schema": {"type": "integer"}}, output=3).state == "passed"
    assert judged({"schema": {"type": "integer"}}, output="3").state == "failed"
    assert judged({"schema": {"unheard": 1}}, output=3).state == "unscored"


def events(*names: str, **payload: Any) -> list[Happening]:
    return [Happening(name, name, "", "", n, payload) for n, name in enumerate(names)]


def test_budgets() -> None:
    """Every limit is a check; what nobody told is not within any limit."""
    assert judged({"budget": {"wall": 0.5, "steps": 0}}, wall_us=500_000).state == "passed"
    assert "0.5 s, at most 0.4" in judged({"budget": {"wall": 0.4}}, wall_us=500_000).reason
    told = events("model.request_started", "model.meta", usage={"input_tokens": 7, "output_tokens": 5})
    assert judged({"budget": {"tokens": 12}}, events=told).state == "passed"
    assert judged({"budget": {"tokens": 11}}, events=told).state == "failed"
    assert judged({"budget": {"cost_usd": 1}}, events=told).state == "unscored"
    assert judged({"budget": {"work": 1}}).state == "unscored"


def test_an_expected_error() -> None:
    """An error that is expected, by class or a base of it, is what must happen."""
    raised = {"error": ConnectionResetError("gone"), "error_type": "ConnectionResetError", "error_message": "gone"}
    assert judged({"error": {"type": "ConnectionError", "message": "^gone"}}, **raised).state == "passed"
    assert judged({"error": {"type": "ValueError"}}, **raised).state == "failed"
    assert judged({"error": {}}, output=1).state == "failed"
    assert judged({"output": {"equals": 1}}, **raised).state == "errored"


@check(name="polite")
async def _polite(round: Round) -> dict[str, Any]:
    return {"please": True, "warmth": 0.7, "tone": "kind"}


def test_custom_checks() -> None:
    """A check returns a bool, a number, a label, a result or a mapping of them, and may be async."""
    round = judged({}, _polite, lambda round: CheckResult("own", True))
    assert [(one.name, one.ok, one.score, one.label) for one in round.checks] == [
        ("polite.please", True, None, None),
        ("polite.warmth", None, 0.7, None),
        ("polite.tone", None, None, "kind"),
        ("own", True, None, None),
    ]
    assert round.state == "passed"
    assert judged({}, lambda round: 0.5).state == "unscored", "a score alone cannot fail"
    assert judged({}, lambda round: None).state == "unscored"
    assert judged({}, lambda round: 1 / 0).state == "unscored"
    assert judged({}).state == "unscored"


def test_what_makes_a_round_untrustworthy_outranks_what_it_found() -> None:
    """The order of states is fixed."""
    missing, diverged, never = Finding("missing", "m"), Finding("divergence", "d"), Finding("failed", "f")
    bad = {"output": {"equals": 2}}
    assert judged(bad, output=1, findings=(missing, diverged)).state == "harness_error"
    assert judged(bad, output=1, findings=(diverged, never)).state == "failed"
    assert judged(bad, output=1, findings=(diverged,)).state == "diverged"
    assert judged({"output": {"equals": 1}}, output=1, findings=(Finding("warning", "w"),)).state == "passed"
    assert judged(bad, lambda round: 1 / 0, output=1, findings=(never,)).state == "unscored"


def test_debug_events_are_collected_when_a_clause_can_see_them() -> None:
    """Port calls and signals exist at DEBUG only; they cost nothing where no pattern reaches them."""
    wanted = [{"never": "call.*"}, {"count": {"of": "*", "eq": 1}}, {"either": [[{"in_order": ["s?gnal x"]}]]}]
    for clause in wanted:
        assert compile_checks(Case(id="c", input=None, expect={"path": [clause]})).wants_debug, clause

    assert not compile_checks(Case(id="c", input=None, expect={"path": [{"never": "run.* x"}]})).wants_debug
