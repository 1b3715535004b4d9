"""The top-level places and the screen of each, by the ids of the action table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.screen import Screen

from flowdeck_devtools.tui.screens.evals import EvalsScreen
from flowdeck_devtools.tui.screens.events import EventsScreen
from flowdeck_devtools.tui.screens.execution import ExecutionScreen
from flowdeck_devtools.tui.screens.inbox import InboxScreen
from flowdeck_devtools.tui.screens.ledger import LedgerScreen
from flowdeck_devtools.tui.screens.metrics import MetricsScreen
from flowdeck_devtools.tui.screens.runs import RunsScreen
from flowdeck_devtools.tui.screens.sql import SqlScreen

__all__ = ["PLACES"]

PLACES: dict[str, str | Callable[[], Screen[Any]]] = {
    "runs": RunsScreen,
    "execution": ExecutionScreen,
    "inbox": InboxScreen,
    "ledger": LedgerScreen,
    "events": EventsScreen,
    "sql": SqlScreen,
    "evals": EvalsScreen,
    "metrics": MetricsScreen,
}
