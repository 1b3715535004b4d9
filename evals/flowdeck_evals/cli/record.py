"""``evals record``: tapes from live runs of a suite's cases, or from runs a store holds."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck.errors import EvalError
from flowdeck_evals.cli.guard import guarded, note, out
from flowdeck_evals.cli.people import read_people
from flowdeck_evals.looping import run_loop

if TYPE_CHECKING:
    from flowdeck_evals.tapes import Tape

__all__ = ["record"]

_INCOMPLETE = 3


@guarded(verdict=False)
def record(
    suites: Annotated[
        list[Path] | None, typer.Argument(metavar="[SUITE]...", help="Run their cases live and write their tapes.")
    ] = None,
    case: Annotated[list[str] | None, typer.Option("--case", metavar="GLOB", help="Only these cases.")] = None,
    rewrite: Annotated[bool, typer.Option("--rewrite", help="Replace tapes that are there already.")] = False,
    run: Annotated[
        list[str] | None, typer.Option("--run", metavar="ID", help="A stored run, by run or execution id.")
    ] = None,
    from_store: Annotated[
        str | None, typer.Option("--from-store", metavar="SQL", help="Stored runs: a condition over the view runs.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many stored runs.")] = 20,
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where tapes of stored runs go.")] = Path(
        "tapes"
    ),
    people: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who answers in cases without human rules: a YAML list of them.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Default: $FLOWDECK_STORE, else ./.flowdeck.")
    ] = None,
    redact: Annotated[
        list[str] | None, typer.Option("--redact", metavar="GLOB", help="Mask payload paths such as '*.email'.")
    ] = None,
    volatile: Annotated[
        list[str] | None,
        typer.Option("--volatile", metavar="CALL:PATH", help="Arguments that do not count: 'web.*:0.request_id'."),
    ] = None,
) -> None:
    """Record tapes. Exit 3 when a run could not be recorded or a tape is lossy."""
    options = {"redact": redact or [], "volatile": volatile or []}
    if run or from_store:
        lossy = _stored(store, run or [], from_store, limit, folder, rewrite, options)
    elif suites:
        lossy = _cases(suites, case or [], rewrite, read_people(people), options)
    else:
        raise EvalError("name a suite to run its cases live, or --run ID or --from-store SQL for stored runs")

    if lossy:
        raise typer.Exit(_INCOMPLETE)


def _stored(
    store: str | None,
    runs: Sequence[str],
    where: str | None,
    limit: int,
    folder: Path,
    rewrite: bool,
    options: dict[str, Any],
) -> bool:
    from flowdeck_evals.recording import record_stored, stored_runs

    chosen = [*runs, *(stored_runs(store, where, limit) if where else ())]
    results = [
        _write(record_stored(store, each, **options), folder / f"{_file_name(each)}.tape", rewrite)
        for each in dict.fromkeys(chosen)
    ]
    return any(results)


def _cases(
    suites: Sequence[Path],
    cases: Sequence[str],
    rewrite: bool,
    people: Sequence[dict[str, Any]],
    options: dict[str, Any],
) -> bool:
    """Record the cases whose tape is their own: not those that bend another one's by a stub or a fault."""
    from flowdeck_evals.discovery import load_suites
    from flowdeck_evals.single import record_live
    from flowdeck_evals.targets import find_target

    bad, met = False, 0
    written: set[Path] = set()
    for suite in load_suites([str(path) for path in suites]):
        for each in suite.cases:
            if (
                each.tape is None
                or each.level == "history"
                or (cases and not any(fnmatchcase(each.id, x) for x in cases))
            ):
                continue

            met += 1
            if each.tape in written or (each.tape.exists() and not rewrite):
                continue

            target = find_target(suite.target)
            live = record_live(
                target,
                each.input,
                human=each.human or people,
                intervene=each.intervene,
                name=suite.target if isinstance(suite.target, str) else "",
                timeout=each.timeout,
                **options,
            )
            single = run_loop(live)
            failures = [finding.message for finding in single.findings if finding.kind == "failed"]
            if single.evidence.timed_out:
                failures.append(single.evidence.error_message)

            for failure in failures:
                note(f"{each.id}: {failure}")

            if failures:
                bad = True
                continue

            written.add(each.tape)
            bad = _write(single.tape, each.tape, True) or bad

    if not met:
        raise EvalError("no case with a tape is meant; a case names it: tape: tapes/NAME.tape")

    out(f"recorded={len(written)} of={met}")
    return bad


def _write(tape: Tape, path: Path, rewrite: bool) -> bool:
    """Write one tape and say what it holds. Return whether it is lossy."""
    if path.exists() and not rewrite:
        note(f"{path} is there already; --rewrite replaces it")
        return False

    try:
        tape.save(path)
    except OSError as problem:
        raise EvalError(f"tape {path} cannot be written: {problem.strerror or problem}") from None

    out(f"{path}  {tape.header.get('flow')}  {tape.status}  {len(tape.calls)} calls  {len(tape.answers)} answers")
    for loss in tape.lossy:
        note(f"{path}: lossy: {loss}")

    return bool(tape.lossy)


def _file_name(run: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in run)
