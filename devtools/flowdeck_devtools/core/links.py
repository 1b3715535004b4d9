"""What is stored of a run beside its events: checkpoints with their state, workspace records, artifacts, questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from flowdeck_devtools.core.opening import Link
from flowdeck_devtools.core.span import short_json
from flowdeck_devtools.core.text import clock_time
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.wire import decode

__all__ = ["Links", "links_of"]

MOST_LINKS = 500
_RECORDS = frozenset({"workspace.record_ingested", "workspace.checkpointed"})
_MARKS = (b"workspace.", b"artifact", b"interrupt_raised", b"$blob")


@dataclass(frozen=True, slots=True)
class Links:
    """Everything one can open from a run. Times are microseconds since the epoch."""

    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    state: Any = None
    """The state in the newest checkpoint; ``None`` where nothing is stored."""
    records: list[dict[str, Any]] = field(default_factory=list)
    relations: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    interrupts: list[dict[str, Any]] = field(default_factory=list)
    blobs: list[str] = field(default_factory=list)
    problem: str | None = None
    """Why the checkpoints could not be read."""

    def as_data(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def groups(self) -> list[tuple[str, list[tuple[str, Link | None]]]]:
        """Headings, each with a line for people and what it opens."""
        points: list[tuple[str, Link | None]] = [
            (_checkpoint(one), ("checkpoint", one.get("seq"))) for one in self.checkpoints
        ]
        if points:
            points.insert(0, ("snapshot: everything up to now", ("snapshot", None)))
        return [
            ("checkpoints", [(self.problem, None)] if self.problem else points),
            ("workspace records", [(_record(one), ("record", one)) for one in self.records]),
            ("workspace links", [(_relation(one), ("relation", one)) for one in self.relations]),
            ("artifacts", [(short_json(one, 300), ("artifact", one)) for one in self.artifacts]),
            ("questions", [(_question(one), ("question", one)) for one in self.interrupts]),
            ("large payloads", [(f"blobs/{one}", ("blob", one)) for one in self.blobs]),
        ]


def links_of(store: Path, execution_id: str | None, trace: Trace) -> Links:
    """Collect the links of a run from its events and from ``state.db``. Blocks on the disk."""
    links = Links()
    for line in _lines(trace):
        _collect(line, links)
    problem, state = None, None
    if execution_id is not None:
        problem, state = _stored(store, execution_id, links.checkpoints)
    return Links(
        links.checkpoints,
        state,
        links.records,
        links.relations,
        links.artifacts,
        links.interrupts,
        links.blobs,
        problem,
    )


def _lines(trace: Trace) -> Iterator[bytes]:
    return (line for line, _ in trace.lines_with(*_MARKS))


def _collect(line: bytes, links: Links) -> None:
    event = decode(line)
    payload = event.payload_map()
    if isinstance(blob := payload.get("$blob"), str) and blob not in links.blobs and len(links.blobs) < MOST_LINKS:
        links.blobs.append(blob)
    if event.event_type in _RECORDS and len(links.records) < MOST_LINKS:
        keys = ("record_id", "uri", "collection", "kind", "path", "size", "summary", "step_id")
        links.records.append({key: payload.get(key) for key in keys if payload.get(key) is not None})
    elif event.event_type == "workspace.linked" and len(links.relations) < MOST_LINKS:
        links.relations.append({key: payload.get(key) for key in ("source_id", "relation", "target_id")})
    elif event.event_type == "triggerflow.interrupt_raised" and len(links.interrupts) < MOST_LINKS:
        found = payload.get("interrupt")
        record: Mapping[str, Any] = found if isinstance(found, dict) else {}
        links.interrupts.append({key: record.get(key) for key in ("id", "type", "payload")})
    if b"artifact_ref" in line:
        for ref in _artifacts(event.payload):
            if ref not in links.artifacts and len(links.artifacts) < MOST_LINKS:
                links.artifacts.append(ref)


def _artifacts(payload: Any) -> Iterator[dict[str, Any]]:
    """Every ``artifact_ref`` and every member of ``artifact_refs`` within a payload."""
    stack, seen = [payload], 0
    while stack and seen < 10_000:
        value, seen = stack.pop(), seen + 1
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                if key == "artifact_ref" and isinstance(inner, dict | str):
                    yield inner if isinstance(inner, dict) else {"artifact_ref": inner}
                elif key == "artifact_refs" and isinstance(inner, list):
                    yield from (one if isinstance(one, dict) else {"artifact_ref": one} for one in inner)
                elif isinstance(inner, dict | list):
                    stack.append(inner)


def _stored(store: Path, execution_id: str, checkpoints: list[dict[str, Any]]) -> tuple[str | None, Any]:
    from flowdeck.durable import ControlClient
    from flowdeck.errors import FlowdeckError
    from flowdeck.layout import StoreError

    try:
        with ControlClient(store) as client:
            if client.durable_info(execution_id) is None:
                return None, None
            checkpoints += [msgspec.to_builtins(point) for point in client.history(execution_id)[-MOST_LINKS:]]
            return None, client.stored_state(execution_id).get("runtime_data") if checkpoints else None
    except (FlowdeckError, StoreError, OSError, LookupError, ValueError) as error:
        return str(error).partition("\n")[0], None


def _checkpoint(point: Mapping[str, Any]) -> str:
    at = point.get("time_us")
    return f"{point.get('seq')} inputs  {clock_time(at) if isinstance(at, int) else '–'}"


def _question(one: Mapping[str, Any]) -> str:
    return f"{one['id']}  {one['type']}  {short_json(one['payload'], 200)}"


def _record(record: Mapping[str, Any]) -> str:
    return f"{record.get('uri') or record.get('record_id')}  {record.get('kind') or ''}  {record.get('summary') or ''}"


def _relation(link: Mapping[str, Any]) -> str:
    return f"{link['source_id']} {link['relation']} {link['target_id']}"
