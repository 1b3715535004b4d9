"""Running a session: every selected round of every case, side by side, each result written as it comes.

Order of calls::

    Runner(suites, options, results, watcher)
    await run()      targets found, checks compiled        -> EvalError before anything runs
      per place:     plan -> Place.run -> checks -> state -> results.round -> watcher.finished
      at the end     flush                                 -> what is lost makes the session incomplete
    -> Session       outcomes per case, and what the session itself has to say (interrupted, lost, time limit)

An assertion that failed is never tried again. Only what :data:`RETRIED` names is, at level ``live``, at most
:data:`MOST_RETRIES` times, and it is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Protocol

from flowdeck.errors import EvalError
from flowdeck_evals.cases import Case, Level
from flowdeck_evals.checks import Checks, compile_checks, state_of
from flowdeck_evals.gate import INCOMPLETE, INTERRUPTED, Reason
from flowdeck_evals.hosting import Place
from flowdeck_evals.outcomes import CaseOutcome, RoundOutcome, gather
from flowdeck_evals.plans import Missing, Planner, plan_round
from flowdeck_evals.rounds import Evidence, Finding, Round
from flowdeck_evals.targets import find_target, is_flow

if TYPE_CHECKING:
    from flowdeck_evals.results import Results
    from flowdeck_evals.suite import Suite

__all__ = ["Options", "Runner", "Session", "Watcher"]

MOST_RETRIES: Final = 2
RETRIED: Final[tuple[type[Exception], ...]] = (ConnectionError,)
"""Errors of the infrastructure, not of the target."""
KEPT_ROUNDS: Final = 1_000
"""Rounds that did not pass which a session keeps whole, for reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a session is asked."""

    level: Level | None = None
    """Instead of the cases' own."""
    rounds: int | None = None
    """Instead of the cases' own."""
    jobs: int = 8
    """Rounds at a time."""
    tags: tuple[str, ...] = ()
    """Only cases with one of these."""
    cases: tuple[str, ...] = ()
    """Only cases whose id fits one of these globs; with a slash, ``suite/case``."""
    only: frozenset[tuple[str, str]] | None = None
    """Only these ``(suite, case id)``."""
    fail_fast: bool = False
    time_limit: float | None = None
    """Seconds for the whole session."""
    retried: tuple[type[Exception], ...] = RETRIED
    deterministic: Mapping[tuple[str, str], bool] | None = None
    """Stored rounds are looked at again: what each case, by ``(suite, id)``, counted as when it ran."""

    def selects(self, suite: str, case: Case[Any, Any]) -> bool:
        if self.only is not None and (suite, case.id) not in self.only:
            return False

        if self.tags and not set(self.tags) & set(case.tags):
            return False

        return not self.cases or any(
            fnmatchcase(f"{suite}/{case.id}" if "/" in glob else case.id, glob) for glob in self.cases
        )


class Watcher(Protocol):
    """Who wants to see rounds as they end. What it raises never changes a result."""

    def started(self, total: int, done: int) -> None: ...
    def finished(self, round: Round) -> None: ...
    def ended(self) -> None: ...


@dataclass(slots=True)
class Session:
    """What a session came to, before it is judged."""

    session_id: str
    outcomes: list[CaseOutcome]
    by_suite: list[tuple[Suite[Any, Any], list[CaseOutcome]]]
    troubles: list[Reason] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    """Rounds that did not pass, whole, up to :data:`KEPT_ROUNDS`."""
    done: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Job:
    suite: Suite[Any, Any]
    target: Any
    case: Case[Any, Any]
    checks: Checks
    level: Level


