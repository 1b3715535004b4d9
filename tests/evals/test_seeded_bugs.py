"""The licence audit's suite finds bugs: each of ten turns a case red, and only cases it may."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.evals.licence_bugs import BUGS, FLOW, Bug, edited

from flowdeck_evals.suite import Suite

SUITE = Suite.load(FLOW.parent / "evals" / "licence-audit.yaml")
RED = {"failed", "errored", "diverged", "timed_out"}


def test_the_flow_as_it_is_passes() -> None:
    """The suite passes, the control fails as it must, and no round is anything else."""
    report = SUITE.run_sync(tags="release")
    verdict = report.judge(baseline=None)
    assert verdict.ok, [reason.message for reason in verdict.reasons]
    assert {each.case.id for each in report.rounds} == {"control-everything-permissive"}


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_bug_turns_its_cases_red(bug: Bug, tmp_path: Path) -> None:
    """At least one case turns red, and every red case is one that the bug may break."""
    flow, _ = edited(tmp_path, bug.before, bug.after)
    report = replace(SUITE, target=flow).run_sync(tags="release")
    red = {each.case.id for each in report.rounds if each.state in RED} - {"control-everything-permissive"}
    assert red
    assert red <= bug.red
    assert not report.judge(baseline=None).ok
