"""What rules say: exit codes, reasons, and the numbers behind a statistical one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from flowdeck_evals.outcomes import CaseOutcome

__all__ = ["CODES", "PRECEDENCE", "Measure", "Reason", "reason_for"]

PASS, FAILED, USAGE, INCOMPLETE, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 4, 130
CODES: Final = {
    PASS: "pass",
    FAILED: "fail",
    USAGE: "usage",
    INCOMPLETE: "incomplete",
    DIVERGED: "diverged",
    INTERRUPTED: "interrupted",
}
PRECEDENCE: Final = (USAGE, INTERRUPTED, INCOMPLETE, FAILED, DIVERGED, PASS)
BAD: Final = ("failed", "errored", "timed_out")
JUDGED: Final = ("passed", "diverged", *BAD)
"""States of a case that says something about its target."""
_SHOWN: Final = 5


class Measure(msgspec.Struct, omit_defaults=True):
    """The numbers behind a rule, as they stand in the verdict row."""

    method: str
    n: int
    """Cases."""
    effect: float
    """What was measured: a rate, a difference of rates, a ratio, a sum."""
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted_p: float | None = None
    """Holm's, over all tests of the session; what is compared with alpha."""
    seed: int | None = None
    state: Literal["ok", "failed", "inconclusive"] = "ok"

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, which knows no NaN."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in msgspec.to_builtins(self).items()
        }


class Reason(msgspec.Struct, omit_defaults=True):
    """What one rule says."""

    rule: str
    code: int
    """0 when it holds."""
    message: str
    cases: list[str] = []
    measure: Measure | None = None

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"rule": self.rule, "code": self.code, "message": self.message, "cases": self.cases}
        if self.measure is not None:
            out["measure"] = self.measure.to_dict()

        return out


def reason_for(rule: str, code: int, words: str, cases: Sequence[CaseOutcome], suite: str, many: bool) -> Reason:
    """Return a reason that names its cases; of ``many`` suites each is named with its own."""
    ids = [f"{suite}/{one.case_id}" if many else one.case_id for one in cases]
    shown = ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
    return Reason(rule, code, f"{len(ids)} {words}: {shown}" if ids else words, ids)
