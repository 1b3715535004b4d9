"""``flowdeck events``: the raw events, the newest ones or as they come."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError, Stopped
from flowdeck_devtools.cli._journal_end import newest_lines
from flowdeck_devtools.cli._options import JsonOption, StoreOption, existing_store
from flowdeck_devtools.cli._published_end import newest_published
from flowdeck_devtools.core.text import cells, clean, clock_time, duration, fit
from flowdeck_devtools.core.wire import Event, decode, head

__all__ = ["compile_filter", "events", "show_lines"]

_POLL_S = 0.05
_TYPE_WIDTH = 30
_SAID_ELSEWHERE = frozenset({"chunk_id", "chunk_name", "operator_kind", "trigger_event", "trigger_type", "signal_id"})
"""Payload keys that type and scope tell already."""
_LEVEL_COLOURS = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events as they come.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many of the newest to begin with.")] = 20,
    filter: Annotated[str, typer.Option(metavar="EXPR", help="Only matching: 'level>=WARNING type:chunk.*'.")] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest events, oldest first. --json writes each as one line, just as it was stored."""
    root = existing_store(store)
    wanted = compile_filter(filter)
    show = _show_raw if as_json else _show_line
    if not follow:
        show(_newest(root, limit, wanted))
        return

    try:
        _follow(root, limit, wanted, show)
    except KeyboardInterrupt:
        raise Stopped("") from None


def _follow(root: Path, limit: int, wanted: Callable[[bytes], bool], show: Callable[[Iterable[bytes]], None]) -> None:
    from flowdeck_sinks.store.tail import JournalTail

    tail = JournalTail(root)
    tail.poll()  # now it stands at the end; what was written since the next line appears in both, once
    begun = _newest(root, limit, wanted)
    seen = set(begun)
    show(begun)
    _output.flush()
    while True:
        fresh = [line for batch in tail.poll() for line in batch.lines if line not in seen and wanted(line)]
        if fresh:
            show(fresh)
            _output.flush()

        time.sleep(_POLL_S)


def _newest(root: Path, limit: int, wanted: Callable[[bytes], bool]) -> list[bytes]:
    """Return the newest wanted lines of journal and published files, oldest first."""
    live = newest_lines(root / "journal", limit, wanted)
    older = newest_published(root, limit, wanted)
    if not older:
        return live

    # What was published a moment ago stands in the journal, too, for a while.
    known = {_event_id(line) for line in live}
    lines = [*(line for line in older if _event_id(line) not in known), *live]
    return sorted(lines, key=lambda line: head(line).time_us)[-limit:]


def _event_id(line: bytes) -> str:
    return decode(line).event_id


def show_lines(lines: Iterable[bytes], *, as_json: bool) -> None:
    """Write events for people, or as they are, and hand them on at once."""
    (_show_raw if as_json else _show_line)(lines)
    _output.flush()


def _show_raw(lines: Iterable[bytes]) -> None:
    on_terminal = _output.is_terminal(sys.stdout)
    for line in lines:
        text = line.decode("utf-8", "replace")
        _output.out(_escaped(text) if on_terminal and not text.isprintable() else text)


def _escaped(text: str) -> str:
    """Keep a foreign producer's control characters from the terminal; escaped, the line is the same JSON."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _show_line(lines: Iterable[bytes]) -> None:
    width = _output.table_width()
    for line in lines:
        event = decode(line)
        text = _one_line(event)
        if width is not None:
            text = fit(text, width).rstrip() if cells(text) > width else text

        colour = _LEVEL_COLOURS.get(event.level)
        _output.out(_output.paint(text, colour, sys.stdout) if colour else text)


def _one_line(event: Event) -> str:
    flow = event.run.meta.get("flow_name") if event.run else None
    lasted = event.meta.get("duration_us")
    parts = [
        clock_time(event.time_us),
        f"{clean(event.level)[:5]:<5}",
        fit(clean(event.event_type), _TYPE_WIDTH),
        clean(str(flow or "")),
        clean(str(event.meta.get("scope") or "")),
        duration(lasted) if isinstance(lasted, int | float) else "",
        _detail(event),
    ]
    return " ".join(part for part in parts if part)


def _detail(event: Event) -> str:
    if event.error:
        return clean(f"{event.error.get('type')}: {event.error.get('message')}")

    if event.message:
        return clean(event.message)

    payload: Any = event.payload
    if isinstance(payload, dict):
        payload = {name: value for name, value in payload.items() if name not in _SAID_ELSEWHERE}

    return clean(json.dumps(payload, ensure_ascii=False, default=str), limit=400) if payload else ""


def compile_filter(text: str) -> Callable[[bytes], bool]:
    """The test for lines that ``--filter`` asks for.

    Raises:
        CliError: the text is no filter.
    """
    if not text.strip():
        return lambda line: True

    from flowdeck_devtools.filter import FilterError, compile_line

    try:
        return compile_line(text)
    except FilterError as error:
        raise CliError(f"--filter: {error}", 2, error.docs) from None
