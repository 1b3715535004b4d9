"""Export to one file and back: every column of every event, whatever the kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from tests.sinks.publishing import AT_ONCE, PYTHONS
from tests.sinks.support import Story, plain

from flowdeck.layout import Layout, StoreError
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store.maintenance import doctor, export, import_, info, publish, quarantine
from flowdeck_sinks.store.parts import events_select, visible_sources

KINDS = ("duckdb", "parquet", "jsonl")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A store with one run in a part, a little more in the journal, and a blob."""
    sink = JournalSink(tmp_path / "store")
    story = Story(sink)
    run = story.execution("e1", task_id="t1")
    story.tell(run, "triggerflow.execution_started", {"initial_value": "ü\x00\x1b[31m\ud800"})
    story.tell(story.chunk(run, "a"), "chunk.failed", {"output": 2**70}, error=ValueError("no"))
    story.tell(run, "triggerflow.execution_completed", {"result": [1, {"a": None}]})
    sink.close()
    publish(sink.layout, timing=AT_ONCE)
    sink = JournalSink(tmp_path / "store")
    story = Story(sink)
    story.tell(story.execution("e2"), "triggerflow.execution_started", {"text": "b" * 300_000})
    sink.accept(plain(1))
    sink.close()
    return sink.layout


def rows(layout: Layout) -> list[tuple[object, ...]]:
    """Return every event with all columns; documents as objects."""
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT * FROM ({events_select(visible_sources(layout))}) ORDER BY writer, wseq"
        ).fetchall()
    return [tuple(_object(value) for value in row) for row in found]


def _object(value: object) -> object:
    return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(layout: Layout, tmp_path: Path, kind: str) -> None:
    """What is exported and imported elsewhere is the same store; a second import changes nothing."""
    target = tmp_path / f"out.{kind}"
    shares: list[float] = []
    report = export(layout, target, progress=shares.append)
    assert (report.events, report.kind, report.blobs) == (5, kind, 1)
    assert report.bytes == target.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600
    assert shares[-1] == 1.0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    other = Layout.create(tmp_path / "other")
    first = import_(other, target, progress=shares.append)
    assert (first.events, first.duplicates, first.damaged, first.blobs) == (5, 0, 0, 1)
    assert rows(other) == rows(layout)
    assert [path.name for path in other.blobs.iterdir()] == [path.name for path in layout.blobs.iterdir()]
    again = import_(other, target)
    assert (again.events, again.duplicates, again.blobs) == (0, 5, 0)
    assert rows(other) == rows(layout)
    assert doctor(other)[0].level == "ok"


def test_a_store_is_taken_in_whole(layout: Layout, tmp_path: Path) -> None:
    """Importing a directory brings its events and blobs; those already there are passed over."""
    other = Layout.create(tmp_path / "other")
    export(layout, tmp_path / "some.jsonl", where="wseq = 1")
    assert import_(other, tmp_path / "some.jsonl").events == 2
    assert doctor(other)[0].level == "ok", "a partial import is not a loss"
    report = import_(other, layout.root)
    assert (report.events, report.duplicates, report.blobs) == (3, 2, 0)
    assert rows(other) == rows(layout)


