"""The JSON Schema check: what it accepts, how it complains, and that it never skips a keyword silently."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from flowdeck.execution.json_schema import check

PERSON = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string", "minLength": 2}, "age": {"type": "integer", "minimum": 0}},
    "additionalProperties": False,
}
TREE = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}}

CASES: list[tuple[Any, Any, Any, str]] = [
    # schema, a value that fits, one that does not, and a part of the complaint
    (True, 1, None, ""),
    ({"type": "boolean"}, True, 1, "must be boolean, not integer"),
    ({"type": "integer"}, 2.0, 2.5, "must be integer, not number"),
    ({"type": "number"}, 2, True, "must be number, not boolean"),
    ({"type": ["string", "null"]}, None, 3, "must be string or null, not integer"),
    ({"type": "array"}, [], {}, "must be array, not object"),
    ({"enum": ["yes", "no", 1]}, 1.0, True, "True is not one of 'yes', 'no', 1"),
    ({"enum": [{"a": [1]}]}, {"a": [1.0]}, {"a": [1, 1]}, "is not one of"),
    ({"const": {"a": None}}, {"a": None}, {"a": 0}, "must be {'a': None}"),
    (PERSON, {"name": "Bo", "age": 3}, {"age": 3}, "answer.name: is missing"),
    (PERSON, {"name": "Bo"}, {"name": "B"}, "answer.name: 'B' is shorter than 2"),
    (PERSON, {"name": "Bo"}, {"name": "Bo", "age": -1}, "answer.age: -1 is less than the minimum 0"),
    (PERSON, {"name": "Bo"}, {"name": "Bo", "x": 1}, "answer.x: not allowed here"),
    ({"items": {"type": "string"}}, ["a"], ["a", 1], "answer[1]: must be string"),
    ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", 1], ["a", "b"], "answer[1]"),
    ({"minItems": 1, "maxItems": 2}, [1], [], "has fewer items than 1"),
    ({"maxItems": 2}, [1, 2], [1, 2, 3], "has more items than 2"),
    ({"uniqueItems": True}, [1, True], [1, 1.0], "answer[1]: 1.0 is there twice"),
    ({"contains": {"type": "integer"}, "maxContains": 1}, ["a", 1], [1, 2], "2 items fit"),
    ({"minimum": 1, "maximum": 5}, 5, 6, "6 is more than the maximum 5"),
    ({"exclusiveMinimum": 1}, 1.1, 1, "is not more than 1"),
    ({"exclusiveMaximum": 1}, "text is not measured", 1, "is not less than 1"),
    ({"multipleOf": 0.1}, 0.3, 0.35, "is not a multiple of 0.1"),
    ({"maxLength": 3}, "äöü", "äöüß", "is longer than 3"),
    ({"pattern": "^a+$"}, "aa", "ab", "does not match ^a+$"),
    ({"minProperties": 1, "maxProperties": 1}, {"a": 1}, {}, "has fewer members than 1"),
    ({"propertyNames": {"pattern": "^x"}}, {"x1": 1}, {"y": 1}, "key 'y'"),
    ({"patternProperties": {"^n": {"type": "null"}}, "additionalProperties": False}, {"n": None}, {"m": 1}, "answer.m"),
    ({"dependentRequired": {"card": ["cvc"]}}, {"cash": 1}, {"card": 1}, "answer.cvc: is missing beside card"),
    ({"anyOf": [{"type": "null"}, PERSON]}, None, {"name": ""}, "the nearest: answer: must be null"),
    ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, 3, 7, "fits 2 forms where exactly one may fit"),
    ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, 2, 3, "more than the maximum 2"),
    ({"not": {"type": "null"}}, 0, None, "None is ruled out"),
    ({"if": {"type": "string"}, "then": {"minLength": 1}, "else": {"type": "null"}}, None, "", "is shorter than 1"),
    (TREE, {"next": {"next": {}}}, {"next": {"next": 1}}, "answer.next.next: must be object"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "fits", "fails", "complaint"), CASES)
def test_a_keyword_accepts_and_refuses(schema: Any, fits: Any, fails: Any, complaint: str) -> None:
    """Each keyword lets what fits pass and says in one line, with its place, what does not."""
    assert check(fits, schema).errors == []
    if complaint:
        errors = check(fails, schema).errors
        assert complaint in "; ".join(errors)
        assert all(error.startswith("answer") for error in errors)
    assert check(fits, schema).unchecked == []


def test_the_schema_false_allows_nothing() -> None:
    """The boolean schemas mean what they say."""
    assert check(None, False).errors == ["answer: not allowed here"]


def test_all_complaints_are_listed() -> None:
    """A person who fills in a form learns everything that is wrong at once."""
    assert len(check({"age": "old", "x": 1}, PERSON).errors) == 3


def test_what_is_not_checked_is_named() -> None:
    """Keywords outside the vocabulary, broken patterns and references that lead nowhere are told, the rest counts."""
    schema = {
        "type": "object",
        "unevaluatedProperties": False,
        "properties": {"a": {"pattern": "("}, "b": {"$ref": "#/none"}, "c": {"$ref": "https://elsewhere"}, "d": 7},
        "minProperties": "many",
        "title": "not an assertion",
    }
    value = {"a": "x", "b": 1, "c": 1, "d": 1}
    errors, unchecked = check(value, schema)
    assert errors == []
    assert [name.split(" ")[0] for name in unchecked] == [
        "$ref",
        "$ref",
        "a",
        "minProperties",
        "pattern",
        "unevaluatedProperties",
    ]
    assert check([], schema).errors == ["answer: must be object, not array"]


def test_a_schema_that_refers_to_itself_for_ever_ends() -> None:
    """A circle of references is an error in place of a crash."""
    assert check(1, {"$ref": "#"}).errors == ["answer: nested deeper than 64"]


def test_schemas_of_models_work() -> None:
    """What pydantic publishes for a nested model is checked in full."""

    class Line(BaseModel):
        amount: float = Field(gt=0)
        note: str | None = None

    class Order(BaseModel):
        lines: list[Line] = Field(min_length=1)

    schema = Order.model_json_schema()
    assert check({"lines": [{"amount": 2, "note": None}]}, schema) == ([], [])
    (error,) = check({"lines": [{"amount": 0}]}, schema).errors
    assert error == "answer.lines[0].amount: 0 is not more than 0"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(_json, _json)
def test_any_value_and_any_schema_end_in_a_verdict(value: Any, schema: Any) -> None:
    """The check never raises; a value always equals itself, and a value is either of a type or not."""
    check(value, schema)
    assert check(value, {"const": value}).errors == []
    types = ["null", "boolean", "integer", "number", "string", "array", "object"]
    fitting = [name for name in types if not check(value, {"type": name}).errors]
    assert fitting in ([name] for name in types) or fitting == ["integer", "number"]


_keywords = st.sampled_from([*{key for schema, *_ in CASES if isinstance(schema, dict) for key in schema}])


@given(_json, st.dictionaries(_keywords, _json, max_size=4))
def test_broken_schemas_end_in_a_verdict(value: Any, schema: Any) -> None:
    """Known keywords with senseless values are named as unchecked at worst."""
    check(value, schema)
