"""Evaluations as the Evals screen shows them: sessions, and the cases of one beside those of another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from flowdeck_devtools.core.text import clean

__all__ = ["ROUNDS_SQL", "SESSIONS_SQL", "Case", "Comparison", "EvalSession", "Round", "compare", "sessions_of"]

SESSIONS_SQL = """
SELECT s.session_id, s.suite, epoch_us(s.started_at), epoch_us(s.finished_at), s.verdict, s.git_sha, s.level,
  s.baseline, coalesce(r.rounds, 0), coalesce(r.cases, 0), coalesce(r.good, 0), r.wall_ms
FROM eval_sessions s LEFT JOIN (
  SELECT session_id, count(*) AS rounds, count(DISTINCT case_id) AS cases, sum(wall_ms) AS wall_ms,
    count(*) FILTER (state = 'passed') AS good
  FROM eval_rounds GROUP BY session_id
) r USING (session_id)
ORDER BY s.started_at DESC NULLS LAST, s.session_id DESC LIMIT 500
"""

ROUNDS_SQL = """
SELECT session_id, CASE WHEN min(suite) OVER () <> max(suite) OVER () THEN suite || '/' || case_id ELSE case_id END,
  round, state, wall_ms, run_id, case_hash, error_type, error_message, record::VARCHAR
FROM eval_rounds WHERE session_id IN (?, ?) ORDER BY suite, case_id, round
"""

MOST_CHANGES = 40
"""Places of an output that are shown."""
_SCORED = ("passed", "failed", "errored", "timed_out", "diverged")
"""States that say something about the target; the others are the harness's or nobody's."""


@dataclass(frozen=True, slots=True)
class EvalSession:
    """One evaluation run. Times are microseconds since the epoch."""

    id: str
    suite: str = ""
    started_us: int | None = None
    finished_us: int | None = None
    verdict: str = ""
    git_sha: str = ""
    level: str = ""
    baseline: str = ""
    rounds: int = 0
    cases: int = 0
    passed: int = 0
    wall_ms: float | None = None
    store: Path | None = None
    """Where it is, of several stores."""

    @property
    def status(self) -> str:
        """Its verdict, or that it has none: it runs, or was killed."""
        return self.verdict or "no verdict"


def sessions_of(rows: Sequence[Sequence[Any]], origins: Sequence[Path] = ()) -> list[EvalSession]:
    """The sessions of the rows of :data:`SESSIONS_SQL`, the latest first; of several stores in one list.

    One that is in two stores, because one is a copy of the other, is shown once.
    """

    def text(value: object) -> str:
        return clean(str(value)) if value is not None else ""

    found = [
        EvalSession(
            str(row[0]), text(row[1]), row[2], row[3], text(row[4]), text(row[5]), text(row[6]), text(row[7]),
            int(row[8]), int(row[9]), int(row[10]), row[11],
            origins[place] if origins else None,
        )
        for place, row in enumerate(rows)
    ]  # fmt: skip
    if origins:
        found = list({one.id: one for one in reversed(found)}.values())
        found.sort(key=lambda one: (one.started_us or 0, one.id), reverse=True)
    return found


@dataclass(frozen=True, slots=True)
class Round:
    """One execution of one case."""

    case: str
    number: int
    state: str
    wall_ms: float | None = None
    run_id: str | None = None
    case_hash: str | None = None
    error: str = ""
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def control(self) -> bool:
        """Whether it is of a negative control, which must fail."""
        return self.record.get("control") is True

    @property
    def good(self) -> bool:
        """Whether it came to what it should."""
        return (self.state == "passed") != self.control

    @property
    def checks(self) -> list[dict[str, Any]]:
        found = self.record.get("checks")
        return [check for check in found if isinstance(check, dict)] if isinstance(found, list) else []

    @property
    def verdicts(self) -> dict[str, str]:
        """What each check said, in a few words."""
        out = {}
        for check in self.checks:
            good = check.get("ok", check.get("passed"))
            said = check.get("detail") or check.get("error")
            if good is None and not said:  # one that only scores
                said = check.get("label", check.get("score", "no verdict"))
            words = "holds" if good else said or "does not hold"
            out[clean(str(check.get("name") or check.get("check") or "check"))] = clean(str(words))
        return out

    @property
    def failed_checks(self) -> list[str]:
        """The checks that did not hold, or could not be made."""
        return [
            clean(str(check.get("name") or check.get("check") or "check"))
            for check in self.checks
            if check.get("ok") is False or check.get("passed") is False or check.get("error")
        ]


@dataclass(frozen=True, slots=True)
class Case:
    """A case in both sessions. A rate is good rounds of scored ones; ``None`` when none was scored."""

    id: str
    base: tuple[Round, ...] = ()
    candidate: tuple[Round, ...] = ()

    @property
    def base_rate(self) -> float | None:
        return _rate(self.base)

    @property
    def candidate_rate(self) -> float | None:
        return _rate(self.candidate)

    @property
    def comparable(self) -> bool:
        """Both have it and it was the same case: of another version only itself can be said."""
        hashes = {one.case_hash for one in (*self.base, *self.candidate)}
        return bool(self.base and self.candidate) and len(hashes) <= 1

    @property
    def delta(self) -> float | None:
        base, candidate = self.base_rate, self.candidate_rate
        return candidate - base if self.comparable and base is not None and candidate is not None else None

    @property
    def sampled(self) -> bool:
        """Whether chance has a part in it: a replayed case answers for itself, a control is no case of the target."""
        rounds = (*self.base, *self.candidate)
        return all(one.record.get("level", "live") == "live" and not one.control for one in rounds)

    def changes(self) -> dict[str, str]:
        """What is otherwise than in the base, between the rounds that show most of it: checks, the output by path."""
        if not (self.base and self.candidate):
            return {}
        before = max(self.base, key=lambda one: (one.good, -one.number))
        now = min(self.candidate, key=lambda one: (one.good, one.number))
        out = {}
        if before.state != now.state:
            out["state"] = f"{before.state} → {now.state}"
        for name in dict.fromkeys((*before.verdicts, *now.verdicts)):
            was, is_ = before.verdicts.get(name, "not made"), now.verdicts.get(name, "not made")
            if was != is_:
                out[name] = f"{was} → {is_}"
        if "output" in before.record and "output" in now.record:
            from flowdeck_evals.comparing import differences

            for line in islice(differences(now.record["output"], before.record["output"]), MOST_CHANGES):
                path, _, words = line.partition(": ")
                out[f"output {path}" if path != "output" else path] = words
        return out

    @property
    def change(self) -> str:
        """regressed, improved, same, changed (another version of the case), new or gone."""
        if not self.base:
            return "new"
        if not self.candidate:
            return "gone"
        if not self.comparable:
            return "changed"
        delta = self.delta or 0.0
        return "regressed" if delta < 0 else "improved" if delta > 0 else "same"


def _rate(rounds: Sequence[Round]) -> float | None:
    scored = [one for one in rounds if one.state in _SCORED]
    return sum(one.good for one in scored) / len(scored) if scored else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Cases, what changed most on top, and the mean change with its interval."""

    cases: tuple[Case, ...]
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    """Sampled cases that could be compared."""
    p: float | None = None
    """One-sided: small when it got worse."""
    method: str = ""
    sees: float | None = None
    """The smallest drop that so many cases show (80 % power)."""

    def count(self, change: str) -> int:
        return sum(1 for case in self.cases if case.change == change)


