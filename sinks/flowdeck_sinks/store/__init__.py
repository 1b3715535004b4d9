"""Reading a store: SQL (:func:`connect`, :func:`query`, :class:`Reader`) and a live tail (:class:`JournalTail`).

Importing it does not import DuckDB.
"""

from __future__ import annotations

from flowdeck_sinks.store._duckdb import DuckDBMissing
from flowdeck_sinks.store.catalog import ensure_catalog
from flowdeck_sinks.store.connection import QueryRefused, StoreConnection, connect
from flowdeck_sinks.store.reader import Reader, Result, newest_runs, query
from flowdeck_sinks.store.tail import JournalTail, RawBatch

__all__ = [
    "DuckDBMissing",
    "JournalTail",
    "QueryRefused",
    "RawBatch",
    "Reader",
    "Result",
    "StoreConnection",
    "connect",
    "ensure_catalog",
    "newest_runs",
    "query",
]
