"""``flowdeck store``: what a store holds, and keeping it in order."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._options import JsonOption, StoreOption, existing_store
from flowdeck_devtools.cli._table import json_value, write_table
from flowdeck_devtools.core.text import clean

if TYPE_CHECKING:
    from flowdeck.layout import Layout

__all__ = ["store"]

store = typer.Typer(help="Look into a store and keep it in order.", no_args_is_help=True, rich_markup_mode=None)

_LEVEL_COLOURS = {"ok": "green", "note": "blue", "warning": "yellow", "error": "red"}
_BAR = 30
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


class Kind(StrEnum):
    """What an export writes."""

    duckdb = "duckdb"
    parquet = "parquet"
    jsonl = "jsonl"


@store.command()
def info(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show what the store holds and how large it is."""
    from flowdeck_sinks.store.maintenance import info as look

    about = look(_layout(store))
    if as_json:
        _json(about)
        return

    def files(count: int, size: int) -> str:
        return f"{count:,} files, {_size(size)}" if count else "none"

    lines: list[tuple[str, str]] = [
        ("store", f"{about.root}  (id {about.id}, format {about.format}, by {about.created_by})"),
        ("events", f"{about.events:,}"),
        ("oldest", about.oldest or "–"),
        ("newest", about.newest or "–"),
        ("journal", files(about.segments, about.segment_bytes) + f", {about.open_segments} being written"),
        ("parts", files(about.parts, about.part_bytes)),
        ("days", files(about.days, about.day_bytes)),
        ("blobs", files(about.blobs, about.blob_bytes)),
        ("to delete", _size(about.hidden_bytes) if about.hidden_bytes else "nothing"),
        ("state.db", _size(about.state_bytes)),
        ("per event", f"{about.bytes_per_event:.0f} B published" if about.bytes_per_event else "–"),
        ("writers", f"{len(about.writers)} alive"),
        ("quarantine", f"{about.quarantined:,} lines or files" if about.quarantined else "empty"),
        ("published", _moment(about.last_publish_us)),
    ]
    lines += [(f"export {name}", f"{behind:,} events behind") for name, behind in sorted(about.cursors.items())]
    for name, text in lines:
        _output.out(f"{name:<12} {clean(text)}")


