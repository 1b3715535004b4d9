"""Which files hold the events now: one rule, in Python and in SQL, under any clock."""

from __future__ import annotations

import random
import time
from pathlib import Path

import duckdb
import pytest
from tests.sinks.support import plain

from flowdeck.layout import Layout
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store import _keeping, compaction, publisher
from flowdeck_sinks.store._keeping import Timing
from flowdeck_sinks.store.compaction import compact
from flowdeck_sinks.store.parts import (
    PublishedFile,
    listing,
    segment_files,
    visibility_views,
    visible_sources,
)
from flowdeck_sinks.store.publisher import publish

HOUR = 3_600_000


def place(layout: Layout, lo: int, hi: int, level: int, visible: int, stem: str = "c") -> PublishedFile:
    """Make an empty file of that name."""
    file = PublishedFile(Path(), lo, hi, level, stem, visible)
    path = (layout.days if level else layout.parts) / file.name
    path.touch()
    return file._replace(path=path)


def names(layout: Layout, now: int) -> tuple[set[str], set[str]]:
    """Return the names visible and the segments covered, by the Python rule."""
    found = listing(layout, now)
    assert {source.path.name for source in visible_sources(layout, now)} == {
        *(file.path.name for file in found.visible),
        *(path.name for path in found.segments),
    }
    return {file.path.name for file in found.visible}, {path.stem for path, _ in found.covered}


def names_by_sql(layout: Layout, now: int) -> tuple[set[str], set[str]]:
    """Return the same by the SQL rule, whose clock is ``now``."""
    stems = {path.stem for path in segment_files(layout)}
    with duckdb.connect() as connection:
        for name, body in visibility_views(layout).items():
            connection.execute(f"CREATE VIEW {name} AS {body.replace('epoch_ms(now())', str(now))}")
        live = connection.execute("SELECT parse_filename(file) FROM _live_files").fetchall()
        covered = connection.execute("SELECT stem FROM _covered").fetchall()
    return {row[0] for row in live}, {row[0] for row in covered} & stems


def test_a_part_takes_over_when_its_time_has_come(tmp_path: Path) -> None:
    """Before its stamp the segment is read, from then on the part, in Python and in SQL."""
    layout = Layout.create(tmp_path / "store")
    segment = layout.segment_path("w1", 1)
    segment.touch()
    part = place(layout, 1, 1, 0, 1000, segment.stem)
    for now, expected in ((999, set()), (1000, {part.name}), (5000, {part.name})):
        assert names(layout, now)[0] == names_by_sql(layout, now)[0] == expected
        assert names(layout, now)[1] == names_by_sql(layout, now)[1] == ({segment.stem} if expected else set())


def test_a_part_without_its_segment_counts_at_once(tmp_path: Path) -> None:
    """After the clock jumped back an hour, or in a transaction that holds an old now(), nothing is missing."""
    layout = Layout.create(tmp_path / "store")
    part = place(layout, 1, 1, 0, HOUR, "w1-000001")
    assert names(layout, 0)[0] == names_by_sql(layout, 0)[0] == {part.name}


def test_a_day_takes_over_when_its_time_has_come(tmp_path: Path) -> None:
    """Its inputs are read until then, all of them; and from the moment the first of them is gone, it alone."""
    layout = Layout.create(tmp_path / "store")
    parts = [place(layout, n, n, 0, 10, f"w1-{n:06d}") for n in (1, 2, 3)]
    later = place(layout, 4, 4, 0, 10, "w1-000004")
    day = place(layout, 1, 3, 1, HOUR)
    before = {*(part.name for part in parts), later.name}
    after = {day.name, later.name}
    assert names(layout, HOUR - 1)[0] == names_by_sql(layout, HOUR - 1)[0] == before
    assert names(layout, HOUR)[0] == names_by_sql(layout, HOUR)[0] == after
    parts[0].path.unlink()
    assert names(layout, 20)[0] == names_by_sql(layout, 20)[0] == after


