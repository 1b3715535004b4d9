"""Answers in sections: a heading for each key, read while they are still being written."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.test_json_stream import VALUES, pieces

from flowdeck.models.output import OutputSpec
from flowdeck.models.sections import SectionReader

SPEC = {
    "title": (str, "at most ten words", True),
    "score": (int, "1 to 5"),
    "tags": [(str, "lower case")],
    "author": {"name": str},
    "body": str,
}
WORDS = st.text(st.sampled_from("ab `~#*\n é😀")).filter(lambda text: "```" not in text and "~~~" not in text)


def spoken(text: str, cuts: list[int], spec: Any = None) -> tuple[dict[str, Any], list[str]]:
    """Read ``text`` in pieces; return what came, and the paths that were done. Strings grew to their value."""
    reader = OutputSpec(spec or SPEC, "hybrid").section_reader()
    assert reader is not None
    grown: dict[Any, str] = {}
    done: list[str] = []
    for each in [*pieces(text, cuts), None]:
        for item in reader.end() if each is None else reader.feed(each):
            if item.is_complete:
                assert item.parts not in done
                done.append(".".join(map(str, item.parts)))
                if isinstance(item.value, str) and item.parts in grown:
                    assert grown[item.parts] == item.value
            elif item.length >= 0:
                grown[item.parts] = grown.get(item.parts, "") + str(item.delta)

    return reader.root, done


@settings(max_examples=120, deadline=None)
@given(
    WORDS,
    WORDS,
    st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_any_answer_in_any_pieces(title: str, body: str, author: dict[str, Any], cuts: list[int]) -> None:
    """Whatever the pieces, the fields come whole, each done once, and are what a read of the whole text gives."""
    text = (
        f"Sure.\n\n### title\n{title}\n\n### author\n```json\n{json.dumps(author)}\n```\n### score ###\n 4\n\n"
        f"### body\n{body}"
    )
    expected = {"title": title.strip(), "author": author, "score": 4, "body": body.strip()}
    root, done = spoken(text, cuts)
    assert (root, OutputSpec(SPEC, "hybrid").read(text).data) == (expected, expected)
    assert [path for path in done if path in SPEC] == ["title", "author", "score", "body"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("### title\nx\n### Introduction\ny\n###body\nz", {"title": "x\n### Introduction\ny\n###body\nz"}),
        ("### title\nx\n### title\nagain", {"title": "x\n### title\nagain"}),
        ("### body\n~~~md\n### title\n~~~\n### title\nx", {"body": "~~~md\n### title\n~~~", "title": "x"}),
        ("```markdown\n### title\nx\n### tags\n```json\n[]\n```\n```\nBye\n### body\nz", {"title": "x", "tags": []}),
        ("### tags\nHere:\n[1, 2]\n### title\r\nx\r\n", {"tags": [1, 2], "title": "x"}),
        ("### tags\n```json\n[1]\n### title\nx", {"tags": [1], "title": "x"}),
        ("### score\nhigh\n### title\n\n### body\n<x>", {"score": "high", "title": "", "body": "<x>"}),
        ("### score\nTrue\n### body\na\ud83db", {"score": True, "body": "a\N{REPLACEMENT CHARACTER}b"}),
        ('{"title": "x", "tags": []}', {"title": "x", "tags": []}),
    ],
)
def test_odd_answers(text: str, expected: dict[str, Any]) -> None:
    """Headings that are no keys, fences and carriage returns; an answer in JSON is taken, too."""
    assert OutputSpec(SPEC, "hybrid").read(text).data == expected
    if not text.startswith("{"):
        assert spoken(text, [1])[0] == spoken(text, [7])[0] == expected


HEADINGS = "### title\n|### tags\n|### author\n|### body ##\n|### score|###"
MARKS = '```|```json\n|~~~\n|\n|[1,|]|{"a":"|"}|["|"]|x|3|true|  |\\'
SOUP = st.lists(st.sampled_from([*HEADINGS.split("|"), *MARKS.split("|"), "\ud83d"]), max_size=25)


@settings(max_examples=200, deadline=None)
@given(SOUP, st.integers(1, 9))
def test_whatever_comes(soup: list[str], size: int) -> None:
    """Nothing raises, the pieces do not matter, and no path is done twice."""
    text = "".join(soup)
    assert spoken(text, [size]) == spoken(text, [1_000_000])
    OutputSpec(SPEC, "hybrid").read(text)


@pytest.mark.parametrize(
    "text", ["", "no sections", "half \ud83d", "### tags\n[1, 2", "### tags\na, b", '{"other": 1}', "### author\n[]"]
)
def test_what_is_no_answer(text: str) -> None:
    """It is refused, with the section at fault; nothing is mended."""
    read = OutputSpec(SPEC, "hybrid").read(text)
    assert read.problem is not None
    assert ("section '" in read.problem) is text.startswith("###")


def test_formats() -> None:
    """Sections are for mappings; ``auto`` takes them when there is text, and JSON when there are single values."""
    chosen = {
        "flat_markdown": [{"a": str}, {"a": (str, "x", True), "b": Literal["x", "y"]}],
        "hybrid": [
            {"a": str, "b": [str]},
            {"a": str, "b": {"c": int}},
            {"a": str, "b": dict},
            {"a": str, "b": list[int]},
        ],
        "json": [{"a": str, "b": int}, {"a": [str]}, {"a": {"b": str}}, {"a": float}, [str], {}, int],
    }
    assert {name: [OutputSpec(spec, "auto").format for spec in specs] for name, specs in chosen.items()} == {
        name: [name] * len(specs) for name, specs in chosen.items()
    }
    assert OutputSpec({"a": str}).format == "json"
    assert OutputSpec(None, "hybrid").format == "text"
    with pytest.warns(UserWarning, match="needs a mapping"):
        assert OutputSpec([str], "hybrid").format == "json"

    with pytest.raises(ValueError, match="cannot be a heading"):
        OutputSpec({"a\nb": str}, "hybrid")

    with pytest.raises(ValueError, match="there are json, flat_markdown"):
        OutputSpec({"a": str}, "yaml")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["a long text. ", "###### not a heading ", "\n", " ", "`", "### title\n"])
def test_time_is_linear(kind: str) -> None:
    """Ten times the text takes about ten times as long, whatever it is made of."""

    def took(size: int) -> float:
        best = 9e9
        for _ in range(3):
            reader = SectionReader({"title": "text", "body": "text"})
            reader.feed("### body\n")
            text = (kind * (size // len(kind) + 1))[:size]
            began = time.process_time()
            for at in range(0, size, 64):
                reader.feed(text[at : at + 64])

            best = min(best, time.process_time() - began)

        return best

    assert took(200_000) < 40 * max(took(20_000), 1e-4)
