"""``evals schema`` and ``evals lint``: help for who writes suites. No flow is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck_evals.cli.guard import guarded, note, out

__all__ = ["lint", "schema"]


@guarded(verdict=False)
def schema(
    suites: Annotated[list[Path] | None, typer.Argument(metavar="[SUITE]...", help="Files or folders.")] = None,
) -> None:
    """Write the JSON Schema beside each suite (NAME.schema.json), for editors; without a suite to stdout."""
    from flowdeck_evals.discovery import find_suites
    from flowdeck_evals.format import json_schema

    text = json.dumps(json_schema(), indent=1)
    if not suites:
        out(text)
        return

    for file in find_suites(suites):
        target = file.with_suffix(".schema.json")
        target.write_text(text + "\n", encoding="utf-8")
        out(f"{target}")
        if file.suffix in (".yaml", ".yml") and "yaml-language-server" not in file.read_text(encoding="utf-8"):
            note(f"put this first in {file}:  # yaml-language-server: $schema=./{target.name}")


@guarded(verdict=False)
def lint(
    suites: Annotated[
        list[Path] | None, typer.Argument(metavar="[SUITE]...", help="Files or folders (default: .).")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings, too.")] = False,
) -> None:
    """Check suite files and name what makes them weak. Exit 2 when a file is wrong."""
    from flowdeck_evals.discovery import load_suites

    found = load_suites([str(path) for path in suites or [Path()]])
    warnings = [warning for suite in found for warning in _warnings(suite)]
    for warning in warnings:
        out(warning)

    cases = sum(len(suite.cases) for suite in found)
    out(f"{len(found)} suites, {cases} cases, {len(warnings)} warnings")
    if warnings and strict:
        raise typer.Exit(1)


def _warnings(suite: Any) -> list[str]:
    out = []
    if suite.cases and not any(case.control for case in suite.cases):
        out.append(
            f"{suite.file}:1: no negative control: add a case with control: must_fail, to see that checks can fail"
        )

    for case in suite.cases:
        if not case.expect and not case.checks and not suite.checks and not case.skip:
            out.append(f"{case.place}: case {case.id!r} expects nothing, so every round of it is unscored")

        if case.level != "live" and case.tape is not None and not case.tape.exists():
            out.append(f"{case.place}: case {case.id!r} has no tape at {case.tape}; `evals record` makes it")

        if case.level == "live" and case.rounds == 1 and "budget" in case.expect:
            out.append(f"{case.place}: case {case.id!r} measures a budget in a single live round")

    return out
