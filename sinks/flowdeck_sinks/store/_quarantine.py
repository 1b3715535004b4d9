"""What cannot be read is set aside as it was found: lines in ``quarantine/<origin>.jsonl``, or the file itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from pathlib import Path
from typing import Final

from flowdeck.layout import Layout, write_file
from flowdeck_sinks.store._reports import Quarantined

__all__ = ["damaged_lines", "quarantined", "set_aside_file", "set_aside_lines"]

PREVIEW: Final = 200
KEPT_BYTES: Final = 1024 * 1024
"""Most bytes kept of one damaged line."""

Damaged = tuple[int, str, bytes]
"""Line number from 1, reason, the line."""


def damaged_lines(data: bytes, known: Collection[int]) -> list[Damaged]:
    """Return the lines of a segment that are no events for SQL.

    Args:
        data: The segment's bytes.
        known: The ``wseq`` of every event SQL found in it.
    """
    found: list[Damaged] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line:
            continue

        try:
            event = json.loads(line)
        except (ValueError, RecursionError) as error:
            torn = not data.endswith(b"\n") and number == data.count(b"\n") + 1
            found.append((number, "cut off" if torn else f"not JSON: {error}"[:200], line))
            continue

        if not isinstance(event, dict):
            found.append((number, "not a JSON object", line))
        elif event.get("event_id") is None:
            if event.get("flowdeck") != "journal":
                found.append((number, "no event_id", line))
        elif event.get("wseq") not in known:
            found.append((number, "refused by DuckDB", line))

    return found


def set_aside_lines(layout: Layout, origin: str, lines: list[Damaged]) -> Path:
    """Keep damaged lines of the file ``origin``; doing it twice changes nothing.

    Raises:
        OSError: The store cannot be written.
    """
    layout.quarantine.mkdir(0o700, exist_ok=True)
    rows = []
    for number, reason, line in lines:
        kept = line[:KEPT_BYTES]
        row = {"origin": origin, "line": number, "reason": reason, "size": len(line)}
        try:
            row["text"] = kept.decode()
        except UnicodeDecodeError:
            row["base64"] = base64.b64encode(kept).decode()
        rows.append(json.dumps(row) + "\n")
    path = layout.quarantine / f"{Path(origin).stem}.jsonl"
    write_file(path, "".join(rows).encode())
    return path


def set_aside_file(layout: Layout, path: Path, reason: str) -> Path:
    """Move a file that cannot be read out of the readers' way.

    Raises:
        OSError: The store cannot be written.
    """
    layout.quarantine.mkdir(0o700, exist_ok=True)
    target = layout.quarantine / path.name
    about = {"origin": path.name, "line": 0, "reason": reason, "size": path.stat().st_size}
    write_file(target.with_name(target.name + ".json"), json.dumps(about).encode() + b"\n")
    path.rename(target)
    return target


def quarantined(layout: Layout) -> list[Quarantined]:
    """Return what was set aside, oldest file first; a row that cannot be read is named as such."""
    found = []
    try:
        paths = sorted(layout.quarantine.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name))
    except FileNotFoundError:
        return []

    for path in paths:
        if path.name.startswith(".") or path.suffix not in (".json", ".jsonl"):
            continue
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
                text = row.get("text") or base64.b64decode(row.get("base64", "")).decode("utf-8", "replace")
                kept = path.with_suffix("") if path.suffix == ".json" else path
                found.append(
                    Quarantined(
                        kept, str(row["reason"]), str(row["origin"]), int(row["line"]), int(row["size"]), _clean(text)
                    )
                )
            except (ValueError, KeyError, TypeError, AttributeError):
                found.append(Quarantined(path, "the quarantine file itself is damaged", path.name, 0, len(line), ""))

    return found


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:PREVIEW])