@store.command()
def publish(
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="CATALOGUE", help="Then hand it over to a DuckLake: its PostgreSQL database."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="With --to: the lake's directory, seen by all machines."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn the journal's sealed segments into Parquet, so that history is small and fast to query.

    With --to it becomes part of a DuckLake of many machines, each event once; see: flowdeck docs scale.
    """
    from flowdeck_sinks.store.maintenance import publish as work

    if (to is None) != (data is None):
        raise CliError("--to and --data belong together: the lake's catalogue, and its directory", 2)

    layout = _layout(store)
    report = work(layout)
    if to is not None and data is not None:
        _hand_over(layout, report, to, data, as_json)
        return

    _finish(
        report,
        as_json,
        f"{_many(report.segments, 'segment')} published: {report.events:,} events, {_size(report.bytes)}",
        f"{_many(report.removed, 'replaced file')} deleted" if report.removed else "",
        f"{_many(report.quarantined, 'damaged line')} set aside; see: flowdeck store quarantine"
        if report.quarantined
        else "",
    )


def _hand_over(layout: Layout, published: Any, to: str, data: Path, as_json: bool) -> None:
    from flowdeck_sinks.lake import hand_over

    handed = hand_over(layout, to, data)
    if as_json:
        _json({"published": dataclasses.asdict(published), "handed_over": dataclasses.asdict(handed)})

    handed.busy = handed.busy or published.busy
    _finish(
        handed,
        False,
        ""
        if as_json
        else f"{handed.events:,} events handed over: {_many(handed.files, 'file')} as they are, "
        f"the new rows of {handed.mixed}, {_many(handed.blobs, 'blob')}",
    )
    for problem in published.problems:
        _output.note(f"flowdeck: {clean(problem)}")

    if published.problems:
        raise typer.Exit(1)


@store.command()
def compact(
    force: Annotated[bool, typer.Option("--force", help="Even a few young files.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Merge small Parquet files into large ones."""
    from flowdeck_sinks.store.maintenance import compact as work

    report = work(_layout(store), force=force)
    _finish(
        report,
        as_json,
        f"{_many(report.merged, 'file')} merged into {report.files}: {report.events:,} events, "
        f"{_size(report.bytes_before)} -> {_size(report.bytes_after)}"
        if report.files
        else "nothing to merge" + ("" if force else "; --force merges even a few young files"),
    )


@store.command()
def prune(
    max_age: Annotated[
        str | None, typer.Option("--max-age", metavar="AGE", help="Remove older events: 30 (days), 12h.")
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="SIZE", help="Remove the oldest until the rest is no larger: 2GB, 500MB."),
    ] = None,
    drop_open: Annotated[
        bool, typer.Option("--drop-open", help="Also what open executions need; it is kept otherwise, however old.")
    ] = False,
    drop_evals: Annotated[
        bool, typer.Option("--drop-evals", help="Also evaluation results and baselines; they are kept otherwise.")
    ] = False,
    require_export: Annotated[
        bool, typer.Option("--require-export", help="Keep what an exporter has not sent yet.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old events. What open executions, evaluations and definitions need stays."""
    from flowdeck_devtools.core.resumable import resumable_executions
    from flowdeck_sinks.store.maintenance import Policy
    from flowdeck_sinks.store.maintenance import prune as work

    if max_age is None and max_size is None:
        raise CliError("say what may go: --max-age 30d, --max-size 2GB, or both", 2)

    layout = _layout(store)
    policy = Policy(
        max_age_days=None if max_age is None else _days(max_age),
        max_bytes=None if max_size is None else _bytes(max_size),
        keep_open=not drop_open,
        keep_evals=not drop_evals,
        require_export=require_export,
    )
    held: set[str] | None = None
    if layout.state_db.exists():  # without it (an imported store) every execution that has not ended counts as open
        held = set(resumable_executions(layout.root))
    report = work(layout, policy, dry_run=dry_run, open_executions=held)
    would = "would be " if dry_run else ""
    not_exported = ", ".join(f"{count:,} for {name}" for name, count in sorted(report.not_exported.items()))
    _finish(
        report,
        as_json,
        f"{report.events_removed:,} events {would}removed, {_size(report.bytes_before)} -> {_size(report.bytes_after)}",
        f"{report.events_kept:,} old events stay: open executions, evaluations, definitions"
        if report.events_kept
        else "",
        f"{_many(report.waiting, 'new file')} left out; ask again in a minute" if report.waiting else "",
        f"{_many(report.blobs_removed, 'blob')} removed" if report.blobs_removed else "",
        f"not exported before: {not_exported}" if not_exported else "",
    )


@store.command("export")
def export_(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file: .duckdb, .parquet or .jsonl.")],
    kind: Annotated[Kind | None, typer.Option("--kind", help="What to write, if the name does not say.")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Only events for which this SQL condition is true.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the events to one file. A .duckdb file has the views and opens with any DuckDB."""
    from flowdeck_sinks.store.maintenance import export as work

    with _progress("exporting", as_json) as progress:
        report = work(_layout(store), target, kind.value if kind else None, where=where, progress=progress)
    _finish(
        report,
        as_json,
        f"{report.target}: {report.events:,} events, {_many(report.blobs, 'blob')}, {_size(report.bytes)}",
        f'try: duckdb {report.target} "FROM runs"' if report.kind == "duckdb" else "",
    )


@store.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="An exported file, or another store's directory.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take in events that were exported. Those the store has already are left out."""
    from flowdeck.layout import Layout, resolve_store
    from flowdeck_sinks.store.maintenance import import_ as work

    with _progress("importing", as_json) as progress:
        report = work(Layout.create(resolve_store(store)), source, progress=progress)
    _finish(
        report,
        as_json,
        f"{report.events:,} events taken in, {report.duplicates:,} were here already",
        f"{_many(report.damaged, 'line')} could not be read; see: flowdeck store quarantine" if report.damaged else "",
    )


@store.command()
def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Say what is wrong with the store and what to do. Exit code 1 when something is."""
    from flowdeck_sinks.store.maintenance import doctor as look

    findings = look(_layout(store))
    if as_json:
        _json([dataclasses.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark = _output.paint(f"{finding.level:<8}", _LEVEL_COLOURS[finding.level], sys.stdout)
            _output.out(f"{mark} {clean(finding.what)}")
            if finding.mend:
                _output.out(f"         -> {clean(finding.mend)}")

    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


@store.command()
def quarantine(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List what could not be read. It is kept as it was found."""
    from flowdeck_sinks.store.maintenance import quarantine as look

    found = look(_layout(store))
    if as_json:
        _json([dataclasses.asdict(item) for item in found])
        return

    if not found:
        _output.note("nothing is in quarantine")
        return

    rows = [(item.origin, item.line or "file", _size(item.size), item.reason, item.preview) for item in found]
    write_table(("found in", "line", "size", "reason", "begins"), rows, width=_output.table_width())


def _layout(store: str | None) -> Layout:
    from flowdeck.layout import Layout

    return Layout(existing_store(store))


def _finish(report: Any, as_json: bool, *lines: str) -> None:
    """Write what was done; end with 1 when some of it could not be."""
    problems = getattr(report, "problems", [])
    if as_json:
        _json(report)
    elif getattr(report, "busy", False):
        raise CliError("another process is at work on this store; nothing was done. Try again in a moment")
    else:
        for line in filter(None, lines):
            _output.out(clean(line))

    for problem in problems:
        _output.note(f"flowdeck: {clean(problem)}")
    if problems or (as_json and getattr(report, "busy", False)):
        raise typer.Exit(1)


def _json(value: Any) -> None:
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    _output.out(json.dumps(json_value(plain), ensure_ascii=False, indent=2))


@contextmanager
def _progress(what: str, as_json: bool) -> Iterator[Callable[[float], None] | None]:
    """Give a function that draws how far the work is, when a person is there to see it."""
    if as_json or not _output.is_terminal(sys.stderr):
        yield None
        return

    def draw(done: float) -> None:
        filled = round(_BAR * min(1.0, max(0.0, done)))
        sys.stderr.write(f"\r{what} {'█' * filled}{'░' * (_BAR - filled)} {done:4.0%}")
        sys.stderr.flush()

    try:
        yield draw
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000

    return f"{size:.1f} TB"


def _moment(us: int | None) -> str:
    if us is None:
        return "never"

    ago = max(0.0, time.time() - us / 1e6)
    return f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC ({ago:.0f} s ago)"


def _days(text: str) -> float:
    units = {"s": 86_400, "m": 1440, "h": 24, "d": 1, "w": 1 / 7}
    try:
        days = _not_negative(float(text) if text[-1:].isdigit() else float(text[:-1]) / units[text[-1:].lower()])
        datetime.now(UTC) - timedelta(days=days)  # is there such a day?
        return days
    except (ValueError, KeyError, OverflowError):
        raise CliError(f"--max-age {text}: write days, or a number and s, m, h, d or w, such as 30d", 2) from None


def _not_negative(number: float) -> float:
    """Return a number; what is below zero, or none, would remove everything or raise later.

    Raises:
        ValueError: it is such a one.
    """
    if not number >= 0:
        raise ValueError(number)

    return number


def _bytes(text: str) -> int:
    number = text.rstrip("BKMGTbkmgt ")
    try:
        return int(_not_negative(float(number)) * _UNITS[text[len(number) :].strip().lower() or "b"])
    except (ValueError, KeyError, OverflowError):
        raise CliError(f"--max-size {text}: write a number and B, kB, MB, GB or TB, such as 10GB", 2) from None
