"""``evals report SESSION``: render a finished session again, from the store. Nothing runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck.errors import EvalError
from flowdeck_evals.cli.guard import guarded, out

__all__ = ["report"]


@guarded(verdict=False)
def report(
    session: Annotated[str, typer.Argument(help="Its id, the beginning of it, or last.")] = "last",
    format: Annotated[str, typer.Option("--format", "-f", help="text, junit, json, md, html or github.")] = "text",
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Default: $FLOWDECK_STORE, else ./.flowdeck.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it to a file.")] = None,
) -> None:
    """Render a session's report from the store."""
    from flowdeck.layout import resolve_store
    from flowdeck_evals.reports import FORMATS, render, write_report

    if format not in FORMATS:
        raise EvalError(f"--format {format}: must be {', '.join(FORMATS)}")

    summary = stored_summary(Path(resolve_store(store)), None if session == "last" else session)
    if to is not None:
        write_report(format, to, summary)
    else:
        out(render(format, summary).rstrip("\n"))


def stored_summary(store: Path, session_id: str | None) -> Any:
    """Return what a report needs, read from the store.

    Raises:
        EvalError: there is no such session, or it has no verdict yet.
    """
    import msgspec

    from flowdeck_evals.cases import ALL
    from flowdeck_evals.gate import Reason, Verdict
    from flowdeck_evals.outcomes import CaseOutcome
    from flowdeck_evals.reports import Summary
    from flowdeck_evals.results import load_rounds
    from flowdeck_evals.session_files import read_session
    from flowdeck_sinks.store import query

    file = read_session(store, session_id)
    rows = list(
        query(
            store,
            "SELECT payload, epoch_us(ts) FROM events WHERE event_type = 'eval.verdict' "
            "AND payload ->> '$.session_id' = ? ORDER BY ts DESC, wseq DESC LIMIT 1",
            [file.session_id],
        )
    )
    if not rows:
        raise EvalError(f"session {file.session_id} has no verdict: go on with `evals run --resume {file.session_id}`")

    body = json.loads(rows[0][0])
    verdict = Verdict(
        body["code"],
        [msgspec.convert(one, Reason) for one in _all_rules(body)],
        body["totals"],
        body.get("excused") or {},
        body.get("flaky") or [],
        body.get("quarantined") or {},
        msgspec.convert(body.get("sees") or {}, dict[str, tuple[int, float | None]]),
        msgspec.convert(body.get("advice") or {}, dict[str, tuple[int, float, float | None, float | None]]),
        file.shard,
    )
    rounds: dict[tuple[str, str], list[Any]] = {}
    for one in load_rounds(store, file.session_id, keep=True):
        rounds.setdefault((one.suite, one.case_id), []).append(one)

    outcomes = []
    for suite, cases in file.cases.items():
        for case_id, (case_hash, state, _, _, control, deterministic, place, line, *_) in cases.items():
            found = sorted(rounds.get((suite, case_id), []), key=lambda one: one.round)
            reason = next((one.reason for one in found if one.reason), "")
            outcomes.append(
                CaseOutcome(
                    suite, case_id, case_hash, deterministic, control, ALL, found, state, reason, file=place, line=line
                )
            )

    seconds = (rows[0][1] - file.started_us) / 1e6
    return Summary(file.session_id, verdict, outcomes, seconds, file.level)


def _all_rules(body: dict[str, Any]) -> list[dict[str, Any]]:
    """What blocked, and the rules with numbers that held."""
    return [*body["reasons"], *(one for one in body.get("rules", ()) if not one["code"])]
