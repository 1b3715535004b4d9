"""How far exporters have come: ``cursors/<name>.json``, one file per exporter, replaced by rename.

``{"name": "otlp", "writers": {"<writer>": <wseq>}}``, further keys being the exporter's own: of each writer every line
up to and including ``wseq`` was delivered. A writer that is not named was not begun. Retention counts, or keeps, what
lies beyond; :func:`~flowdeck_sinks.store.maintenance.info` shows how far each exporter is behind.
"""

from __future__ import annotations

from typing import Final

import msgspec

from flowdeck.layout import Layout

__all__ = ["Cursor", "read_cursors"]


class Cursor(msgspec.Struct):
    """One exporter's file."""

    name: str
    writers: dict[str, int] = {}


_decode: Final = msgspec.json.Decoder(Cursor).decode


def read_cursors(layout: Layout) -> list[Cursor]:
    """Return the cursors by name. A file that cannot be read stands for an exporter that has delivered nothing."""
    try:
        paths = sorted(path for path in layout.cursors.iterdir() if path.suffix == ".json" and path.name[0] != ".")
    except FileNotFoundError:
        return []

    found = []
    for path in paths:
        try:
            found.append(_decode(path.read_bytes()))
        except (OSError, msgspec.DecodeError):
            found.append(Cursor(path.stem))
    return found
