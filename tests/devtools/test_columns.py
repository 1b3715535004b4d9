"""How wide each column is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowdeck_devtools.core.columns import GAP, Column, lay_out
from flowdeck_devtools.tui.screens.inbox import COLUMNS as INBOX
from flowdeck_devtools.tui.screens.runs import COLUMNS as RUNS


@given(st.integers(1, 300), st.sampled_from([RUNS, INBOX]))
def test_columns_never_need_more_than_there_is(width: int, columns: tuple[Column, ...]) -> None:
    """At every width, with their gaps."""
    placed = lay_out(columns, width)
    assert placed
    assert sum(place.width for place in placed) + GAP * (len(placed) - 1) <= width
    assert all(place.width > 0 for place in placed)


def test_the_least_important_column_goes_first() -> None:
    """At 80 columns the runs keep status, flow, start, duration, errors and step."""
    assert [place.column.id for place in lay_out(RUNS, 116)] == [column.id for column in RUNS]
    narrow = [place.column.id for place in lay_out(RUNS, 76)]
    assert "activity" not in narrow
    assert {"status", "flow", "duration", "step"} <= set(narrow)


def test_flexible_columns_share_what_is_left() -> None:
    """By their weights, up to what they can use."""
    columns = [Column("a", "A", 4), Column("b", "B", 4, flex=1), Column("c", "C", 4, flex=1, most=6)]
    assert [place.width for place in lay_out(columns, 34)] == [4, 22, 6]
