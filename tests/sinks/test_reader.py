"""Reading with SQL: live, by any process and DuckDB version, and locked down."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import duckdb
import pytest
from tests.sinks.support import Story, plain, until

from flowdeck.layout import Layout, StoreNotFound
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store import QueryRefused, Reader, connect, ensure_catalog, query
from flowdeck_sinks.store.catalog import catalog_is_current

OTHER_PYTHON = os.environ.get("FLOWDECK_TEST_OTHER_DUCKDB")
"""A Python whose DuckDB is the other end of the supported range, for instance 1.5."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A closed store with three events."""
    sink = JournalSink(tmp_path / "store")
    for n in range(3):
        sink.accept(plain(n))
    sink.close()
    return sink.store


def test_events_are_seen_while_they_are_written(tmp_path: Path) -> None:
    """Each query of one open reader sees everything flushed before it, and never less than before."""
    sink = JournalSink(tmp_path / "store", segment_bytes=20_000)
    with Reader(sink.store) as reader:
        for n in range(0, 1000, 50):
            for m in range(n, n + 50):
                sink.accept(plain(m, 500))
            sink.flush(5)
            assert reader.query("SELECT count(*), count(DISTINCT wseq), max(wseq) FROM events").rows.__next__() == (
                (n + 50,) * 3
            )
    sink.close()


def test_a_result_names_its_columns_and_streams(store: Path) -> None:
    """Columns and types come first, rows as they are asked for."""
    result = query(store, "SELECT wseq, event_id AS id FROM events ORDER BY 1")
    assert result.columns == ["wseq", "id"]
    assert result.types == ["BIGINT", "VARCHAR"]
    assert list(result.batches()) == [[(1, "e00000000"), (2, "e00000001"), (3, "e00000002")]]
    big = query(store, "SELECT range FROM range(50000000)")
    assert next(big.batches())[:2] == [(0,), (1,)]
    big.close()


def test_parameters_and_zoned_times(store: Path) -> None:
    """Values are bound, never pasted; now() works without a time-zone library and is UTC."""
    assert list(query(store, "SELECT event_id FROM events WHERE wseq = ?", [2])) == [("e00000001",)]
    ((moment, zone),) = query(store, "SELECT now() AS moment, current_setting('TimeZone')")
    assert isinstance(moment, datetime)
    assert zone == "UTC"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE x AS FROM events", "INSERT INTO _dead_writers VALUES ('x')", "DROP VIEW events",
        "COPY events TO 'x.csv'", "EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'", "SET threads = 1",
        "ATTACH 'x.db'", "INSTALL httpfs", "LOAD httpfs", "EXPORT DATABASE 'x'", "SELECT 1; DROP VIEW events",
        "PREPARE p AS SELECT 1", "UPDATE _resumable SET execution_id = 1", "", "-- nothing",
        "EXPLAIN EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'", "/* select */ COPY (SELECT 1) TO 'x.csv'",
    ],
)  # fmt: skip
def test_only_queries_are_run(store: Path, sql: str) -> None:
    """A statement that writes, attaches, installs or sets is refused, however it is dressed, and the store is whole."""
    before = sorted(path.relative_to(store) for path in store.rglob("*"))
    with Reader(store) as reader:
        before = sorted(path.relative_to(store) for path in store.rglob("*"))
        with pytest.raises((QueryRefused, duckdb.Error)):
            reader.query(sql)
        assert list(reader.query("SELECT count(*) FROM events")) == [(3,)]
    assert sorted(path.relative_to(store) for path in store.rglob("*")) == before


@pytest.mark.parametrize(
    "sql",
    [
        "FROM events", "WITH a AS (FROM events) FROM a", "(SELECT 1)", "VALUES (1)", "DESCRIBE runs", "SHOW TABLES",
        "SUMMARIZE events", "EXPLAIN FROM events", "EXPLAIN ANALYZE FROM events", "-- why\nSELECT 1;",
        "PIVOT (SELECT level, 1 AS n FROM events) ON level USING sum(n)",
    ],
)  # fmt: skip
def test_every_kind_of_query_is_run(store: Path, sql: str) -> None:
    """What only reads is not refused."""
    assert list(query(store, sql))


def test_files_outside_the_store_are_out_of_reach(store: Path, tmp_path: Path) -> None:
    """Neither a query nor the bare connection reads or writes elsewhere, or takes the lock off."""
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with pytest.raises(duckdb.PermissionException):
        list(query(store, f"FROM read_csv('{secret}')"))
    connection = connect(store)
    for sql in (
        f"FROM read_text('{secret}')",
        f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'out.db'}'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
    ):
        with pytest.raises((QueryRefused, duckdb.Error)):
            connection.execute(sql)
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (3,)
    connection.execute("CREATE TABLE copy AS FROM events")  # in memory: a notebook may
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.csv", "store"]


