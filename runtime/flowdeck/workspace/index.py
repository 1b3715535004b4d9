"""The database of a workspace: records, links, checkpoints and the full-text index, in SQLite.

Several processes may use it at once. A commit survives a kill at once and a power cut after the next checkpoint, which
is written through to the disk (:meth:`Index.insert` with ``durable``).

What can be filtered by (collection, kind, scope and meta values) stands as tokens in a second column of the full-text
index: so a filter, a search and both together are one look into one index, newest first, and end as soon as enough is
found.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from flowdeck.errors import WorkspaceConfigurationError, WorkspaceError
from flowdeck.workspace.tree import Tree, slug

__all__ = ["Index", "label", "labels_of", "labels_of_filters"]

VERSION: Final = 1
_BUSY_S: Final = 15.0
_LOG_PAGES: Final = 4000
"""Pages in the log (16 MB) before SQLite moves them into the file, which waits for the disk."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, collection TEXT NOT NULL, kind TEXT NOT NULL,
    path TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL, summary TEXT NOT NULL,
    own_summary INTEGER NOT NULL, scope TEXT NOT NULL, source TEXT NOT NULL, created_at TEXT NOT NULL,
    meta TEXT NOT NULL, key TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS records_key ON records (key) WHERE key IS NOT NULL;
