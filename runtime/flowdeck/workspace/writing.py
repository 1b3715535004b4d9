"""How a record is written: the content first, then its place, then one row; so every record has its content."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from flowdeck.errors import WorkspaceContentError
from flowdeck.events.ids import new_id
from flowdeck.workspace import content
from flowdeck.workspace.index import Index, labels_of
from flowdeck.workspace.observed import WorkspaceEvents
from flowdeck.workspace.tree import Tree, slug

__all__ = ["Writer", "json_text", "mapping", "now"]

_SUMMARY_CHARS: Final = 240
_UNSYNCED_LIMIT: Final = 4096
_ORDER: Final = (
    "id", "collection", "kind", "path", "sha256", "size", "summary", "scope", "source", "created_at", "meta",
)  # fmt: skip
_TOLD: Final = ("uri", "collection", "kind", "path", "size", "sha256", "summary", "scope", "source")


class Writer:
    """Writes the records of one workspace."""

    def __init__(self, tree: Tree, index: Index, events: WorkspaceEvents) -> None:
        self._tree = tree
        self._index = index
        self._events = events
        self._unsynced: list[str] = []

    async def write(
        self,
        body: Any,
        collection: str,
        kind: str | None,
        meta: Mapping[str, Any] | None,
        summary: str | None,
        scope: Mapping[str, Any] | None,
        source: Mapping[str, Any] | str | None,
        key: str | None,
        run: tuple[str, str | None] | None = None,
    ) -> dict[str, Any]:
        """Write a record; see :meth:`Workspace.put`. ``run`` has run and step id of a checkpoint."""
        began = time.perf_counter_ns()
        record: dict[str, Any] = {
            "id": f"rec_{new_id()}",
            "collection": slug(str(collection), "records"),
            "kind": str(kind or "record"),
            "scope": mapping("scope", scope),
            "source": {"name": source} if isinstance(source, str) else mapping("source", source),
            "created_at": now(),
            "meta": mapping("meta", meta),
        }
        texts = {name: json_text(name, record[name]) for name in ("scope", "source", "meta")}
        known = None if key is None else await asyncio.to_thread(self._index.by_key, key)
        if known is not None:
            return known

        if content.is_asynchronous(body):
            stored = await content.store_stream(self._tree, body)
            written = await asyncio.to_thread(self._settle, record, stored, texts, summary, key, run)
        else:
            written = await asyncio.to_thread(
                lambda: self._settle(record, content.store(self._tree, body), texts, summary, key, run)
            )

        took = (time.perf_counter_ns() - began) // 1000
        if run is not None:
            payload = {"record_id": written["id"], "uri": written["uri"], "size": written["size"]}
            self._events.emit("checkpointed", {**payload, "run_id": run[0], "step_id": run[1]}, duration_us=took)
        elif written["id"] == record["id"]:
            payload = {"record_id": written["id"], **{name: written[name] for name in _TOLD}}
            self._events.emit("record_ingested", payload, duration_us=took)

        return written

    def _settle(
        self,
        record: dict[str, Any],
        stored: content.Stored,
        texts: Mapping[str, str],
        summary: str | None,
        key: str | None,
        run: tuple[str, str | None] | None,
    ) -> dict[str, Any]:
        """Give a stored content its place and its record."""
        try:
            path = f"{record['collection']}/{record['id']}-{slug(record['kind'])}{stored.suffix}"
            with self._tree.writing():
                self._tree.settle_incoming(stored.name, path)
        except BaseException:
            self._tree.drop_incoming(stored.name)
            raise

        told = summary if summary is not None else content.head_text(stored)[:_SUMMARY_CHARS].strip()
        record |= {"path": path, "sha256": stored.sha256, "size": stored.size, "summary": told}
        row = {**record, **texts, "own_summary": int(bool(summary)), "key": key}
        labels = labels_of(record["collection"], record["kind"], record["scope"], record["meta"])
        self._unsynced.append(path)
        if run is not None or len(self._unsynced) > _UNSYNCED_LIMIT:
            waiting, self._unsynced = self._unsynced, []
            with self._tree.writing():
                self._tree.sync(waiting)

        if not self._index.insert(
            row, content.words_of(stored, record["kind"], told), labels, run=run, durable=run is not None
        ):
            self._tree.remove(path)
            first = self._index.by_key(key or "")
            assert first is not None
            return first

        return {**{name: record[name] for name in _ORDER}, "uri": f"workspace://{self._tree.id}/{record['id']}"}


def mapping(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return labels as a dict of their own.

    Raises:
        WorkspaceContentError: they are no mapping.
    """
    if value is not None and not isinstance(value, Mapping):
        raise WorkspaceContentError(f"{name} must be a mapping such as {{'task_id': …}}, got {value!r:.200}")

    return dict(value or {})


def json_text(name: str, value: Mapping[str, Any]) -> str:
    """Return a label as JSON.

    Raises:
        WorkspaceContentError: it holds something else.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as problem:
        raise WorkspaceContentError(f"{name} must be JSON: {problem}") from None


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
