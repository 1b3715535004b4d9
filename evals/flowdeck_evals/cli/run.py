"""``evals run``: run suites, judge them, report; the exit code is the verdict.

Order: files and targets (2 when wrong) -> rounds -> verdict committed to the store -> text -> reporters -> last line.
A reporter cannot change the verdict, unless it was ``--require``d.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck.errors import EvalError
from flowdeck_evals.cli.guard import guarded, note, out
from flowdeck_evals.looping import run_loop

__all__ = ["run"]


@guarded(verdict=True)
def run(
    suites: Annotated[
        list[Path] | None, typer.Argument(metavar="[SUITE]...", help="Files or folders (default: .).")
    ] = None,
    level: Annotated[str | None, typer.Option(help="live, recorded or history, instead of the cases' own.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds per case, instead of the cases' own.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=10_000, help="Rounds at a time.")] = 8,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only cases with this tag; may be repeated.")] = None,
    case: Annotated[list[str] | None, typer.Option("--case", metavar="GLOB", help="Only these cases.")] = None,
    failed_last: Annotated[bool, typer.Option("--failed-last", help="Only what did not pass last time.")] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only this part of the cases; `evals merge` judges the whole.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="SESSION", help="Go on with a session; 'last' is the newest.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(metavar="NAME", help="The baseline, or none.")] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first round that does not pass.")] = False,
    time_limit: Annotated[
        float | None, typer.Option(min=0.001, metavar="SECONDS", help="For the whole session.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Default: $FLOWDECK_STORE, else ./.flowdeck.")
    ] = None,
    reports: Annotated[
        list[str] | None, typer.Option("--report", metavar="FORMAT=FILE", help="junit, json, md, html, github or text.")
    ] = None,
    require: Annotated[
        list[str] | None, typer.Option("--require", metavar="FORMAT", help="This report must succeed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one line of JSON to stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run suites and exit with the verdict: 0 pass, 1 failed, 2 usage, 3 incomplete, 4 diverged, 130 interrupted."""
    from flowdeck_evals.cases import LEVELS
    from flowdeck_evals.reports import FORMATS
    from flowdeck_evals.session import SessionPlan, evaluate
    from flowdeck_evals.sharding import parse_shard

    if level is not None and level not in LEVELS:
        raise EvalError(f"--level {level}: must be {', '.join(LEVELS)}")

    wanted = _reports(reports or [], FORMATS)
    for name in require or []:
        if name not in dict(wanted):
            raise EvalError(f"--require {name}: there is no --report {name}=FILE")

    plan = SessionPlan(
        paths=[str(path) for path in suites or [Path()]],
        level=level,
        rounds=rounds,
        jobs=jobs,
        tags=tuple(_split(tag)),
        cases=tuple(_split(case)),
        failed_last=failed_last,
        resume=resume,
        baseline=baseline,
        fail_fast=fail_fast,
        time_limit=time_limit,
        store=store,
        shard=None if shard is None else parse_shard(shard),
    )
    session = evaluate(plan, _drive, progress=not quiet)
    try:
        if not as_json:
            from flowdeck_evals.reports import render

            out(render("text", session.summary))

        for name, target in wanted:
            _report(name, target, session, required=name in (require or []))
    finally:
        session.close()

    from flowdeck_evals.reports import as_json as json_report
    from flowdeck_evals.reports import last_line

    out(json_report.render(session.summary) if as_json else last_line(session.summary))
    raise typer.Exit(session.summary.verdict.code)


def _split(given: Sequence[str] | None) -> list[str]:
    return [part for text in given or () for part in text.split(",") if part]


def _reports(given: list[str], formats: Any) -> list[tuple[str, Path]]:
    found = []
    for text in given:
        name, equals, path = text.partition("=")
        if name not in formats or not equals or not path:
            raise EvalError(f"--report {text}: must be FORMAT=FILE with one of {', '.join(formats)}")

        found.append((name, Path(path)))

    return found


def _report(name: str, target: Path, session: Any, *, required: bool) -> None:
    from flowdeck_evals.reports import write_report

    try:
        write_report(name, target, session.summary)
    except Exception as problem:
        note(f"evals: report {name}={target} failed: {type(problem).__name__}: {problem}")
        if required:
            session.add_trouble("report", f"required report {name}={target} failed: {problem}")


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _drive(work: Callable[[], Any], stop: Callable[[str], None]) -> Any:
    """Run a session in an event loop; the first signal stops it and keeps its results, the second ends it at once."""
    import asyncio

    async def watched() -> Any:
        loop = asyncio.get_running_loop()
        seen: list[float] = []

        def received() -> None:
            if seen and time.monotonic() - seen[0] > 0.2:
                os._exit(130)

            seen.append(time.monotonic())
            note("\nstopping; what is done is kept (again to stop at once)")
            stop("interrupted")

        handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        for number in handled:
            loop.add_signal_handler(number, received)

        try:
            return await work()
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    sys.stdout.flush()
    return run_loop(watched())
