"""What the checks of ``flowdeck doctor`` get and give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from flowdeck.layout import Layout

__all__ = ["Case", "Finding"]


class Finding(NamedTuple):
    """One thing a check noticed."""

    level: Literal["ok", "note", "warning", "error"]
    what: str
    mend: str
    """What to do about it; empty when nothing."""


class Case:
    """What is looked at. Checks come in order and may leave what they found for later ones."""

    def __init__(self, store: Path, endpoint: str | None) -> None:
        self.store = store
        self.endpoint = endpoint
        self.layout: Layout | None = None
        """The store, once the check of it found it usable."""
