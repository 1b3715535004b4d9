"""Commits of durable executions on their way into PostgreSQL.

All that is ready is one statement, whatever the number of executions: their rows are advanced where token and sequence
are those the commit names, and only what was advanced is written. That is the fence; under READ COMMITTED a row that
somebody is just claiming is waited for and looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowdeck.durable._commits import refusal
from flowdeck.execution.store import Commit

if TYPE_CHECKING:
    from flowdeck.durable.postgres.link import Session

__all__ = ["write_commits"]

_ADVANCE: Final = """
    WITH told AS MATERIALIZED (
        SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[], %s::bigint[],
            %s::smallint[], %s::bytea[]) AS t(id, token, seq, count, parked, wake_us, finished, body)
    ), advanced AS (
        UPDATE durable d SET seq = t.seq + t.count, parked = t.parked, wake_us = t.wake_us, finished = t.finished
        FROM told t WHERE d.execution_id = t.id AND d.token = t.token AND d.seq = t.seq
        RETURNING d.key, d.execution_id
    ), written AS (
        INSERT INTO inputs (key, first, count, body)
        SELECT a.key, t.seq, t.count, t.body FROM advanced a JOIN told t ON t.id = a.execution_id WHERE t.count > 0
    )
    SELECT execution_id, key FROM advanced
"""

_CREATE: Final = """
    WITH told AS MATERIALIZED (
        SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::smallint[], %s::bigint[], %s::smallint[],
            %s::bytea[], %s::text[], %s::bytea[])
            AS t(id, token, count, parked, wake_us, finished, body, definition, header)
    ), begun AS (
        INSERT INTO durable (execution_id, token, seq, parked, wake_us, finished)
        SELECT id, token, count, parked, wake_us, finished FROM told ORDER BY id
        ON CONFLICT (execution_id) DO NOTHING RETURNING key, execution_id
    ), headed AS (
        INSERT INTO headers (key, definition, body)
        SELECT b.key, t.definition, t.header FROM begun b JOIN told t ON t.id = b.execution_id
    ), written AS (
        INSERT INTO inputs (key, first, count, body)
        SELECT b.key, 0, t.count, t.body FROM begun b JOIN told t ON t.id = b.execution_id WHERE t.count > 0
    )
    SELECT execution_id, key FROM begun
"""

_DEFINE: Final = """
    INSERT INTO definitions (digest, body) SELECT * FROM unnest(%s::text[], %s::bytea[]) ON CONFLICT DO NOTHING
"""
_KEYS: Final = "UPDATE durable SET resource_keys = %s WHERE key = %s"
_FORGET_SNAPSHOTS: Final = "DELETE FROM snapshots WHERE key = ANY(%s::bigint[]) AND base = 0"
_SNAPSHOT: Final = """
    INSERT INTO snapshots (key, seq, base, definition, body) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (key, seq) DO UPDATE SET base = excluded.base, definition = excluded.definition, body = excluded.body
"""


class _Chain:
    """Commits of one execution that continue each other; to the store they are one."""

    __slots__ = ("body", "commits", "count", "places")

    def __init__(self, commit: Commit, place: int) -> None:
        self.commits: list[Commit] = []
        self.places: list[int] = []
        self.body: list[bytes] = []
        self.count = 0
        self.add(commit, place)

    def add(self, commit: Commit, place: int) -> None:
        self.commits.append(commit)
        self.places.append(place)
        if commit.count:
            self.count += commit.count
            self.body += (len(commit.body).to_bytes(4, "big"), commit.body)

    def continued_by(self, commit: Commit) -> bool:
        last = self.commits[-1]
        return commit.header is None and commit.token == last.token and commit.seq == last.seq + last.count


def write_commits(session: Session, commits: Sequence[Commit]) -> dict[int, Exception]:
    """Write commits inside the caller's transaction. Returns why some were refused, by their place.

    A refused one leaves nothing, and later ones of the same execution are refused with it.
    """
    refused: dict[int, Exception] = {}
    chains: dict[str, _Chain] = {}
    broken: set[str] = set()
    for place, commit in enumerate(commits):
        chain = chains.get(commit.execution_id)
        if commit.execution_id in broken:
            refused[place] = refusal(commit)
        elif chain is None:
            chains[commit.execution_id] = _Chain(commit, place)
        elif chain.continued_by(commit):
            chain.add(commit, place)
        else:
            broken.add(commit.execution_id)
            refused[place] = refusal(commit)

    definitions = {digest: body for commit in commits for digest, body in commit.definitions}
    if definitions:
        digests = sorted(definitions)  # one order for all processes: none waits for one that waits for it
        session.ask(_DEFINE, (digests, [definitions[digest] for digest in digests]))

    keys = _begin(session, [c for c in chains.values() if c.commits[0].header is not None])
    keys |= _advance(session, [c for c in chains.values() if c.commits[0].header is None])
    for name, chain in chains.items():
        if name not in keys:
            refused.update((place, refusal(commit)) for place, commit in zip(chain.places, chain.commits, strict=True))

    _seldom(session, chains, keys)
    return refused


def _begin(session: Session, chains: list[_Chain]) -> dict[str, int]:
    if not chains:
        return {}

    firsts, lasts = [c.commits[0] for c in chains], [c.commits[-1] for c in chains]
    cursor = session.ask(
        _CREATE,
        (
            [f.execution_id for f in firsts],
            [f.token for f in firsts],
            [c.count for c in chains],
            [int(last.parked) for last in lasts],
            [last.wake_us for last in lasts],
            [int(last.finished) for last in lasts],
            [b"".join(c.body) for c in chains],
            [f.definition for f in firsts],
            [f.header for f in firsts],
        ),
    )
    return dict(cursor.fetchall())


def _advance(session: Session, chains: list[_Chain]) -> dict[str, int]:
    if not chains:
        return {}

    chains.sort(key=lambda chain: chain.commits[0].execution_id)
    firsts, lasts = [c.commits[0] for c in chains], [c.commits[-1] for c in chains]
    cursor = session.ask(
        _ADVANCE,
        (
            [f.execution_id for f in firsts],
            [f.token for f in firsts],
            [f.seq for f in firsts],
            [c.count for c in chains],
            [int(last.parked) for last in lasts],
            [last.wake_us for last in lasts],
            [int(last.finished) for last in lasts],
            [b"".join(c.body) for c in chains],
        ),
    )
    return dict(cursor.fetchall())


def _seldom(session: Session, chains: dict[str, _Chain], keys: dict[str, int]) -> None:
    """Write what few commits carry: names of resources, snapshots. An ended one needs no temporary snapshot."""
    outdated: list[int] = []
    resources: list[tuple[str, int]] = []
    snapshots: list[tuple[Any, ...]] = []
    for name, key in keys.items():
        kept: dict[int, tuple[Any, ...]] = {}
        for commit in chains[name].commits:
            if commit.resource_keys is not None:
                resources.append((msgspec.json.encode(commit.resource_keys).decode(), key))

            if commit.snapshot is not None:
                kept = {seq: row for seq, row in kept.items() if row[2]}
                seq = commit.seq + commit.count
                kept[seq] = (key, seq, int(commit.base), commit.definition, commit.snapshot)

            if commit.finished:
                kept = {seq: row for seq, row in kept.items() if row[2]}

            if commit.snapshot is not None or commit.finished:
                outdated.append(key)

        snapshots += kept.values()

    if resources:
        session.each(_KEYS, resources)

    if outdated:
        session.ask(_FORGET_SNAPSHOTS, (outdated,))

    if snapshots:
        session.each(_SNAPSHOT, snapshots)
