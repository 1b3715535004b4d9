"""Text that is safe and fits."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from flowdeck_devtools.core.text import (
    age,
    cells,
    clean,
    clock_time,
    count,
    duration,
    fit,
    names_id,
    short_id,
    size,
    sparkline,
)

ANY_TEXT = st.text(alphabet=st.characters(codec=None, exclude_categories=())) | st.text(
    "\x1b[]m;0\u0301👩\u200d日", max_size=30
)


@given(ANY_TEXT)
def test_cleaned_text_holds_nothing_a_terminal_would_obey(text: str) -> None:
    """No control, escape, surrogate, direction mark or zero-width joiner is left, whatever came in."""
    cleaned = clean(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in cleaned)
    assert not set(cleaned) & set("\u200b\u200d\u202e\u2066\ufeff\u061c")


@given(ANY_TEXT, st.integers(0, 40), st.booleans())
def test_fitted_text_is_exactly_as_wide_as_asked(text: str, width: int, keep_end: bool) -> None:
    """Columns stay aligned: wide and combining characters are cut at whole characters and padded."""
    assert cell_len(fit(clean(text), width, keep_end=keep_end)) == width


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    """Text may be cleaned at every border it crosses."""
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;ZXZpbA==\x1b\\x", "x"),
        ("a\r\nb\tc", "a b c"),
        ("e\u0301\u0301\u0301\u0301", "é\u0301"),
        ("safe\u202egnp.exe", "safegnp.exe"),
        ("🇩🇪", "DE"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
        ("\x9b31mx", "x"),
    ],
)
def test_known_attacks_are_taken_out(dirty: str, expected: str) -> None:
    """Colours, titles, clipboard writes and reordering vanish; brackets are only text."""
    assert clean(dirty) == expected


@pytest.mark.parametrize(
    ("us", "expected"),
    [
        (None, "–"),
        (-5, "0µs"),
        (85, "85µs"),
        (1_500, "1.5ms"),
        (12_345, "12ms"),
        (99_990, "0.10s"),
        (340_000, "0.34s"),
        (12_840_000, "12.8s"),
        (59_960_000, "1m00s"),
        (247_000_000, "4m07s"),
        (11_520_000_000, "3h12m"),
        (446_400_000_000, "5d04h"),
    ],
)
def test_durations_are_short_and_never_round_to_sixty_seconds(us: int | None, expected: str) -> None:
    """One unit, or two where it matters, in at most seven cells."""
    assert duration(us) == expected


@given(st.integers(0, 86_000_000_000_000))
def test_durations_fit_their_column(us: int) -> None:
    """The duration column never needs more than seven cells in almost three years."""
    assert len(duration(us)) <= 7


def test_ages_and_sizes_and_counts_read_as_people_say_them() -> None:
    """Rounded to one unit."""
    assert [age(us) for us in (0, 8_000_000, 240_000_000, 7_300_000_000)] == ["now", "8s", "4m", "2h"]
    assert [size(octets) for octets in (812, 4_100, 3_200_000)] == ["812 B", "4.1 kB", "3.2 MB"]
    assert [count(number) for number in (48_210, 3_100_000)] == ["48,210", "3.1M"]


def test_ids_are_shortened_so_that_neighbours_and_processes_differ() -> None:
    """The first runs of two processes look different, and what is shown names the id again."""
    first, other = "1a1fcce35df0ed7b05da5c0000000023", "1a1fcce35df0ed7b05d77a0000000023"
    assert short_id(first) == "a5c…0023"
    assert short_id(other) == "77a…0023"
    assert short_id("short") == "short"
    assert short_id("r0000000123") == "…0000123"
    for identifier in (first, f"{first}.1", "r0000000123"):
        assert all(names_id(short_id(identifier, width), identifier) for width in (6, 8, 12))
    assert not names_id(short_id(first), other)


def test_impossible_times_are_shown_as_unknown() -> None:
    """A producer may write any number as its time."""
    assert clock_time(2**80) == "??:??:??.174" or clock_time(2**80).startswith("??")
    assert clock_time(None) == "–"


def test_sparklines_are_flat_when_nothing_happens() -> None:
    """A flat line still shows that it lives."""
    assert sparkline([0, 0, 0]) == "▁▁▁"
    assert sparkline([0, 1, 10]) == "▁▂█"


def test_width_of_ascii_is_its_length() -> None:
    """The fast path and the table agree."""
    assert cells("plain") == cell_len("plain") == 5
