"""The audit: what in a workspace cannot be trusted as it stands. Source: seed 001, acceptance questions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from flowdeck.errors import WorkspaceError
from flowdeck.workspace.content import read_chunks
from flowdeck.workspace.index import Index
from flowdeck.workspace.tree import CONTENT, Tree

__all__ = ["audit"]


def audit(tree: Tree, index: Index, collection: str | None, verify: bool) -> Iterator[dict[str, Any]]:
    """Yield a finding for every record or link with a problem: ``{"id", "collection", "kind", "summary", "problems"}``.

    Problems of a record: ``no source``, ``no summary`` (nobody gave one), ``no scope``, ``no link``; with ``verify``
    also ``content missing`` and ``content changed``. A link's: ``no such source``, ``no such target``. Contents no
    record has are found, too. All records and links are checked, the first four in ``collection`` only.
    """
    paths: set[str] = set()
    ids: set[str] = set()
    for record, own_summary, linked in index.everything():
        ids.add(record["id"])
        paths.add(record["path"])
        problems: list[str] = []
        if collection is None or record["collection"] == collection:
            missing = (
                ("source", bool(record["source"])),
                ("summary", own_summary),
                ("scope", bool(record["scope"])),
                ("link", linked),
            )
            problems += [f"no {name}" for name, there in missing if not there]

        if verify:
            problems += _content_problems(tree, record)

        if problems:
            yield {**{key: record[key] for key in ("id", "collection", "kind", "summary")}, "problems": problems}

    for link in index.links():
        problems = [f"no such {end}" for end in ("source", "target") if link[f"{end}_id"] not in ids]
        if problems:
            told = f"{link['source_id']} {link['relation']} {link['target_id']}"
            yield {"id": link["id"], "collection": "", "kind": "link", "summary": told, "problems": problems}

    for path in tree.orphans(paths):
        yield {"id": "", "collection": path.partition("/")[0], "kind": "", "summary": path, "problems": ["no record"]}


def _content_problems(tree: Tree, record: dict[str, Any]) -> list[str]:
    digest = hashlib.sha256()
    try:
        for piece in read_chunks(tree.open_file(CONTENT, record["path"])):
            digest.update(piece)
    except (WorkspaceError, OSError):
        return ["content missing"]

    return [] if digest.hexdigest() == record["sha256"] else ["content changed"]
