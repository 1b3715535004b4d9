"""What is merged, when, and that a merge changes nothing but the number of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.sinks.publishing import AT_ONCE, exact
from tests.sinks.support import plain

from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store.compaction import FILE_EVENTS, HOUR_MS, MANY_PARTS, Sized, groups
from flowdeck_sinks.store.maintenance import compact, publish
from flowdeck_sinks.store.parts import PublishedFile, published_files

DAY_MS = 24 * HOUR_MS
NOW = 1000 * DAY_MS + 12 * HOUR_MS


def sized(*files: tuple[int, int]) -> list[Sized]:
    """Return files of so many rows, published so many milliseconds before NOW, in order."""
    return [
        Sized(PublishedFile(Path(f"{n}"), n, n, 0, "w1-1", NOW - age), rows, rows * 80)
        for n, (rows, age) in enumerate(files, 1)
    ]


def merged(files: list[Sized], *, force: bool = False) -> list[list[int]]:
    """Return the numbers of the files of each merge."""
    return [[item.file.lo for item in group] for group in groups(files, force=force, now=NOW)]


def test_a_few_young_files_wait() -> None:
    """Fewer than 64 files of the last hour are left alone, unless it is forced."""
    files = sized(*[(100, 1000)] * 10)
    assert merged(files) == []
    assert merged(files, force=True) == [list(range(1, 11))]
    assert merged(sized(*[(100, 1000)] * MANY_PARTS)) == [list(range(1, MANY_PARTS + 1))]
    assert merged(sized(*[(100, HOUR_MS + 1)] * 2)) == [[1, 2]]
    assert merged(sized((100, HOUR_MS + 1)), force=True) == []


def test_large_files_are_not_rewritten_for_small_ones() -> None:
    """An older file joins while it holds at most twice what is gathered: rows are rewritten a few times, not daily."""
    files = sized((100_000, 5 * HOUR_MS), *[(100, 2 * HOUR_MS)] * 5)
    assert merged(files) == [[2, 3, 4, 5, 6]]
    files = sized((900, 5 * HOUR_MS), *[(100, 2 * HOUR_MS)] * 5)
    assert merged(files) == [[1, 2, 3, 4, 5, 6]]


def test_files_stay_within_a_million() -> None:
    """No merge makes a file of more rows than a query should have to skip."""
    files = sized(*[(300_000, 2 * HOUR_MS)] * 7)
    found = merged(files)
    assert found == [[5, 6, 7], [2, 3, 4]]
    assert all(sum(files[n - 1].rows for n in group) <= FILE_EVENTS for group in found)


def test_days_stay_apart_for_a_week() -> None:
    """Files of different days are merged only when they are old: retention removes whole files."""
    yesterday, last_month = 13 * HOUR_MS, 30 * DAY_MS
    assert merged(sized((100, yesterday), (100, 2 * HOUR_MS), (100, 2 * HOUR_MS))) == [[2, 3]]
    assert merged(sized((90_000, yesterday + 1), (100, yesterday))) == [[1, 2]], "a day that is over becomes one"
    assert merged(sized((100, last_month), (100, last_month - 2 * DAY_MS))) == [[1, 2]]


def test_a_merge_changes_nothing_but_the_number_of_files(tmp_path: Path) -> None:
    """Same rows, fewer files, and not larger."""
    sink = JournalSink(tmp_path / "store", segment_bytes=20_000)
    for n in range(1000):
        sink.accept(plain(n, 300))
    sink.close()
    publish(sink.layout, timing=AT_ONCE)
    assert compact(sink.layout, timing=AT_ONCE).files == 0, "young and few"
    before = len(published_files(sink.layout))
    assert before > 10
    publish(sink.layout, timing=AT_ONCE)
    report = compact(sink.layout, force=True, timing=AT_ONCE)
    assert (report.merged, report.files, report.events) == (before, 1, 1000)
    assert report.bytes_after < report.bytes_before
    publish(sink.layout, timing=AT_ONCE)
    assert len(published_files(sink.layout)) == 1
    assert list(exact(sink.layout).values()) == [(1000, 1000, 1000)]


@pytest.mark.parametrize("where", ["rows", "footer", "end"])
def test_a_damaged_file_does_not_stop_the_others(tmp_path: Path, where: str) -> None:
    """A part that cannot be read is named in the report; its rows are the only ones missing."""
    sink = JournalSink(tmp_path / "store", segment_bytes=20_000)
    for n in range(500):
        sink.accept(plain(n, 300))
    sink.close()
    publish(sink.layout, timing=AT_ONCE)
    publish(sink.layout, timing=AT_ONCE)
    files = published_files(sink.layout)
    if where == "end":
        os.truncate(files[2].path, files[2].path.stat().st_size - 10)
        assert publish(sink.layout, timing=AT_ONCE).quarantined == 1
    else:
        size = files[2].path.stat().st_size
        with files[2].path.open("r+b") as file:
            file.seek(10 if where == "rows" else size - 600)
            file.write(b"\xff" * 400)
    report = compact(sink.layout, force=True, timing=AT_ONCE)
    if where == "end":
        assert report.files == 1
        ((count, distinct, last),) = exact(sink.layout).values()
        assert count == distinct < last == 500
    else:
        assert len(report.problems) == 1
        assert files[2].path.exists(), "nothing was lost over it"
        assert report.files == (0 if where == "rows" else 2), "its neighbours, if it can be told which file it is"
