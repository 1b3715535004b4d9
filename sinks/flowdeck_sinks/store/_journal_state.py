"""What lies in the journal, told from file names, sizes and locks alone."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress

from flowdeck.layout import Layout, is_locked, live_writers
from flowdeck_sinks.store.parts import listing

__all__ = ["backlog", "writer_versions"]


def backlog(layout: Layout) -> tuple[int, int]:
    """Return number and bytes of the segments that could be published now."""
    count = size = 0
    for path in listing(layout, at_once=True).segments:
        with suppress(FileNotFoundError):
            if not is_locked(path):
                count += 1
                size += path.stat().st_size
    return count, size


def writer_versions(layout: Layout) -> Counter[str]:
    """Return how many living writers run which version of the library."""
    found: Counter[str] = Counter()
    for writer in live_writers(layout):
        try:
            found[str(json.loads(layout.lock_path(writer).read_bytes())["library"])] += 1
        except (OSError, ValueError, KeyError, TypeError):
            found["unknown"] += 1
    return found
