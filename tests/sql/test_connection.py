"""The connection: locked down, bounded, the same answers wherever the events lie, Arrow and Polars."""

from __future__ import annotations

import importlib.util
import itertools
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from benchmarks.store_ingest import lines, sql_latency
from tests.sinks.support import Story, plain
from tests.sql.conftest import Ask

from flowdeck.layout import Layout
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store import QueryRefused, Reader, StoreConnection, connect, ensure_catalog, query
from flowdeck_sinks.store._keeping import Timing
from flowdeck_sinks.store.maintenance import compact, export, publish
from flowdeck_sinks.store.views import MACROS, VIEWS

OTHER_PYTHON = os.environ.get("FLOWDECK_TEST_OTHER_DUCKDB")
AT_ONCE = Timing(visible_after_ms=0, keep_ms=0)
WRITES = [
    "COPY (SELECT 1) TO '{store}/out.csv'",
    "COPY events TO '{store}/parts/out.parquet' (FORMAT parquet)",
    "  copy (select 1) to '{store}/out.csv'",
    "/* select */ COPY (SELECT 1) TO '{store}/out.csv'",
    "SELECT 1; COPY (SELECT 1) TO '{store}/out.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{store}/out.csv'",
    "PREPARE p AS COPY (SELECT 1) TO '{store}/out.csv'",
    "ATTACH '{store}/out.duckdb'",
    "ATTACH '{store}/state.db' AS state (TYPE sqlite)",
    "EXPORT DATABASE '{store}/out'",
    "COPY FROM DATABASE memory TO other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET memory_limit",
    "PRAGMA enable_profiling = 'json'",
    "CALL enable_logging(storage = 'file', storage_path = '{store}/log')",
    "FROM enable_logging(storage = 'file', storage_path = '{store}/log')",
    "FROM query('FROM enable_' || 'logging(storage = ''file'', storage_config = {{''path'': ''{store}/log''}})')",
    "FROM \"query\" /* x */ ('SELECT 1')",
    "COPY (PIVOT (SELECT level, 1 AS n FROM events) ON level USING sum(n)) TO '{store}/out.csv'",
    "IMPORT DATABASE '{store}'",
    "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
    "USE memory; COPY (SELECT 1) TO '{store}/out.csv'",
    "FROM read_csv('/etc/passwd')",
    "FROM read_text('/proc/self/environ')",
    "FROM glob('/etc/*')",
    "FROM '/etc/passwd'",
    "FROM read_csv('{store}/../outside.csv')",
    "COPY (SELECT 1) TO '/tmp/flowdeck-sql-out.csv'",
    "SELECT * FROM read_ndjson('https://example.org/x.json')",
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A closed store with three events, and a file outside it."""
    (tmp_path / "outside.csv").write_text("a\n1\n")
    sink = JournalSink(tmp_path / "store")
    for n in range(3):
        sink.accept(plain(n))
    sink.close()
    ensure_catalog(sink.layout)
    return sink.store


def files_of(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*")}


def test_sql_can_do_nothing_to_files(store: Path) -> None:
    """Whatever writes, attaches, installs, configures or reads elsewhere is refused, by connection and reader alike."""
    before = files_of(store.parent)
    with connect(store) as connection, Reader(store) as reader:
        for pattern in WRITES:
            sql = pattern.format(store=store)
            for run in (
                connection.execute,
                connection.sql,
                connection.query,
                connection.cursor().execute,
                reader.query,
            ):
                with pytest.raises((QueryRefused, duckdb.Error)):
                    done = run(sql)
                    done.fetchall() if hasattr(done, "fetchall") else list(done)
            with pytest.raises((QueryRefused, duckdb.Error)):
                connection.executemany(sql, [[]])
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (3,)
        assert list(reader.query("SELECT count(*) FROM events")) == [(3,)]
    assert files_of(store.parent) == before
    assert not Path("/tmp/flowdeck-sql-out.csv").exists()


def test_a_notebook_may_work_in_memory(store: Path) -> None:
    """Tables, views and macros of one's own are allowed, and seen by the connection's cursors; a reader has none."""
    with connect(store) as connection:
        connection.execute("CREATE TABLE mine AS FROM events")
        connection.execute("INSERT INTO mine SELECT * FROM events; UPDATE mine SET level = 'INFO'")
        connection.execute("CREATE VIEW few AS FROM mine LIMIT 2; CREATE MACRO one() AS 1")
        assert connection.cursor().execute("SELECT count(*), one() FROM few").fetchone() == (2, 1)
        connection.execute("CREATE TABLE wide AS PIVOT (SELECT level, 1 AS n FROM few) ON level USING sum(n)")
        assert connection.execute("FROM wide").fetchall() == [(2,)]
        connection.execute("BEGIN; DELETE FROM mine; ROLLBACK")
        assert connection.sql("SELECT count(*) FROM mine").fetchall() == [(6,)]
        assert connection.table("events").aggregate("count(*)").fetchall() == [(3,)]
    with Reader(store) as reader, pytest.raises(QueryRefused, match="Only one query"):
        reader.query("CREATE TABLE mine AS FROM events")


def test_every_name_is_found_however_it_is_asked_for(store: Path) -> None:
    """Views are made when they are first named; listings show all of them, and names made of pieces work, too."""
    with connect(store) as connection:
        assert connection.execute('SELECT count(*) FROM "RUNS"').fetchone() == (0,)
        assert connection.execute("FROM query_table('sp' || 'ans')").fetchall() == []
    with connect(store) as connection:
        shown = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
        assert {view.name for view in VIEWS} <= shown
    with connect(store) as connection:
        found = connection.execute("SELECT function_name FROM duckdb_functions()").fetchall()
        assert {(macro.name,) for macro in MACROS} <= set(found)


def test_a_hundred_million_rows_are_streamed(store: Path) -> None:
    """The first rows of an enormous answer come at once, in little memory, and the rest can be stopped."""
    with Reader(store) as reader:
        begun = time.process_time()
        result = reader.query("SELECT range AS n, repeat('x', 100) FROM range(100000000)")
        batches = result.batches()
        first = next(batches)
        assert first[0] == (0, "x" * 100)
        assert sum(len(batch) for batch in itertools.islice(batches, 50)) == 50 * len(first)
        spent = time.process_time() - begun
        assert spent < 10  # all of it takes far longer; this is a few milliseconds of it
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2_000_000_000
        batches.close()  # type: ignore[attr-defined]
        assert list(reader.query("SELECT count(*) FROM events")) == [(3,)]


def test_a_sort_larger_than_memory_goes_to_disk_and_leaves_nothing(store: Path, tmp_path: Path) -> None:
    """Memory is bounded: what does not fit is spilled to the system's temporary directory, which is empty after."""
    environment = {**os.environ, "TMPDIR": str(tmp_path / "spill")}
    (tmp_path / "spill").mkdir()
    program = (
        "import sys, os; from flowdeck_sinks.store import connect\n"
        "with connect(sys.argv[1], memory='100MB', threads=1) as connection:\n"
        "    rows = connection.execute('SELECT hash(range) AS h, repeat(md5(range::VARCHAR), 3) AS t '\n"
        "        'FROM range(3000000) ORDER BY h')\n"
        "    print(len(rows.fetchmany(10)), any(os.scandir(os.environ['TMPDIR'])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(store)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "10 True\n", done.stderr
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_long_query_is_stopped_from_another_thread(store: Path) -> None:
    """interrupt() ends it, and the connection goes on."""
    with connect(store) as connection:
        timer = threading.Timer(0.2, connection.interrupt)
        timer.start()
        with pytest.raises(duckdb.InterruptException):
            connection.execute("SELECT count(*) FROM range(10000000) a, range(10000000) b").fetchall()
        timer.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_cursors_of_one_connection_in_many_threads(story: Story, connection: StoreConnection) -> None:
    """Threads ask while events are written; each sees never less than before, and nothing fails."""
    run = story.execution("e1")
    problems: list[BaseException] = []
    stop = threading.Event()

    def look() -> None:
        seen = 0
        cursor = connection.cursor()
        try:
            while not stop.is_set():
                ((count,),) = cursor.execute("SELECT count(*) FROM run_events('e1')").fetchall()
                assert count >= seen
                seen = count
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        story.tell(run, "triggerflow.stream_item_emitted", {"item": 1})
        story.sink.flush(5)
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []


def tale(store: Path) -> Layout:
    """Write a store with something for every view."""
    sink = JournalSink(store, segment_bytes=4_000)
    story = Story(sink)
    for name in ("e1", "e2", "e3"):
        run = story.execution(name, task_id="t")
        story.tell(run, "triggerflow.execution_started")
        step = story.chunk(run, "ask")
        story.tell(step, "chunk.started", scope="ask", attempt=1)
        story.tell(step, "triggerflow.interrupt_raised", {"interrupt": {"id": f"{name}-i", "type": "t"}})
        story.tell(run, "triggerflow.execution_waiting", {"interrupt_ids": [f"{name}-i"]})
        sink.flush(5)
        if name == "e3":
            continue
        story.tell(run, "triggerflow.execution_resumed", {"interrupt_id": f"{name}-i", "value": 1})
        story.tell(run, "triggerflow.stream_item_emitted", {"item": name})
        error = ValueError("order 5")
        story.tell(step, "chunk.failed", {"will_retry": False}, scope="ask", attempt=1, duration_us=9, error=error)
        story.tell(run, "triggerflow.execution_failed", {"origin_run_id": step.run_id}, error=error, duration_us=900)
    sink.close()
    return sink.layout


SOURCES = (
    "events", "runs", "spans", "interrupts", "stream_items", "errors", "error_groups", "steps_p95",
    "run_events('e1')", "run_tree('e1')", "recent_runs(1)", "recent_runs(0)", "diff_runs('e1', 'e2')", "slowest(5)",
)  # fmt: skip


def answers(execute: Callable[[str], Any]) -> list[Any]:
    out = []
    for source in SOURCES:
        out.append(execute(f"SELECT * FROM (FROM {source}) ORDER BY ALL"))
    return out


def test_the_answers_are_the_same_wherever_events_lie(tmp_path: Path) -> None:
    """Journal, parts, days, some of each, the catalog of a plain client, an exported file: one truth."""
    layout = tale(tmp_path / "store")

    def ask(sql: str) -> Any:
        return connection.execute(sql).fetchall()

    with connect(layout.root) as connection:
        expected = answers(ask)
        assert [source for source, rows in zip(SOURCES, expected, strict=True) if not rows] == ["recent_runs(0)"]
        publish(layout, timing=AT_ONCE)
        assert answers(ask) == expected  # the same connection, while its files are replaced
        assert {path.parent.name for path in layout.root.glob("*/*.parquet") if path.name != "_.parquet"} == {"parts"}
        publish(layout, timing=AT_ONCE)
        compact(layout, force=True, timing=AT_ONCE)
        assert list(layout.days.glob("*.parquet"))
        assert answers(ask) == expected
        held = connection.execute("SELECT execution_id FROM _unfinished").fetchall()
        assert held  # e3, which has not ended, is known without reading its file
        assert {row[0] for row in held} == {"e3"}
        tale(tmp_path / "more")
    export(layout, tmp_path / "out.duckdb")
    for path in (layout.catalog, tmp_path / "out.duckdb"):
        with duckdb.connect(str(path), read_only=True) as plain_client:
            assert answers(lambda sql, client=plain_client: client.execute(sql).fetchall()) == expected  # type: ignore[misc]


@pytest.mark.skipif(not OTHER_PYTHON, reason="FLOWDECK_TEST_OTHER_DUCKDB names no Python with another DuckDB")
def test_the_other_duckdb_gives_the_same_answers(tmp_path: Path) -> None:
    """Every view and macro of the catalog and of an export works in the other supported version, unchanged."""
    layout = tale(tmp_path / "store")
    publish(layout, timing=AT_ONCE)
    compact(layout, force=True, timing=AT_ONCE)
    export(layout, tmp_path / "out.duckdb")
    ensure_catalog(layout)
    program = (
        "import sys, duckdb\n"
        "for path in sys.argv[2:]:\n"
        "    client = duckdb.connect(path, read_only=True)\n"
        "    for source in sys.argv[1].split(';'):\n"
        "        print(source, client.execute(f'SELECT * FROM (FROM {source}) ORDER BY ALL').fetchall())\n"
    )
    arguments = ["-c", program, ";".join(SOURCES), str(layout.catalog), str(tmp_path / "out.duckdb")]
    told = [
        subprocess.run([python, *arguments], capture_output=True, text=True)
        for python in (sys.executable, OTHER_PYTHON)
    ]
    assert told[1].returncode == 0, told[1].stderr
    assert told[1].stdout == told[0].stdout
    assert len(told[0].stdout.splitlines()) == 2 * len(SOURCES)


def test_the_metadata_of_merged_files_is_only_a_copy(tmp_path: Path) -> None:
    """With so many open executions that a merged file names none of them, the same ones are found all the same."""
    sink = JournalSink(tmp_path / "store", segment_bytes=500_000)
    story = Story(sink)
    for number in range(5_200):
        story.tell(story.execution(f"e{number:05d}"), "triggerflow.execution_waiting", {"interrupt_ids": []})
        if number % 1000 == 0:
            sink.flush(5)
    sink.close()
    with connect(sink.store, resumable=[f"e{number:05d}" for number in range(5_200)]) as connection:
        publish(sink.layout, timing=AT_ONCE)
        publish(sink.layout, timing=AT_ONCE)
        compact(sink.layout, force=True, timing=AT_ONCE)
        assert connection.execute("SELECT count(*) FROM recent_runs(0)").fetchone() == (5_200,)
        assert connection.execute("SELECT count(*) FROM _unfinished").fetchone() == (0,)


def test_a_truncated_file_does_not_stop_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A Parquet file that lost its end is left out, said once, and its neighbours are read."""
    layout = tale(tmp_path / "store")
    publish(layout, timing=AT_ONCE)
    publish(layout, timing=AT_ONCE)
    parts = sorted(path for path in layout.parts.glob("*.parquet") if path.name != "_.parquet")
    assert len(parts) > 1
    whole = parts[0].read_bytes()
    lost = duckdb.sql(f"SELECT count(*) FROM read_parquet('{parts[0]}')").fetchall()[0][0]
    parts[0].write_bytes(whole[: len(whole) // 2])
    with connect(layout.root) as connection:
        ((rest,),) = connection.execute("SELECT count(*) FROM events").fetchall()
        connection.execute("FROM runs").fetchall()
        assert caplog.text.count("not a whole Parquet file") == 1
        parts[0].write_bytes(whole)
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (rest + lost,)


def test_an_event_is_soon_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polled while 2,000 events/s are written and published, every event comes once, in about the time of a query."""
    monkeypatch.setenv("FLOWDECK_PUBLISH", "on")
    found = sql_latency(lines(2_000), 2_000, 6.0)
    assert found["missed"] == 0
    assert found["p50_ms"] <= 20 + 4 * found["query_ms"] + 25  # a wake of the writer, two queries, a busy machine


def test_a_part_counts_at_once_and_a_broken_one_not_at_all(tmp_path: Path) -> None:
    """An open connection reads a part as soon as it is there, and its segment as long as the part cannot be read."""
    layout = tale(tmp_path / "store")
    with connect(layout.root) as connection:
        before = connection.execute("FROM events ORDER BY writer, wseq").fetchall()
        assert publish(layout, timing=Timing(visible_after_ms=60_000, keep_ms=60_000)).segments > 1
        assert connection.execute("FROM events ORDER BY writer, wseq").fetchall() == before
        assert connection.execute("SELECT count(*) FROM _tail").fetchone() == (0,)
        part = max(path for path in layout.parts.glob("0*.parquet"))
        part.write_bytes(part.read_bytes()[:-10])
        connection._files._whole.clear()
        assert connection.execute("FROM events ORDER BY writer, wseq").fetchall() == before


def test_a_deleted_part_is_only_missing(tmp_path: Path) -> None:
    """Events of a file somebody deleted are gone, and that is all: the open connection goes on."""
    layout = tale(tmp_path / "store")
    publish(layout, timing=AT_ONCE)
    publish(layout, timing=AT_ONCE)
    with connect(layout.root) as connection:
        ((before,),) = connection.execute("SELECT count(*) FROM events").fetchall()
        max(layout.parts.glob("0*.parquet")).unlink()
        ((after,),) = connection.execute("SELECT count(*) FROM events").fetchall()
        assert 0 < after < before
        assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] >= 1


def test_files_of_an_older_library_are_read(tmp_path: Path) -> None:
    """Columns that a Parquet file does not have yet are NULL, beside files that have them."""
    layout = tale(tmp_path / "store")
    publish(layout, timing=AT_ONCE)
    publish(layout, timing=AT_ONCE)
    part = min(layout.parts.glob("0*.parquet"))
    older = part.with_name("older.tmp")
    duckdb.sql(f"COPY (SELECT * EXCLUDE (model, task_id) FROM read_parquet('{part}')) TO '{older}' (FORMAT parquet)")
    older.rename(part)
    with connect(layout.root) as connection:
        counts = connection.execute("SELECT count(*), count(task_id), count(model) FROM events").fetchone()
        assert counts[0] > counts[1] > counts[2] == 0
        assert len(connection.execute("FROM runs").fetchall()) == 3


needs_arrow = pytest.mark.skipif(
    not importlib.util.find_spec("pyarrow"), reason="pyarrow is not installed: pip install 'flowdeck[arrow]'"
)
needs_polars = pytest.mark.skipif(
    not (importlib.util.find_spec("polars") and importlib.util.find_spec("pyarrow")),
    reason="polars or pyarrow is not installed: pip install 'flowdeck[arrow]'",
)


@needs_arrow
def test_rows_as_arrow(store: Path) -> None:
    """A result, and the connection as DuckDB has it, give Arrow tables."""
    table = query(store, "SELECT wseq, event_id FROM events ORDER BY wseq").arrow()
    assert table.column_names == ["wseq", "event_id"]
    assert table.column("wseq").to_pylist() == [1, 2, 3]
    with connect(store) as connection:
        assert connection.sql("FROM events").to_arrow_table().num_rows == 3


@needs_polars
def test_rows_as_polars(store: Path) -> None:
    """A result gives a Polars frame with times as times."""
    frame = query(store, "SELECT wseq, ts, payload FROM events ORDER BY wseq").polars()
    assert frame.shape == (3, 3)
    assert frame["wseq"].to_list() == [1, 2, 3]
    assert str(frame["ts"].dtype).startswith("Datetime")


def test_without_arrow_the_mend_is_named(store: Path) -> None:
    """A missing package is one error with its install command."""
    program = (
        "import sys; sys.modules['pyarrow'] = None; sys.modules['polars'] = None\n"
        "from flowdeck_sinks.store import query\n"
        "for way in ('arrow', 'polars'):\n"
        "    try: getattr(query(sys.argv[1], 'FROM events'), way)()\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(store)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("StoreError") and "pip install 'flowdeck[arrow]'" in line for line in lines)


def test_hidden_columns_stay_hidden(ask: Ask) -> None:
    """Tables the connection keeps for itself begin with an underscore."""
    for (name,) in ask("SHOW TABLES"):
        assert name.startswith("_") or name in {view.name for view in VIEWS}
