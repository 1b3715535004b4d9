"""Workspace: the evidence and the products of one task, on disk, searchable, and packed for a goal.

    workspace = runtime.workspace.create("./.flowdeck/runs/t-17")
    report = await workspace.ingest(content=text, collection="artifacts", kind="draft_report",
                                    summary="first draft", scope={"task_id": "t-17"})
    await workspace.checkpoint("t-17", {"phase": "review", "report": report["id"]}, step_id="risk-review")
    pack = await workspace.build_context(goal="revise the report", scope={"task_id": "t-17"},
                                         budget={"tokens": 12_000}, profile="document_review")

Sources: seed 001; behaviour §8.2. What it does to the disk happens in worker threads; the event loop never waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowdeck.errors import (
    WorkspacePolicyError,
)
from flowdeck.events.ids import new_id
from flowdeck.workspace.in_flow import FlowWorkspace
from flowdeck.workspace.index import Index
from flowdeck.workspace.observed import WorkspaceEvents
from flowdeck.workspace.reading import WorkspaceReader
from flowdeck.workspace.tree import Tree
from flowdeck.workspace.writing import Writer, json_text, mapping, now

if TYPE_CHECKING:
    from flowdeck.execution.data import TriggerFlowRuntimeData
    from flowdeck.workspace.manager import WorkspaceManager

__all__ = ["Workspace"]

READ_ONLY: Final = ("read", "read_only", "readonly")


class Workspace(WorkspaceReader):
    """One workspace on the local disk. Made by :meth:`WorkspaceManager.create` and ``agent.use_workspace``.

    Every process may use it at once. Records are never changed or removed.
    """

    def __init__(self, manager: WorkspaceManager, tree: Tree, events: WorkspaceEvents) -> None:
        self._manager = manager
        self._tree = tree
        self._events = events
        self.index = Index(tree)
        """The database; its methods block."""
        self._writer = Writer(tree, self.index, events)
        self.id = tree.id
        """``ws_…``, the same on every disk it is copied to."""
        self.root = tree.root

    def __repr__(self) -> str:
        return f"<Workspace {self.root}{' (read only)' if self.read_only else ''}>"

    @property
    def read_only(self) -> bool:
        """Whether writing is refused."""
        return self._tree.read_only

    @property
    def content_root(self) -> Path:
        """Where contents are, one directory a collection."""
        return self._tree.content_root

    @property
    def files_root(self) -> Path:
        """A directory for the application's own files, reached as ``workspace://files/…``."""
        return self._tree.files_root

    def capabilities(self) -> dict[str, Any]:
        """Return what this workspace is and can do."""
        return {
            "backend": "local",
            "root": str(self.root),
            "content_root": str(self.content_root),
            "files_root": str(self.files_root),
            "read_only": self.read_only,
            "components": ["content", "records", "search", "links", "checkpoints", "context"],
            "features": {"full_text": "fts5", "cjk": True, "streaming": True, "ingestion_keys": True, "audit": True},
            "profiles": {"ingestion": self._manager.profiles, "recall": self._manager.recall_profiles},
        }

    def within(self, data: TriggerFlowRuntimeData) -> FlowWorkspace:
        """Return this workspace as a chunk uses it: a tape can answer, and what is written again is written once.

        ``agent.workspace.within(data)``; see :mod:`flowdeck.workspace.in_flow`.
        """
        return FlowWorkspace(self, data)

    async def close(self) -> None:
        """Close the database. A later call opens it again."""
        await asyncio.to_thread(self.index.close)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def ingest(
        self,
        *,
        content: Any,
        collection: str,
        kind: str | None = None,
        scope: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | str | None = None,
        summary: str | None = None,
        meta: Mapping[str, Any] | None = None,
        profile: str = "fast",
        key: str | None = None,
    ) -> dict[str, Any]:
        """Write a record by an ingestion profile and return it; see :meth:`put` for the arguments.

        Args:
            profile: ``fast`` puts; ``checkpoint`` writes a checkpoint of ``scope["run_id"]`` (or
                ``source["run_id"]``, or ``default``) at ``scope["step_id"]``; others are registered.

        Raises:
            WorkspaceConfigurationError: nobody has registered the profile.
        """
        request = {
            "content": content,
            "collection": collection,
            "kind": kind,
            "scope": scope,
            "source": source,
            "summary": summary,
            "meta": meta,
            "key": key,
        }
        if profile == "fast":
            return await self.put(**request)

        if profile == "checkpoint":
            places = dict(scope or {})
            origin = source if isinstance(source, Mapping) else {}
            run_id = places.get("run_id") or origin.get("run_id") or "default"
            return await self.checkpoint(str(run_id), content, step_id=places.get("step_id"))

        return await self._manager.profile(profile).ingest(self, **request)

    async def put(
        self,
        content: Any,
        *,
        collection: str,
        kind: str | None = None,
        meta: Mapping[str, Any] | None = None,
        summary: str | None = None,
        scope: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | str | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        """Write a record and return it: a small JSON object to keep in place of the content.

        Args:
            content: text, bytes, a :class:`~pathlib.Path` or open file to copy, an (async) iterator of text or bytes
                (both of any size), or a value stored as JSON.
            collection: ``artifacts``, ``observations``, ``decisions``, ``dialogue``, ``checkpoints`` or any other.
            scope: whose it is, such as ``{"task_id": …}``; contexts and searches are limited by it.
            source: where it comes from; a text means ``{"name": text}``.
            summary: one line for lists; by default the beginning of the content.
            key: idempotency key: a second record of the same key is not written, the first is returned.

        Returns:
            id, collection, kind, path, sha256, size, summary, scope, source, created_at, meta, uri.

        Raises:
            WorkspacePolicyError: the workspace is read-only.
            WorkspaceContentError: the content, or a label, cannot be stored.
            WorkspaceError: the disk is full or not writable; nothing is left of the content.
        """
        self._check_writable("ingest", str(collection))
        return await self._writer.write(content, collection, kind, meta, summary, scope, source, key)

    async def checkpoint(
        self, run_id: str, state: Any, *, step_id: str | None = None, key: str | None = None
    ) -> dict[str, Any]:
        """Write a compact state to go on from; it and all records before it survive a power cut."""
        step = None if step_id is None else str(step_id)
        scope = {"run_id": run_id, **({} if step is None else {"step_id": step})}
        self._check_writable("checkpoint", str(run_id))
        return await self._writer.write(
            state,
            "checkpoints",
            "checkpoint",
            {"checkpoint": True},
            f"Checkpoint for {run_id}" + (f" step {step}" if step is not None else ""),
            scope,
            {"type": "workspace", "name": "checkpoint"},
            key,
            run=(str(run_id), step),
        )

    async def link(
        self, source: Any, target: Any, relation: str, meta: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Relate two records, such as a decision to its evidence. What it names need not be there (yet)."""
        self._check_writable("link", str(relation))
        made: dict[str, Any] = {
            "id": f"link_{new_id()}",
            "source_id": self._id_of(source),
            "target_id": self._id_of(target),
            "relation": str(relation),
            "created_at": now(),
            "meta": mapping("meta", meta),
        }
        row = [*list(made.values())[:-1], json_text("meta", made["meta"])]
        await asyncio.to_thread(self.index.insert_link, row)
        self._events.emit("linked", {"link_id": made["id"], **{k: made[k] for k in _LINK_KEYS}})
        return made

    def _check_writable(self, operation: str, target: str) -> None:
        if self.read_only:
            reason = f"workspace {self.root} was opened read-only"
            self._events.emit("refused", {"operation": operation, "target": target, "reason": reason})
            raise WorkspacePolicyError(f"{operation}: {reason}")


_LINK_KEYS: Final = ("source_id", "target_id", "relation", "meta")
