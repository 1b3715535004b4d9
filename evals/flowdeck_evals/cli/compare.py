"""``evals compare A B``: what changed between two sessions, and how sure that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck.errors import EvalError
from flowdeck_evals.cli.guard import guarded, out

__all__ = ["compare"]

MOST = 30


@guarded(verdict=False)
def compare(
    before: Annotated[str, typer.Argument(help="A session's id or its beginning, last, or last~1 for the one before.")],
    after: Annotated[str, typer.Argument(help="The same.")] = "last",
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.5, help="How often it may cry wolf.")] = 0.05,
    margin: Annotated[float, typer.Option(min=0.0, max=1.0, help="A difference that does not matter.")] = 0.02,
    markdown: Annotated[bool, typer.Option("--md", help="Write Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON for programs.")] = False,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Default: $FLOWDECK_STORE, else ./.flowdeck.")
    ] = None,
) -> None:
    """Compare two sessions: 0 no regression, 1 regressed, 3 nothing can be compared."""
    from flowdeck.layout import resolve_store
    from flowdeck_evals.case_results import of_session
    from flowdeck_evals.session_comparison import compare_sessions

    folder = Path(resolve_store(store))
    one, other = _session(folder, before), _session(folder, after)
    if one.session_id == other.session_id:
        raise EvalError(f"{before} and {after} are the same session, {one.session_id}")

    found = compare_sessions(of_session(one), of_session(other), alpha=alpha, margin=margin)
    if as_json:
        out(json.dumps({"before": one.session_id, "after": other.session_id, **found.to_dict()}, ensure_ascii=False))
    else:
        for line in _lines(found, one, other, markdown):
            out(line)

    raise typer.Exit(found.code)


def _session(folder: Path, given: str) -> Any:
    from flowdeck_evals.session_files import last_sessions, read_session

    if given == "last" or given.startswith("last~"):
        back = given.partition("~")[2] or "0"
        if not back.isdigit():
            raise EvalError(f"{given}: must be last, last~1, last~2 …")

        sessions = last_sessions(folder, int(back) + 1)
        if int(back) >= len(sessions):
            raise EvalError(f"{given}: {folder} holds {len(sessions)} sessions")

        return sessions[int(back)]

    return read_session(folder, given)


def _lines(found: Any, one: Any, other: Any, markdown: bool) -> list[str]:
    from flowdeck_evals.progress import clean

    shown = [case for case in found.cases if case.change != "same"]
    lines = []
    if markdown:
        lines += [
            f"## Evals compared: {found.state}",
            "",
            "| change | case | before | after | p |",
            "|---|---|---|---|---:|",
        ]

    for case in shown[:MOST]:
        name, p = f"{case.suite}/{case.case_id}", "" if case.p is None else f"{case.p:.2g}"
        cells = (case.change, name, _side(case.before), _side(case.after), p)
        lines.append(
            clean(f"| {' | '.join(cells)} |" if markdown else f"{cells[0]:>10}  {name}  {cells[2]} -> {cells[3]}  {p}")
        )

    if len(shown) > MOST:
        lines.append(f"{'':12}and {len(shown) - MOST} more")

    counts = ", ".join(f"{number} {change}" for change, number in sorted(found.counts.items()))
    lines += ["", f"{one.session_id} -> {other.session_id}: {counts or 'no cases'}"]
    if found.measure is not None:
        m = found.measure
        lines.append(f"pass rate {m.effect:+.1%} [{m.low:+.1%}, {m.high:+.1%}], p {m.p:.2g} ({m.method}, {m.n} cases)")
        lines.append(f"{found.worse} sampled cases are worse, {found.better} better")
        drop = "none at all" if found.sees is None else f"about {found.sees * 100:.1f} points"
        lines.append(f"smallest drop that can be seen (80 % power): {drop}")

    if found.latency is not None:
        wall = found.latency
        lines.append(
            f"median wall {wall.before_us / 1e3:.3g} ms -> {wall.after_us / 1e3:.3g} ms: {wall.ratio:.3g} times"
        )
        lines.append(_speed(one, other))

    lines.append(f"{found.state}: {found.words}")
    return [line for line in lines if line or not lines.index(line)]


def _speed(one: Any, other: Any) -> str:
    if not (one.calibration_ns and other.calibration_ns):
        return ""

    ratio = other.calibration_ns / one.calibration_ns
    return "" if 0.9 < ratio < 1.1 else f"the machine itself took {ratio:.2g} times as long for a fixed loop"


def _side(one: Any) -> str:
    return "–" if one is None else f"{one.state} {one.passed}/{one.rounds}"