def test_a_long_query_can_be_stopped(store: Path) -> None:
    """interrupt() from another thread ends the query; the reader goes on."""
    with Reader(store) as reader:
        timer = threading.Timer(0.2, reader.interrupt)
        timer.start()
        with pytest.raises(duckdb.InterruptException):
            list(reader.query("SELECT count(*) FROM range(10000000) a, range(10000000) b"))
        timer.join()
        assert list(reader.query("SELECT count(*) FROM events")) == [(3,)]


def test_a_file_that_vanishes_is_retried(tmp_path: Path) -> None:
    """Segments removed in one batch while a query runs, wherever it stands, do not fail it."""
    sink = JournalSink(tmp_path / "store")
    for n in range(100):
        sink.accept(plain(n))
    sink.close()
    journal = Layout(sink.store).journal
    delays = [n * 0.0002 for n in range(40)]  # spread over the milliseconds a query takes

    def remove(batch: list[Path]) -> None:
        for path in batch:
            path.unlink()

    with Reader(sink.store) as reader:
        for delay in delays:
            for number in range(20):
                (journal / f"wghost-{number:06d}.jsonl").write_bytes(b"")
            batch = list(journal.glob("wghost-*"))
            timer = threading.Timer(delay, remove, [batch])
            timer.start()
            assert list(reader.query("SELECT count(*) FROM events")) == [(100,)]
            timer.join()


