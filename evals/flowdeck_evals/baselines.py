"""``baselines/NAME.json`` beside the suites: what was accepted, in git, so that a review sees what changes.

One file per name and folder; in it, per suite, a list of versions. A version is never altered: ``evals baseline set``
and ``accept`` append one, and the last one counts. A known failure needs a reason and an end, counts for the case as
it was (equal hash) and until its day. Source: the evals reference, §3.9-3.10.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

from flowdeck.errors import EvalError
from flowdeck_evals.outcomes import CaseOutcome

__all__ = ["Baseline", "append_baseline", "baseline_path", "load_baseline", "read_versions"]

FORMAT: Final = 1
_NAME: Final = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*\Z")
_OF_A_CASE: Final = {"hash": str, "state": str, "passed": int, "rounds": int}


@dataclass(slots=True)
class Baseline:
    """What a suite came to when somebody accepted it."""

    name: str
    suite: str
    session: str = ""
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By case id: hash, state, passed, rounds; a negative control says so."""
    known_failures: list[dict[str, Any]] = field(default_factory=list)
    """``{"case": …, "hash": …, "why": …, "expires": "2026-12-31"}``; without a hash, however the case changes."""
    why: str = ""
    author: str = ""
    time: str = ""
    """When it was accepted, ISO 8601."""
    git: str = ""
    """The commit that was checked out."""
    version: int = 1

    def excuses(self, found: CaseOutcome, today: date) -> str | None:
        """Return why a failing case may fail, or ``None``."""
        for known in self.known_failures:
            same = known["case"] == found.case_id and known.get("hash", found.case_hash) == found.case_hash
            if same and date.fromisoformat(known["expires"]) >= today:
                return str(known["why"])

        return None


def baseline_path(suite_file: Path, name: str) -> Path:
    """Return where the baseline of that name is for the suites of a folder.

    Raises:
        EvalError: it is no name.
    """
    if name == "none" or not _NAME.match(name):
        raise EvalError(f"baseline {name!r}: a name is lower case with dashes, such as main")

    return suite_file.parent / "baselines" / f"{name}.json"


def load_baseline(path: Path, suite: str) -> Baseline | None:
    """Return the last version of a suite; ``None`` when there is none.

    Raises:
        EvalError: the file is not a baseline, is newer, has a case without what it came to, or a known failure without
            reason or end.
    """
    versions = read_versions(path).get(suite)
    return versions[-1] if versions else None


def read_versions(path: Path) -> dict[str, list[Baseline]]:
    """Return all versions by suite, the oldest first; nothing when there is no file.

    Raises:
        EvalError: see :func:`load_baseline`.
    """
    body = _read(path)
    out: dict[str, list[Baseline]] = {}
    for suite, versions in body["suites"].items():
        if not isinstance(versions, list) or not all(isinstance(one, dict) for one in versions):
            raise EvalError(f"{path}: suite {suite!r} must have a list of versions")

        out[suite] = [_baseline(path, str(body.get("name", "")), suite, one) for one in versions]

    return out


def append_baseline(path: Path, baseline: Baseline) -> Baseline:
    """Add a version, whole or not at all, and return it with its number. What was there stays as it is.

    Raises:
        EvalError: the file is not a baseline, or cannot be written.
    """
    body = _read(path)
    body["name"] = baseline.name
    versions = body["suites"].setdefault(baseline.suite, [])
    baseline.version = len(versions) + 1
    versions.append(
        {
            key: getattr(baseline, key)
            for key in ("version", "time", "author", "why", "git", "session", "known_failures", "cases")
        }
    )
    text = json.dumps(body, indent=1, ensure_ascii=False) + "\n"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise EvalError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)

    return baseline


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"format": FORMAT, "name": "", "suites": {}}
    except (OSError, ValueError) as error:
        raise EvalError(f"{path}: {error}") from None

    if not isinstance(body, dict) or body.get("format") != FORMAT or not isinstance(body.get("suites"), dict):
        raise EvalError(f"{path}: not a baseline of format {FORMAT}; `evals baseline set` writes one")

    return body


def _baseline(path: Path, name: str, suite: str, body: Mapping[str, Any]) -> Baseline:
    known_failures = body.get("known_failures", [])
    if not isinstance(known_failures, list):
        raise EvalError(f"{path}: suite {suite!r}: known_failures must be a list")

    for known in known_failures:
        try:
            date.fromisoformat(known["expires"])
            if not (known["case"] and known["why"]):
                raise KeyError("why")
        except (KeyError, TypeError, ValueError):
            raise EvalError(f"{path}: a known failure needs case, why and expires (YYYY-MM-DD): {known}") from None

    cases = body.get("cases", {})
    if not isinstance(cases, dict):
        raise EvalError(f"{path}: suite {suite!r}: cases must be a mapping, by case id")

    for case_id, case in cases.items():
        if not (isinstance(case, dict) and all(isinstance(case.get(key), kind) for key, kind in _OF_A_CASE.items())):
            raise EvalError(f"{path}: suite {suite!r}, case {case_id!r}: must have hash, state, passed and rounds")

    texts = {key: str(body.get(key, "")) for key in ("session", "why", "author", "time", "git")}
    number = body.get("version", 1)
    return Baseline(name, suite, cases=cases, known_failures=known_failures, version=number, **texts)
