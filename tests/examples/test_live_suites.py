"""Every example has cases that chance has a part in, with rounds; a model named by FLOWDECK_MODEL is judged by them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowdeck_evals.discovery import load_suites

ROOT = Path(__file__).parents[2]


def test_every_suite_has_rounds() -> None:
    """A case at level live is run several times, and `make release`, which replays, leaves it out."""
    suites = load_suites([str(ROOT / "examples")])
    assert len(suites) == 7
    for suite in suites:
        live = [case for case in suite.cases if case.level == "live"]
        assert live and all(case.rounds >= 3 and case.tags == ("sampled",) for case in live), suite.name


@pytest.mark.slow
def test_the_live_cases_pass(tmp_path: Path) -> None:
    """They run for real, against the scripted model over HTTP, in a folder of their own."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "FLOWDECK_STORE": str(tmp_path / "store")}
    environ.pop("FLOWDECK_MODEL", None)
    argv = [sys.executable, "-m", "flowdeck_evals", "run", str(ROOT / "examples"), "--tag", "sampled", "-q"]
    done = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 cases (7 passed), 29 rounds" in done.stdout
