"""Reading a store: SQL (:func:`connect`, :func:`query`, :class:`Reader`) and a live tail (:class:`JournalTail`).

Importing it does not import DuckDB.
"""

from __future__ import annotations

from flowdeck_sinks.store._duckdb import DuckDBMissing
from flowdeck_sinks.store.catalog import ensure_catalog
from flowdeck_sinks.store.reader import QueryRefused, Reader, Result, connect, query
from flowdeck_sinks.store.tail import JournalTail, RawBatch

__all__ = [
    "DuckDBMissing",
    "JournalTail",
    "QueryRefused",
    "RawBatch",
    "Reader",
    "Result",
    "connect",
    "ensure_catalog",
    "query",
]
