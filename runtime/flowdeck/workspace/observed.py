"""The ``workspace.*`` events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flowdeck.events.center import EventCenter
from flowdeck.events.lineage import current_run

__all__ = ["WorkspaceEvents"]

NAMES: Final = (
    "opened",
    "record_ingested",
    "record_read",
    "searched",
    "linked",
    "checkpointed",
    "context_built",
    "refused",
)


class WorkspaceEvents:
    """Emits the events of one workspace, each in the run that is current."""

    def __init__(self, center: EventCenter) -> None:
        self._types = {name: center.type(f"workspace.{name}") for name in NAMES}
        self.workspace_id = ""

    def emit(
        self, name: str, payload: Mapping[str, Any], *, message: str | None = None, duration_us: int | None = None
    ) -> None:
        """Emit ``workspace.<name>``. Costs one look when nobody wants it."""
        event = self._types[name]
        if event.sinks:
            event.emit(
                {"workspace_id": self.workspace_id, **payload},
                run=current_run.get(),
                message=message,
                duration_us=duration_us,
            )
