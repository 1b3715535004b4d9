"""The ring of lines and the windows over it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.devtools.scene import Scene

from flowdeck_devtools.core import live, spool
from flowdeck_devtools.core.ring import LineRing
from flowdeck_devtools.core.session import Session
from flowdeck_devtools.core.spool import LineQueue, LineSpool
from flowdeck_devtools.core.window import RingWindow


@given(st.lists(st.lists(st.binary(max_size=30), max_size=20), max_size=40))
def test_the_newest_lines_stay_at_their_positions(batches: list[list[bytes]]) -> None:
    """Bounds hold, positions never change, and what is held is exactly the newest."""
    ring = LineRing(max_lines=32, max_bytes=400)
    everything: list[bytes] = []
    for number, batch in enumerate(batches):
        ring.extend(batch, f"w{number % 3}")
        everything += batch
        assert len(ring) <= 32
        assert ring.bytes <= 400 or len(ring) == 1
        assert ring.end == len(everything)
        for position in range(ring.start, ring.end):
            assert ring.get(position) == everything[position]
    assert ring.get(ring.start - 1) is None
    assert ring.get(ring.end) is None


def test_each_line_knows_its_writer() -> None:
    """The writer is kept per stretch, not per line, and survives trimming."""
    ring = LineRing(max_lines=8, max_bytes=10_000)
    for number in range(6):
        ring.extend([b"x", b"y"], "even" if number % 2 == 0 else "odd")
    for position in range(ring.start, ring.end):
        assert ring.writer_at(position) == ("even" if position // 2 % 2 == 0 else "odd")


@given(st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=30), st.integers(0, 9))
def test_a_filtered_window_shows_exactly_the_passing_lines(batches: list[list[int]], wanted: int) -> None:
    """Whether a line was there before the filter or came after it, and however the ring was trimmed."""
    ring = LineRing(max_lines=40, max_bytes=10_000)
    window = RingWindow(ring)
    for place, batch in enumerate(batches):
        ring.extend([b"%d" % number for number in batch])
        if place == len(batches) // 2:
            window.set_filter(lambda line: line == b"%d" % wanted)
        window.advance(1.0)
    if not window.filtered:
        return
    window.advance(1.0)
    expected = [p for p in range(ring.start, ring.end) if ring.get(p) == b"%d" % wanted]
    assert [window.position(index) for index in range(len(window))] == expected
    for index, position in enumerate(expected):
        assert window.index_of(position) == index


def test_a_paused_window_stands_still_while_the_ring_fills() -> None:
    """Pausing freezes what is shown, not what is collected, and counts what waits."""
    ring = LineRing()
    window = RingWindow(ring)
    ring.extend([b"1", b"2"])
    window.pause(True)
    ring.extend([b"3"])
    assert (len(window), window.pending) == (2, 1)
    window.pause(False)
    assert (len(window), window.pending) == (3, 0)


def test_a_filter_searches_the_newest_lines_first() -> None:
    """The screen fills at once; the rest follows in slices."""
    ring = LineRing()
    ring.extend([b"%d" % number for number in range(5_000)])
    window = RingWindow(ring)
    window.set_filter(lambda line: True)
    while not len(window):
        window.advance(0.0)
    assert window.line(len(window) - 1) == b"4999"
    assert window.searching


def test_a_queue_keeps_order_and_writers_and_counts_what_it_cannot_keep() -> None:
    """Lines come out as they went in, whatever is put in between; what is too much is counted, not forgotten."""
    queue, taken = LineQueue(max_bytes=400), []
    for number in range(60):
        queue.put("a" if number % 20 < 13 else "b", b"line %05d" % number)
        if number % 7 == 6:
            taken += queue.take(4)
    assert len(queue) == 40 - len(taken)
    while lines := queue.take(100):
        taken += lines
    assert taken == [("a" if number % 20 < 13 else "b", b"line %05d" % number) for number in range(40)]
    assert queue.dropped == 20
    queue.put("c", b"more")
    assert (queue.take(5), len(queue)) == ([("c", b"more")], 0)


def test_a_run_nobody_looks_at_waits_in_a_file_and_is_opened_anew_when_that_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of an opened run wait outside the memory; if some had to be left out it says so and is read again."""
    monkeypatch.setattr(live, "MAX_FEED_BYTES", 2_000)
    scene = Scene(tmp_path / "store")
    run = scene.execution("busy", at=0.0)
    session = Session(scene.store)
    session.live.poll_once()
    opened = session.open_run(str(run.run["run_id"]))
    assert opened.wait(5.0)
    for index in range(50):
        run.step(f"for_each[{index}]/work", "work", at=1.0 + index, lasts=0.5)
    session.live.poll_once()
    opened.advance()
    assert opened.left_out == 102 - opened.trace.events > 0
    again = session.open_run(str(run.run["run_id"]))
    assert opened.closed
    assert again.wait(5.0)
    while again.loading:
        again.advance()
    assert (again.trace.events, again.left_out) == (102, 0)
    assert session.open_run(str(run.run["run_id"])) is again
    scene.close()


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond that: a write takes what fits, the next one fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_full_disk_took_in_part_is_read_as_it_was_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without room is refused and those before it stay; when there is room again they all go to the file."""
    monkeypatch.setattr(spool, "BUFFER_BYTES", 1_000)
    lines, kept, refused = LineSpool(), [], 0
    for number in range(200):
        line = b"line %05d " % number * 3
        room = 2_500 if 60 <= number < 120 else 1_000_000
        try:
            with files_end_at(room):
                lines.append(line)
            kept.append(line)
        except OSError:
            refused += 1
            with files_end_at(room):
                lines.append(line + b"needed", needed=True)
            kept.append(line + b"needed")
    assert refused > 0
    assert len(kept) == len(lines) == 200
    assert [lines.get(number) for number in range(len(lines))] == kept
    assert lines.search([b"needed"]) == [number for number, line in enumerate(kept) if b"needed" in line]


def test_a_full_disk_is_no_fault_of_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of an opened run that have no room are counted; every event counts once, and the tree goes on."""
    monkeypatch.setattr(spool, "BUFFER_BYTES", 1_000)
    scene = Scene(tmp_path / "store")
    run = scene.execution("busy", at=0.0)
    run_id = str(run.run["run_id"])
    session = Session(scene.store)
    session.live.poll_once()
    opened = session.open_run(run_id)
    assert opened.wait(5.0)
    for index in range(50):
        run.step(f"for_each[{index}]/work", "work", at=1.0 + index, lasts=0.5)
    with files_end_at(0):
        assert session.live.poll_once() == 100
        opened.advance()
    assert (session.live.index.rows[run_id].events, session.live.total) == (102, 102)
    assert opened.left_out == 102 - opened.trace.events > 0
    with files_end_at(0):
        again = session.open_run(run_id)
        assert again.wait(5.0)
        assert session.open_run(run_id, again=False) is again
    assert opened.closed
    assert again.left_out > 0
    scene.close()


def test_a_tree_goes_on_without_room_for_its_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk a tree has all its steps with the event each began with, and counts the events it cannot hold."""
    scene = Scene(tmp_path / "store")
    run = scene.execution("busy", at=0.0)
    for index in range(50):
        run.step(f"for_each[{index}]/work", "work", at=1.0 + index, lasts=0.5)
    session = Session(scene.store)
    session.live.poll_once()
    opened = session.open_run(str(run.run["run_id"]))
    assert opened.wait(5.0)
    monkeypatch.setattr(spool, "BUFFER_BYTES", 1_000)
    with files_end_at(0):
        while opened.loading:
            opened.advance()
    trace = opened.trace
    steps = [node for node in trace.nodes.values() if node.name == "work" and node.role == "span"]
    assert (trace.events, len(steps)) == (102, 50)
    assert {step.status for step in steps} == {"completed"}
    assert all(step.has_begun and step.lines[0] for step in steps)
    assert sum(node.lines_dropped for node in trace.nodes.values()) == 102 - trace.line_count > 0
    scene.close()