def compare(rows: Iterable[Sequence[Any]], base: str | None, candidate: str) -> Comparison:
    """Put the rounds of two sessions side by side; without a base, show the candidate's alone.

    Test and interval are those of ``evals compare``: paired over cases, exact where there is one round each, and rounds
    of one case, which are not independent, count as its rate.
    """
    found: dict[str, tuple[list[Round], list[Round]]] = {}
    taken: set[tuple[Any, ...]] = set()
    for session, case, number, state, wall_ms, run_id, case_hash, kind, said, record in rows:
        place = (session, case, number, run_id)
        if run_id is not None and place in taken:
            continue  # told by a second store, a copy of the first
        taken.add(place)
        parts = [clean(str(part)) for part in (kind, said) if part]
        one = Round(
            str(case),
            int(number or 1),
            str(state or "–"),
            wall_ms,
            run_id,
            case_hash,
            ": ".join(parts),
            _record(record),
        )
        both = found.setdefault(one.case, ([], []))
        if session == candidate:
            both[1].append(one)
        elif session == base:
            both[0].append(one)
    cases = [Case(name, tuple(old), tuple(new)) for name, (old, new) in found.items()]
    order = {"regressed": 0, "new": 2, "changed": 3, "improved": 1, "same": 4, "gone": 5}
    cases.sort(key=lambda case: (order[case.change] if base else 0, -abs(case.delta or 0.0), _weight(case), case.id))
    from flowdeck_evals.statistics.paired import paired_test
    from flowdeck_evals.statistics.power import noise_of, smallest_drop

    paired = [case for case in cases if case.sampled and case.delta is not None]
    if not paired:
        return Comparison(tuple(cases))
    tested = paired_test([case.base_rate or 0.0 for case in paired], [case.candidate_rate or 0.0 for case in paired])
    seen = smallest_drop(tested.n, noise=noise_of([case.delta or 0.0 for case in paired]))
    return Comparison(tuple(cases), tested.effect, tested.low, tested.high, tested.n, tested.p, tested.method, seen)


def _weight(case: Case) -> float:
    rate = case.candidate_rate
    return rate if rate is not None else 2.0


def _record(text: object) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