class Runner:
    """Runs the selected cases of some suites once."""

    def __init__(
        self,
        suites: Sequence[Suite[Any, Any]],
        options: Options,
        results: Results,
        watcher: Watcher | None = None,
        *,
        planner: Planner = plan_round,
        finished: Sequence[RoundOutcome] = (),
        keep_rounds: int = KEPT_ROUNDS,
    ) -> None:
        self._suites = suites
        self._options = options
        self._results = results
        self._watcher = watcher
        self._planner = planner
        self._kept = keep_rounds
        self._outcomes: dict[tuple[str, str], list[RoundOutcome]] = {}
        self._earlier = {(one.suite, one.case_id, one.case_hash, one.round): one for one in finished}
        self._rounds: list[Round] = []
        self._stopping = ""
        self._done = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight: dict[int, tuple[_Job, int, float]] = {}
        self._troubles: list[Reason] = []
        self._jobs = self._select()

    @property
    def selected(self) -> int:
        """Cases that will run."""
        return len(self._jobs)

    @property
    def total(self) -> int:
        """Rounds that will run, those of an earlier part of the session included."""
        return sum(self._count(job.case) for job in self._jobs if not job.case.skip)

    def stop(self, why: str) -> None:
        """Stop as soon as possible: ``interrupted``, ``time limit`` or ``fail fast``. What runs is cancelled."""
        self._stopping = self._stopping or why
        for task in self._tasks:
            task.cancel()

    def running(self) -> list[tuple[str, int, float]]:
        """Return what runs now: ``(suite/case, round, seconds)``, the longest first."""
        now = time.perf_counter()
        found = [(f"{job.suite.name}/{job.case.id}", n, now - since) for job, n, since in self._in_flight.values()]
        return sorted(found, key=lambda one: -one[2])

    async def run(self) -> Session:
        """Run everything and return what it came to. Interrupted or not, what is done is in it."""
        began = time.perf_counter()
        todo = self._todo()
        limit = None
        if self._options.time_limit is not None:
            limit = asyncio.get_running_loop().call_later(self._options.time_limit, self.stop, "time limit")

        self._tell(lambda watcher: watcher.started(self.total, self._done))
        places = min(self._options.jobs, max(1, self.total))
        self._tasks = {asyncio.create_task(self._work(number, todo)) for number in range(places)}
        try:
            ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            if limit is not None:
                limit.cancel()

            self._tell(lambda watcher: watcher.ended())

        for problem in ended:
            if isinstance(problem, Exception):
                self._troubles.append(Reason("harness", INCOMPLETE, f"the harness itself failed: {problem!r}"))

        self._close(await asyncio.get_running_loop().run_in_executor(None, self._results.flush))
        return self._session(time.perf_counter() - began)

    # -- what there is to do ---------------------------------------------------------------------------------------

    def _select(self) -> list[_Job]:
        """Find targets and compile checks, so that what is wrong with them is said before anything runs."""
        out = []
        options = self._options
        for suite in self._suites:
            target: Any = None
            for case in suite.cases:
                if options.selects(suite.name, case):
                    level = options.level or case.level
                    if level != "history" and target is None and not case.skip:
                        target = find_target(suite.target)

                    _check_interventions(suite, case)
                    out.append(_Job(suite, target, case, compile_checks(case, suite.checks), level))

        return out

    def _count(self, case: Case[Any, Any]) -> int:
        return self._options.rounds or case.rounds

    def _todo(self) -> Iterator[tuple[_Job, int]]:
        again: list[tuple[_Job, int]] = []
        for job in self._jobs:
            if job.case.skip:
                continue

            for number in range(1, self._count(job.case) + 1):
                known = self._earlier.get((job.suite.name, job.case.id, job.case.hash, number))
                if known is None:
                    again.append((job, number))
                else:
                    self._note(known)
                    self._done += 1

        return iter(again)

    # -- doing it ----------------------------------------------------------------------------------------------------

    async def _work(self, number: int, todo: Iterator[tuple[_Job, int]]) -> None:
        place = Place(self._results.journal)
        for job, n in todo:
            if self._stopping:
                return

            self._in_flight[number] = (job, n, time.perf_counter())
            try:
                round = await self._round(place, job, n)
            except asyncio.CancelledError:
                if self._stopping:
                    return

                raise
            finally:
                self._in_flight.pop(number, None)

            self._results.round(round, keep_output=round.state != "passed" or round.run_id is None)
            self._note(RoundOutcome.of(round))
            self._done += 1
            if round.state != "passed" and len(self._rounds) < self._kept:
                self._rounds.append(round)

            self._tell_of(round)
            if self._options.fail_fast and round.state != "passed" and not job.case.control:
                self.stop("fail fast")

            if self._results.written % 256 == 0 and self._results.trouble():
                self.stop("results are lost")

    async def _round(self, place: Place, job: _Job, number: int) -> Round:
        """Run, check and name one round. A fault of the harness becomes the round's state."""
        for attempt in range(1, MOST_RETRIES + 2):
            round = Round(job.case, number, Evidence(), job.level, job.suite.name, attempts=attempt)
            try:
                await self._fill(place, job, round)
            except Missing as problem:
                round.findings.append(Finding("missing", str(problem)))
            except Exception as problem:
                round.findings.append(Finding("missing", f"{type(problem).__name__}: {problem}"))

            if not (job.level == "live" and isinstance(round.error, self._options.retried) and attempt <= MOST_RETRIES):
                break

        if not any(finding.kind == "missing" for finding in round.findings) and not round.evidence.timed_out:
            await self._check(job, round)

        state_of(round, job.checks)
        return round

    async def _fill(self, place: Place, job: _Job, round: Round) -> None:
        plan = await self._planner(job.case, round.number, job.level)
        if plan.evidence is not None:
            round.evidence = plan.evidence
        else:
            tags = None
            if is_flow(job.target):
                tags = {
                    "eval_session": self._results.session_id,
                    "eval_case": f"{job.suite.name}/{job.case.id}",
                    "eval_round": round.number,
                }

            round.evidence = await place.run(
                job.target,
                _own(job.case.input),
                plan,
                timeout=job.case.timeout,
                debug=job.checks.wants_debug,
                tags=tags,
            )

        round.findings += plan.finish(round.evidence)

    async def _check(self, job: _Job, round: Round) -> None:
        try:
            async with asyncio.timeout(job.case.timeout):
                await job.checks.run(round)
        except TimeoutError:
            from flowdeck_evals.rounds import CheckResult

            round.checks.append(CheckResult("checks", error=f"not done after {job.case.timeout:g} s"))

    # -- what it came to -----------------------------------------------------------------------------------------------

    def _note(self, outcome: RoundOutcome) -> None:
        self._outcomes.setdefault((outcome.suite, outcome.case_id), []).append(outcome)

    def _tell(self, call: Callable[[Watcher], None]) -> None:
        if self._watcher is not None:
            try:
                call(self._watcher)
            except Exception:
                self._watcher = None  # nobody is lost but the one who looks on

    def _tell_of(self, round: Round) -> None:
        self._tell(lambda watcher: watcher.finished(round))

    def _close(self, lost: str) -> None:
        if lost:
            self._troubles.append(Reason("results", INCOMPLETE, lost))

        if self._stopping == "interrupted":
            self._troubles.append(
                Reason("interrupted", INTERRUPTED, f"interrupted after {self._done} of {self.total} rounds")
            )
        elif self._stopping and self._stopping != "fail fast":
            self._troubles.append(
                Reason("stopped", INCOMPLETE, f"stopped ({self._stopping}) after {self._done} of {self.total} rounds")
            )

    def _deterministic(self, suite: str, job: _Job) -> bool:
        if self._options.deterministic is None:
            return job.level != "live"

        return self._options.deterministic.get((suite, job.case.id), job.case.level != "live")

    def _session(self, seconds: float) -> Session:
        by_suite = []
        told = self._stopping in ("fail fast", "interrupted")
        for suite in self._suites:
            cases = [
                (
                    suite.name,
                    job.case,
                    self._deterministic(suite.name, job),
                    self._count(job.case),
                )
                for job in self._jobs
                if job.suite is suite
            ]
            found = gather(cases, self._outcomes)
            # Who stopped the session knows that the rest did not run; anybody else has to be told case by case.
            by_suite.append((suite, [one for one in found if not (told and one.state == "missing")]))

        outcomes = [one for _, found in by_suite for one in found]
        return Session(self._results.session_id, outcomes, by_suite, self._troubles, self._rounds, self._done, seconds)


def _check_interventions(suite: Suite[Any, Any], case: Case[Any, Any]) -> None:
    if case.intervene:
        from flowdeck_evals.steering import Interventions

        try:
            Interventions(case.intervene)
        except Missing as problem:
            raise EvalError(f"{case.place or suite.name}: case {case.id!r}: {problem}") from None


_SCALARS: Final = (str, int, float, bool, type(None))


def _own(value: Any) -> Any:
    """Return an input no other round can alter."""
    if isinstance(value, _SCALARS):
        return value

    if type(value) is dict:
        return {key: _own(part) for key, part in value.items()}

    return [_own(part) for part in value] if type(value) is list else value
