"""``flowdeck export otlp``: send the traces of a store to a collector."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError, Stopped
from flowdeck_devtools.cli._observe import tell_otlp_problems_ourselves
from flowdeck_devtools.cli._options import JsonOption, StoreOption, command_store, existing_store
from flowdeck_devtools.cli._table import write_json, write_table

if TYPE_CHECKING:
    from flowdeck.layout import Layout
    from flowdeck_sinks.otlp.settings import OtlpSettings
    from flowdeck_sinks.otlp.store_export import StoreExport

__all__ = ["export"]

export = typer.Typer(help="Send what a store holds elsewhere.", no_args_is_help=True)

_PERIOD = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_STOP_SECONDS = 5.0


@export.callback()
def _group() -> None:
    """Send what a store holds elsewhere."""


@export.command("otlp")
def otlp(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events as they come.")] = False,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Only the trace of this run or execution, once more.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only traces active since then, once more: 1h, 30m, 2026-11-21."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", metavar="URL", help="The collector (default: the OTEL_* variables, else localhost)."
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.0, metavar="SECONDS", help="Give up on a collector that is away so long."),
    ] = 30.0,
    dead_letters: Annotated[
        bool, typer.Option("--dead-letters", help="List the batches the collector refused for good.")
    ] = False,
    resend: Annotated[bool, typer.Option("--resend", help="Send the dead letters again.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export traces, logs and metrics by OTLP, from where the last export stopped.

    Without options everything that was not exported yet is sent. The position is kept in the store, so nothing is sent
    twice, and a stopped export goes on where it was. The standard OTEL_EXPORTER_OTLP_* variables are honoured.
    """
    if run and since:
        raise CliError("--run and --since exclude each other", 2)

    if follow and (run or since):
        raise CliError("--follow goes on from the saved position; it cannot be combined with --run or --since", 2)

    from flowdeck.layout import Layout

    layout = Layout(existing_store(store))
    if dead_letters:
        _list_dead_letters(layout, as_json)
        return

    settings = _settings(endpoint)
    if resend:
        _resend(layout, settings, timeout, as_json)
        return

    try:
        exporter = _exporter(layout, settings, run, since, None if follow else timeout)
    except ImportError as problem:
        raise CliError(f"{problem.name} is not installed: pip install 'flowdeck[otlp]'", 2) from None

    _export(exporter, follow, as_json, layout, run)


def _settings(endpoint: str | None) -> OtlpSettings:
    from flowdeck_sinks.otlp.settings import OtlpSettings

    try:
        settings = OtlpSettings.from_environment(endpoint)
    except ValueError as problem:
        raise CliError(str(problem).replace("otlp=", "--endpoint "), 2) from None

    for sentence in settings.problems:
        _output.note(sentence)

    if settings.disabled:
        raise CliError("OTEL_SDK_DISABLED is true: nothing is exported", 2)

    if not settings.targets:
        raise CliError("the OTEL_*_EXPORTER variables switch every signal off: nothing is exported", 2)

    return settings


def _exporter(
    layout: Layout, settings: OtlpSettings, run: str | None, since: str | None, patience: float | None
) -> StoreExport:
    from flowdeck_sinks.otlp.store_export import StoreExport

    if run is None and since is None:
        return StoreExport(layout, settings, patience=patience)

    from flowdeck_sinks.otlp.selection import SelectionExport

    since_us = None if since is None else int((time.time() - _seconds_ago(since)) * 1e6)
    return SelectionExport(layout, settings, run=run, since_us=since_us, patience=patience)


def _seconds_ago(text: str) -> float:
    match = _PERIOD.match(text.strip())
    if match is not None:
        return float(match[1]) * _SECONDS[match[2]]

    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise CliError(
            f"--since {text}: write a period such as 90s, 30m, 1h, 7d, or a date such as 2026-11-21", 2
        ) from None

    return time.time() - (moment if moment.tzinfo else moment.astimezone(UTC)).timestamp()