@pytest.mark.parametrize("python", PYTHONS, ids=[f"python{n}" for n in range(len(PYTHONS))])
def test_an_exported_database_opens_with_plain_duckdb(layout: Layout, tmp_path: Path, python: str) -> None:
    """Any DuckDB, old or new, without this library: the table, the views and the blobs."""
    target = tmp_path / "out.duckdb"
    export(layout, target)
    program = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print(c.execute('SELECT count(*) FROM events').fetchone()[0], "
        "c.execute('SELECT execution_id, status FROM runs ORDER BY 1').fetchall(), "
        "c.execute('SELECT count(*) FROM errors').fetchone()[0], "
        "c.execute('SELECT octet_length(content) FROM blobs').fetchone()[0])"
    )
    answer = subprocess.run([python, "-c", program, str(target)], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "5 [('e1', 'completed'), ('e2', 'lost')] 1 300011"


def test_a_condition_chooses(layout: Layout, tmp_path: Path) -> None:
    """`where` is SQL over the columns of events, comments and all; anything more is refused."""
    assert export(layout, tmp_path / "a.jsonl", where="execution_id = 'e1' -- the first").events == 3
    assert export(layout, tmp_path / "b.parquet", where="payload ->> '$.n' = '1'").events == 1
    assert export(layout, tmp_path / "c.duckdb", where="false").events == 0
    for where in ("1 = 1) TO 'x'; DROP TABLE events; SELECT (1", "nonsense ((", "; SELECT 1"):
        with pytest.raises(StoreError, match="SQL condition"):
            export(layout, tmp_path / "d.jsonl", where=where)
    with pytest.raises(duckdb.Error, match="colour"):
        export(layout, tmp_path / "d.jsonl", where="colour = 1")
    assert not (tmp_path / "d.jsonl").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_targets_are_never_overwritten(layout: Layout, tmp_path: Path) -> None:
    """An existing file and a name that says nothing are refused."""
    (tmp_path / "there.jsonl").write_text("mine")
    with pytest.raises(StoreError, match="exists"):
        export(layout, tmp_path / "there.jsonl")
    with pytest.raises(StoreError, match="end it in"):
        export(layout, tmp_path / "events.csv")
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert export(layout, tmp_path / "events.txt", "jsonl").events == 5


def test_damaged_lines_of_a_file_are_set_aside(layout: Layout, tmp_path: Path) -> None:
    """An import takes what is sound, counts and keeps the rest, and says where it came from."""
    target = tmp_path / "out.jsonl"
    export(layout, target)
    target.write_bytes(target.read_bytes() + b"garbage\n" + b'{"event_id": "x1", "event_type": "a", "wseq": 77}\n{"cut')
    other = Layout.create(tmp_path / "other")
    report = import_(other, target)
    assert (report.events, report.damaged) == (6, 2)
    assert [item.line for item in quarantine(other)] == [6, 8]
    assert quarantine(other)[0].origin == "import-out.jsonl"


def test_what_is_no_export_is_refused(layout: Layout, tmp_path: Path) -> None:
    """Missing files, other kinds, other databases, the store itself: one clear error, nothing taken in."""
    (tmp_path / "events.csv").write_text("a,b")
    with duckdb.connect(str(tmp_path / "mine.duckdb")) as connection:
        connection.execute("CREATE TABLE cats (name VARCHAR)")
    for source, says in (
        (tmp_path / "none.jsonl", "does not exist"),
        (tmp_path / "events.csv", "no known kind"),
        (tmp_path / "mine.duckdb", "no table 'events'"),
        (layout.root, "into itself"),
        (tmp_path, "No Flowdeck store"),
    ):
        with pytest.raises(StoreError, match=says):
            import_(layout, source)
    assert info(layout).events == 5


def test_a_file_with_duplicates_gives_each_event_once(tmp_path: Path) -> None:
    """The first line of an event id counts, and the report says how many did not."""
    lines = [json.loads(plain(n).encoded) | {"wseq": n, "writer": "w1"} for n in (1, 2, 2, 3, 1)]
    source = tmp_path / "twice.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    layout = Layout.create(tmp_path / "store")
    report = import_(layout, source)
    assert (report.events, report.duplicates) == (3, 2)
    assert [row[0] for row in rows(layout)] == ["e00000001", "e00000002", "e00000003"]


def test_info_counts(layout: Layout, tmp_path: Path) -> None:
    """What lies where, how much, and how far exporters are behind."""
    layout.cursors.mkdir()
    writer = visible_sources(layout)[0].writer
    (layout.cursors / "otlp.json").write_text(json.dumps({"name": "otlp", "writers": {writer: 2}}))
    told = info(layout)
    assert (told.events, told.parts, told.segments, told.open_segments, told.blobs) == (5, 1, 2, 0, 1)
    assert told.cursors == {"otlp": 3}
    assert told.bytes_per_event is not None
    assert told.writers == []
    sink = JournalSink(layout.root)
    assert info(layout).writers == [sink.writer]
    sink.close()


def test_maintenance_needs_no_duckdb_to_import(tmp_path: Path) -> None:
    """Importing the functions does not load DuckDB; using them without it names the install command."""
    program = (
        "import sys; sys.modules['duckdb'] = None\n"
        "from flowdeck_sinks.store import maintenance as m; from flowdeck.layout import Layout\n"
        "layout = Layout.create(sys.argv[1]); print(m.info(layout).events, m.doctor(layout)[0].mend)\n"
        "try: m.publish(layout)\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")], capture_output=True, text=True)
    assert done.stdout.count("pip install 'flowdeck[duckdb]'") == 2, done.stderr
