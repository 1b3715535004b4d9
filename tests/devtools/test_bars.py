"""Where time falls on a line of cells."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from flowdeck_devtools.core.bars import FULL, Stretch, TimeScale, draw, ticks

SCALE = TimeScale(0, 10_000, 10)


def text_of(stretches: list[Stretch], scale: TimeScale = SCALE) -> str:
    """The line with filled cells as ``█``."""
    return "".join("█" * len(piece.text) if piece.reverse else piece.text for piece in draw(scale, stretches))


def bar(start: int, end: int) -> Stretch:
    return Stretch("bar", start, end, "ok")


def test_a_bar_begins_and_ends_where_its_time_does() -> None:
    """One cell is a tenth of the window; ends are drawn in parts of a cell."""
    assert text_of([bar(0, 10_000)]) == "██████████"
    assert text_of([bar(2_000, 5_000)]) == "  ███     "
    assert text_of([bar(2_000, 5_250)]) == "  ███▎    "
    assert text_of([bar(2_500, 5_000)]) == "  ▐██     "


def test_the_shortest_step_can_still_be_seen() -> None:
    """A microsecond in a window of hours is an eighth of a cell, also at the very end."""
    assert text_of([bar(5_000, 5_001)]) == "     ▏    "
    assert text_of([bar(10_000, 10_000)]) == "         ▕"


def test_waiting_is_dashed_and_holding_is_thin() -> None:
    """What works, what waits and what only holds others look different without colour."""
    assert text_of([bar(0, 2_000), Stretch("wait", 2_000, 6_000, "w")]) == "██┄┄┄┄    "
    assert text_of([Stretch("line", 0, 10_000, "g")]) == "━━━━━━━━━━"


def test_what_lies_outside_the_window_is_not_drawn() -> None:
    """Zooming in cuts bars at the window."""
    assert text_of([bar(-5_000, -1_000), bar(11_000, 12_000)]) == " " * 10
    assert text_of([bar(-5_000, 5_000)]) == "█████     "


@given(
    st.lists(st.tuples(st.sampled_from(["bar", "line", "wait"]), st.integers(-100, 2_000), st.integers(0, 2_000))),
    st.integers(1, 60),
    st.integers(1, 3_000),
)
def test_a_line_is_always_as_wide_as_its_scale(parts: list[tuple[str, int, int]], width: int, span: int) -> None:
    """Whatever overlaps, ends early or has no length."""
    stretches = [Stretch(kind, start, start + length, "s") for kind, start, length in parts]  # type: ignore[arg-type]
    assert sum(len(piece.text) for piece in draw(TimeScale(0, span, width), stretches)) == width


@given(st.integers(1, 10**13), st.integers(10, 200), st.integers(0, 10**12))
def test_ticks_are_round_apart_and_inside(span: int, width: int, into: int) -> None:
    """At least as far apart as asked, from left to right, within the window."""
    scale = TimeScale(1_000 + into, 1_000 + into + span, width)
    marks = ticks(scale, 1_000, apart=8)
    cells = [cell for cell, _ in marks]
    assert all(0 <= cell <= width for cell in cells)
    assert all(after - before >= 7 for before, after in itertools.pairwise(cells))


def test_zooming_keeps_the_point_it_zooms_around() -> None:
    """The step under the cursor stays where it is."""
    zoomed = SCALE.zoomed(2, 5_000)
    assert (zoomed.start_us, zoomed.end_us) == (2_500, 7_500)
    assert zoomed.eighths(5_000) == SCALE.eighths(5_000)


def test_filled_cells_are_spaces_on_colour() -> None:
    """No font draws seams through a bar."""
    assert [piece.text for piece in draw(SCALE, [bar(0, 10_000)])] == [FULL * 10]
