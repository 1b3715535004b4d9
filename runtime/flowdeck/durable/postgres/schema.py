"""The tables in PostgreSQL, and how they come to be there.

They have the names and columns of ``state.db``, so that the statements that ask are shared. Differences: text that
compares by bytes, ``owners`` with a lease by the server's clock, room for updates in place (``fillfactor``), snapshots
and inputs that are not compressed (they are packed already).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowdeck.layout import StoreTooNew

if TYPE_CHECKING:
    import psycopg

    from flowdeck.durable.postgres.address import Address

__all__ = ["FORMAT", "NOW", "create"]

FORMAT: Final = 1
"""The format this version writes, kept in the table ``about``."""

NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""The server's clock in microseconds: the only one that leases are measured by."""

_LOCK: Final = 0x464C4F57
"""Advisory lock held while tables are created: two processes may begin at once."""

TABLES: Final = (
    "CREATE TABLE about (format integer NOT NULL)",
    """
    CREATE TABLE executions (
        id                  text COLLATE "C" PRIMARY KEY,
        writer              text COLLATE "C" NOT NULL,
        status              text NOT NULL,
        flow_name           text NOT NULL,
        entrypoint          text,
        definition          text,
        run_id              text,
        root_run_id         text,
        parent_execution_id text,
        task_id             text,
        tenant_id           text,
        user_id             text,
        started_us          bigint NOT NULL,
        updated_us          bigint NOT NULL,
        finished_us         bigint
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX executions_started ON executions(started_us)",
    "CREATE INDEX executions_open ON executions(started_us) WHERE finished_us IS NULL",
    "CREATE INDEX executions_finished ON executions(finished_us) WHERE finished_us IS NOT NULL",
    """
    CREATE TABLE interrupts (
        id           text COLLATE "C" NOT NULL,
        execution_id text COLLATE "C" NOT NULL,
        status       text NOT NULL,
        type         text NOT NULL,
        record       text NOT NULL,
        opened_us    bigint NOT NULL,
        expires_us   bigint,
        closed_us    bigint,
        response     text,
        actor        text,
        answer_row   bigint,
        PRIMARY KEY (id, execution_id)
    )
    """,
    "CREATE INDEX interrupts_waiting ON interrupts(opened_us) WHERE status = 'waiting'",
    "CREATE INDEX interrupts_opened ON interrupts(opened_us)",
    "CREATE INDEX interrupts_of ON interrupts(execution_id, status)",
    """
    CREATE TABLE inbox (
        id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        execution_id text COLLATE "C" NOT NULL,
        kind         text NOT NULL,
        target       text,
        payload      text NOT NULL,
        dedup_key    text COLLATE "C" NOT NULL,
        actor        text,
        created_us   bigint NOT NULL,
        outcome      text,
        detail       text,
        acked_us     bigint,
        UNIQUE (execution_id, dedup_key)
    )
    """,
    "CREATE INDEX inbox_pending ON inbox(execution_id, id) WHERE outcome IS NULL OR outcome = 'early'",
    """
    CREATE TABLE durable (
        key           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        execution_id  text COLLATE "C" NOT NULL UNIQUE,
        token         bigint NOT NULL,
        seq           bigint NOT NULL,
        parked        smallint NOT NULL,
        finished      smallint NOT NULL DEFAULT 0,
        wake_us       bigint,
        blocked       text,
        resource_keys text NOT NULL DEFAULT '[]',
        forked_from   text,
        forked_at     bigint
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX durable_active ON durable(key) WHERE finished = 0 AND parked = 0",
    "CREATE INDEX durable_wake ON durable(wake_us) WHERE finished = 0 AND parked = 1 AND wake_us IS NOT NULL",
    "CREATE TABLE headers (key bigint PRIMARY KEY, definition text NOT NULL, body bytea STORAGE EXTERNAL NOT NULL)",
    """
    CREATE TABLE inputs (
        key   bigint NOT NULL,
        first bigint NOT NULL,
        count bigint NOT NULL,
        body  bytea STORAGE EXTERNAL NOT NULL,
        PRIMARY KEY (key, first)
    )
    """,
    """
    CREATE TABLE snapshots (
        key        bigint NOT NULL,
        seq        bigint NOT NULL,
        base       smallint NOT NULL,
        definition text NOT NULL,
        body       bytea STORAGE EXTERNAL NOT NULL,
        PRIMARY KEY (key, seq)
    )
    """,
    'CREATE TABLE definitions (digest text COLLATE "C" PRIMARY KEY, body bytea NOT NULL)',
    """
    CREATE TABLE owners (
        writer   text COLLATE "C" PRIMARY KEY,
        until_us bigint NOT NULL,              -- the lease, by the server's clock
        boot     text,                         -- which start of which machine,
        lock     text                          -- and which file there is locked for as long as the process lives
    ) WITH (fillfactor = 50)
    """,
)


def create(connection: psycopg.Connection[Any], address: Address) -> None:
    """Create schema and tables if they are not there. Idempotent, race-free.

    Raises:
        StoreTooNew: a newer Flowdeck made them.
        psycopg.Error: as the server reports it.
    """
    found = connection.execute("SELECT to_regclass(%s)", (f"{address.schema}.about",)).fetchone()
    if found is None or found[0] is None:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            again = connection.execute("SELECT to_regclass(%s)", (f"{address.schema}.about",)).fetchone()
            if again is None or again[0] is None:
                # Asked first: who may not create a schema may still use one that was made for them.
                there = connection.execute("SELECT to_regnamespace(%s)", (address.schema,)).fetchone()
                if there is None or there[0] is None:
                    connection.execute(f"CREATE SCHEMA {address.schema}".encode())

                for statement in _spelled(connection):
                    connection.execute(statement.encode())

                connection.execute("INSERT INTO about (format) VALUES (%s)", (FORMAT,))

    row = connection.execute("SELECT format FROM about").fetchone()
    if row is None or row[0] > FORMAT:
        newer = "unknown" if row is None else row[0]
        raise StoreTooNew(
            f"{address} has format {newer}, written by a newer Flowdeck; this one reads up to format {FORMAT}. "
            "Upgrade with `pip install -U 'flowdeck[postgres]'`, or name another schema with ?flowdeck_schema=NAME."
        )


def _spelled(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the statements for this server: before version 16 a column's storage could not be said at its birth."""
    if connection.info.server_version >= 160_000:
        return list(TABLES)

    later = [f"ALTER TABLE {name} ALTER body SET STORAGE EXTERNAL" for name in ("headers", "inputs", "snapshots")]
    return [statement.replace(" STORAGE EXTERNAL", "") for statement in TABLES] + later
