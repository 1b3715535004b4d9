"""Journal lines read with patience."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from flowdeck_devtools.core.describe import describe
from flowdeck_devtools.core.facts import copy_event, event_sections
from flowdeck_devtools.core.jsonlines import MAX_LINES, json_lines
from flowdeck_devtools.core.wire import decode, head, level_rank

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
FIELDS = (
    "event_type",
    "level",
    "run",
    "meta",
    "payload",
    "error",
    "message",
    "timestamp",
    "wseq",
    "source",
    "event_id",
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
def test_any_json_is_an_event(value: object) -> None:
    """Fields of any type, missing or unknown, are read without an error and can be shown and copied."""
    line = json.dumps(value).encode("utf-8", "surrogatepass")
    assert isinstance(head(line).event_type, str)
    event = decode(line)
    assert isinstance(event.event_type, str)
    assert "\x1b" not in describe(event)
    assert event_sections(line)
    assert copy_event(line)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event(line: bytes) -> None:
    """A damaged line becomes an event that shows itself."""
    assert isinstance(head(line).event_type, str)
    assert isinstance(describe(decode(line)), str)


def test_a_broken_line_shows_its_text_as_a_warning() -> None:
    """What cannot be read is not hidden."""
    event = decode(b'{"event_type":"chunk.st')
    assert (event.event_type, event.level) == ("?", "WARNING")
    assert "chunk.st" in (event.message or "")


def test_head_and_event_agree_where_types_are_wrong() -> None:
    """Numbers as ids and texts as numbers are read leniently, by both."""
    line = b'{"event_type":"x","run":{"run_id":7},"meta":{"us":"no","scope":5},"timestamp":12}'
    assert head(line).time_us == decode(line).time_us == 12_000
    one = head(line)
    assert one.run is not None and one.run.run_id == "7"
    assert one.meta is not None and one.meta.scope == "5"


def test_a_huge_payload_is_not_decoded() -> None:
    """Five megabytes cost a look at their first bytes."""
    line = json.dumps({"event_type": "big", "payload": {"blob": "x" * 5_000_000}}).encode()
    event = decode(line)
    assert event.payload["$size"] > 5_000_000
    assert len(describe(event)) <= 240


def test_a_deep_or_wide_value_is_cut_with_a_note() -> None:
    """Depth and number of lines are bounded, and it says so."""
    deep: object = 1
    for _ in range(200):
        deep = {"a": deep}
    assert any("deeper" in line.text for line in json_lines(deep))
    wide = json_lines([{"a": index} for index in range(10_000)])
    assert len(wide) == MAX_LINES + 1
    assert wide[-1].kind == "note"


def test_levels_are_ordered_and_unknown_ones_count_as_info() -> None:
    """WARN and FATAL are other people's names for ours."""
    ranks = [level_rank(name) for name in ("DEBUG", "INFO", "WARN", "ERROR", "FATAL")]
    assert ranks == [0, 1, 2, 3, 4]
    assert level_rank("strange") == 1
