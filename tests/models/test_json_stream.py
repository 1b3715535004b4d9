"""Reading JSON while it is still being written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdeck.models import InstantParser, StreamingData
from flowdeck.models.json_stream import MAX_DEPTH, JsonReader

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
DOCUMENTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=4) | st.lists(VALUES, max_size=4)


def pieces(text: str, cuts: list[int]) -> list[str]:
    """Cut ``text`` into pieces whose lengths come from ``cuts``, over and over."""
    out, at, turn = [], 0, 0
    while at < len(text):
        size = cuts[turn % len(cuts)]
        out.append(text[at : at + size])
        at, turn = at + size, turn + 1

    return out


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans(), st.sampled_from([None, 1]))
def test_any_document_in_any_pieces(document: Any, cuts: list[int], ascii_only: bool, indent: int | None) -> None:
    """It becomes what a whole parse gives; strings grow to their value; every path is done once, after its parts."""
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    expected = json.loads(text)
    parser = InstantParser()
    grown: dict[tuple[Any, ...], str] = {}
    done: list[tuple[Any, ...]] = []
    for piece in pieces(f"Here you are:\n```json\n{text}\n```\nBye. {{", cuts):
        for item in parser.feed(piece):
            where = expected
            for part in item.parts:
                where = where[part]

            assert item.parts not in done
            if not item.is_complete:
                assert item.delta
                grown[item.parts] = grown.get(item.parts, "") + item.delta
                if isinstance(where, str):
                    assert item.value == grown[item.parts]
                    assert where.startswith(item.value)
            else:
                done.append(item.parts)
                assert item.value == where
                assert type(item.value) is type(where)
                if isinstance(where, str):
                    assert grown.get(item.parts, "") == where

    assert parser.reader.root == expected
    assert parser.reader.complete
    assert len(done) == len(set(done)) == _places(expected)
    for path in done:
        inside = [done.index(other) for other in done if len(other) > len(path) and other[: len(path)] == path]
        assert all(index < done.index(path) for index in inside)


def _places(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(1 + _places(each) for each in inner)


@settings(max_examples=100, deadline=None)
@given(
    st.text(alphabet='{}[]",:\\ntrue019.eu \u00e9-', max_size=60), st.lists(st.integers(1, 7), min_size=1, max_size=4)
)
def test_what_is_no_json_never_raises_and_pieces_do_not_matter(text: str, cuts: list[int]) -> None:
    """Whatever comes: no exception, and the same outcome as in one piece; what json accepts is accepted."""
    whole, cut = JsonReader(), JsonReader()
    whole.feed("[" + text)
    for piece in pieces("[" + text, cuts):
        cut.feed(piece)

    assert (cut.complete, cut.root) == (whole.complete, whole.root)
    assert (cut.problem is None) == (whole.problem is None)
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode("[" + text)
    except ValueError:
        assert not whole.complete
    else:
        assert (whole.complete, whole.root) == (True, value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a" 1}', "character 5: expected a colon, found '1'"),
        ('{"a": 01}', "character 6: expected a value, found '01'"),
        ("[1 2]", "character 3: expected a comma or the end of the list, found '2'"),
        (r'["\x"]', r"character 2: no such escape, found '\\x'"),
        ("{a: 1}", "character 1: expected a key, found 'a'"),
        ("[" * (MAX_DEPTH + 1), f"character {MAX_DEPTH}: nested deeper than {MAX_DEPTH}"),
        (f"[{'1' * 5_000}]", f"character 1: too many digits, found '{'1' * 40}'"),
    ],
)
def test_the_place_of_what_is_wrong(text: str, problem: str) -> None:
    """It is named with its character, in whatever pieces it comes, and nothing more is read."""
    for size in (1, 3, 10_000):
        reader = JsonReader()
        for piece in pieces(text, [size]):
            reader.feed(piece)

        assert reader.problem == problem
        assert reader.feed('{"b": 2}') == []


def test_what_stands_before_the_document() -> None:
    """Prose is passed over, also with brackets in it when an object is wanted."""
    parser = InstantParser("object")
    items = list(parser.feed('See [1] and "{": {"a": 1}')) + list(InstantParser("object").feed('As [2]: {"a": 1} }'))
    assert [(item.path, item.value) for item in items] == [("a", 1), ("a", 1)]


def test_a_cut_surrogate_pair() -> None:
    """Half a pair waits for the other; alone it becomes a replacement character, as it cannot be written anywhere."""
    parser = InstantParser()
    items = [item for piece in ('{"a": "x\\ud8', "3d", "\\ude00", "\\ud83d", ' y"}') for item in parser.feed(piece)]
    assert [item.delta for item in items] == ["x", "😀", "\N{REPLACEMENT CHARACTER} y", None]


def test_items() -> None:
    """Paths in both styles, indexes, values of their moment, the whole as far as it is known."""
    parser, slashed = InstantParser(), InstantParser(style="slash")
    first = list(parser.feed('{"items": [{"k": "one"}, {"k": "tw'))
    assert [(i.path, i.value, i.is_complete, i.event_type) for i in first] == [
        ("items[0].k", "one", False, "delta"),
        ("items[0].k", "one", True, "done"),
        ("items[0]", {"k": "one"}, True, "done"),
        ("items[1].k", "tw", False, "delta"),
    ]
    half = first[-1]
    assert half.full_data == {"items": [{"k": "one"}, {"k": "tw"}]}
    rest = list(parser.feed('o"}], "n": -1.5, "none": null}'))
    assert [(i.wildcard_path, i.indexes, i.delta) for i in rest] == [
        ("items[*].k", (1,), "o"), ("items[*].k", (1,), None), ("items[*]", (1,), None), ("items", (), None),
        ("n", (), "-1.5"), ("n", (), None), ("none", (), None),
    ]  # fmt: skip
    assert half.value == "tw"
    assert rest[0].value == "two"
    (item, *_) = slashed.feed('{"items": [{"k": 1 ')
    assert (item.path, item.wildcard_path) == ("items/0/k", "items/*/k")
    assert item.to_dict()["indexes"] == (0,)
    assert StreamingData.of("$tool_calls", [1]).path == "$tool_calls"


def test_every_character_is_looked_at_once() -> None:
    """Twice the text is twice the work: characters handed to the scanners grow with the text, not with its square."""
    looked: list[int] = []

    class Counting(JsonReader):
        def _read_text(self, text: str, at: int, end: int, out: list[Any]) -> int:
            upto = super()._read_text(text, at, end, out)
            looked.append(upto - at)
            return upto

    for size in (20_000, 40_000):
        looked.clear()
        text = json.dumps({"a": "wörd \\ " * (size // 9), "b": ["x" * 30] * (size // 34)})
        reader = Counting()
        for piece in pieces(text, [64]):
            reader.feed(piece)
            assert len(reader._rest) < 12

        assert sum(looked) <= len(text)
