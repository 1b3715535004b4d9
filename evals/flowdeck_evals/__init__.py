"""Evaluations: scenario cases for flows and callables, and a verdict that can be trusted before a release.

    from flowdeck_evals import Case, Suite, check

Names are resolved at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdeck_evals.baselines import Baseline
    from flowdeck_evals.cases import Case, Gate, Need
    from flowdeck_evals.checks import check
    from flowdeck_evals.gate import Verdict
    from flowdeck_evals.happenings import Happening
    from flowdeck_evals.rounds import CheckResult, Finding, Round
    from flowdeck_evals.suite import Report, Suite

__all__ = [
    "Baseline",
    "Case",
    "CheckResult",
    "Finding",
    "Gate",
    "Happening",
    "Need",
    "Report",
    "Round",
    "Suite",
    "Verdict",
    "check",
]

_HOMES = {
    "Baseline": "baselines",
    "Case": "cases",
    "CheckResult": "rounds",
    "Finding": "rounds",
    "Gate": "cases",
    "Happening": "happenings",
    "Need": "cases",
    "Report": "suite",
    "Round": "rounds",
    "Suite": "suite",
    "Verdict": "gate",
    "check": "checks",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flowdeck_evals' has no attribute {name!r}")

    return getattr(import_module(f"flowdeck_evals.{home}"), name)
