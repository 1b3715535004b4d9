"""Segments become parts: the same rows, the damaged ones set aside, and nothing lost to a bad disk or file."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import duckdb
import pytest
from tests.sinks.publishing import AT_ONCE, exact, kill, sql_setup
from tests.sinks.support import NOBODY, Story, in_child, numbers, plain, segments, until

from flowdeck.layout import Layout
from flowdeck_sinks._journal_publish import PublishTrigger
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store import publisher
from flowdeck_sinks.store._keeping import Timing, keepers_lock
from flowdeck_sinks.store.maintenance import Policy, compact, doctor, info, prune, publish, quarantine
from flowdeck_sinks.store.parts import events_select, published_files, visible_sources
from flowdeck_sinks.store.publisher import keep, main

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


def filled(store: Path, count: int = 50, **options: int) -> Layout:
    """Return a store with ``count`` events of one writer that has ended."""
    sink = JournalSink(store, **options)
    for n in range(count):
        sink.accept(plain(n, 300))
    sink.close()
    return sink.layout


def every_row(layout: Layout) -> list[tuple[object, ...]]:
    """Return all columns of all events, as readers see them."""
    with duckdb.connect() as connection:
        return connection.execute(f"{events_select(visible_sources(layout))} ORDER BY writer, wseq").fetchall()


def test_a_part_holds_what_the_segment_held(tmp_path: Path) -> None:
    """Every column of every event reads the same before and after, hostile values included."""
    sink = JournalSink(tmp_path / "store")
    story = Story(sink)
    run = story.execution("e1", task_id="t1")
    story.tell(run, "triggerflow.execution_started", {"initial_value": {"deep": [1, None, "ü\u0000\x1b[31m"]}})
    story.tell(story.chunk(run, "a"), "chunk.failed", {"output": 2**70}, error=ValueError("no"))
    story.tell(run, "my.event", {"text": "\ud800 lone", "nan": float("nan")}, message="m" * 5000)
    sink.accept(plain(1))
    sink.close()
    before = every_row(sink.layout)
    assert len(before) == 4
    report = publish(sink.layout, timing=AT_ONCE)
    assert (report.segments, report.events, report.quarantined, report.problems) == (1, 4, 0, [])
    publish(sink.layout, timing=AT_ONCE)
    assert segments(tmp_path / "store") == []
    assert every_row(sink.layout) == before


def test_open_segments_are_left_alone(tmp_path: Path) -> None:
    """What a writer still holds is not published, and what it writes next is seen."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(0))
    sink.flush(5)
    assert publish(sink.layout, timing=AT_ONCE).segments == 0
    sink.accept(plain(1))
    sink.close()
    assert publish(sink.layout, timing=AT_ONCE).events == 2
    assert list(exact(sink.layout).values()) == [(2, 2, 2)]


def test_a_second_publisher_stands_back(tmp_path: Path) -> None:
    """Whoever does not win the lock reports busy and does nothing."""
    layout = filled(tmp_path / "store")
    with keepers_lock(layout) as won:
        assert won
        assert publish(layout).busy
        assert compact(layout).busy
    assert not publish(layout).busy


def test_publishing_twice_makes_one_part(tmp_path: Path) -> None:
    """A part that does not count yet keeps its segment from being published again."""
    layout = filled(tmp_path / "store")
    slow = Timing(visible_after_ms=60_000, keep_ms=0)
    assert publish(layout, timing=slow).segments == 1
    again = publish(layout, timing=slow)
    assert (again.segments, again.waiting) == (0, 1)
    assert list(exact(layout).values()) == [(50, 50, 50)]


def test_damaged_lines_are_set_aside(tmp_path: Path) -> None:
    """Garbage, cut lines, bytes that are no text and strangers' objects go to the quarantine; the rest is published."""
    layout = filled(tmp_path / "store", 3)
    (path,) = segments(layout.root)
    good = path.read_bytes()
    path.write_bytes(
        good + b"garbage \x1b[2J\n\x00\x00\xff\n[1, 2]\n"
        b'{"event_id":null,"mine":1}\n' + b'{"a":' * 2000 + b"\n"
        b'{"wseq":4,"event_id":"e4","event_type":"test.ev'
    )
    report = publish(layout, timing=AT_ONCE)
    assert (report.events, report.quarantined) == (3, 6)
    found = quarantine(layout)
    assert [item.line for item in found] == [5, 6, 7, 8, 9, 10]
    assert [item.reason.partition(":")[0] for item in found] == [
        "not JSON", "not JSON", "not a JSON object", "no event_id", "not JSON", "cut off",
    ]  # fmt: skip
    assert all(item.origin == path.name for item in found)
    assert "\x1b" not in found[0].preview
    assert info(layout).quarantined == 6
    assert any("set aside" in finding.what for finding in doctor(layout))


