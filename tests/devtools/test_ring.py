"""The ring of lines and the windows over it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowdeck_devtools.core.ring import LineRing
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
