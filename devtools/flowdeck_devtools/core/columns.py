"""How many cells each column of a table gets: a pure function of the columns and the width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowdeck_devtools.core.text import Align

__all__ = ["Column", "Placed", "lay_out"]

GAP = 1
"""Blank cells between two columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``width`` is what it needs; a flexible one takes a share of what is left, up to ``most``."""

    id: str
    title: str
    width: int
    align: Align = "left"
    priority: int = 0
    """0 always stays; of the others the highest goes first when the table is too narrow."""
    flex: int = 0
    most: int = 10_000


@dataclass(frozen=True, slots=True)
class Placed:
    """A column that fits, with the cells it got."""

    column: Column
    width: int


def lay_out(columns: Sequence[Column], width: int) -> list[Placed]:
    """The columns that fit into ``width`` cells, in their order. Their widths and gaps never exceed it."""
    kept = list(columns)
    while len(kept) > 1 and _needs(kept) > width:
        droppable = [column for column in kept if column.priority > 0]
        if not droppable:
            break
        kept.remove(max(reversed(droppable), key=lambda column: column.priority))

    widths = {column.id: column.width for column in kept}
    spare = width - _needs(kept)
    if spare < 0:
        return _squeezed(kept, width)

    _share(kept, widths, spare)
    return [Placed(column, widths[column.id]) for column in kept]


def _needs(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def _share(columns: Sequence[Column], widths: dict[str, int], spare: int) -> None:
    growing = [column for column in columns if column.flex and widths[column.id] < column.most]
    while spare > 0 and growing:
        total = sum(column.flex for column in growing)
        before = spare
        for column in growing:
            extra = min(max(1, before * column.flex // total), column.most - widths[column.id], spare)
            widths[column.id] += extra
            spare -= extra
        growing = [column for column in growing if widths[column.id] < column.most]


def _squeezed(columns: Sequence[Column], width: int) -> list[Placed]:
    """Even the columns that always stay do not fit: give from the left until nothing is left."""
    placed: list[Placed] = []
    room = width
    for column in columns:
        if room <= 0:
            break
        cells = min(column.width, room)
        placed.append(Placed(column, cells))
        room -= cells + GAP
    return placed
