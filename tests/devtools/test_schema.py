"""Forms from JSON Schema, and answers from what was typed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdeck_devtools.core.schema import collect, form_of

REVIEW = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "enum": ["approve", "reject"], "title": "Decision"},
        "amount": {"type": "number", "minimum": 0, "maximum": 100},
        "count": {"type": "integer"},
        "note": {"type": "string", "maxLength": 5},
        "notify": {"type": "boolean", "default": True},
        "extra": {"type": "object"},
        "kind": {"const": "review"},
    },
    "required": ["decision", "amount"],
}


def test_each_property_becomes_a_field_of_its_kind() -> None:
    """Constants are not asked for."""
    form = form_of(REVIEW)
    kinds = {spec.name: spec.kind for spec in form.fields}
    assert kinds == {
        "decision": "choice",
        "amount": "number",
        "count": "integer",
        "note": "text",
        "notify": "bool",
        "extra": "json",
    }
    assert form.extra == {"kind": "review"}


def test_an_answer_has_the_types_the_schema_asks_for() -> None:
    """Optional fields left empty are left out; constants are filled in."""
    typed = {"decision": "approve", "amount": "40.5", "note": "ok", "notify": True, "extra": '{"a": [1]}'}
    value, errors = collect(form_of(REVIEW), typed)
    assert errors == {}
    assert value == {
        "kind": "review",
        "decision": "approve",
        "amount": 40.5,
        "note": "ok",
        "notify": True,
        "extra": {"a": [1]},
    }


@pytest.mark.parametrize(
    ("typed", "field", "words"),
    [
        ({}, "decision", "choose one"),
        ({}, "amount", "needs a value"),
        ({"amount": "x"}, "amount", "must be a number"),
        ({"amount": "nan"}, "amount", "must be a number"),
        ({"amount": "-1"}, "amount", "at least 0"),
        ({"amount": "101"}, "amount", "at most 100"),
        ({"count": "1.5"}, "count", "whole number"),
        ({"note": "too long"}, "note", "at most 5"),
        ({"extra": "{"}, "extra", "not JSON"),
        ({"extra": "[]"}, "extra", "JSON object"),
        ({"extra": "NaN"}, "extra", "not JSON"),
    ],
)
def test_wrong_values_are_named_beside_their_field(typed: dict[str, Any], field: str, words: str) -> None:
    """Each message says what the field wants."""
    _, errors = collect(form_of(REVIEW), typed)
    assert words in errors[field]


def test_without_a_schema_any_json_is_an_answer() -> None:
    """One field of JSON text."""
    form = form_of(None)
    assert [spec.kind for spec in form.fields] == ["json"]
    assert collect(form, {"": '{"approved": true}'}) == ({"approved": True}, {})
    assert collect(form, {"": ""})[1]


def test_references_and_nullable_types_are_followed() -> None:
    """As pydantic writes them."""
    schema = {
        "$defs": {"Colour": {"enum": ["red", "blue"], "type": "string"}},
        "type": "object",
        "properties": {
            "colour": {"$ref": "#/$defs/Colour"},
            "size": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        },
        "required": ["colour"],
    }
    form = form_of(schema)
    assert [(spec.kind, spec.nullable) for spec in form.fields] == [("choice", False), ("integer", True)]
    assert collect(form, {"colour": "red", "size": ""}) == ({"colour": "red"}, {})


def test_a_scalar_schema_is_one_field_without_a_name() -> None:
    """The answer is the value itself."""
    assert collect(form_of({"type": "boolean"}), {"": True}) == (True, {})
    assert collect(form_of({"enum": [1, 2]}), {"": 2}) == (2, {})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("#/$defs/a"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "properties", "enum", "anyOf", "$ref", "$defs", "a", "required", "minimum"]),
                inner,
            )
        ),
        max_leaves=15,
    )
)
def test_any_schema_gives_a_form(schema: object) -> None:
    """Nonsense and circles included; every form can be asked for its answer."""
    form = form_of(schema)
    assert form.fields or form.extra
    collect(form, {spec.name: "1" for spec in form.fields})
