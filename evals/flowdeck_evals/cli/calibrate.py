"""``evals calibrate``: measure how far judges agree with people; only those that do may fail a case."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowdeck.errors import EvalError
from flowdeck_evals.cli.guard import guarded, out

__all__ = ["calibrate"]


@guarded(verdict=False)
def calibrate(
    suites: Annotated[
        list[Path] | None, typer.Argument(metavar="[SUITE]...", help="Files or folders (default: .).")
    ] = None,
) -> None:
    """Ask each judge with examples about them, and keep the agreement beside them. Exit 1: one may only advise."""
    from flowdeck_evals.discovery import load_suites
    from flowdeck_evals.judges import ENOUGH_AGREEMENT, ENOUGH_EXAMPLES, Judge
    from flowdeck_evals.looping import run_loop
    from flowdeck_evals.statistics.agreement import krippendorff_alpha

    judges: dict[tuple[str, Path | None], Judge] = {}
    for suite in load_suites([str(path) for path in suites or [Path()]]):
        for case in suite.cases:
            for body in case.expect.get("judge", ()):
                one = Judge(body, suite.file.parent if suite.file is not None else Path())
                if one.examples is not None:
                    judges[one.identity(), one.examples] = one

    if not judges:
        raise EvalError("no case has a judge with examples")

    advise = False
    for one in judges.values():
        found = run_loop(one.calibrate())
        advise = advise or not found.enough
        word = "decides" if found.enough else "only advises"
        out(
            f"{one.__check_name__}: {word}: kappa {found.kappa:.2f} over {found.examples} examples "
            f"(needs {ENOUGH_AGREEMENT} over {ENOUGH_EXAMPLES})  {one.examples}"
        )

    for file in {one.examples for one in judges.values()}:
        same = [one for one in judges.values() if one.examples == file]
        if len(same) > 1:
            alpha = krippendorff_alpha(list(zip(same[0].people, *(one.said for one in same), strict=True)))
            out(f"people and {len(same)} judges together: Krippendorff's alpha {alpha:.2f}  {file}")

    if advise:
        raise typer.Exit(1)
