"""``baselines/NAME.json`` beside the suite: what was accepted once, in git, so that a review sees what changes.

A known failure needs a reason and an end: ``{"case": …, "hash": …, "why": …, "expires": "2026-12-31"}``. It counts for
the case as it was (equal hash) and until its day.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

from flowdeck.errors import EvalError
from flowdeck_evals.outcomes import CaseOutcome

__all__ = ["Baseline", "baseline_path", "load_baseline", "save_baseline"]

FORMAT: Final = 1


@dataclass(slots=True)
class Baseline:
    """What a suite came to when somebody accepted it."""

    name: str
    suite: str
    session: str = ""
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By case id: hash, state, passed, rounds."""
    known_failures: list[dict[str, Any]] = field(default_factory=list)

    def excuses(self, found: CaseOutcome, today: date) -> str | None:
        """Return why a failing case may fail, or ``None``."""
        for known in self.known_failures:
            same = known["case"] == found.case_id and known.get("hash", found.case_hash) == found.case_hash
            if same and date.fromisoformat(known["expires"]) >= today:
                return str(known["why"])

        return None


def baseline_path(suite_file: Path, name: str) -> Path:
    """Return where the baseline of a suite is; several suites of one folder share names."""
    return suite_file.parent / "baselines" / f"{suite_file.stem}.{name}.json"


def load_baseline(path: Path) -> Baseline | None:
    """Read a baseline; ``None`` when there is none.

    Raises:
        EvalError: the file is not a baseline, is newer, or has a known failure without reason or end.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EvalError(f"{path}: {error}") from None

    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise EvalError(f"{path}: not a baseline of format {FORMAT}")

    for known in body.get("known_failures", []):
        try:
            date.fromisoformat(known["expires"])
            if not (known["case"] and known["why"]):
                raise KeyError("why")
        except (KeyError, TypeError, ValueError):
            raise EvalError(f"{path}: a known failure needs case, why and expires (YYYY-MM-DD): {known}") from None

    return Baseline(
        str(body.get("name", "")),
        str(body.get("suite", "")),
        str(body.get("session", "")),
        body.get("cases", {}),
        body.get("known_failures", []),
    )


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline, whole or not at all."""
    body = {
        "format": FORMAT,
        "name": baseline.name,
        "suite": baseline.suite,
        "session": baseline.session,
        "cases": baseline.cases,
        "known_failures": baseline.known_failures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(body, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(path)
