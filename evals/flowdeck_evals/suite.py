"""Suites in Python: load one from a file or write it as code, run it, judge it, or hand its cases to pytest.

>>> suite = Suite.load("evals/refunds.yaml")
>>> report = await suite.run(rounds=5)
>>> assert report.judge().ok
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from flowdeck.errors import SuiteError
from flowdeck_evals.baselines import Baseline, baseline_path, load_baseline
from flowdeck_evals.cases import Case, Gate, Level
from flowdeck_evals.gate import INCOMPLETE, Reason, Verdict, judge
from flowdeck_evals.loading import SUFFIXES, case_hash, load_document
from flowdeck_evals.looping import run_loop
from flowdeck_evals.outcomes import CaseOutcome
from flowdeck_evals.rounds import Round

__all__ = ["Report", "Suite"]

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True, slots=True)
class Suite(Generic[I, O]):
    """Cases for one target.

    Args:
        name: unique in a session.
        target: a flow, a callable of one argument (sync or async), or ``module:name`` of one.
        cases: a case id may stand once.
        gate: what a session must reach.
        checks: functions every round is looked at with (see :func:`flowdeck_evals.check`).

    Raises:
        SuiteError: a case id is there twice.
    """

    name: str
    target: Any
    cases: tuple[Case[I, O], ...] = ()
    gate: Gate = field(default_factory=Gate)
    checks: tuple[Callable[..., Any], ...] = ()
    file: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "cases", tuple(_hashed(case) for case in self.cases))
        object.__setattr__(self, "checks", tuple(self.checks))
        seen: set[str] = set()
        twice = [case.id for case in self.cases if case.id in seen or seen.add(case.id)]  # type: ignore[func-returns-value]
        if twice:
            raise SuiteError([f"suite {self.name!r}: case {twice[0]!r} is there twice"])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Suite[Any, Any]:
        """Read a suite from YAML, JSON or JSON lines.

        Raises:
            SuiteError: it is wrong; carries every problem with its line.
        """
        file = Path(path)
        if file.suffix not in SUFFIXES:
            raise SuiteError([f"{file}: a suite is a {', '.join(SUFFIXES)} file"])

        found = load_document(file)
        return Suite(found.name, found.target, tuple(found.cases), found.gate, file=file)

    async def run(
        self,
        *,
        level: Level | None = None,
        rounds: int | None = None,
        jobs: int = 8,
        tags: str | Iterable[str] = (),
        cases: str | Iterable[str] = (),
        store: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
        planner: Any = None,
    ) -> Report:
        """Run the selected cases and return what they came to.

        Args:
            store: where to keep results and runs; ``None`` keeps nothing.
            timeout: seconds for the whole session.

        Raises:
            EvalError: the target or a check cannot be found.
        """
        from flowdeck_evals.results import Results
        from flowdeck_evals.runner import Options, Runner
        from flowdeck_evals.session_files import SessionFile

        options = Options(
            level=level, rounds=rounds, jobs=jobs, tags=_several(tags), cases=_several(cases), time_limit=timeout
        )
        results = Results(store)
        try:
            more = {} if planner is None else {"planner": planner}
            runner = Runner([self], options, results, **more)
            results.started(
                {"suite": self.name, "level": level, "jobs": jobs, "selected": runner.selected},
                SessionFile(results.session_id, _now_us(), {self.name: str(self.file or "")}, level, rounds),
            )
            session = await runner.run()
            report = Report(
                self, session.session_id, session.outcomes, session.rounds, session.troubles, session.seconds
            )
            lost = results.verdict(report.judge(), session.outcomes, {"suite": self.name, "level": level})
            if lost and not any(one.rule == "results" for one in report.troubles):
                report.troubles.append(Reason("results", INCOMPLETE, lost))

            return report
        finally:
            results.close()

    def run_sync(self, **options: Any) -> Report:
        """Synchronous twin of :meth:`run`."""
        return run_loop(self.run(**options))

    def params(self, **options: Any) -> list[Any]:
        """Return one ``pytest.param`` per case, for ``@pytest.mark.parametrize("case", suite.params())``.

        A skipped case is marked so; tags become nothing. In the test, call :meth:`assert_case`.
        """
        import pytest

        chosen = set(_several(options.get("tags", ())))
        return [
            pytest.param(case, id=case.id, marks=[pytest.mark.skip(reason=case.skip)] if case.skip else [])
            for case in self.cases
            if not chosen or chosen & set(case.tags)
        ]

    def assert_case(self, case: Case[I, O], **options: Any) -> None:
        """Run one case and raise ``AssertionError`` with every reason unless it passes (a control: unless it fails)."""
        report = replace(self, cases=(case,)).run_sync(**options)
        verdict = report.judge(baseline=None)
        if not verdict.ok:
            reasons = [one.message for one in verdict.reasons if one.code]
            details = [f"round {round.number}: {round.state}: {round.reason}" for round in report.rounds]
            raise AssertionError("\n".join([*reasons, *details]))


@dataclass(slots=True)
class Report:
    """What a session of one suite came to."""

    suite: Suite[Any, Any]
    session_id: str
    outcomes: list[CaseOutcome]
    rounds: list[Round]
    """The rounds that did not pass, whole."""
    troubles: list[Reason]
    seconds: float

    def judge(self, *, baseline: Baseline | str | None = "main") -> Verdict:
        """Return the verdict. ``baseline`` is one, or the name of one beside the suite file.

        Raises:
            EvalError: the baseline cannot be read.
        """
        found = baseline if isinstance(baseline, Baseline) else None
        if isinstance(baseline, str) and self.suite.file is not None:
            found = load_baseline(baseline_path(self.suite.file, baseline), self.suite.name)

        known: Mapping[str, Baseline] = {self.suite.name: found} if found is not None else {}
        return judge([(self.suite.name, self.suite.gate, self.outcomes)], baselines=dict(known), extra=self.troubles)


def _hashed(case: Case[I, O]) -> Case[I, O]:
    if case.hash:
        return case

    body = {"input": case.input, "expect": case.expect, "human": case.human, "intervene": case.intervene}
    try:
        return replace(case, hash=case_hash(body, case.tape))
    except (TypeError, ValueError):  # an input that is no JSON
        body["input"] = repr(case.input)
        return replace(case, hash=case_hash(body, case.tape))


def _several(given: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(given.split(",")) if isinstance(given, str) else tuple(given)


def _now_us() -> int:
    import time

    return time.time_ns() // 1000
