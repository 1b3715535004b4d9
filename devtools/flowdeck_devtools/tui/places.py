"""The top-level places and the screen of each, by the ids of the action table; loaded when first visited."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from textual.screen import Screen

__all__ = ["PLACES"]


def _place(module: str, name: str) -> Callable[[], Screen[Any]]:
    def make() -> Screen[Any]:
        screen: Screen[Any] = getattr(import_module(f"flowdeck_devtools.tui.screens.{module}"), name)()
        return screen

    return make


PLACES: dict[str, str | Callable[[], Screen[Any]]] = {
    "runs": _place("runs", "RunsScreen"),
    "execution": _place("execution", "ExecutionScreen"),
    "inbox": _place("inbox", "InboxScreen"),
    "ledger": _place("ledger", "LedgerScreen"),
    "events": _place("events", "EventsScreen"),
    "sql": _place("sql", "SqlScreen"),
    "evals": _place("evals", "EvalsScreen"),
    "metrics": _place("metrics", "MetricsScreen"),
}
