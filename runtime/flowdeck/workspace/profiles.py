"""Profiles: how records get into a workspace, and how they are chosen for a goal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

__all__ = ["RECALL_PROFILES", "IngestionProfile", "RecallProfile"]


class IngestionProfile(Protocol):
    """Decides how a content becomes a record; registered with :meth:`WorkspaceManager.register_profile`."""

    async def ingest(self, workspace: Any, **request: Any) -> dict[str, Any]:
        """Write and return the record. ``request`` has the arguments of :meth:`Workspace.ingest`."""
        ...


@dataclass(frozen=True, slots=True)
class RecallProfile:
    """What counts when records are packed for a goal; registered with :meth:`WorkspaceManager.register_recall_profile`.

    The three functions replace a stage each; they may be async and are called with keywords only.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    """Factor on the score by collection, and by kind; 1 for all others."""
    excerpt_chars: int = 1200
    """Characters of one record, at most."""
    follow_links: bool = False
    """Whether records linked with the chosen ones come along, and items tell their links."""
    planner: Callable[..., Any] | None = None
    """``(goal, scope, budget, workspace) -> {"query": str | None, "filters": {…}}``."""
    retriever: Callable[..., Any] | None = None
    """``(plan, workspace) -> records``, the best first."""
    context_builder: Callable[..., Any] | None = None
    """``(goal, plan, records, budget, workspace) -> ContextPack``."""


RECALL_PROFILES: Final[dict[str, RecallProfile]] = {
    "auto": RecallProfile(),
    "software_dev": RecallProfile(
        weights={
            "decisions": 1.5,
            "observations": 1.2,
            "dialogue": 0.6,
            "checkpoints": 0.4,
            "error": 1.3,
            "test_result": 1.3,
            "diff": 1.2,
        }
    ),
    "document_review": RecallProfile(
        weights={"artifacts": 1.5, "decisions": 1.5, "observations": 1.2, "dialogue": 0.6, "checkpoints": 0.3},
        excerpt_chars=4000,
        follow_links=True,
    ),
}
"""The profiles every workspace knows. A review reads longer passages, and what decisions and evidence are linked to."""
