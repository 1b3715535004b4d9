"""Finding suite files and loading them all; no flow is imported."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flowdeck.errors import EvalError, SuiteError
from flowdeck_evals.loading import SUFFIXES
from flowdeck_evals.suite import Suite

__all__ = ["find_suites", "load_suites"]


def load_suites(paths: list[str]) -> list[Suite[Any, Any]]:
    """Load every suite the paths name; the problems of all of them are said at once.

    Raises:
        SuiteError: a file is wrong, or two suites share a name.
        EvalError: a path does not exist, or there is no suite.
    """
    files = find_suites(paths)
    suites: list[Suite[Any, Any]] = []
    problems: list[str] = []
    for file in files:
        try:
            suites.append(Suite.load(file))
        except SuiteError as error:
            problems += error.problems

    names: dict[str, Suite[Any, Any]] = {}
    for suite in suites:
        other = names.setdefault(suite.name, suite)
        if other is not suite:
            problems.append(f"{suite.file}:1: suite {suite.name!r} is also the name of {other.file}")

    if problems:
        raise SuiteError(problems)

    if not suites:
        raise EvalError(f"there is no suite in {', '.join(paths)}; a suite is a .yaml, .json or .jsonl file in evals/")

    return suites


def find_suites(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the suite files that paths name; a directory stands for those in it and in ``evals/`` below it.

    Raises:
        EvalError: a path does not exist.
    """
    out: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = [*path.glob("*"), *path.glob("**/evals/*")]
            out += sorted(one for one in set(found) if one.suffix in SUFFIXES and _is_suite(one))
        elif path.exists():
            out.append(path)
        else:
            raise EvalError(f"{path}: there is no such suite")

    return list(dict.fromkeys(out))


def _is_suite(path: Path) -> bool:
    """Whether a file says ``suite`` at its top; schemas, inputs and other files of the folder do not."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(65_536)
    except OSError:
        return False

    if path.suffix in (".yaml", ".yml"):
        return text.startswith("suite:") or "\nsuite:" in text

    return '"suite"' in text and '"$defs"' not in text
