"""The journal when the disk refuses: it holds, counts, recovers, and never disturbs who emits."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sinks.support import NOBODY, dropped, in_child, numbers, plain, raw_lines, segments, until, written

from flowdeck.layout import Layout, StorePermission, is_writer_alive
from flowdeck_sinks._journal_segment import Segment
from flowdeck_sinks.journal import JournalSink

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


def break_disk(sink: JournalSink) -> int:
    """Put /dev/full under the sink's open segment; return a descriptor of the real file."""
    journal = sink._journal
    assert journal is not None
    segment = journal.log._segment
    assert segment is not None
    real = os.dup(segment.descriptor)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, segment.descriptor)
    os.close(full)
    return real


def mend_disk(sink: JournalSink, real: int) -> None:
    """Undo :func:`break_disk`."""
    journal = sink._journal
    assert journal is not None
    segment = journal.log._segment
    assert segment is not None
    os.dup2(real, segment.descriptor)
    os.close(real)


@needs_dev_full
def test_a_full_disk_that_recovers_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the disk refuses waits in memory and is written, in order, when there is room again."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(0))
    sink.flush(5)
    real = break_disk(sink)
    for n in range(1, 500):
        sink.accept(plain(n))
    assert not sink.flush(0.1)
    assert os.strerror(errno.ENOSPC) in str(sink.statistics()["failure"])
    assert "cannot be written" in caplog.text
    mend_disk(sink, real)
    assert sink.flush(10)
    assert sink.statistics()["failure"] == ""
    sink.close()
    assert numbers(sink.store) == list(range(500))
    assert [event["wseq"] for event in written(sink.store)] == list(range(1, 501))
    assert dropped(sink.store) == []
    assert "can be written again" in caplog.text


@needs_dev_full
def test_a_full_disk_that_lasts_is_counted(tmp_path: Path) -> None:
    """Beyond the queue events are dropped and counted, and the count is the first thing said after recovery."""
    sink = JournalSink(tmp_path / "store", queue_bytes=100_000)
    sink.accept(plain(0))
    sink.flush(5)
    real = break_disk(sink)
    for n in range(1, 501):
        sink.accept(plain(n, 1000))
    until(lambda: sink.statistics()["failure"], "the refusal is noticed")
    mend_disk(sink, real)
    assert sink.flush(10)
    sink.accept(plain(900))
    sink.close()
    kept = numbers(sink.store)
    assert kept[-1] == 900
    assert kept[:-1] == list(range(len(kept) - 1))
    lost = 502 - len(kept)
    assert lost > 300
    assert sum(report["count"] for report in dropped(sink.store)) == lost
    wseq = [event["wseq"] for event in written(sink.store)]
    assert wseq == sorted(set(wseq))
    assert wseq[-1] - len(wseq) == lost


@needs_dev_full
def test_a_disk_full_at_close_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Close does not hang on a full disk; what is lost is counted and logged."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(0))
    sink.flush(5)
    os.close(break_disk(sink))
    sink.accept(plain(1))
    sink.accept(plain(2))
    sink.close(5)
    assert sink.statistics()["dropped"] == 2
    assert "2 events lost at close" in caplog.text
    assert not is_writer_alive(sink.layout, str(sink.statistics()["writer"]))


def test_a_file_size_limit_only_means_more_segments(tmp_path: Path) -> None:
    """RLIMIT_FSIZE cuts a line in two; the line is written again in the next segment and the process lives."""

    def work() -> dict[str, object]:
        sink = JournalSink(tmp_path / "store")
        for n in range(300):
            sink.accept(plain(n, 1000))
        assert sink.flush(10)
        sink.close()
        return dict(sink.statistics())

    statistics = in_child(work, file_limit=20_000)
    assert statistics["dropped"] == 0
    store = tmp_path / "store"
    assert numbers(store) == list(range(300))
    assert [event["wseq"] for event in written(store)] == list(range(1, 301))
    assert len(segments(store)) > 10
    assert all(path.read_bytes().endswith(b"\n") for path in segments(store)), "half a line is taken back"
    assert all(path.stat().st_size <= 20_000 for path in segments(store))


def test_a_line_beyond_the_limit_is_given_up(tmp_path: Path) -> None:
    """An event that fits no file is dropped as too_large; those around it are written."""

    def work() -> None:
        sink = JournalSink(tmp_path / "store")
        for n, size in ((1, 500), (2, 30_000), (3, 500)):
            sink.accept(plain(n, size))
        assert sink.flush(10)
        sink.close()

    in_child(work, file_limit=20_000)
    store = tmp_path / "store"
    assert numbers(store) == [1, 3]
    (report,) = dropped(store)
    assert (report["count"], report["reason"]) == (1, "too_large")
    assert [event["wseq"] for event in written(store)] == [1, 3, 4]


