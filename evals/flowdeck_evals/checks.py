"""Checks: what is expected of a round, compiled once per case.

:func:`compile_checks` turns ``expect`` and the checks of the Python API into a :class:`Checks`; its :meth:`Checks.run`
gives one :class:`~flowdeck_evals.rounds.CheckResult` per expectation. A check that raises never fails a round: the
round is unscored, because nobody knows. Source: the evals reference, §3.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from inspect import isawaitable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from flowdeck.errors import EvalError
from flowdeck.events.catalogue import CATALOGUE
from flowdeck.execution.json_schema import check as check_schema
from flowdeck_evals.budgets import check_budget
from flowdeck_evals.cases import Case
from flowdeck_evals.comparing import (
    MOST_DIFFERENCES,
    Tolerance,
    comparison,
    differences,
    get_path,
    globs,
    plain,
    short,
)
from flowdeck_evals.happenings import KINDS
from flowdeck_evals.rounds import CheckResult, Round
from flowdeck_evals.steps import Track, compile_pattern
from flowdeck_evals.targets import find_object
from flowdeck_evals.trajectory import compile_path

__all__ = ["Checks", "check", "compile_checks", "state_of"]

F = TypeVar("F", bound=Callable[..., Any])
_Expectation = Callable[[Round], list[CheckResult]]


def check(fn: F | None = None, *, name: str | None = None) -> Any:
    """Mark a function as a check, under a name of its own.

    A check is any callable of a :class:`Round` that returns ``True``/``False``, a number (a score), text (a label), a
    :class:`CheckResult`, or a mapping of names to any of these; ``None`` is an error. It may be async.
    """

    def mark(function: F) -> F:
        function.__check_name__ = name or function.__name__  # type: ignore[attr-defined]
        return function

    return mark if fn is None else mark(fn)


class Checks:
    """Everything expected of one case's rounds."""

    __slots__ = ("_custom", "_expectations", "expects_error", "wants_debug")

    def __init__(
        self,
        expectations: list[_Expectation],
        custom: list[tuple[str, Callable[..., Any]]],
        expects_error: bool,
        wants_debug: bool,
    ) -> None:
        self._expectations = expectations
        self._custom = custom
        self.expects_error = expects_error
        self.wants_debug = wants_debug
        """Whether a clause looks at port calls, signals or state, which are DEBUG events."""

    def __len__(self) -> int:
        return len(self._expectations) + len(self._custom)

    async def run(self, round: Round) -> None:
        """Fill ``round.checks``."""
        out = round.checks
        for expectation in self._expectations:
            try:
                out += expectation(round)
            except Exception as problem:
                out.append(CheckResult("expect", error=_said(problem)))

        for name, function in self._custom:
            try:
                value = function(round)
                if isawaitable(value):
                    value = await value

                out += _results(name, value)
            except Exception as problem:
                out.append(CheckResult(name, error=_said(problem)))


def compile_checks(case: Case[Any, Any], further: tuple[Callable[..., Any], ...] = ()) -> Checks:
    """Compile what is expected of a case.

    Raises:
        EvalError: a custom check cannot be found, or a pattern is no regular expression.
    """
    try:
        return _compiled(case, further)
    except re.error as problem:
        raise EvalError(f"case {case.id!r}: {problem.pattern!r} is no regular expression: {problem}") from None


