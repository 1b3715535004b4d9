"""Up to which number a writer's events may be missing for a known reason: retention, or a partial import.

``absences.json``: ``{"writers": {"<writer>": <wseq>}}``. The doctor looks for gaps beyond these numbers only.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from flowdeck.layout import Layout, write_file

__all__ = ["explain_absences", "explained_absences"]


class _Absences(msgspec.Struct):
    writers: dict[str, int] = {}


_decode: Final = msgspec.json.Decoder(_Absences).decode


def explained_absences(layout: Layout) -> dict[str, int]:
    """Return the highest explained number per writer."""
    try:
        return _decode(_path(layout).read_bytes()).writers
    except (OSError, msgspec.DecodeError):
        return {}


def explain_absences(layout: Layout, found: Iterable[tuple[str, int]]) -> None:
    """Put down further writers and numbers.

    Raises:
        OSError: The store cannot be written.
    """
    known = explained_absences(layout)
    before = dict(known)
    for writer, wseq in found:
        known[writer] = max(wseq, known.get(writer, 0))
    if known != before:
        write_file(_path(layout), msgspec.json.encode(_Absences(known)) + b"\n")


def _path(layout: Layout) -> Path:
    return layout.root / "absences.json"
