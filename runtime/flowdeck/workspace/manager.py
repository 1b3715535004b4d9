"""The workspaces of a runtime, and the profiles they share."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from flowdeck.errors import WorkspaceConfigurationError
from flowdeck.execution.services import Services, current_services
from flowdeck.workspace.observed import WorkspaceEvents
from flowdeck.workspace.profiles import RECALL_PROFILES, IngestionProfile, RecallProfile
from flowdeck.workspace.tree import Tree
from flowdeck.workspace.workspace import READ_ONLY, Workspace

__all__ = ["WorkspaceManager"]


class WorkspaceManager:
    """Opens workspaces. ``runtime.workspace`` is the default one."""

    def __init__(self, services: Services | None = None) -> None:
        self._services = services
        self._ingestion: dict[str, IngestionProfile] = {}
        self._recall: dict[str, RecallProfile] = dict(RECALL_PROFILES)
        self._open: WeakValueDictionary[str, Workspace] = WeakValueDictionary()

    def create(
        self, path_or_backend: str | os.PathLike[str] | Any, *, create: bool = True, mode: str = "read_write"
    ) -> Any:
        """Open a workspace.

        Args:
            path_or_backend: its directory; or a workspace, or anything with ``ingest``, ``get`` and ``search``, which
                is returned as it is.
            create: make it when it is not there.
            mode: ``read_write``, or ``read_only`` (``read``, ``readonly``): every write is refused, and nothing on the
                disk changes.

        Raises:
            WorkspaceConfigurationError: it is not there, is none, was made by a newer version, or an unknown mode.
        """
        if not isinstance(path_or_backend, str | os.PathLike):
            missing = [name for name in ("ingest", "get", "search") if not hasattr(path_or_backend, name)]
            if missing:
                raise WorkspaceConfigurationError(
                    f"use_workspace({path_or_backend!r}): expected a directory, or a backend with {', '.join(missing)}"
                )

            return path_or_backend

        if mode not in ("read_write", *READ_ONLY):
            raise WorkspaceConfigurationError(
                f"mode={mode!r}: expected read_write or read_only (also {', '.join(READ_ONLY)})"
            )

        root = Path(path_or_backend).expanduser()
        if not str(path_or_backend).strip() or "\0" in str(path_or_backend):
            raise WorkspaceConfigurationError(f"use_workspace({str(path_or_backend)!r}): expected a directory")

        try:
            tree = Tree(root, create=create, read_only=mode in READ_ONLY)
        except OSError as problem:
            raise WorkspaceConfigurationError(f"{root} cannot be used: {problem.strerror or problem}") from problem

        services = self._services or current_services()
        events = WorkspaceEvents(services.center)
        events.workspace_id = tree.id
        workspace = Workspace(self, tree, events)
        self._open[tree.id] = workspace
        events.emit(
            "opened",
            {
                "root": str(root.absolute()),
                "mode": "read_only" if tree.read_only else "read_write",
                "created": tree.created,
                "records": workspace.index.count(),
            },
        )
        return workspace

    def opened(self, workspace_id: str) -> Workspace | None:
        """Return a workspace that is open in this process by its id."""
        return self._open.get(workspace_id)

    # -- profiles ----------------------------------------------------------------------------------------------------

    @property
    def profiles(self) -> list[str]:
        """The names of the ingestion profiles."""
        return ["fast", "checkpoint", *self._ingestion]

    @property
    def recall_profiles(self) -> list[str]:
        """The names of the recall profiles."""
        return list(self._recall)

    def register_profile(self, name: str, handler: IngestionProfile) -> WorkspaceManager:
        """Register an ingestion profile: an object with ``async ingest(workspace, **request)``; chainable.

        Raises:
            WorkspaceConfigurationError: a built-in name, or no such object.
        """
        if name in ("fast", "checkpoint") or not callable(getattr(handler, "ingest", None)):
            raise WorkspaceConfigurationError(
                f"register_profile({name!r}): expected a name beside fast and checkpoint, and an object with ingest()"
            )

        self._ingestion[name] = handler
        return self

    def profile(self, name: str) -> IngestionProfile:
        """Return a registered ingestion profile."""
        found = self._ingestion.get(name)
        if found is None:
            raise WorkspaceConfigurationError(
                f"ingestion profile {name!r} is not registered; there are {', '.join(self.profiles)}"
            )

        return found

    def register_recall_profile(
        self,
        name: str,
        *,
        profile: RecallProfile | str | None = None,
        planner: Any = None,
        retriever: Any = None,
        context_builder: Any = None,
    ) -> WorkspaceManager:
        """Register a recall profile: a :class:`RecallProfile`, or another one's name, with stages replaced; chainable.

        Raises:
            WorkspaceConfigurationError: no name, or a profile nobody has registered.
        """
        if not isinstance(name, str) or not name:
            raise WorkspaceConfigurationError(f"register_recall_profile({name!r}): expected a name")

        base = self.recall_profile(profile or "auto") if not isinstance(profile, RecallProfile) else profile
        stages = {"planner": planner, "retriever": retriever, "context_builder": context_builder}
        given = {stage: function for stage, function in stages.items() if function is not None}
        for stage, function in given.items():
            if not callable(function):
                raise WorkspaceConfigurationError(f"register_recall_profile({name!r}): {stage} cannot be called")

        self._recall[name] = replace(base, **given)
        return self

    def recall_profile(self, name: str) -> RecallProfile:
        """Return a recall profile."""
        found = self._recall.get(name)
        if found is None:
            raise WorkspaceConfigurationError(
                f"recall profile {name!r} is not registered; there are {', '.join(self._recall)}"
            )

        return found