def _compiled(case: Case[Any, Any], further: tuple[Callable[..., Any], ...]) -> Checks:
    expect = case.expect
    parts: list[_Expectation] = []
    if "error" in expect:
        re.compile(expect["error"].get("message", ""))
        parts.append(partial(_error, expect["error"]))

    if "output" in expect:
        parts += _output(expect["output"])

    if "schema" in expect:
        parts.append(partial(_schema, expect["schema"]))

    if "path" in expect:
        parts.append(partial(_path, compile_path(expect["path"])))

    if "budget" in expect:
        parts.append(lambda round: check_budget(round.evidence, expect["budget"]))

    judges: list[Callable[..., Any]] = []
    if "judge" in expect:
        from flowdeck_evals.judges import Judge

        folder = Path(case.place.file).parent if case.place is not None else Path()
        judges = [Judge(body, folder) for body in expect["judge"]]

    custom = [(spec.partition(":")[2], find_object(spec)) for spec in expect.get("checks", ())]
    custom += [(_name(function), function) for function in (*judges, *further, *case.checks)]
    return Checks(parts, custom, "error" in expect, _debug_wanted(expect.get("path")) or bool(custom))


def _debug_wanted(path: Any) -> bool:
    """Whether a pattern somewhere in the clauses can match an event that only exists at DEBUG."""
    if isinstance(path, str):
        kind = compile_pattern(path).kind
        return any(kind(name) for name in _debug_names())

    parts = path.values() if isinstance(path, Mapping) else path if isinstance(path, list) else ()
    return any(_debug_wanted(part) for part in parts)


@cache
def _debug_names() -> tuple[str, ...]:
    types = [name for name, spec in CATALOGUE.items() if spec.level == "DEBUG"]
    return (*types, *(KINDS[name] for name in types if name in KINDS))


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__check_name__", None) or getattr(function, "__name__", None) or type(function).__name__


