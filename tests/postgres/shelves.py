"""The PostgreSQL store on the bench of the conformance clauses."""

from __future__ import annotations

from collections.abc import Callable

from tests.durable.shelves import StoreBench
from tests.postgres.server import Server

from flowdeck.durable.postgres.address import parse
from flowdeck.durable.postgres.store import PostgresStore, open_postgres
from flowdeck.durable.store import ExecutionStore

__all__ = ["PostgresBench"]


class PostgresBench(StoreBench):
    def __init__(self, server: Server, make: Callable[..., PostgresStore] = open_postgres) -> None:
        self.server = server
        self.url = server.url()
        self.make = make
        self.stores: list[PostgresStore] = []

    def open(self, owner: str = "a") -> ExecutionStore:
        store = self.make(self.url, owner, "process")
        self.stores.append(store)
        return store

    def kill(self, owner: str) -> None:
        self.sql("DELETE FROM owners WHERE writer = %s", owner)  # what the end of its lease comes to

    def sql(self, statement: str, *values: object) -> None:
        with self.server.admin() as connection:
            connection.execute(f"SET search_path = {parse(self.url).schema}".encode())
            connection.execute(statement.encode(), values)

    def close(self) -> None:
        for store in self.stores:
            store.close(5.0)

        with self.server.admin() as connection, connection.transaction():
            connection.execute("SET LOCAL client_min_messages = error")
            connection.execute(f"DROP SCHEMA {parse(self.url).schema} CASCADE".encode())
