"""``evals merge``: the parts of a session become one, are judged, and the exit code is the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowdeck_evals.cli.guard import guarded, note, out

__all__ = ["merge"]

MOST = 10


@guarded(verdict=True)
def merge(
    parts: Annotated[list[str], typer.Argument(metavar="PART...", help="Stores of the parts, or session ids.")],
    suites: Annotated[
        list[Path] | None, typer.Option("--suite", metavar="PATH", help="Files or folders of the suites (default: .).")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where it goes. Default: $FLOWDECK_STORE, else ./.flowdeck.")
    ] = None,
) -> None:
    """Merge what `evals run --shard i/n` made on several machines; a gap, a duplicate or another commit: exit 3."""
    from flowdeck.layout import resolve_store
    from flowdeck_evals.baselines import baseline_path, load_baseline
    from flowdeck_evals.discovery import load_suites
    from flowdeck_evals.merging import NotWhole, find_part
    from flowdeck_evals.merging import merge as merge_parts
    from flowdeck_evals.reports import last_line, render

    folder = Path(resolve_store(store))
    try:
        found = [find_part(one, folder) for one in parts]
        loaded = load_suites([str(path) for path in suites or [Path()]])
        name = found[0].file.baseline
        baselines = {}
        for suite in loaded:
            known = None
            if name != "none" and suite.file is not None:
                known = load_baseline(baseline_path(suite.file, name or "main"), suite.name)

            if known is not None:
                baselines[suite.name] = known

        summary = merge_parts(found, loaded, baselines, folder)
    except NotWhole as error:
        for line in error.problems[:MOST]:
            note(f"evals: {line}")

        if len(error.problems) > MOST:
            note(f"evals: and {len(error.problems) - MOST} more")

        out("verdict=incomplete code=3")
        raise typer.Exit(3) from None

    out(render("text", summary))
    out(last_line(summary))
    raise typer.Exit(summary.verdict.code)