def test_a_rewritten_file_takes_the_place_of_the_old(tmp_path: Path) -> None:
    """Retention writes the same numbers at a higher level: one of the two counts, never both."""
    layout = Layout.create(tmp_path / "store")
    old = place(layout, 1, 9, 1, 10)
    new = place(layout, 1, 9, 2, 100)
    assert names(layout, 99)[0] == names_by_sql(layout, 99)[0] == {old.name}
    assert names(layout, 100)[0] == names_by_sql(layout, 100)[0] == {new.name}


def test_foreign_names_are_passed_over(tmp_path: Path) -> None:
    """Unfinished and foreign files are not ours to read."""
    layout = Layout.create(tmp_path / "store")
    for name in ("_.parquet", ".publish-1-x.tmp", "mine.parquet", "1-2~x@.parquet"):
        (layout.parts / name).touch()
    for name in ("notes.txt", ".w1-000001.jsonl.tmp"):
        (layout.journal / name).touch()
    assert visible_sources(layout) == []


@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_work_under_any_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Segments, publishing, compaction and jumps of the clock in random order: every event in one visible file."""
    check_history(tmp_path, monkeypatch, seed, steps=40)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_many_orders_of_work_under_any_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """The same, longer and forty times."""
    check_history(tmp_path, monkeypatch, seed, steps=120)


def check_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, steps: int) -> None:
    chance = random.Random(seed)
    now = [time.time_ns() // 1_000_000]
    for module in (_keeping, publisher, compaction):
        monkeypatch.setattr(module, "now_ms", lambda: now[0])
    layout = Layout.create(tmp_path / "store")
    timing = Timing(visible_after_ms=5_000, keep_ms=30_000)
    sink = JournalSink(layout.root, segment_bytes=2000)
    written = 0
    for _ in range(steps):
        work = (
            "write",
            "write",
            "publish",
            "publish",
            "publish",
            "compact",
            "compact",
            "clock",
            "clock",
            "clock",
            "jump",
        )
        match chance.choice(work):
            case "write":
                for _ in range(chance.randint(1, 6)):
                    sink.accept(plain(written, 600))
                    written += 1
                assert sink.flush(10)
            case "publish":
                assert publish(layout, timing=timing).problems == []
            case "compact":
                assert compact(layout, force=True, timing=timing).problems == []
            case "clock":
                now[0] += chance.choice((1_000, 6_000, 40_000))
            case "jump":
                now[0] += chance.choice((-HOUR, -HOUR, HOUR))
        assert names(layout, now[0]) == names_by_sql(layout, now[0])
        stale = now[0] - chance.choice((0, 0, 10, 4_000))
        assert rows(layout, stale) == list(range(1, written + 1)), "each once"
        assert rows(layout, stale, at_once=True) == list(range(1, written + 1)), "for readers that do not wait, too"
    sink.close()
    for _ in range(5):
        publish(layout, timing=timing)
        compact(layout, force=True, timing=timing)
        now[0] += 24 * HOUR
        assert rows(layout, now[0]) == list(range(1, written + 1))
    publish(layout, timing=timing)
    found = listing(layout, now[0])
    assert (found.segments, found.covered, found.hidden, found.waiting) == ([], [], [], [])
    assert all(file.level for file in found.visible), "nothing but days in the end"


def rows(layout: Layout, now: int, *, at_once: bool = False) -> list[int]:
    """Return every ``wseq`` in the files visible at ``now``."""
    found = listing(layout, now, at_once=at_once)
    with duckdb.connect() as connection:
        out = [
            row[0]
            for file in found.visible
            for row in connection.execute(f"SELECT wseq FROM read_parquet('{file.path}')").fetchall()
        ]
        for path in found.segments:
            out += [
                row[0]
                for row in connection.execute(
                    f"SELECT wseq FROM read_ndjson('{path}', columns = {{wseq: 'BIGINT', event_id: 'VARCHAR'}}) "
                    "WHERE event_id IS NOT NULL"
                ).fetchall()
            ]
    return sorted(out)
