"""Which SQL is run over a store: what reads, and what changes nothing but the connection's own memory.

DuckDB itself, locked down, refuses files outside the store, extensions and settings. Inside the store's directory it
would still let ``COPY`` and ``ATTACH`` write and, before 2.0, a table function log to files. So every statement is
looked at before it runs.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

from flowdeck.errors import FlowdeckError

__all__ = ["HARMLESS", "QUERIES", "QueryRefused", "check"]

QUERIES: Final = frozenset({"SELECT", "EXPLAIN"})
HARMLESS: Final = QUERIES | {
    "CREATE", "CREATE_FUNC", "INSERT", "UPDATE", "DELETE", "MERGE_INTO", "DROP", "ALTER", "TRANSACTION", "ANALYZE",
    "VACUUM", "VARIABLE_SET",
}  # fmt: skip
"""Statements that reach no further than the connection's own memory."""

_QUERY_WORDS: Final = frozenset({"select", "from", "with", "values", "pivot", "unpivot", "table", "describe", "show"})
_EXPLAIN: Final = re.compile(r"\s*explain\s+(analyze\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)
_COMMENT: Final = re.compile(r"\A(\s+|--[^\n]*(\n|\Z)|/\*.*?\*/)+", re.DOTALL)
# enable_logging writes files; query() runs SQL made of pieces, in which nobody would find that name.
_FUNCTION: Final = re.compile(
    r"\b(enable_logging\b|query\"?(\s|--[^\n]*(\n|\Z)|/\*.*?\*/)*\()", re.IGNORECASE | re.DOTALL
)


class QueryRefused(FlowdeckError, ValueError):
    """The SQL does more than read."""


def check(connection: Any, sql: str, allowed: Collection[str]) -> None:
    """Refuse SQL whose statements are not all of the ``allowed`` kinds (:data:`QUERIES` or :data:`HARMLESS`).

    Args:
        connection: Any DuckDB connection; it parses.
        sql: The text as it will be run. Of queries there may be one, of the others several.
        allowed: Kinds of statements, as DuckDB names them.

    Raises:
        QueryRefused: It does more; the message names the mend.
        duckdb.ParserException: It is no SQL.
    """
    statements = connection.extract_statements(sql)
    kinds = [statement.type.name for statement in statements]
    text = _COMMENT.sub("", sql)
    word = text.lstrip("( ").split(None, 1)[0].lower() if text.strip() else ""
    if _FUNCTION.search(sql):
        raise QueryRefused("The functions query() and enable_logging() are not run here: write the SQL out instead.")

    # PIVOT is several statements within; the text is one and begins with a word of its own.
    pivots = _QUERY_WORDS if allowed is QUERIES else _QUERY_WORDS | {"create", "insert"}
    if kinds in (["MULTI"], ["CREATE", "SELECT"]) and word in pivots:
        return

    if len(kinds) > 1 and allowed is not QUERIES:
        for statement in statements:
            check(connection, statement.query, allowed)
        return

    if kinds == ["EXPLAIN"]:
        # EXPLAIN ANALYZE runs what it explains.
        check(connection, _EXPLAIN.sub("", text, count=1), allowed)
        return

    if len(kinds) != 1 or kinds[0] not in allowed:
        raise QueryRefused(_refusal(kinds, allowed))


def _refusal(kinds: list[str], allowed: Collection[str]) -> str:
    if allowed is QUERIES:
        return (
            "Only one query at a time is run here (SELECT, FROM, WITH, DESCRIBE, EXPLAIN ...), and nothing that "
            "writes or changes settings. To work on a copy, use flowdeck_sinks.store.connect() and "
            "CREATE TABLE ... AS FROM events."
        )

    named = ", ".join(kind.replace("_", " ") for kind in kinds if kind not in allowed) or "this"
    return (
        f"{named} is refused: this connection reads the store and writes to memory only. To write files, use "
        "`flowdeck store export`, or fetch the rows and write them with Python."
    )
