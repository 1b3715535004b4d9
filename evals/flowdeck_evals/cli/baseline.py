"""``evals baseline``: what was accepted, in ``baselines/NAME.json`` beside the suites. Append-only; git keeps it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck.errors import EvalError
from flowdeck_evals.cli.guard import guarded, out

__all__ = ["baseline"]

baseline = typer.Typer(
    name="baseline",
    help="What was accepted once: baselines/NAME.json beside the suites.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_UNTRUSTED = (None, 2, 3, 130)
_NAME = Annotated[str, typer.Argument(help="Such as main, which `evals run` looks at unasked.")]
_SUITES = Annotated[list[Path] | None, typer.Argument(metavar="[SUITE]...", help="Files or folders (default: .).")]


@baseline.command("set")
@guarded(verdict=False)
def set_(
    name: _NAME,
    session: Annotated[str, typer.Argument(help="Its id, the beginning of it, or last.")] = "last",
    why: Annotated[str, typer.Option(help="Said in the file.")] = "",
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Default: $FLOWDECK_STORE, else ./.flowdeck.")
    ] = None,
) -> None:
    """Accept what a session came to. Known failures stay known. An incomplete session cannot be accepted."""
    from flowdeck.layout import resolve_store
    from flowdeck_evals.baselines import Baseline, append_baseline, baseline_path, load_baseline
    from flowdeck_evals.session_files import read_session

    found = read_session(Path(resolve_store(store)), None if session == "last" else session)
    if found.code in _UNTRUSTED:
        raise EvalError(
            f"session {found.session_id} is incomplete (code {found.code}): nothing can be compared with it; "
            f"go on with `evals run --resume {found.session_id}`"
        )

    if found.shard is not None:
        part = "/".join(map(str, found.shard))
        raise EvalError(f"session {found.session_id} is part {part} of one; accept what `evals merge` makes of all")

    for suite, file in found.suites.items():
        if not file:
            raise EvalError(f"suite {suite!r} has no file, so there is no place for its baseline")

        path = baseline_path(Path(file), name)
        before = load_baseline(path, suite)
        cases = {
            case_id: {"hash": row[0], "state": row[1], "passed": row[2], "rounds": row[3]}
            | ({"control": True} if row[4] else {})
            | ({"deterministic": True} if row[5] else {})
            | ({"wall_us": row[8]} if len(row) > 8 and row[8] is not None else {})
            for case_id, row in sorted(found.cases.get(suite, {}).items())
        }
        known = before.known_failures if before else []
        made = _signed(Baseline(name, suite, found.session_id, cases, known, why))
        append_baseline(path, made)
        out(f"{path}  {suite}  version {made.version}  {len(cases)} cases  {_states(cases)}")


@baseline.command("list")
@guarded(verdict=False)
def list_(suites: _SUITES = None) -> None:
    """List the baselines beside the suites, with their last version."""
    from flowdeck_evals.baselines import read_versions

    folders = dict.fromkeys(suite.file.parent for suite in _load(suites))
    for path in (path for folder in folders for path in sorted((folder / "baselines").glob("*.json"))):
        for suite, versions in read_versions(path).items():
            last = versions[-1]
            known = f"  {len(last.known_failures)} known failures" if last.known_failures else ""
            out(f"{path}  {suite}  version {last.version}  {last.time}  {_states(last.cases)}{known}")


@baseline.command("show")
@guarded(verdict=False)
def show(name: _NAME, suites: _SUITES = None) -> None:
    """Show all versions of a baseline, and the cases of the last one."""
    from flowdeck_evals.baselines import baseline_path, read_versions

    shown = False
    for suite in _load(suites):
        versions = read_versions(baseline_path(suite.file, name)).get(suite.name, [])
        shown = shown or bool(versions)
        for one in versions:
            by = " ".join(filter(None, (one.time, one.author, one.git[:12], one.why)))
            out(f"{suite.name}  version {one.version}  session {one.session}  {_states(one.cases)}  {by}".rstrip())

        for one in versions[-1:]:
            for case_id, case in one.cases.items():
                out(f"  {case['state']:<13} {case['passed']}/{case['rounds']}  {case_id}  {case['hash']}")

            for known in one.known_failures:
                out(f"  known failure  {known['case']}  until {known['expires']}: {known['why']}")

    if not shown:
        raise EvalError(f"there is no baseline {name!r} beside these suites; `evals baseline set {name}` makes one")


@baseline.command("accept")
@guarded(verdict=False)
def accept(
    name: _NAME,
    suites: _SUITES = None,
    case: Annotated[str, typer.Option(metavar="ID", help="The case that may fail.")] = "",
    why: Annotated[str, typer.Option(help="Why it may.")] = "",
    expires: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="Until when.")] = "",
) -> None:
    """Make a failure known: it is shown and does not block, until its day and as long as the case stays as it is."""
    from flowdeck_evals.baselines import Baseline, append_baseline, baseline_path, load_baseline

    if not (case and why and expires):
        raise EvalError("a known failure needs --case, --why and --expires: nothing is accepted for ever")

    try:
        day = date.fromisoformat(expires)
    except ValueError:
        raise EvalError(f"--expires {expires}: must be a day such as 2026-12-31") from None

    if day < datetime.now(UTC).date():
        raise EvalError(f"--expires {expires}: that day has passed")

    meant = [(suite, one) for suite in _load(suites) for one in suite.cases if one.id == case]
    if len(meant) != 1:
        raise EvalError(f"{len(meant)} cases are named {case!r}" + ("; name the suite's file" if meant else ""))

    suite, found = meant[0]
    path = baseline_path(suite.file, name)
    before = load_baseline(path, suite.name) or Baseline(name, suite.name)
    others = [one for one in before.known_failures if one["case"] != case]
    known = {"case": case, "hash": found.hash, "why": why, "expires": expires}
    made = _signed(
        Baseline(name, suite.name, before.session, before.cases, [*others, known], f"accepted {case}: {why}")
    )
    append_baseline(path, made)
    out(f"{path}  {suite.name}  version {made.version}  {case} may fail until {expires}")


def _load(suites: list[Path] | None) -> list[Any]:
    from flowdeck_evals.discovery import load_suites

    return load_suites([str(path) for path in suites or [Path()]])


def _states(cases: dict[str, dict[str, Any]]) -> str:
    states = ["control" if case.get("control") else case["state"] for case in cases.values()]
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "no cases"


def _signed(made: Any) -> Any:
    """Say in a version who accepts, when, on which commit."""
    import getpass
    import os

    from flowdeck_evals.session import git_sha

    try:
        made.author = os.environ.get("GIT_AUTHOR_NAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        made.author = ""

    made.time = datetime.now(UTC).isoformat(timespec="seconds")
    made.git = git_sha(Path.cwd()) or ""
    return made