def test_a_missing_store_is_one_clear_error(tmp_path: Path) -> None:
    """Querying what is not there names the mend, and creates nothing."""
    with pytest.raises(StoreNotFound, match="--store"):
        query(tmp_path / "none", "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_without_duckdb_the_extra_is_named(store: Path) -> None:
    """A missing extra is one error with its install command; the tail works without."""
    program = (
        "import sys; sys.modules['duckdb'] = None\n"
        "from flowdeck_sinks.store import JournalTail, query\n"
        "assert len(JournalTail(sys.argv[1], from_start=True).poll()[0].lines) == 3\n"
        "try: query(sys.argv[1], 'SELECT 1')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    out = subprocess.run([sys.executable, "-c", program, str(store)], capture_output=True, text=True, check=True)
    assert out.stdout == "DuckDBMissing SQL over a store needs DuckDB: pip install 'flowdeck[duckdb]'\n"


def test_observing_does_not_import_duckdb(tmp_path: Path) -> None:
    """The application's process carries no database."""
    program = (
        "import sys; from flowdeck_sinks.journal import JournalSink\n"
        "sink = JournalSink(sys.argv[1]); sink.close(); print('duckdb' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s")], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "False"


# -- the catalog file ------------------------------------------------------------------------------------------------

ASK = (
    "import sys, duckdb; connection = duckdb.connect(sys.argv[1], read_only=True)\n"
    "for line in sys.stdin:\n"
    "    print(connection.execute(line).fetchall(), flush=True)\n"
)


def ask(python: str, catalog: Path) -> subprocess.Popen[str]:
    """Start a plain DuckDB client on the catalog."""
    return subprocess.Popen(
        [python, "-c", ASK, str(catalog)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def answer(client: subprocess.Popen[str], sql: str) -> str:
    """Return the client's printed answer."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(sql + "\n")
    return client.stdout.readline().strip()


@pytest.mark.parametrize(
    "python",
    [
        sys.executable,
        pytest.param(
            OTHER_PYTHON,
            marks=pytest.mark.skipif(
                not OTHER_PYTHON, reason="FLOWDECK_TEST_OTHER_DUCKDB names no Python with another DuckDB"
            ),
        ),
    ],
    ids=["this", "other"],
)
def test_plain_duckdb_reads_a_live_store(tmp_path: Path, python: str) -> None:
    """`duckdb -readonly observe.duckdb` answers every view in another process while events are written."""
    sink = JournalSink(tmp_path / "store")
    story = Story(sink)
    assert ensure_catalog(sink.layout)
    assert sink.layout.catalog.stat().st_mode & 0o777 == 0o400
    client = ask(python, sink.layout.catalog)
    try:
        assert answer(client, "SELECT count(*) FROM events") == "[(0,)]"
        run = story.execution("e1")
        story.tell(run, "triggerflow.execution_started")
        story.tell(story.chunk(run, "a"), "chunk.started")
        story.tell(run, "triggerflow.interrupt_raised", {"interrupt": {"id": "i1", "type": "approval"}})
        sink.flush(5)
        assert answer(client, "SELECT count(*) FROM events") == "[(3,)]"
        assert answer(client, "SELECT status, steps, waits FROM runs") == "[('running', 1, 1)]"
        assert answer(client, "SELECT status FROM spans WHERE step_name = 'a'") == "[('running',)]"
        assert answer(client, "SELECT interrupt_id, status FROM interrupts") == "[('i1', 'waiting')]"
        assert answer(client, "SELECT count(*) FROM errors") == "[(0,)]"
        assert answer(client, "SELECT count(*) FROM damaged_lines") == "[(0,)]"
        sink.close()
        assert answer(client, "SELECT status FROM runs") == "[('lost',)]"
    finally:
        client.communicate(timeout=10)


@pytest.mark.skipif(not OTHER_PYTHON, reason="FLOWDECK_TEST_OTHER_DUCKDB names no Python with another DuckDB")
def test_a_catalog_of_the_other_version_is_read_here(tmp_path: Path) -> None:
    """Whichever DuckDB built the catalog, the other reads it."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(1))
    sink.close()
    source = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{source / 'runtime'}:{source / 'sinks'}"}
    built = subprocess.run(
        [str(OTHER_PYTHON), "-c", "import sys; from flowdeck_sinks.store import *; from flowdeck.layout import Layout; "
         "print(ensure_catalog(Layout(sys.argv[1])))", str(sink.store)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if "No module named" in built.stderr:
        pytest.skip("the other Python lacks the base dependencies")
    assert built.stdout.strip() == "True", built.stderr
    with duckdb.connect(str(sink.layout.catalog), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)
    assert catalog_is_current(sink.layout)


def test_a_killed_writers_run_is_lost_for_plain_clients_too(tmp_path: Path) -> None:
    """Opening the store once marks killed writers, and plain SQL sees it."""
    store = tmp_path / "store"
    child = os.fork()
    if not child:
        sink = JournalSink(store)
        story = Story(sink)
        story.tell(story.execution("e1"), "triggerflow.execution_started")
        sink.flush(5)
        os.kill(os.getpid(), 9)

    os.waitpid(child, 0)
    assert list(query(store, "SELECT execution_id, status FROM runs")) == [("e1", "lost")]
    with duckdb.connect(str(Layout(store).catalog), read_only=True) as connection:
        assert connection.execute("SELECT status FROM runs").fetchone() == ("lost",)


def test_the_catalog_is_rebuilt_when_needed(store: Path, tmp_path: Path) -> None:
    """A moved store, an older schema or a damaged file gets a new catalog; a current one is left alone."""
    layout = Layout(store)
    assert ensure_catalog(layout)
    inode = layout.catalog.stat().st_ino
    assert ensure_catalog(layout)
    assert layout.catalog.stat().st_ino == inode

    moved = Layout(store.rename(tmp_path / "it's [moved]*"))
    assert not catalog_is_current(moved)
    assert list(query(moved.root, "SELECT count(*) FROM events")) == [(3,)]
    with duckdb.connect(str(moved.catalog), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (3,)

    moved.catalog.chmod(0o600)
    moved.catalog.write_bytes(b"not a database")
    assert ensure_catalog(moved)
    assert catalog_is_current(moved)
    (moved.parts / "_.parquet").unlink()
    assert ensure_catalog(moved)
    assert sorted(path.name for path in moved.root.iterdir() if path.name.endswith((".tmp", ".wal"))) == []


def test_whoever_opens_the_catalog_for_writing_blocks_nobody(store: Path) -> None:
    """A client that opened the file read-write keeps only its own copy busy."""
    layout = Layout(store)
    ensure_catalog(layout)
    layout.catalog.chmod(0o600)
    program = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    greedy = subprocess.Popen(
        [sys.executable, "-c", program, str(layout.catalog)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert greedy.stdout is not None
        assert greedy.stdout.readline() == "open\n"
        assert list(query(store, "SELECT count(*) FROM events")) == [(3,)]
        with duckdb.connect(str(layout.catalog), read_only=True) as connection:
            assert connection.execute("SELECT count(*) FROM events").fetchone() == (3,)
    finally:
        greedy.communicate(timeout=10)


def test_a_store_that_cannot_be_written_is_still_read(store: Path) -> None:
    """Without a catalog and without permission to make one, Python reads all the same."""
    layout = Layout(store)
    (layout.parts).rmdir()
    layout.parts.write_text("")  # building the catalog fails, even for root
    assert not ensure_catalog(layout)
    assert list(query(store, "SELECT count(*) FROM events")) == [(3,)]


def test_two_processes_write_while_one_reads(tmp_path: Path) -> None:
    """Every poll while two writers run: count = distinct = highest number, per writer."""
    store = tmp_path / "store"
    Layout.create(store)
    children = []
    for base in (0, 10_000):
        child = os.fork()
        if not child:
            sink = JournalSink(store, segment_bytes=100_000)
            for n in range(base, base + 1500):
                sink.accept(plain(n, 500))
                if n % 5 == 0:
                    time.sleep(0.001)
            sink.close()
            os._exit(0)
        children.append(child)

    ended: list[int] = []

    def all_ended() -> bool:
        ended.extend(pid for pid in children if pid not in ended and os.waitpid(pid, os.WNOHANG)[0])
        return len(ended) == 2

    with Reader(store) as reader:

        def look() -> bool:
            done = all_ended()
            for _, count, distinct, highest in reader.query(
                "SELECT writer, count(*), count(DISTINCT wseq), max(wseq) FROM events GROUP BY writer"
            ):
                assert count == distinct == highest
            return done

        until(look, "both writers end", 30)
        assert list(reader.query("SELECT count(*), count(DISTINCT event_id), count(DISTINCT writer) FROM events")) == [
            (3000, 3000, 2)
        ]
