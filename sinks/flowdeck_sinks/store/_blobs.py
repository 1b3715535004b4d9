"""Blobs: which are named by events, and removal of those that are not."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Final

from flowdeck.layout import Layout
from flowdeck_sinks.store.parts import Source, events_select, listing, visible_sources

__all__ = ["named_blobs", "remove_unused_blobs"]

YOUNG_SECONDS: Final = 3600.0
"""A blob is written before the line that names it; one this young may be waiting for its line."""


def named_blobs(events: str) -> str:
    """Return the SELECT of the blobs (``sha``) that the rows of the query ``events`` name."""
    texts = " || ".join(f"coalesce({name}::VARCHAR, '')" for name in ("payload", "error", "meta", "run"))
    found = 'regexp_extract_all(texts, \'"\\$blob":\\s*"([0-9a-f]{64})"\', 1)'
    return (
        f"SELECT DISTINCT unnest({found}) AS sha FROM (SELECT {texts} AS texts FROM ({events})) "
        "WHERE contains(texts, '\"$blob\"')"
    )


def remove_unused_blobs(layout: Layout, connection: Any) -> int:
    """Delete blobs that no event names; return how many."""
    old = time.time() - YOUNG_SECONDS
    blobs = [path for path in layout.blobs.iterdir() if len(path.name) == 64 and path.stat().st_mtime < old]
    if not blobs:
        return 0

    sources = visible_sources(layout)
    sources += [Source("day", file.path, file.visible_ms, 0, 0, 0, "") for file in listing(layout).waiting]
    named = {row[0] for row in connection.execute(named_blobs(events_select(sources))).fetchall()}
    removed = 0
    for path in blobs:
        if path.name in named:
            continue

        # A writer that meets its content again renews the blob's time before it names it.
        aside = path.with_name(f".{path.name}.unused")
        with suppress(OSError):
            path.rename(aside)
            if aside.stat().st_mtime < old:
                aside.unlink()
                removed += 1
            else:
                aside.rename(path)
    return removed
