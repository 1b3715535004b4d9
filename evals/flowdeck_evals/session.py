"""A session from the shell: suites found, earlier sessions looked at, run, judged, committed.

The verdict is in the store before anybody reports it. :func:`evaluate` raises only for what is wrong with the request
(exit code 2); everything later is part of the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdeck.errors import EvalError
from flowdeck_evals.baselines import Baseline, baseline_path, load_baseline
from flowdeck_evals.cases import Case, Level
from flowdeck_evals.discovery import load_suites
from flowdeck_evals.gate import INCOMPLETE, Reason, judge
from flowdeck_evals.outcomes import RoundOutcome
from flowdeck_evals.plans import plan_round
from flowdeck_evals.progress import Progress
from flowdeck_evals.reports import Summary
from flowdeck_evals.results import Results, load_rounds
from flowdeck_evals.runner import Options, Runner, Session
from flowdeck_evals.session_files import SessionFile, last_sessions, read_session
from flowdeck_evals.sharding import assign, case_list_hash
from flowdeck_evals.statistics.latency import calibrate
from flowdeck_evals.suite import Suite

if TYPE_CHECKING:
    from flowdeck_evals.rescoring import StoredRounds

__all__ = ["JudgedSession", "SessionPlan", "evaluate"]


@dataclass(slots=True, kw_only=True)
class SessionPlan:
    """What ``evals run`` was asked."""

    paths: list[str]
    level: Level | None = None
    rounds: int | None = None
    jobs: int = 8
    tags: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    failed_last: bool = False
    resume: str | None = None
    baseline: str | None = None
    fail_fast: bool = False
    time_limit: float | None = None
    store: str | None = None
    shard: tuple[int, int] | None = None
    """``(2, 5)``: only the second part of five, which `evals merge` judges."""
    stored: StoredRounds | None = None
    """Rounds that are looked at again instead of run."""


class JudgedSession:
    """A session with its verdict; :meth:`close` lets go of the store."""

    def __init__(
        self, judge_with: Callable[[list[Reason]], Any], results: Results, session: Session, plan: SessionPlan
    ) -> None:
        self._judge_with = judge_with
        self._results = results
        self._session = session
        self._plan = plan
        self._extra = list(session.troubles)
        self.summary = self._judged()
        self._commit()

    def add_trouble(self, rule: str, message: str) -> None:
        """Something that makes the session incomplete came up after the verdict: it is judged and committed again."""
        self._extra.append(Reason(rule, INCOMPLETE, message))
        self.summary = self._judged()
        self._commit(again=False)

    def close(self) -> None:
        self._results.close()

    def _judged(self) -> Summary:
        verdict = self._judge_with(self._extra)
        return Summary(
            self._session.session_id, verdict, self._session.outcomes, self._session.seconds, self._plan.level
        )

    def _commit(self, again: bool = True) -> None:
        names = ",".join(suite.name for suite, _ in self._session.by_suite)
        payload = {
            "suite": names,
            "level": self._plan.level,
            "baseline": self._plan.baseline,
            "rounds": self._session.done,
        }
        wrong = self._results.verdict(self.summary.verdict, self._session.outcomes, payload)
        if wrong and again and not any(one.rule == "results" for one in self._extra):
            self.add_trouble("results", wrong)


def evaluate(
    plan: SessionPlan,
    drive: Callable[[Callable[[], Any], Callable[[str], None]], Session],
    *,
    progress: bool = True,
) -> JudgedSession:
    """Run a session and commit its verdict.

    Args:
        drive: runs the coroutine function it is given, and calls the other with a reason when it should stop.

    Raises:
        EvalError: the request is wrong: files, targets, checks, an unknown session.
        StoreError: the store cannot be used.
    """
    from flowdeck.layout import resolve_store

    store = Path(resolve_store(plan.store))
    earlier = _earlier(plan, store)
    suites = load_suites(plan.paths)
    baselines = _baselines(suites, plan)
    extra: list[Reason] = []
    if plan.baseline not in (None, "none"):
        extra += [
            Reason("baseline", INCOMPLETE, f"{baseline_path(s.file, str(plan.baseline))}: no baseline of {s.name}")
            for s in suites
            if s.name not in baselines and s.file is not None
        ]

    every = Options(level=plan.level, rounds=plan.rounds, tags=plan.tags, cases=plan.cases)
    listed = [(suite, case) for suite in suites for case in suite.cases if every.selects(suite.name, case)]
    only = _only(plan, store, suites, earlier)
    if plan.stored is not None:
        only = plan.stored.of(suites).cases
    elif plan.shard is not None and earlier is None:
        if plan.failed_last:
            raise EvalError("--shard with --failed-last: what failed last is known to this machine only")

        only = _part(plan.shard, listed, baselines)

    options = Options(
        level=plan.level,
        rounds=plan.rounds,
        jobs=plan.jobs,
        tags=plan.tags,
        cases=plan.cases,
        only=only,
        deterministic=plan.stored.deterministic if plan.stored is not None else None,
        fail_fast=plan.fail_fast,
        time_limit=plan.time_limit,
    )
    finished: list[RoundOutcome] = load_rounds(store, earlier.session_id) if earlier is not None else []
    watcher = Progress() if progress else None
    results = Results(store, earlier)
    try:
        planner = plan_round if plan.stored is None else plan.stored.plan
        runner = Runner(suites, options, results, watcher, planner=planner, finished=finished)
        if watcher is not None:
            watcher.running = runner.running

        file = earlier or SessionFile(
            results.session_id,
            time.time_ns() // 1000,
            {suite.name: str(suite.file.resolve()) if suite.file else "" for suite in suites},
            plan.level,
            plan.rounds,
            {"tags": list(plan.tags), "cases": list(plan.cases)},
            baseline=plan.baseline,
            only=None if options.only is None else sorted(options.only),
            git=git_sha(Path.cwd()),
            calibration_ns=calibrate(),
            shard=plan.shard,
            case_list=case_list_hash([(suite.name, case.id, case.hash) for suite, case in listed]),
        )
        results.started(_described(suites, runner, plan, earlier is not None), file)
        session = drive(runner.run, runner.stop)
    except BaseException:
        results.close()
        raise

    def judged(troubles: list[Reason]) -> Any:
        return judge(
            [(suite.name, suite.gate, found) for suite, found in session.by_suite],
            baselines=baselines,
            extra=[*extra, *troubles],
            without_baseline=plan.baseline == "none",
            part=plan.shard,
        )

    return JudgedSession(judged, results, session, plan)


def _described(suites: list[Suite[Any, Any]], runner: Runner, plan: SessionPlan, resumed: bool) -> dict[str, Any]:
    return {
        "suite": ",".join(suite.name for suite in suites),
        "suites": [
            {"suite": suite.name, "file": str(suite.file or ""), "target": str(suite.target), "cases": len(suite.cases)}
            for suite in suites
        ],
        "level": plan.level,
        "selected": runner.selected,
        "jobs": plan.jobs,
        "git_sha": git_sha(Path.cwd()),
        "resumed": resumed,
        "shard": plan.shard,
        "scored": plan.stored.session_id if plan.stored is not None else None,
    }


def _earlier(plan: SessionPlan, store: Path) -> SessionFile | None:
    """Return the session to go on with; what it was asked is asked again."""
    if plan.resume is None:
        return None

    found = read_session(store, None if plan.resume == "last" else plan.resume)
    if plan.paths == ["."]:
        plan.paths = list(found.suites.values())

    plan.level, plan.rounds = found.level, found.rounds  # type: ignore[assignment]
    plan.tags, plan.cases = tuple(found.select.get("tags", ())), tuple(found.select.get("cases", ()))
    plan.baseline = plan.baseline or found.baseline
    plan.shard = found.shard
    return found


def _only(
    plan: SessionPlan, store: Path, suites: list[Suite[Any, Any]], earlier: SessionFile | None
) -> frozenset[tuple[str, str]] | None:
    if earlier is not None:
        return None if earlier.only is None else frozenset(earlier.only)

    return _failed_last(store, suites) if plan.failed_last else None


def _part(
    shard: tuple[int, int],
    listed: list[tuple[Suite[Any, Any], Case[Any, Any]]],
    baselines: dict[str, Baseline],
) -> frozenset[tuple[str, str]]:
    """Return the cases of one part. What it is of all is the same on every machine with the same files."""
    number, parts = shard
    durations: dict[tuple[str, str], float] = {}
    for suite, case in listed:
        known = (baselines[suite.name].cases if suite.name in baselines else {}).get(case.id, {})
        if known.get("wall_us"):
            durations[suite.name, case.id] = known["wall_us"] * case.rounds

    keys = [(suite.name, case.id) for suite, case in listed]
    if parts > len(keys):
        raise EvalError(f"--shard {number}/{parts}: there are only {len(keys)} cases")

    return frozenset(key for key, part in assign(keys, durations, parts).items() if part == number)


def _failed_last(store: Path, suites: list[Suite[Any, Any]]) -> frozenset[tuple[str, str]]:
    """Return the cases that did not pass when they last ran (controls: that passed), and those that never did."""
    out: set[tuple[str, str]] = set()
    sessions = last_sessions(store, 10_000)
    for suite in suites:
        seen = [one.cases[suite.name] for one in sessions if suite.name in one.cases]
        if not seen:
            raise EvalError(f"--failed-last: suite {suite.name!r} has no finished session in {store}")

        for case in suite.cases:
            state = next((cases[case.id][1] for cases in seen if case.id in cases), "missing")
            if (state == "passed") == case.control and not case.skip:
                out.add((suite.name, case.id))

    return frozenset(out)


def _baselines(suites: list[Suite[Any, Any]], plan: SessionPlan) -> dict[str, Baseline]:
    out = {}
    for suite in suites:
        if suite.file is not None and plan.baseline != "none":
            found = load_baseline(baseline_path(suite.file, plan.baseline or "main"), suite.name)
            if found is not None:
                out[suite.name] = found

    return out


def git_sha(folder: Path) -> str | None:
    """Return the commit checked out, read without git; ``None`` outside a repository."""
    for parent in (folder, *folder.parents):
        head = parent / ".git" / "HEAD"
        try:
            text = head.read_text(encoding="utf-8").strip()
        except OSError:
            continue

        if not text.startswith("ref: "):
            return text or None

        name = text[5:]
        try:
            return (parent / ".git" / name).read_text(encoding="utf-8").strip() or None
        except OSError:
            try:
                packed = (parent / ".git" / "packed-refs").read_text(encoding="utf-8")
            except OSError:
                return None

            return next((line.split()[0] for line in packed.splitlines() if line.endswith(f" {name}")), None)

    return None
