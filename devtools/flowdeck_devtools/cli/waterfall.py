"""``flowdeck waterfall``: where the time of a run went, as bars."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._options import JsonOption, StoreOption, existing_store
from flowdeck_devtools.cli._runs import RunArgument, StoredRun, opened
from flowdeck_devtools.core.bars import TimeScale, draw, ticks
from flowdeck_devtools.core.critical import critical_path
from flowdeck_devtools.core.failure import first_failure
from flowdeck_devtools.core.model import error_line
from flowdeck_devtools.core.outline import Outline, OutlineRow
from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.status import glyph
from flowdeck_devtools.core.stretches import stretches
from flowdeck_devtools.core.text import cells, clean, duration, fit

__all__ = ["span_data", "waterfall"]

_COLOURS = {"failed": "red", "propagated": "red", "waiting": "yellow", "cancelled": "dim", "lost": "red"}
_DURATION = 8


def waterfall(
    run: RunArgument = None,
    critical: Annotated[bool, typer.Option("--critical", help="Only the critical path.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows to draw.")] = 200,
    everything: Annotated[bool, typer.Option("--all", help="Unfold the items of large groups, too.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a run's steps as bars on a line of time: what ran beside what, what waited, what failed first."""
    with opened(existing_store(store), run) as found:
        pass
    now_us = found.now_us
    path = {id(share.node): share.own_us for share in critical_path(found.trace, now_us)}
    outline = Outline(found.trace)
    if everything or as_json:
        outline.fold_all(False)
    outline.refresh(0.0)
    rows = [row for row in outline.rows if not critical or id(row.node) in path]
    if as_json:
        data = {
            "execution_id": found.execution_id,
            "flow_name": found.flow,
            "status": found.row["status"],
            "spans": [span_data(row.node, row.depth, found, now_us, path) for row in rows],
        }
        _output.out(json.dumps(data, ensure_ascii=False))
        return

    for text in _lines(found, rows[:limit], now_us):
        _output.out(text)
    if len(rows) > limit:
        _output.note(f"… {len(rows) - limit} more rows: --limit {len(rows)}, or --json for programs")


def span_data(
    node: SpanNode, depth: int, found: StoredRun, now_us: int, path: dict[int, int] | None = None
) -> dict[str, Any]:
    """A row of the tree for programs. Times are milliseconds from the run's start."""
    begun = found.trace.started_us or 0
    lasted = node.duration_us(now_us)
    data: dict[str, Any] = {
        "name": node.name,
        "role": node.role,
        "kind": node.kind,
        "depth": depth,
        "scope": node.scope,
        "status": node.status,
        "start_ms": (node.started_us - begun) / 1000 if node.started_us is not None else None,
        "duration_ms": lasted / 1000 if lasted is not None else None,
        "attempts": node.attempt_count,
        "run_ids": [attempt.run_id for attempt in node.attempts],
        "waits_ms": [((wait.end_us or now_us) - wait.start_us) / 1000 for wait in node.waits],
        "error": error_line(node.error),
    }
    if path is not None:
        data["critical"] = id(node) in path
        data["critical_own_ms"] = path.get(id(node), 0) / 1000
    return data


def _lines(found: StoredRun, rows: list[OutlineRow], now_us: int) -> Iterator[str]:
    width = _output.table_width() or 120
    name = max(16, min(width * 2 // 5, 44))
    bars = max(10, width - name - _DURATION - 2)
    trace = found.trace
    start = trace.started_us or 0
    end = trace.ended_us if trace.ended_us is not None else (now_us if trace.is_open else start)
    scale = TimeScale(start, max(end, start + 1000), bars)
    yield _axis(scale, name, start)
    failure = first_failure(trace)
    for row in rows:
        node, status = row.node, row.node.status
        label = fit(_label(row), name)
        bar = "".join(_solid(piece.text, piece.reverse) for piece in draw(scale, stretches(node, status, now_us)))
        lasted = duration(node.duration_us(now_us)) + ("…" if node.is_open and node.started_us is not None else "")
        text = f"{label} {bar}{fit(lasted, _DURATION, align='right')}"
        colour = _COLOURS.get(status)
        out = text.rstrip() if cells(text) <= width else text[: max(1, width)]
        yield _output.paint(out, colour, sys.stdout) if colour else out
    if failure is not None:
        step = "" if found.row["status"] == "failed" else f" --step {shlex.quote(clean(failure.node.name))}"
        hint = f"see: flowdeck why {found.execution_id}{step}"
        yield f"\nfirst failure: {clean(failure.node.name)}: {clean(failure.text)}; {hint}"


def _solid(text: str, filled: bool) -> str:
    return "█" * len(text) if filled else text


def _label(row: OutlineRow) -> str:
    node = row.node
    member = f"{row.merged.title} " if row.merged is not None else ""
    progress = f" {node.progress[0]}/{node.progress[1]}" if node.progress is not None else ""
    again = f" ↻{node.attempt_count}" if node.attempt_count > 1 else ""
    fold = "▸ " if row.folded else ""
    return f"{'  ' * min(row.depth, 12)}{glyph(node.status)} {fold}{clean(member)}{clean(node.name)}{progress}{again}"


def _axis(scale: TimeScale, name: int, zero: int) -> str:
    axis = [" "] * scale.width
    for cell, offset in ticks(scale, zero, apart=12):
        label = "0" if offset == 0 else f"╷{duration(offset)}"
        if cell + len(label) <= scale.width:
            axis[cell : cell + len(label)] = label
    return f"{fit('step', name)} {''.join(axis)}{fit('took', _DURATION, align='right')}"
