"""Reading a workspace: contents, records, searches, links, checkpoints, contexts."""

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
    WorkspaceConfigurationError,
    WorkspaceContentError,
    WorkspacePolicyError,
    WorkspaceRecordNotFound,
)
from flowdeck.workspace import audit, content, recall
from flowdeck.workspace.index import Index, labels_of_filters
from flowdeck.workspace.observed import WorkspaceEvents
from flowdeck.workspace.packing import Budget
from flowdeck.workspace.references import Reference, parse_reference
from flowdeck.workspace.text import query_expression
from flowdeck.workspace.tree import CONTENT, FILES, Tree
from flowdeck.workspace.writing import mapping

if TYPE_CHECKING:
    from flowdeck.workspace.manager import WorkspaceManager

__all__ = ["WorkspaceReader"]

_SEARCH_LIMIT: Final = 100


class WorkspaceReader:
    """What a workspace answers, also a read-only one."""

    _manager: WorkspaceManager
    _tree: Tree
    _events: WorkspaceEvents
    index: Index
    id: str
    root: Path

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
        opening = asyncio.ensure_future(asyncio.to_thread(located.workspace._open, located))
        try:
            fd = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise

        digest, size = hashlib.sha256(), 0
        with os.fdopen(fd, "rb", buffering=0) as file:
            while piece := await asyncio.to_thread(file.read, chunk_size):
                digest.update(piece)
                size += len(piece)
                yield piece

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
        labels = labels_of_filters(mapping("filters", filters))
        if query is not None and not isinstance(query, str):
            raise WorkspaceConfigurationError(f"search({query!r:.200}): expected a text or None")

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
        if not isinstance(goal, str):
            raise WorkspaceConfigurationError(f"build_context(goal={goal!r:.200}): expected a text")

        asked = mapping("scope", scope)
        context = await recall.build(self, chosen, profile, goal, asked, Budget.of(budget), budget)
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


def _close_opened(opening: asyncio.Future[int]) -> None:
    """Close a file whose reader has gone."""
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())
