"""``evals score SESSION``: look at stored rounds again with today's checks. No flow runs, none is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowdeck.errors import EvalError
from flowdeck_evals.cli.guard import guarded, out

__all__ = ["score"]


@guarded(verdict=True)
def score(
    session: Annotated[str, typer.Argument(help="Its id, the beginning of it, or last.")] = "last",
    suites: Annotated[
        list[Path] | None, typer.Argument(metavar="[SUITE]...", help="Default: the session's own files.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(metavar="NAME", help="The baseline, or none.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Default: $FLOWDECK_STORE, else ./.flowdeck.")
    ] = None,
) -> None:
    """Check what a session left in the store against the suites as they are now, and exit with that verdict."""
    from flowdeck.layout import resolve_store
    from flowdeck_evals.cli.run import _drive
    from flowdeck_evals.gate import INTERRUPTED
    from flowdeck_evals.reports import last_line, render
    from flowdeck_evals.rescoring import stored_rounds
    from flowdeck_evals.session import SessionPlan, evaluate
    from flowdeck_evals.session_files import read_session

    folder = Path(resolve_store(store))
    file = read_session(folder, None if session == "last" else session)
    if file.code in (None, INTERRUPTED):
        raise EvalError(
            f"session {file.session_id} did not finish: `evals run --resume {file.session_id}` goes on with it"
        )

    plan = SessionPlan(
        paths=[str(path) for path in suites or [Path(one) for one in file.suites.values() if one] or [Path()]],
        level="history",
        rounds=file.rounds,
        tags=tuple(file.select.get("tags", ())),
        cases=tuple(file.select.get("cases", ())),
        shard=file.shard,
        baseline=baseline if baseline is not None else file.baseline,
        store=str(folder),
        stored=stored_rounds(folder, file),
    )
    found = evaluate(plan, _drive)
    try:
        out(render("text", found.summary))
    finally:
        found.close()

    out(last_line(found.summary))
    raise typer.Exit(found.summary.verdict.code)
