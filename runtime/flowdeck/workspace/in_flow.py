"""A workspace as one chunk uses it: every call goes through the port ``workspace``, so that a tape can answer it.

    async def write_report(data):
        workspace = agent.workspace.within(data)
        report = await workspace.ingest(content=text, collection="artifacts", scope={"task_id": task_id})

In a replay nothing is written and nothing is read: refs, texts and contexts come from the recording. And a chunk that
runs again after a crash, or in another attempt, writes the same content once. Source: design §3, "Ports".
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowdeck.errors import WorkspaceContentError
from flowdeck.workspace.content import as_json

if TYPE_CHECKING:
    from flowdeck.execution.data import TriggerFlowRuntimeData

__all__ = ["PORT", "FlowWorkspace"]

PORT: Final = "workspace"
SHOWN: Final = 4096
"""Bytes of a content up to which a recording holds it among the arguments; above, its hash and size."""


class FlowWorkspace:
    """The calls of :class:`~flowdeck.workspace.workspace.Workspace`, made in the name of a chunk."""

    def __init__(self, workspace: Any, data: TriggerFlowRuntimeData) -> None:
        self._workspace = workspace
        self._data = data

    def __repr__(self) -> str:
        return f"{self._workspace!r} within {self._data.scope}"

    # -- writing -----------------------------------------------------------------------------------------------------

    async def ingest(self, *, content: Any, **labels: Any) -> dict[str, Any]:
        """Write a record by an ingestion profile; see :meth:`Workspace.ingest`."""
        return await self._written("ingest", content, labels, lambda given: {"content": content, **given})

    async def put(self, content: Any, **labels: Any) -> dict[str, Any]:
        """Write a record; see :meth:`Workspace.put`."""
        return await self._written("put", content, labels, lambda given: {"content": content, **given})

    async def checkpoint(self, run_id: str, state: Any, **labels: Any) -> dict[str, Any]:
        """Write a compact state to go on from; see :meth:`Workspace.checkpoint`."""
        labels = {"run_id": run_id, **labels}
        return await self._written("checkpoint", state, labels, lambda given: {"state": state, **given})

    async def _written(self, name: str, content: Any, labels: Mapping[str, Any], request: Any) -> dict[str, Any]:
        shown, digest = _shown(content)
        nth = self._data._count(f"w:{name}")
        given = dict(labels)
        if digest is not None and given.get("key") is None:  # another content is another record
            given["key"] = f"{self._data.idempotency_key}:{name}:{nth}:{digest}"

        function = getattr(self._workspace, name)
        made: dict[str, Any] = await self._data.call(
            PORT, name, lambda _: function(**request(given)), {"content": shown, **labels}
        )
        return made

    async def link(
        self, source: Any, target: Any, relation: str, meta: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Relate two records; see :meth:`Workspace.link`."""
        made: dict[str, Any] = await self._asked("link", source, target, relation, meta)
        return made

    # -- reading -----------------------------------------------------------------------------------------------------

    async def get(self, ref: Any) -> str:
        """Return a content as text; see :meth:`Workspace.get`."""
        text: str = await self._asked("get", ref)
        return text

    async def get_data(self, ref: Any) -> Any:
        """Return a content as it was given; see :meth:`Workspace.get_data`."""
        return await self._asked("get_data", ref)

    async def get_bytes(self, ref: Any) -> bytes:
        """Return a content whole; see :meth:`Workspace.get_bytes`."""
        content: bytes = await self._asked("get_bytes", ref)
        return content

    def stream(self, ref: Any) -> AsyncIterator[bytes]:
        """Yield a content piece by piece; see :meth:`Workspace.stream`. A recording holds all pieces."""
        return self._data.call_stream(PORT, "stream", self._workspace.stream, ref)

    async def record(self, ref: Any) -> dict[str, Any]:
        """Return a record itself; see :meth:`Workspace.record`."""
        found: dict[str, Any] = await self._asked("record", ref)
        return found

    async def search(self, query: str | None = None, filters: Any = None, **options: Any) -> list[dict[str, Any]]:
        """Return records that match; see :meth:`Workspace.search`."""
        found: list[dict[str, Any]] = await self._asked("search", query, filters, **options)
        return found

    async def links(self, ref_or_id: Any = None, **ends: Any) -> list[dict[str, Any]]:
        """Return links; see :meth:`Workspace.links`."""
        found: list[dict[str, Any]] = await self._asked("links", ref_or_id, **ends)
        return found

    async def latest_checkpoint(self, run_id: str) -> dict[str, Any] | None:
        """Return the newest checkpoint of a run; see :meth:`Workspace.latest_checkpoint`."""
        found: dict[str, Any] | None = await self._asked("latest_checkpoint", run_id)
        return found

    async def checkpoint_history(self, run_id: str, **options: Any) -> list[dict[str, Any]]:
        """Return a run's checkpoints; see :meth:`Workspace.checkpoint_history`."""
        found: list[dict[str, Any]] = await self._asked("checkpoint_history", run_id, **options)
        return found

    async def build_context(self, **request: Any) -> dict[str, Any]:
        """Pack what the workspace knows about a goal; see :meth:`Workspace.build_context`."""
        pack: dict[str, Any] = await self._asked("build_context", **request)
        return pack

    async def _asked(self, name: str, *values: Any, **options: Any) -> Any:
        function = getattr(self._workspace, name)
        if not options:
            return await self._data.call(PORT, name, function, *values)

        return await self._data.call(PORT, name, lambda *given: function(*given[:-1], **given[-1]), *values, options)


def _shown(content: Any) -> tuple[Any, str | None]:
    """Return how a recording names a content, and a digest of it unless it must be read to know it."""
    if isinstance(content, Path):
        return {"file": str(content)}, None

    if isinstance(content, str):
        data = content.encode("utf-8", "surrogatepass")
    elif isinstance(content, bytes | bytearray | memoryview):
        data = bytes(content)
    elif hasattr(content, "read") or hasattr(content, "__next__") or hasattr(content, "__aiter__"):
        return {"stream": type(content).__name__}, None
    else:
        try:
            data = as_json(content)
        except WorkspaceContentError:  # the workspace says so itself
            return {"value": type(content).__name__}, None

    digest = hashlib.sha256(data).hexdigest()
    return content if len(data) <= SHOWN else {"sha256": digest, "size": len(data)}, digest[:16]
