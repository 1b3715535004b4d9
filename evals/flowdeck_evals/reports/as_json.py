"""JSON, on one line."""

from __future__ import annotations

import json
from typing import Any

from flowdeck_evals.reports import Summary

__all__ = ["render", "to_dict"]


def to_dict(summary: Summary) -> dict[str, Any]:
    """Return everything the report knows; times in microseconds."""
    return {
        **summary.verdict.to_dict(),
        "session": summary.session_id,
        "level": summary.level,
        "seconds": round(summary.seconds, 6),
        "cases": [
            {
                "suite": one.suite,
                "case": one.case_id,
                "hash": one.case_hash,
                "state": one.state,
                "reason": one.reason,
                "control": one.control,
                "deterministic": one.deterministic,
                "flaky": one.flaky,
                "file": one.file,
                "line": one.line,
                "rounds": [
                    {
                        "round": r.round,
                        "state": r.state,
                        "reason": r.reason,
                        "wall_us": r.wall_us,
                        "run_id": r.run_id,
                        "attempts": r.attempts,
                        "failed_checks": list(r.failed_checks),
                        "tokens": r.tokens,
                        "cost_usd": r.cost_usd,
                        "scores": r.scores or {},
                    }
                    for r in one.rounds
                ],
            }
            for one in summary.outcomes
        ],
    }


def render(summary: Summary) -> str:
    return json.dumps(to_dict(summary), ensure_ascii=False)