def _export(exporter: StoreExport, follow: bool, as_json: bool, layout: Layout, run: str | None = None) -> None:
    if not follow:
        tell_otlp_problems_ourselves()

    from flowdeck_sinks.otlp.cursor import CursorBusy
    from flowdeck_sinks.otlp.store_export import ExportStalled

    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        if stopped:  # asked again: a collector that never answers may hold up the end
            raise KeyboardInterrupt

        stopped.append(number)
        exporter.stop(_STOP_SECONDS)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    progress = _Progress(exporter)
    stalled = ""
    try:
        exporter.open()
        if follow:
            _output.note(f"exporting to {exporter.statistics()['endpoint']}; Ctrl-C stops")
            exporter.follow()
        else:
            while not stopped and exporter.round():
                progress.show()

            if not stopped:
                exporter.settle()
    except CursorBusy as problem:
        raise CliError(f"{problem}; stop it first, or let it do the work", 1) from None
    except ExportStalled as problem:
        stalled = str(problem)
    finally:
        progress.clear()
        statistics = exporter.statistics()
        exporter.shut()
        for number, handler in previous.items():
            signal.signal(number, handler)

    if run is not None and not statistics["events"] and not (stopped or stalled):
        raise CliError(
            f"there is no run or execution {run} in the store; see: flowdeck runs{command_store(layout.root)}", 2
        )

    _report(statistics, stalled, as_json, layout)
    if stopped and not follow:
        raise Stopped("stopped; the next export goes on from here", 128 + stopped[0])


def _report(statistics: dict[str, Any], stalled: str, as_json: bool, layout: Layout) -> None:
    dead = statistics["spans_dead"] + statistics["logs_dead"] if "logs_dead" in statistics else statistics["spans_dead"]
    if as_json:
        _output.out(json.dumps({**statistics, "stalled": stalled}, ensure_ascii=False))
    else:
        others = f" and {statistics['logs_exported']} log records" if statistics.get("logs_exported") else ""
        _output.out(
            f"{statistics.get('spans_exported', 0)} spans{others} of {statistics.get('events', 0)} events "
            f"to {statistics['endpoint']}"
        )
        if statistics.get("repeats_avoided"):
            _output.note(
                f"{statistics['repeats_avoided']} items had been sent before the last stop and were passed over"
            )

    for name in ("unreadable", "last_refusal"):
        if statistics.get(name):
            _output.note(str(statistics[name]))

    if stalled:
        raise CliError(f"{stalled}. Nothing is lost: the next export goes on from here", 1)

    if dead:
        raise CliError(
            f"{dead} items were refused for good; see: flowdeck export otlp --dead-letters{command_store(layout.root)}",
            1,
        )


def _list_dead_letters(layout: Layout, as_json: bool) -> None:
    from flowdeck_sinks.otlp.dead_letters import DeadLetters, dead_letter_directory

    letters = DeadLetters(dead_letter_directory(layout)).list()
    heads = ("time", "signal", "items", "bytes", "reason", "endpoint", "file")
    rows = [
        (
            datetime.fromtimestamp(letter.time_us / 1e6, UTC),
            letter.signal,
            letter.items,
            letter.bytes,
            letter.reason,
            letter.endpoint,
            letter.path.name,
        )
        for letter in letters
    ]
    if as_json:
        write_json(heads, rows)
    elif rows:
        write_table(heads, rows, width=_output.table_width())
    else:
        _output.note("no dead letters: nothing was refused for good")


def _resend(layout: Layout, settings: OtlpSettings, timeout: float, as_json: bool) -> None:
    from flowdeck_sinks.otlp.dead_letters import DeadLetters, dead_letter_directory
    from flowdeck_sinks.otlp.transport import DELIVERED, open_transport

    letters = DeadLetters(dead_letter_directory(layout))
    sent = failed = 0
    reason = ""
    for letter in letters.list():
        target = settings.targets.get(letter.signal)
        if target is None:
            continue

        outcome = open_transport(target).send(letter.path.read_bytes(), min(target.timeout, timeout))
        if outcome.kind == DELIVERED and not outcome.rejected:
            letters.remove(letter)
            sent += letter.items
        else:
            failed += letter.items
            reason = outcome.reason

    if as_json:
        _output.out(json.dumps({"sent": sent, "failed": failed, "reason": reason}))
    else:
        _output.out(f"{sent} items of dead letters sent")

    if failed:
        raise CliError(f"{failed} items were refused again: {reason}", 1)


class _Progress:
    """A line on a terminal's stderr while a long export works."""

    def __init__(self, exporter: StoreExport) -> None:
        self._exporter = exporter
        self._shown = False
        self._at = time.monotonic() + 0.5
        self._on = _output.is_terminal(sys.stderr)

    def show(self) -> None:
        now = time.monotonic()
        if not self._on or now < self._at:
            return

        self._at = now + 0.1
        statistics = self._exporter.statistics()
        done, total = int(statistics["events"]), max(int(statistics["events"]), self._exporter.total)
        share = done / total if total else 0.0
        bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
        text = f"\r{bar} {share:4.0%}  {statistics.get('spans_exported', 0)} spans"
        sys.stderr.write(text[: _output.width()] + "\x1b[K")
        sys.stderr.flush()
        self._shown = True

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