def test_unfinished_files_of_a_killed_publisher_go(tmp_path: Path) -> None:
    """What was never renamed is deleted by the next publisher, and was never read."""
    layout = filled(tmp_path / "store")
    layout.days.mkdir(exist_ok=True)
    (layout.parts / ".publish-1-abc.tmp").write_bytes(b"PAR1 half")
    (layout.days / ".publish-1-abd.tmp").write_bytes(b"PAR1 half")
    assert list(exact(layout).values()) == [(50, 50, 50)]
    assert publish(layout, timing=AT_ONCE).orphans == 2
    assert not [path for path in layout.parts.iterdir() if path.suffix == ".tmp"]


def test_a_deleted_part_loses_its_rows_only(tmp_path: Path) -> None:
    """Readers go on without it; while its segment stands nothing is lost; the doctor notices what is missing."""
    layout = filled(tmp_path / "store", 60, segment_bytes=5000)
    publish(layout, timing=Timing(visible_after_ms=0, keep_ms=60_000))
    files = published_files(layout)
    assert len(files) > 2
    files[1].path.unlink()
    assert list(exact(layout).values()) == [(60, 60, 60)], "the segment is read again"
    publish(layout, timing=AT_ONCE)
    publish(layout, timing=AT_ONCE)
    assert segments(layout.root) == []
    assert list(exact(layout).values()) == [(60, 60, 60)]
    published_files(layout)[1].path.unlink()
    ((count, distinct, last),) = exact(layout).values()
    assert count == distinct < last == 60
    assert any(f"{60 - count} events" in finding.what for finding in doctor(layout))


def test_a_truncated_part_is_set_aside(tmp_path: Path) -> None:
    """A part that lost its end is made again from its segment; without one it goes where the doctor finds it."""
    layout = filled(tmp_path / "store", 60, segment_bytes=5000)
    publish(layout, timing=Timing(visible_after_ms=0, keep_ms=60_000))
    first, second, *_ = published_files(layout)
    os.truncate(first.path, 100)
    assert doctor(layout)[0].level == "error"
    assert publish(layout, timing=AT_ONCE).segments == 1
    assert list(exact(layout).values()) == [(60, 60, 60)]
    publish(layout, timing=AT_ONCE)
    assert segments(layout.root) == []
    os.truncate(second.path, 0)
    report = publish(layout, timing=AT_ONCE)
    assert "not a whole Parquet file" in report.problems[0]
    assert {item.origin for item in quarantine(layout)} == {first.path.name, second.path.name}
    ((count, distinct, _),) = exact(layout).values()
    assert count == distinct < 60


def test_two_library_versions_write_one_store(tmp_path: Path) -> None:
    """Unknown keys and missing columns of another version's lines and files disturb nobody."""
    layout = filled(tmp_path / "store", 2)
    header = {"flowdeck": "journal", "format": 1, "writer": "wnewer", "library": "9.9.9", "schema": 2, "first_wseq": 1}
    line = json.loads(plain(7).encoded) | {
        "wseq": 1,
        "shape": {"new": True},
        "meta": {"v": 2, "us": 5, "colour": "red"},
    }
    newer = layout.segment_path("wnewer", 1)
    newer.write_text(f"{json.dumps(header)}\n{json.dumps(line)}\n")
    publish(layout, timing=AT_ONCE)
    with duckdb.connect() as connection:  # a part of an older version lacks columns, one of a newer has more
        old, new = (layout.parts / f"0000000{n}-0000000{n}-0~w{n}-000001@0000000000001.parquet" for n in (8, 9))
        few = "'e8' AS event_id, TIMESTAMP '2020-01-01' AS ts, 'a.b' AS event_type, 1::BIGINT AS wseq, 'w8' AS writer"
        connection.execute(f"COPY (SELECT {few}) TO '{old}' (FORMAT parquet)")
        connection.execute(f"COPY (SELECT {few.replace('8', '9')}, 'x' AS future) TO '{new}' (FORMAT parquet)")
    seen = {row[0] for row in every_row(layout)}
    assert seen == {"e00000000", "e00000001", "e00000007", "e8", "e9"}
    assert exact(layout)["wnewer"] == (1, 1, 1)
    compact(layout, force=True, timing=AT_ONCE)
    assert {row[0] for row in every_row(layout)} == seen
    assert len([source for source in visible_sources(layout) if source.kind == "day"]) == 1


@as_root
def test_a_store_that_may_not_be_written(tmp_path: Path) -> None:
    """A reader without write permission sees everything; publishing says what is wrong and changes nothing."""
    layout = filled(tmp_path / "store")
    setup = sql_setup(layout)
    for path in (tmp_path, layout.root, *layout.root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)

    def work() -> tuple[int, str, list[str]]:
        with duckdb.connect() as connection:
            for statement in setup:
                connection.execute(statement)
            count = connection.execute("SELECT count(*) FROM events").fetchone()
        try:
            publish(layout)
        except OSError as error:
            return count[0], str(error), [finding.what for finding in doctor(layout)]
        return count[0], "published", []

    parents = [path for path in tmp_path.parents if path.stat().st_mode & 0o055 == 0]
    for path in parents:
        path.chmod(path.stat().st_mode | 0o055)
    count, error, findings = in_child(work, uid=NOBODY)
    assert count == 50
    assert "Permission denied" in error
    assert any("may not be written" in what for what in findings)