def test_no_room_for_a_header_leaves_no_file(tmp_path: Path) -> None:
    """When not even a header fits, nothing half-made stays in the journal, and events wait."""

    def work() -> tuple[bool, str, list[str]]:
        import resource

        sink = JournalSink(tmp_path / "store")
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, resource.RLIM_INFINITY))
        sink.accept(plain(1))
        flushed = sink.flush(0.3)
        names = [path.name for path in sink.layout.journal.iterdir()]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert sink.flush(10)
        failure = str(sink.statistics()["failure"])
        sink.close()
        return flushed, failure, names

    assert in_child(work) == (False, "", ["_.jsonl"])
    assert numbers(tmp_path / "store") == [1]


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A directory other users can reach."""
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="flowdeck-test-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@as_root
def test_a_store_one_may_not_write_is_refused_at_once(open_tmp: Path) -> None:
    """Attaching to a store without permission is one clear error before any event."""
    Layout.create(open_tmp / "store")
    (open_tmp / "store").chmod(0o755)
    (open_tmp / "store" / "store.json").chmod(0o644)

    def attempt() -> str:
        try:
            JournalSink(open_tmp / "store")
        except StorePermission as error:
            return str(error)
        return ""

    message = in_child(attempt, uid=NOBODY)
    assert "permission" in message
    assert "--store" in message


@as_root
def test_permission_lost_and_found_again(open_tmp: Path) -> None:
    """A journal directory that becomes read-only while running holds events back until it is writable."""

    def work() -> tuple[bool, str]:
        sink = JournalSink(open_tmp / "store", segment_bytes=1000)
        sink.accept(plain(1, 2000))
        assert sink.flush(5)
        sink.layout.journal.chmod(0o500)
        sink.accept(plain(2, 2000))  # needs a new segment
        flushed = sink.flush(0.3)
        failure = str(sink.statistics()["failure"])
        sink.layout.journal.chmod(0o700)
        assert sink.flush(10)
        sink.close()
        return flushed, failure

    flushed, failure = in_child(work, uid=NOBODY)
    assert not flushed
    assert os.strerror(errno.EACCES) in failure
    assert numbers(open_tmp / "store") == [1, 2]


def test_a_deleted_store_is_made_anew(tmp_path: Path) -> None:
    """Whoever deletes the store under a running process loses what was in it, not what follows, and is told."""
    sink = JournalSink(tmp_path / "store")
    for n in range(5):
        sink.accept(plain(n))
    sink.flush(5)
    shutil.rmtree(sink.store)
    sink.accept(plain(5))
    assert sink.flush(10)
    assert is_writer_alive(sink.layout, sink.writer)
    sink.close()
    assert numbers(sink.store) == [5]
    (report,) = dropped(sink.store)
    assert (report["count"], report["reason"]) == (5, "segment_deleted")
    assert [event["wseq"] for event in written(sink.store)] == [6, 7]


def test_a_deleted_segment_is_replaced(tmp_path: Path) -> None:
    """Deleting only the open segment file does not send later events into the void."""
    sink = JournalSink(tmp_path / "store")
    sink.accept(plain(0))
    sink.flush(5)
    (path,) = segments(sink.store)
    path.unlink()
    sink.accept(plain(1))
    sink.close()
    assert numbers(sink.store) == [1]
    assert dropped(sink.store)[0]["reason"] == "segment_deleted"


def test_a_torn_line_is_never_continued(tmp_path: Path) -> None:
    """After half a line the writer goes on in a new file, so that no line is swallowed."""
    layout = Layout.create(tmp_path / "store")

    def work() -> tuple[int, bool]:
        segment = Segment(layout, "wtest", 1, 1)
        written, failure = segment.write(b"x" * 5000)
        return written, failure is not None and failure.errno == errno.EFBIG

    assert in_child(work, file_limit=2000) == (2000 - 0 - _header_size(layout), True)


def _header_size(layout: Layout) -> int:
    (path,) = segments(layout.root)
    return path.read_bytes().index(b"\n") + 1


@as_root
def test_a_real_full_file_system(tmp_path: Path) -> None:
    """On a small file system: events arrive until it is full, wait, and go on when space is freed."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mount)], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        ballast = mount / ".ballast"
        sink = JournalSink(mount / "store")
        ballast.write_bytes(b"x" * 700_000)
        for n in range(600):
            sink.accept(plain(n, 1000))
        assert not sink.flush(0.5)
        assert os.strerror(errno.ENOSPC) in str(sink.statistics()["failure"])
        before = len(segments(sink.store))
        until(lambda: sink.statistics()["writes"], "a write was tried")
        assert not sink.flush(0.6)
        assert len(segments(sink.store)) <= before + 1, "a full disk does not collect empty segments"
        ballast.unlink()
        assert sink.flush(10)
        sink.close()
        assert numbers(sink.store) == list(range(600))
        assert [event["wseq"] for event in written(sink.store)] == list(range(1, 601))
        for _, line in raw_lines(sink.store):
            if not line.endswith(b"}"):
                with pytest.raises(ValueError):
                    json.loads(line)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
