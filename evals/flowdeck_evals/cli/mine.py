"""``evals mine``: what happened in production, clustered, and one case of each cluster for the suites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowdeck.errors import EvalError
from flowdeck_evals.cli.guard import guarded, note, out

if TYPE_CHECKING:
    from flowdeck_evals.mining import Cluster

__all__ = ["mine"]


@guarded(verdict=False)
def mine(
    what: Annotated[
        list[str] | None, typer.Argument(metavar="[WHAT]...", help="failures, slow, answered (default: all).")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write a case and its tape per cluster there.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most clusters.")] = 20,
    flow: Annotated[str | None, typer.Option(help="Only runs of this flow.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only runs since: 2026-11-01, UTC.")] = None,
    slower: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="What is slow; else the flow's 99th percentile.")
    ] = None,
    target: Annotated[str, typer.Option(metavar="MODULE:FLOW", help="Where the flow is, when runs do not say.")] = "",
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Default: $FLOWDECK_STORE, else ./.flowdeck.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON for programs.")] = False,
) -> None:
    """Cluster stored runs by what happened and the path they took; with --out keep the newest of each as a case."""
    from flowdeck_evals.mining import WHATS
    from flowdeck_evals.mining import mine as find

    words = what or list(WHATS)
    for word in words:
        if word not in WHATS:
            raise EvalError(f"{word}: must be {', '.join(WHATS)}")

    found = find(store, words, flow=flow, since=since, slower_s=slower)  # type: ignore[arg-type]
    kept = _keep(found, folder, limit, target, store) if folder is not None else {}
    shown = found[:limit]
    if as_json:
        rows = [{**one._asdict(), "runs": one.runs[:20], "kept": kept.get(one.key)} for one in shown]
        out(json.dumps(rows, ensure_ascii=False))
        return

    from flowdeck_evals.progress import clean

    for one in shown:
        out(clean(f"{one.seen:>7}  {one.flow}  {one.kind[:90]}"))
        out(clean(f"{'':9}{' > '.join(one.path)[:110]}"))
        out(clean(f"{'':9}{one.key}  {len(one.runs)} runs, the newest {one.runs[0]}  {kept.get(one.key, '')}".rstrip()))

    more = f", {len(found) - limit} not shown (--limit)" if len(found) > limit else ""
    out(f"clusters={len(found)} kept={sum(1 for said in kept.values() if said.startswith('->'))}{more}")


def _keep(found: list[Cluster], folder: Path, limit: int, target: str, store: str | None) -> dict[str, str]:
    """Keep the newest run of each cluster that no suite of the folder holds yet; say per cluster what became of it."""
    from flowdeck_evals.promotion import RunNotKept, keep_run, name_of
    from flowdeck_evals.recording import record_stored

    known = "".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.yaml")))
    out_: dict[str, str] = {}
    for one in found:
        if sum(said.startswith("->") for said in out_.values()) >= limit:
            break

        if f"cluster-{one.key}" in known:
            out_[one.key] = "there already"
            continue

        for run in one.runs[:3]:  # the newest may not have ended well enough for a case
            try:
                made = keep_run(
                    record_stored(store, run),
                    folder,
                    prefix="mined",
                    target=target,
                    case=f"{name_of(one.kind.partition(':')[0])}-{one.key}",
                    why=f"mined from run {run}: {one.kind[:200]}; {one.seen} of the kind",
                    tags=("mined", f"cluster-{one.key}"),
                )
            except RunNotKept as problem:
                out_[one.key] = f"not kept: {problem}"
                continue

            out_[one.key] = f"-> {made.file}"
            break
        else:
            note(f"{one.key}: {out_[one.key]}")

    return out_
