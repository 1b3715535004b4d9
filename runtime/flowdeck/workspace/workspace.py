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
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowdeck.errors import (
    WorkspaceContentError,
    WorkspacePolicyError,
    WorkspaceRecordNotFound,
)
from flowdeck.events.ids import new_id
from flowdeck.workspace import audit, content, recall
from flowdeck.workspace.index import Index, labels_of_filters
from flowdeck.workspace.observed import WorkspaceEvents
from flowdeck.workspace.packing import Budget
from flowdeck.workspace.references import Reference, parse_reference
from flowdeck.workspace.text import query_expression
from flowdeck.workspace.tree import CONTENT, FILES, Tree
from flowdeck.workspace.writing import Writer, json_text, now

if TYPE_CHECKING:
    from flowdeck.workspace.manager import WorkspaceManager

__all__ = ["Workspace"]

READ_ONLY: Final = ("read", "read_only", "readonly")
_SEARCH_LIMIT: Final = 100


class Workspace:
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
            "meta": dict(meta or {}),
        }
        row = [*list(made.values())[:-1], json_text("meta", made["meta"])]
        await asyncio.to_thread(self.index.insert_link, row)
        self._events.emit("linked", {"link_id": made["id"], **{k: made[k] for k in _LINK_KEYS}})
        return made

    # -- reading -----------------------------------------------------------------------------------------------------

    async def get(self, ref: Any) -> str:
        """Return a content as text; ``ref`` is a record, its id, its path or a ``workspace://`` reference.

        Raises:
            WorkspaceRecordNotFound: there is no such record or file.
            WorkspacePolicyError: the path leads out of the workspace.
            WorkspaceContentError: it is not text, or not what was ingested.
        """
        data = await self.get_bytes(ref)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise WorkspaceContentError(f"workspace {self.root}: {ref!r} is not text; use get_bytes()") from None

    async def get_data(self, ref: Any) -> Any:
        """Return a content as it was given: what was stored as JSON is parsed."""
        located = await self._locate(ref)
        text = await self.get(ref)
        return json.loads(text) if located.path.endswith(".json") else text

    async def get_bytes(self, ref: Any) -> bytes:
        """Return a content whole. :meth:`stream` reads large ones piece by piece."""
        return b"".join([piece async for piece in self.stream(ref)])

    async def stream(self, ref: Any, chunk_size: int = content.CHUNK) -> AsyncIterator[bytes]:
        """Yield a content piece by piece.

        Raises:
            WorkspaceContentError: at the end, when it is not what was ingested.
        """
        located = await self._locate(ref)
        fd = await asyncio.to_thread(located.workspace._open, located)
        pieces = content.read_chunks(fd, chunk_size)
        digest, size = hashlib.sha256(), 0
        try:
            while piece := await asyncio.to_thread(next, pieces, b""):
                digest.update(piece)
                size += len(piece)
                yield piece
        finally:
            pieces.close()

        record = located.record
        if record is not None:
            if digest.hexdigest() != record["sha256"]:
                raise WorkspaceContentError(
                    f"workspace {self.root}: the content of {record['id']} was changed after it was ingested"
                )

            self._events.emit("record_read", {"record_id": record["id"], "size": size})

    async def record(self, ref: Any) -> dict[str, Any]:
        """Return a record itself, by id, path or reference.

        Raises:
            WorkspaceRecordNotFound: there is none.
        """
        located = await self._locate(ref)
        if located.record is None:
            raise WorkspaceRecordNotFound(f"workspace {self.root}: {ref!r} is a file, no record")

        return located.record

    async def resolve(self, uri: str) -> dict[str, Any] | Path:
        """Return what a ``workspace://`` reference stands for: a record, or the path of a file of the application.

        ``workspace://rec_…``, ``workspace://<collection>/<file>`` and ``workspace://files/<path>`` are of this
        workspace; with an id in front (``workspace://ws_…/rec_…``) of any that is open in this process.
        """
        located = await self._locate(uri)
        if located.record is not None:
            return located.record

        os.close(await asyncio.to_thread(located.workspace._open, located))  # it is there, and inside
        files: Path = located.workspace.files_root
        return files / located.path

    async def search(
        self, query: str | None = None, filters: Mapping[str, Any] | None = None, *, limit: int = _SEARCH_LIMIT
    ) -> list[dict[str, Any]]:
        """Return records that match, the best first; without a query the newest first.

        Args:
            query: words that must all be there, ``"a phrase"``, ``begin*``; any other character is ignored. When no
                content matches, summaries that contain it are returned.
            filters: equal values of ``collection``, ``kind``, ``scope.<key>``, ``meta.<key>``.
        """
        labels = labels_of_filters(filters or {})
        found = await asyncio.to_thread(self._search, query, labels, limit)
        payload = {"query": query, "filters": dict(filters or {}), "count": len(found)}
        self._events.emit("searched", payload)
        return found

    async def links(
        self,
        ref_or_id: Any = None,
        *,
        source: Any = None,
        target: Any = None,
        relation: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return links, oldest first: those at ``ref_or_id``, from ``source``, to ``target``, of ``relation``."""
        ends = {
            name: None if ref is None else self._id_of(ref)
            for name, ref in (("either", ref_or_id), ("source", source), ("target", target))
        }
        return await asyncio.to_thread(lambda: self.index.links(**ends, relation=relation))

    async def latest_checkpoint(self, run_id: str) -> dict[str, Any] | None:
        """Return the newest checkpoint of a run; its state is ``get_data(record)``."""
        found = await asyncio.to_thread(self.index.checkpoints, str(run_id), None, 1)
        return found[0] if found else None

    async def checkpoint_history(
        self, run_id: str, *, step_id: str | None = None, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """Return a run's checkpoints, newest first."""
        return await asyncio.to_thread(self.index.checkpoints, str(run_id), step_id, limit)

    async def build_context(
        self,
        *,
        goal: str,
        scope: Mapping[str, Any] | None = None,
        budget: Mapping[str, Any] | None = None,
        profile: str = "auto",
    ) -> dict[str, Any]:
        """Pack what the workspace knows about a goal.

        Args:
            goal: what shall be done, as a sentence.
            scope: only records with all these values.
            budget: ``{"tokens": …}`` or ``{"chars": …}`` (12,000 by default), and ``{"items": …}``.
            profile: ``auto``, ``software_dev``, ``document_review`` or a registered one.

        Returns:
            goal, profile, items [{ref, kind, summary, content, use}], omitted [{reason, count}], diagnostics.

        Raises:
            WorkspaceConfigurationError: an unknown profile, or a budget that is none.
        """
        began = time.perf_counter_ns()
        chosen = self._manager.recall_profile(profile)
        context = await recall.build(self, chosen, profile, goal, dict(scope or {}), Budget.of(budget), budget)
        told = context.get("diagnostics", {})
        payload = {
            "goal": goal,
            "scope": dict(scope or {}),
            "profile": profile,
            "record_ids": [item["ref"]["id"] for item in context.get("items", []) if "ref" in item],
            "omitted": context.get("omitted", []),
            **{key: told.get(key) for key in ("candidate_count", "used_chars", "used_tokens", "char_budget")},
        }
        self._events.emit("context_built", payload, duration_us=(time.perf_counter_ns() - began) // 1000)
        return context

    async def audit(self, collection: str | None = "artifacts", *, verify: bool = False) -> list[dict[str, Any]]:
        """Return what cannot be trusted as it stands; see :func:`flowdeck.workspace.audit.audit`."""
        return await asyncio.to_thread(lambda: list(audit.audit(self._tree, self.index, collection, verify)))

    # -- what runs in worker threads ---------------------------------------------------------------------------------

    def _search(self, query: str | None, labels: list[str], limit: int) -> list[dict[str, Any]]:
        if limit < 1:
            return []

        if query is None or not query.strip():
            return self.index.records(self.index.match(None, labels, limit))

        words = query_expression(query)
        found = [] if words is None else self.index.match(words, labels, limit, ranked=True)
        return self.index.records(found or self.index.summaries_with(query.strip(), labels, limit))

    def excerpt(self, record: Mapping[str, Any], limit: int) -> tuple[str, bool]:
        """Return the first ``limit`` characters of a record's content, and whether there are more. Blocks."""
        fd = self._tree.open_file(CONTENT, record["path"])
        with os.fdopen(fd, "rb") as file:
            head = file.read(4 * limit + 4)

        whole = len(head) >= record["size"]
        try:
            text = head.decode("utf-8", errors="strict" if whole else "ignore")
        except UnicodeDecodeError:
            return f"[{record['size']} bytes that are no text]", False

        if "\0" in text:
            return f"[{record['size']} bytes that are no text]", False

        return text[:limit], not whole or len(text) > limit

    def _open(self, located: Reference) -> int:
        return self._tree.open_file(CONTENT if located.record is not None else FILES, located.path)

    # -- references --------------------------------------------------------------------------------------------------

    async def _locate(self, ref: Any) -> Reference:
        try:
            wanted = parse_reference(self, self._manager, ref)
            if wanted.file:
                wanted.workspace._tree.parts(wanted.path)
                return wanted

            owner = wanted.workspace
            if not wanted.path.startswith("rec_"):
                owner._tree.parts(wanted.path)

            wanted.record = await asyncio.to_thread(owner.index.record, wanted.path)
        except WorkspacePolicyError as problem:
            self._events.emit("refused", {"operation": "get", "target": str(ref)[:500], "reason": str(problem)})
            raise

        if wanted.record is None:
            raise WorkspaceRecordNotFound(f"workspace {owner.root}: there is no record {wanted.path!r}")

        wanted.path = wanted.record["path"]
        return wanted

    def _id_of(self, ref: Any) -> str:
        return parse_reference(None, self._manager, ref).path

    def _check_writable(self, operation: str, target: str) -> None:
        if self.read_only:
            reason = f"workspace {self.root} was opened read-only"
            self._events.emit("refused", {"operation": operation, "target": target, "reason": reason})
            raise WorkspacePolicyError(f"{operation}: {reason}")


_LINK_KEYS: Final = ("source_id", "target_id", "relation", "meta")