def test_a_disk_full_while_publishing(tmp_path: Path) -> None:
    """The segment stays, the half part goes, the report says why, and the next try succeeds."""
    layout = filled(tmp_path / "store", 3000)

    def work() -> list[str]:
        return publish(layout, timing=AT_ONCE).problems

    (problem,) = in_child(work, file_limit=2000)
    assert segments(layout.root)[0].name in problem
    assert [path.name for path in layout.parts.iterdir() if path.name != "_.parquet"] == []
    assert publish(layout, timing=AT_ONCE).events == 3000


def test_the_child_does_everything_and_ends(tmp_path: Path) -> None:
    """One call publishes, deletes what was replaced and leaves a note; a wrong store is an exit code."""
    layout = filled(tmp_path / "store", 60, segment_bytes=5000)
    keep(layout, timing=Timing(visible_after_ms=0, keep_ms=10))
    assert segments(layout.root) == []
    assert list(exact(layout).values()) == [(60, 60, 60)]
    assert json.loads(layout.publish_json.read_text())["problems"] == []
    niceness = os.nice(0)
    assert in_child(lambda: main([str(tmp_path / "none")])) == 1
    assert os.nice(0) == niceness


def test_the_child_comes_back_when_enough_has_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits to delete, what is sealed meanwhile is published; one child serves a store, a second one goes."""
    monkeypatch.setenv("FLOWDECK_PUBLISH", "on")
    monkeypatch.setattr(publisher, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(publisher, "ENOUGH_BYTES", 20_000)
    layout = filled(tmp_path / "store", 60, segment_bytes=5000)
    slow = Timing(visible_after_ms=0, keep_ms=600_000)
    child = os.fork()
    if not child:
        keep(layout, timing=slow)
        os._exit(0)
    try:
        until(lambda: {path.stem for path in segments(layout.root)} == stems(layout), "the first round", 30)
        filled(layout.root, 100, segment_bytes=5000)
        until(lambda: {path.stem for path in segments(layout.root)} == stems(layout), "the second", 30)
        trigger = PublishTrigger(layout)
        monkeypatch.setattr(trigger, "_worth_it", lambda: True)
        assert not trigger.wanted(), "no writer starts another"
        keep(layout, timing=slow)  # once, although it would have something to wait for
    finally:
        kill(child)
    assert trigger.wanted()
    assert sorted(count for count, _, _ in exact(layout).values()) == [60, 100]


def stems(layout: Layout) -> set[str]:
    """Return the segments that have a part."""
    return {file.stem for file in published_files(layout)}


def start_of(store: Path, monkeypatch: pytest.MonkeyPatch, events: int, switch: str = "on") -> int | None:
    """Run one execution with ``events`` events and return the process id of the publisher that was started."""
    monkeypatch.setenv("FLOWDECK_PUBLISH", switch)
    sink = JournalSink(store)
    story = Story(sink)
    run = story.execution("e1" * 16)
    story.tell(run, "triggerflow.execution_started")
    for n in range(events):
        story.tell(run, "my.event", {"text": "x" * 1000})
        if n % 1000 == 0:
            sink.flush(10)
    story.tell(run, "triggerflow.execution_closed")
    sink.flush(10)
    sink.close()
    assert sink._trigger is not None
    return sink._trigger._child


def test_the_last_run_of_a_process_starts_a_publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With enough in the journal a niced child in a session of its own publishes; nobody waits for it."""
    begun = time.monotonic()
    child = start_of(tmp_path / "store", monkeypatch, 9000)
    assert child is not None
    assert time.monotonic() - begun < 5
    try:
        assert os.getsid(child) == child
        layout = Layout(tmp_path / "store")
        until(lambda: published_files(layout), "the child publishes", 30)
        until(lambda: os.getpriority(os.PRIO_PROCESS, child) >= 10, "the child is nice")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert numbers(tmp_path / "store") == []
    (found,) = exact(layout).values()
    assert found == (9002, 9002, 9002)


@pytest.mark.parametrize(("events", "switch"), [(10, "on"), (9000, "off")])
def test_no_publisher_without_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: int, switch: str) -> None:
    """A small journal starts none, and FLOWDECK_PUBLISH=off keeps it away altogether."""
    assert start_of(tmp_path / "store", monkeypatch, events, switch) is None


def test_a_moved_store_is_still_whole(tmp_path: Path) -> None:
    """Names are relative to the store, and a path may hold what a pattern gives a meaning to."""
    layout = filled(tmp_path / "store", 60, segment_bytes=5000)
    publish(layout, timing=AT_ONCE)
    moved = Layout(tmp_path / "it's [1] *?")
    shutil.move(layout.root, moved.root)
    assert list(exact(moved).values()) == [(60, 60, 60)]
    assert len(every_row(moved)) == 60
    publish(moved, timing=AT_ONCE)
    assert compact(moved, force=True, timing=AT_ONCE).problems == []
    publish(moved, timing=AT_ONCE)
    assert len(every_row(moved)) == info(moved).events == 60
    assert doctor(moved)[0].level == "ok"
    assert prune(moved, Policy(max_age_days=-1, max_bytes=1), timing=AT_ONCE).events_removed == 60
