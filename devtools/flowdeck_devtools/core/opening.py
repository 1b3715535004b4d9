"""What lies behind a link of a run: a snapshot, a checkpoint, a workspace record, an artifact, a large payload."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from flowdeck_devtools.core.facts import Section
from flowdeck_devtools.core.text import clean, size

__all__ = ["Link", "open_link"]

Link = tuple[str, Any]
"""What kind of link, and what names it."""
MOST_BYTES = 256 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")


def open_link(store: Path, execution_id: str | None, link: Link) -> list[Section]:
    """What is behind a link, for a viewer. Reads files; whatever is not there is said in words.

    Raises:
        Exception: whatever a store or a workspace says.
    """
    kind, what = link
    match kind:
        case "checkpoint" | "snapshot":
            return _checkpoint(store, execution_id or "", what)
        case "record":
            return _record(store, str(what.get("uri") or what.get("record_id") or ""), what)
        case "relation":
            return [
                *_record(store, str(what["target_id"]), what),
                ("", None, "dim"),
                ("the link itself", what, "title"),
            ]
        case "artifact":
            return _artifact(store, what)
        case "blob":
            name = Path(str(what)).name  # an event may say anything: nothing outside the folder is opened
            return _content(store / "blobs" / name, f"blobs/{name}")
    return [("", what, "title")]


def _checkpoint(store: Path, execution_id: str, at: int | None) -> list[Section]:
    from flowdeck.durable import ControlClient

    with ControlClient(store) as client:
        saved = client.stored_state(execution_id, at)
    name = "snapshot" if at is None else f"checkpoint after {at} inputs"
    rest = {key: value for key, value in saved.items() if key != "runtime_data"}
    return [(name, None, "strong"), ("state", saved.get("runtime_data"), "title"), ("as it is saved", rest, "title")]


def _record(store: Path, ref: str, known: Mapping[str, Any]) -> list[Section]:
    from flowdeck.errors import WorkspaceError
    from flowdeck.workspace import WorkspaceManager

    for root in _workspaces(store, known):
        try:
            opened = WorkspaceManager().create(root, create=False, mode="read_only")
            record = asyncio.run(opened.record(ref))
            links = asyncio.run(opened.links(record))
            text, cut = opened.excerpt(record, MOST_BYTES)
        except (WorkspaceError, OSError):
            continue
        sections: list[Section] = [(ref, None, "strong"), ("", record, "title")]
        if links:
            sections.append(("links", links, "title"))
        return [*sections, (f"content{' (its beginning)' if cut else ''}", _parsed(text), "title")]
    where = "set FLOWDECK_WORKSPACE to its directory to read the content"
    return [
        (ref, None, "strong"),
        ("", dict(known), "title"),
        (f"no workspace here holds it: {where}", None, "waiting"),
    ]


def _workspaces(store: Path, known: Mapping[str, Any]) -> Iterator[Path]:
    """Where the workspace may be: what the event names, the environment, here, beside the store."""
    places = [known.get("root"), os.environ.get("FLOWDECK_WORKSPACE"), ".", store.parent, store.parent / "workspace"]
    for place in dict.fromkeys(str(Path(one).expanduser().absolute()) for one in places if one):
        if (Path(place) / "workspace.meta.json").exists():
            yield Path(place)


def _artifact(store: Path, what: Any) -> list[Section]:
    ref = what if isinstance(what, str) else next((str(what[key]) for key in _REFS if what.get(key)), "")
    digest = _DIGEST.search(ref)
    for folder in ("artifacts", "blobs"):
        if digest is not None and (store / folder / digest[0]).is_file():
            return [("", what, "title"), *_content(store / folder / digest[0], ref)]
    path = Path(ref.removeprefix("file://"))
    if ref and "://" not in ref.removeprefix("file://") and path.is_file():
        return [("", what, "title"), *_content(path, ref)]
    if ref:
        found = _record(store, ref, what if isinstance(what, dict) else {"artifact_ref": ref})
        if len(found) != 3:
            return found
    where = "its content was kept by the process that made it, not in this store"
    return [(clean(ref, limit=200) or "artifact", None, "strong"), ("", what, "title"), (where, None, "waiting")]


_REFS = ("artifact_ref", "ref", "uri", "path", "id")


def _content(path: Path, name: str) -> list[Section]:
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    whole = path.stat().st_size
    note = f"{name}  {size(whole)}" + ("  (its beginning)" if len(data) > MOST_BYTES else "")
    return [
        (clean(note, limit=200), None, "strong"),
        ("", _parsed(data[:MOST_BYTES].decode("utf-8", "replace")), "title"),
    ]


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogatepass"))
    except (msgspec.MsgspecError, RecursionError):
        return text