def _said(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"[:500]


def _results(name: str, value: Any) -> list[CheckResult]:
    if isinstance(value, CheckResult):
        return [
            value if value.name else CheckResult(name, value.ok, value.score, value.label, value.detail, value.error)
        ]

    if isinstance(value, bool):
        return [CheckResult(name, value, detail="" if value else "it returned False")]

    if isinstance(value, int | float):
        return [CheckResult(name, score=float(value))]

    if isinstance(value, str):
        return [CheckResult(name, label=value)]

    if isinstance(value, Mapping):
        return [one for key, part in value.items() for one in _results(f"{name}.{key}", part)]

    raise TypeError(f"a check returns a bool, a number, text, a CheckResult or a mapping of these, not {value!r}")


# -- expectations ------------------------------------------------------------------------------------------------------


def _output(body: Mapping[str, Any]) -> list[_Expectation]:
    out: list[_Expectation] = []
    ignored = globs(body["ignore"]) if body.get("ignore") else None
    tolerance = Tolerance.of(body["tolerance"]) if "tolerance" in body else None
    for word in ("equals", "match"):
        if word in body:
            found = partial(differences, partial=word == "match", ignored=ignored, tolerance=tolerance)
            out.append(partial(_compared, f"output {word}", body[word], found))

    if "where" in body:
        out.append(partial(_where, [(path, wanted, comparison(wanted)) for path, wanted in body["where"].items()]))

    if "regex" in body:
        given = body["regex"]
        patterns = {"": given} if isinstance(given, str) else given
        out.append(partial(_regex, {path: re.compile(text) for path, text in patterns.items()}))

    if "contains" in body:
        out.append(partial(_contains, body["contains"]))

    return out


def _compared(name: str, expected: Any, found: Callable[..., Any], round: Round) -> list[CheckResult]:
    problems = list(islice(found(plain(round.output), expected), MOST_DIFFERENCES + 1))
    if not problems:
        return [CheckResult(name, True)]

    more = "; and more" if len(problems) > MOST_DIFFERENCES else ""
    return [CheckResult(name, False, detail="; ".join(problems[:MOST_DIFFERENCES]) + more)]


def _where(tests: list[tuple[str, Any, Callable[[Any], bool]]], round: Round) -> list[CheckResult]:
    output = plain(round.output)
    wrong = []
    for path, wanted, test in tests:
        value = get_path(output, path)
        if not test(value):
            wrong.append(f"{path}: {short(value)} is not {short(wanted)}")

    return [CheckResult("output where", not wrong, detail="; ".join(wrong[:MOST_DIFFERENCES]))]


def _regex(patterns: Mapping[str, re.Pattern[str]], round: Round) -> list[CheckResult]:
    output = plain(round.output)
    wrong = []
    for path, pattern in patterns.items():
        value = get_path(output, path)
        if not isinstance(value, str) or pattern.search(value) is None:
            wrong.append(f"{path or 'output'}: {short(value)} does not match {pattern.pattern!r}")

    return [CheckResult("output regex", not wrong, detail="; ".join(wrong[:MOST_DIFFERENCES]))]


def _contains(texts: list[str], round: Round) -> list[CheckResult]:
    output = round.output if isinstance(round.output, str) else repr(plain(round.output))
    missing = [text for text in texts if text not in output]
    return [CheckResult("output contains", not missing, detail=f"not there: {short(missing)}" if missing else "")]


def _schema(schema: Any, round: Round) -> list[CheckResult]:
    found = check_schema(plain(round.output), schema, "output")
    if found.unchecked:
        return [CheckResult("schema", error=f"cannot be checked: {', '.join(found.unchecked)}")]

    return [CheckResult("schema", not found.errors, detail="; ".join(found.errors[:MOST_DIFFERENCES]))]


def _path(clauses: list[tuple[str, Any]], round: Round) -> list[CheckResult]:
    track = Track(round.events)
    out = []
    for name, clause in clauses:
        reason = clause(track)
        out.append(CheckResult(f"path {name}", reason is None, detail=reason or ""))

    return out


def _error(wanted: Mapping[str, Any], round: Round) -> list[CheckResult]:
    evidence = round.evidence
    if not evidence.error_type:
        return [CheckResult("error", False, detail=f"an error was expected; the output is {short(evidence.output)}")]

    kind = wanted.get("type")
    names = [evidence.error_type, evidence.error_type.rpartition(".")[2]]
    if evidence.error is not None:
        names += [
            name for cls in type(evidence.error).__mro__ for name in (cls.__name__, f"{cls.__module__}.{cls.__name__}")
        ]

    if kind is not None and kind not in names:
        return [
            CheckResult("error", False, detail=f"{evidence.error_type} instead of {kind}: {evidence.error_message}")
        ]

    pattern = wanted.get("message")
    if pattern is not None and re.search(pattern, evidence.error_message) is None:
        return [CheckResult("error", False, detail=f"{evidence.error_message!r} does not match {pattern!r}")]

    return [CheckResult("error", True)]


# -- state ----------------------------------------------------------------------------------------------------


def state_of(round: Round, checks: Checks) -> None:
    """Set the round's state and reason. What makes a round untrustworthy outranks what it found."""
    evidence = round.evidence
    worst = {
        kind: next((f for f in round.findings if f.kind == kind), None) for kind in ("missing", "failed", "divergence")
    }
    raised = next((one for one in round.checks if one.error), None)
    failed = next((one for one in round.checks if one.ok is False), None)
    if worst["missing"] is not None:
        round.state, round.reason = "harness_error", worst["missing"].message
    elif evidence.timed_out:
        round.state, round.reason = "timed_out", evidence.error_message
    elif raised is not None:
        round.state, round.reason = "unscored", f"{raised.name}: {raised.error}"
    elif evidence.error_type and not checks.expects_error and worst["divergence"] is None:
        round.state, round.reason = "errored", f"{evidence.error_type}: {evidence.error_message}"[:500]
    elif worst["failed"] is not None:
        round.state, round.reason = "failed", worst["failed"].message
    elif worst["divergence"] is not None:
        round.state, round.reason = "diverged", worst["divergence"].message
    elif failed is not None:
        round.state, round.reason = "failed", f"{failed.name}: {failed.detail}"
    elif not any(one.ok for one in round.checks):
        round.state, round.reason = "unscored", "nothing is expected of it, so it could not fail"
    else:
        round.state, round.reason = "passed", ""
