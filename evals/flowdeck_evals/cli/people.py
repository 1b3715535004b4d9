"""A file of people: the rules under ``human:`` of a case, for verbs that run without a case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowdeck.errors import EvalError

__all__ = ["read_people"]


def read_people(file: Path | None) -> list[dict[str, Any]]:
    """Return the rules of a YAML list of them; no file, no rules.

    Raises:
        SuiteError: a rule is wrong; carries every problem with its line.
        EvalError: the file cannot be read or is no list.
    """
    if file is None:
        return []

    from flowdeck.errors import SuiteError
    from flowdeck_evals.documents import read_yaml
    from flowdeck_evals.format import HUMAN
    from flowdeck_evals.shapes import Items

    try:
        document = read_yaml(file.read_text(encoding="utf-8"), str(file))
    except OSError as problem:
        raise EvalError(f"{file} cannot be read: {problem.strerror}") from None

    if not isinstance(document.value, list):
        raise EvalError(f"{file}: expected a list of human rules, as under human: in a case")

    problems: list[str] = []

    def report(container: Any, key: Any, message: str) -> None:
        problems.append(document.problem(container, key, message))

    rules = Items(HUMAN).check(document.value, document.value, None, report)
    if problems:
        raise SuiteError(problems)

    return list(rules)
