"""What a view or macro is to this package: SQL with a word about every column, from which documentation is made."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Macro", "View", "status_case"]


class View(NamedTuple):
    """A view users see."""

    name: str
    summary: str
    """What a row is."""
    sql: str
    columns: dict[str, str]
    """What each column says, in order."""


class Macro(NamedTuple):
    """A table macro users call: ``FROM name(arguments)``."""

    name: str
    parameters: tuple[str, ...]
    """Each as in CREATE MACRO: ``name``, or ``name := default``."""
    summary: str
    sql: str
    columns: dict[str, str]
    """What each column says, in order; empty where the result has the columns of :attr:`like`."""
    like: str = ""
    """The view whose columns it yields."""


def status_case(statuses: dict[str, str]) -> str:
    """Return SQL that maps ``event_type`` to a status, NULL for every other type."""
    return "CASE event_type " + " ".join(f"WHEN '{name}' THEN '{to}'" for name, to in statuses.items()) + " END"