CREATE TABLE IF NOT EXISTS links (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, source_id TEXT NOT NULL, target_id TEXT NOT NULL,
    relation TEXT NOT NULL, created_at TEXT NOT NULL, meta TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS links_source ON links (source_id);
CREATE INDEX IF NOT EXISTS links_target ON links (target_id);
CREATE TABLE IF NOT EXISTS checkpoints (
    record INTEGER PRIMARY KEY REFERENCES records (number), run_id TEXT NOT NULL, step_id TEXT
);
CREATE INDEX IF NOT EXISTS checkpoints_run ON checkpoints (run_id, record);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(labels, body, content='', tokenize="unicode61 remove_diacritics 2");
"""
_COLUMNS: Final = "id, collection, kind, path, sha256, size, summary, scope, source, created_at, meta"
_ORDER: Final = (
    "id", "collection", "kind", "path", "sha256", "size", "summary", "own_summary", "scope", "source", "created_at",
    "meta", "key",
)  # fmt: skip
_INSERT: Final = f"INSERT INTO records ({', '.join(_ORDER)}) VALUES ({', '.join('?' * len(_ORDER))})"


def label(name: str, value: Any) -> str:
    """Return the token that stands for ``name`` having ``value``."""
    text = json.dumps([name, value], ensure_ascii=True, sort_keys=True, default=str)
    return "l" + hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def labels_of(collection: str, kind: str, scope: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """Return all tokens of a record."""
    pairs = [("collection", collection), ("kind", kind)]
    pairs += [(f"scope.{key}", value) for key, value in scope.items()]
    pairs += [(f"meta.{key}", value) for key, value in meta.items()]
    return " ".join(label(name, value) for name, value in pairs)


def labels_of_filters(filters: Mapping[str, Any]) -> list[str]:
    """Return the tokens a record must have: equal ``collection``, ``kind``, ``scope.<key>``, ``meta.<key>``.

    Raises:
        WorkspaceConfigurationError: a filter by something else.
    """
    out: list[str] = []
    for name, value in filters.items():
        if name not in ("collection", "kind") and not name.startswith(("scope.", "meta.")):
            raise WorkspaceConfigurationError(f"filter {name!r}: expected collection, kind, scope.<key> or meta.<key>")

        out.append(label(name, slug(str(value), "records") if name == "collection" else value))

    return out


class Index:
    """One open database. Its methods block; call them in a worker thread.

    Raises:
        WorkspaceConfigurationError: it cannot be opened, or this SQLite has no full-text search.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = self._open()

    def close(self) -> None:
        """Close the connection; using the index again opens a new one."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None:
            self.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def insert(
        self, row: Mapping[str, Any], words: str, labels: str, *, run: tuple[str, str | None] | None, durable: bool
    ) -> bool:
        """Add a record. Returns ``False``, and adds nothing, when there is one of its key.

        Args:
            run: run id and step id of a checkpoint.
            durable: return when it is on the disk itself, with everything before it.
        """
        with self._writing(durable) as connection:
            try:
                number = connection.execute(_INSERT, [row[name] for name in _ORDER]).lastrowid
            except sqlite3.IntegrityError:
                if row["key"] is not None and self._by_key(connection, row["key"]) is not None:
                    return False

                raise

            connection.execute("INSERT INTO words (rowid, labels, body) VALUES (?, ?, ?)", (number, labels, words))
            if run is not None:
                connection.execute("INSERT INTO checkpoints VALUES (?, ?, ?)", (number, *run))

        return True

    def insert_link(self, row: Sequence[Any]) -> None:
        """Add a link: id, source, target, relation, created_at, meta."""
        with self._writing(False) as connection:
            connection.execute(
                "INSERT INTO links (id, source_id, target_id, relation, created_at, meta) VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )

    # -- reading -----------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Return how many records there are."""
        return int(self._ask("SELECT count(*) FROM records")[0][0])

    def newest(self) -> int:
        """Return the number of the newest record, 0 for none."""
        return int(self._ask("SELECT coalesce(max(number), 0) FROM records")[0][0])

    def record(self, id_or_path: str) -> dict[str, Any] | None:
        """Return a record by its id or path, whose file name begins with the id."""
        is_path = "/" in id_or_path
        record_id = id_or_path.rpartition("/")[2].partition("-")[0] if is_path else id_or_path
        found = self._ask(f"SELECT {_COLUMNS} FROM records WHERE id = ?", (record_id,))
        record = self._record(found[0]) if found else None
        return None if record is None or (is_path and record["path"] != id_or_path) else record

    def by_key(self, key: str) -> dict[str, Any] | None:
        """Return the record that was ingested under an idempotency key."""
        with self._lock:
            return self._by_key(self._live(), key)

    def records(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return records by their numbers, in that order."""
        found: dict[int, dict[str, Any]] = {}
        for start in range(0, len(numbers), 500):
            some = numbers[start : start + 500]
            marks = ", ".join("?" * len(some))
            for number, *row in self._ask(f"SELECT number, {_COLUMNS} FROM records WHERE number IN ({marks})", some):
                found[number] = self._record(row)

        return [found[number] for number in numbers if number in found]

    def numbers(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the numbers of records by id."""
        wanted = list(ids)
        found: dict[str, int] = {}
        for start in range(0, len(wanted), 500):
            some = wanted[start : start + 500]
            found.update(self._ask(f"SELECT id, number FROM records WHERE id IN ({', '.join('?' * len(some))})", some))

        return found

    def match(self, words: str | None, labels: Sequence[str], limit: int, *, ranked: bool = False) -> list[int]:
        """Return the numbers of records with all ``labels`` that match ``words``.

        Args:
            words: a full-text expression of :mod:`flowdeck.workspace.text`.
            limit: how many at most; the newest, or with ``ranked`` the best by BM25.
        """
        parts = [f'labels : "{each}"' for each in labels]
        if words is not None:
            parts.append(f"body : ({words})")

        if not parts:
            return [row[0] for row in self._ask("SELECT number FROM records ORDER BY number DESC LIMIT ?", (limit,))]

        order = "bm25(words, 0.0, 1.0), rowid DESC" if ranked else "rowid DESC"
        sql = f"SELECT rowid FROM words WHERE words MATCH ? ORDER BY {order} LIMIT ?"
        return [row[0] for row in self._ask(sql, (" AND ".join(parts), limit))]

    def summaries_with(self, text: str, labels: Sequence[str], limit: int) -> list[int]:
        """Return the newest records whose summary holds ``text``, whatever characters it has."""
        pattern = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        allowed = set(self.match(None, labels, 1_000_000)) if labels else None
        sql = "SELECT number FROM records WHERE summary LIKE ? ESCAPE '\\' ORDER BY number DESC"
        found = (row[0] for row in self._ask(sql, (pattern,)))
        return [number for number in found if allowed is None or number in allowed][:limit]

    def links(self, **ends: str | None) -> list[dict[str, Any]]:
        """Return links, oldest first, by ``either`` end, ``source``, ``target`` and ``relation``."""
        wheres = {
            "either": "(source_id = ? OR target_id = ?)",
            "source": "source_id = ?",
            "target": "target_id = ?",
            "relation": "relation = ?",
        }
        given = {name: value for name, value in ends.items() if value is not None}
        values = [v for name, value in given.items() for v in ([value, value] if name == "either" else [value])]
        where = " AND ".join(wheres[name] for name in given) or "1"
        sql = f"SELECT id, source_id, target_id, relation, created_at, meta FROM links WHERE {where} ORDER BY number"
        names = ("id", "source_id", "target_id", "relation", "created_at", "meta")
        return [{**dict(zip(names, row, strict=True)), "meta": json.loads(row[-1])} for row in self._ask(sql, values)]

    def checkpoints(self, run_id: str, step_id: str | None, limit: int) -> list[dict[str, Any]]:
        """Return a run's checkpoints, newest first."""
        sql = f"SELECT {_COLUMNS} FROM checkpoints JOIN records ON number = record WHERE run_id = ?"
        step = "" if step_id is None else " AND step_id = ?"
        values = [run_id, *([] if step_id is None else [step_id]), limit]
        return list(map(self._record, self._ask(f"{sql}{step} ORDER BY record DESC LIMIT ?", values)))

    def everything(self, collection: str | None = None) -> Iterator[tuple[dict[str, Any], bool, bool]]:
        """Yield every record, oldest first, with whether its summary was given and whether a link touches it."""
        sql = f"""SELECT {_COLUMNS}, own_summary, number,
            EXISTS (SELECT 1 FROM links WHERE source_id = records.id OR target_id = records.id)
            FROM records WHERE number > ? AND (?2 IS NULL OR collection = ?2) ORDER BY number LIMIT 1000"""
        after = 0
        while page := self._ask(sql, (after, collection)):
            for *row, own, number, linked in page:
                after = number
                yield self._record(row), bool(own), bool(linked)

    # -- the connection ----------------------------------------------------------------------------------------------

    def _record(self, row: Sequence[Any]) -> dict[str, Any]:
        id_, collection, kind, path, sha256, size, summary, scope, source, created_at, meta = row
        return {
            "id": id_,
            "collection": collection,
            "kind": kind,
            "path": path,
            "sha256": sha256,
            "size": size,
            "summary": summary,
            "scope": json.loads(scope),
            "source": json.loads(source),
            "created_at": created_at,
            "meta": json.loads(meta),
            "uri": f"workspace://{self._tree.id}/{id_}",
        }

    def _by_key(self, connection: sqlite3.Connection, key: str) -> dict[str, Any] | None:
        row = connection.execute(f"SELECT {_COLUMNS} FROM records WHERE key = ?", (key,)).fetchone()
        return None if row is None else self._record(row)

    def _ask(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._live().execute(sql, values).fetchall()
            except sqlite3.Error as problem:
                raise WorkspaceError(f"{self._tree.database}: {problem}") from problem

    @contextmanager
    def _writing(self, durable: bool) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._live()
            try:
                if durable:
                    connection.execute("PRAGMA synchronous = FULL")

                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")

                    raise
                finally:
                    if durable:
                        connection.execute("PRAGMA synchronous = NORMAL")
            except sqlite3.Error as problem:
                raise WorkspaceError(f"{self._tree.database}: {problem}") from problem

    def _live(self) -> sqlite3.Connection:
        if self._connection is None or self._pid != os.getpid():
            # A child of a fork must not touch the parent's connection, nor close it.
            self._connection = self._open()
            self._pid = os.getpid()

        return self._connection

    def _open(self) -> sqlite3.Connection:
        path = self._tree.database
        try:
            connection = _read_only(path) if self._tree.read_only else _writable(path)
        except (sqlite3.Error, OSError) as problem:
            if "fts5" in str(problem):
                raise WorkspaceConfigurationError(
                    "this Python's SQLite has no full-text search (FTS5), which workspaces need; "
                    "use a Python from python.org, uv, conda or your distribution"
                ) from None

            raise WorkspaceConfigurationError(f"{path} cannot be opened: {problem}") from problem

        return connection


def _writable(path: Path) -> sqlite3.Connection:
    # Made by us, so that it and what SQLite puts beside it are the owner's alone, and no link is followed.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    _check_version(path, version)
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

    return connection


def _read_only(path: Path) -> sqlite3.Connection:
    options: Any = {"timeout": _BUSY_S, "isolation_level": None, "check_same_thread": False, "uri": True}
    address = path.absolute().as_uri()
    connection: sqlite3.Connection
    try:
        connection = sqlite3.connect(f"{address}?mode=ro", **options)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.OperationalError:
        wal = path.with_name(path.name + "-wal")
        if not path.exists() or (wal.exists() and wal.stat().st_size):
            raise

        # On a read-only disk SQLite cannot make its shared memory; with nothing in the log the file is all there is.
        connection = sqlite3.connect(f"{address}?mode=ro&immutable=1", **options)
        version = connection.execute("PRAGMA user_version").fetchone()[0]

    _check_version(path, version)
    return connection


def _check_version(path: Path, version: int) -> None:
    if version > VERSION:
        raise WorkspaceConfigurationError(f"{path}: version {version}; this version of Flowdeck reads {VERSION}")
