"""``evals list``: cases, tags, level and what they came to last. No flow is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck_evals.cli.guard import guarded, out

__all__ = ["list_suites"]


@guarded(verdict=False)
def list_suites(
    suites: Annotated[
        list[Path] | None, typer.Argument(metavar="[SUITE]...", help="Files or folders (default: .).")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only cases with this tag.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Default: $FLOWDECK_STORE, else ./.flowdeck.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON for programs.")] = False,
) -> None:
    """List cases with their level, tags, last state and share of failed rounds."""
    from flowdeck.layout import resolve_store
    from flowdeck_evals.discovery import load_suites
    from flowdeck_evals.progress import clean
    from flowdeck_evals.session_files import last_sessions
    from flowdeck_evals.statistics.intervals import jeffreys

    sessions = last_sessions(Path(resolve_store(store)))
    rows: list[dict[str, Any]] = []
    for suite in load_suites([str(path) for path in suites or [Path()]]):
        for case in suite.cases:
            if tag and not set(tag) & set(case.tags):
                continue

            seen = [one.cases[suite.name][case.id] for one in sessions if case.id in one.cases.get(suite.name, {})]
            same = [one for one in seen if one[0] == case.hash]
            rounds = sum(one[3] for one in same)
            failed = rounds - sum(one[2] for one in same)
            rows.append(
                {
                    "suite": suite.name,
                    "case": case.id,
                    "level": case.level,
                    "rounds": case.rounds,
                    "tags": list(case.tags),
                    "control": case.control,
                    "skip": case.skip,
                    "last": seen[0][1] if seen else None,
                    "changed": bool(seen) and seen[0][0] != case.hash,
                    "failed_share": round(failed / rounds, 4) if rounds else None,
                    "failed_between": [round(end, 4) for end in jeffreys(failed, rounds)] if rounds else None,
                    "flaky": any(0 < one[2] < one[3] for one in same) or 0 < failed < rounds,
                    "why": case.why,
                    "file": f"{case.place}" if case.place else "",
                }
            )

    if as_json:
        out(json.dumps(rows, ensure_ascii=False))
        return

    width = max((len(f"{row['suite']}/{row['case']}") for row in rows), default=4)
    out(f"{'case':<{width}}  {'level':<8}  {'last':<13}  {'failed':>12}  tags")
    for row in rows:
        last = "control" if row["control"] and row["last"] is None else row["last"] or "-"
        last += "*" if row["changed"] else ""
        share = "-" if row["failed_share"] is None else f"{row['failed_share']:.0%}"
        if row["flaky"]:
            low, high = row["failed_between"]
            share = f"{low * 100:.0f}-{high * 100:.0f}, {share}"

        name = f"{row['suite']}/{row['case']}"
        out(clean(f"{name:<{width}}  {row['level']:<8}  {last:<13}  {share:>12}  {' '.join(row['tags'])}").rstrip())

    if any(row["changed"] for row in rows):
        out("* the case has changed since")
