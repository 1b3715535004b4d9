"""The bindings of a sub flow are checked where they are declared."""

from __future__ import annotations

from typing import Any

import pytest

from flowdeck.definition.bindings import Binding, parse_capture, parse_write_back
from flowdeck.errors import DefinitionError
from flowdeck.triggerflow import TriggerFlow

VALUE = Binding("input", (), "value", ())


@pytest.mark.parametrize(
    ("capture", "bindings"),
    [
        (None, (VALUE,)),
        ({}, (VALUE,)),
        ({"input": "value"}, (VALUE,)),
        ({"input": "value.a.b"}, (Binding("input", (), "value", ("a", "b")),)),
        ({"input": {"x.y": "runtime_data.k"}}, (Binding("input", ("x", "y"), "runtime_data", ("k",)),)),
        ({"runtime_data": {"all": "flow_data"}}, (VALUE, Binding("runtime_data", ("all",), "flow_data", ()))),
        ({"resources": {"db": "resources.main"}}, (VALUE, Binding("resources", ("db",), "resources", ("main",)))),
    ],
)
def test_capture_is_read_as_bindings(capture: Any, bindings: tuple[Binding, ...]) -> None:
    """Every accepted form of capture, with the value as the child's input when nothing else is."""
    assert parse_capture("step", capture) == bindings


@pytest.mark.parametrize(
    ("write_back", "bindings"),
    [
        (None, None),
        ({}, ()),
        ({"value": "result"}, (Binding("value", (), "result", ()),)),
        ({"value": {"z": "result.out"}}, (Binding("value", ("z",), "result", ("out",)),)),
        ({"runtime_data": {"m.n": "result.out"}}, (Binding("runtime_data", ("m", "n"), "result", ("out",)),)),
        ({"flow_data": {"m": "result"}}, (Binding("flow_data", ("m",), "result", ()),)),
    ],
)
def test_write_back_is_read_as_bindings(write_back: Any, bindings: tuple[Binding, ...] | None) -> None:
    """Every accepted form of write_back; none given is not the same as none bound."""
    assert parse_write_back("step", write_back) == bindings


@pytest.mark.parametrize(
    ("capture", "error", "text"),
    [
        ("value", TypeError, "expected a mapping of input, runtime_data, flow_data, resources"),
        ({"state": {"a": "value"}}, DefinitionError, "'state' is no scope; choose from input, runtime_data"),
        ({"input": 1}, TypeError, "input takes a source path or a mapping"),
        ({"runtime_data": "value"}, TypeError, "runtime_data takes a mapping"),
        ({"input": {"a": 1}}, TypeError, "expected a dotted path, got 1"),
        ({"input": {1: "value"}}, TypeError, "expected a dotted path, got 1"),
        ({"input": "result.x"}, DefinitionError, "'result.x' must begin with value or runtime_data"),
        ({"input": "value.0"}, DefinitionError, "'value.0' is no path"),
        ({"input": "value..a"}, DefinitionError, "is no path"),
        ({"input": {"a-b": "value"}}, DefinitionError, "'a-b' is no path"),
        ({"input": {"a": "value", "a.b": "value"}}, DefinitionError, "write the same place"),
        ({"runtime_data": {"a.b": "value", "a": "value"}}, DefinitionError, "write the same place"),
        ({"resources": {"db": "value.db"}}, DefinitionError, "a resource can only be taken from resources"),
    ],
)
def test_a_wrong_capture_is_refused(capture: Any, error: type[Exception], text: str) -> None:
    """A capture that cannot be is an error at the declaration, naming operator, part and mend."""
    flow, child = TriggerFlow(name="parent"), TriggerFlow(name="child")
    with pytest.raises(error, match=text) as caught:
        flow.to_sub_flow(child, name="step", capture=capture)

    assert "to_sub_flow(step): capture" in str(caught.value)


@pytest.mark.parametrize(
    ("write_back", "error", "text"),
    [
        (["value"], TypeError, "expected a mapping of value, runtime_data, flow_data"),
        ({"resources": {"a": "result"}}, DefinitionError, "'resources' is no scope"),
        ({"value": "value.x"}, DefinitionError, "must begin with result"),
        ({"flow_data": "result"}, TypeError, "flow_data takes a mapping"),
        ({"value": {"a": "result.x", "a.b": "result.y"}}, DefinitionError, "write the same place"),
    ],
)
def test_a_wrong_write_back_is_refused(write_back: Any, error: type[Exception], text: str) -> None:
    """A write_back that cannot be is an error at the declaration."""
    flow, child = TriggerFlow(name="parent"), TriggerFlow(name="child")
    with pytest.raises(error, match=text) as caught:
        flow.to_sub_flow(child, name="step", write_back=write_back)

    assert "to_sub_flow(step): write_back" in str(caught.value)
    assert flow.operators() == []


def test_what_is_no_flow_is_refused() -> None:
    """to_sub_flow takes a flow, and a flow takes no chunk options and no place in a batch."""
    flow, child = TriggerFlow(name="parent"), TriggerFlow(name="child")
    with pytest.raises(DefinitionError, match="expected a TriggerFlow"):
        flow.to_sub_flow(print)  # type: ignore[arg-type]

    with pytest.raises(DefinitionError, match=r"to\(child\): retry=, timeout="):
        flow.to(child, timeout=1)

    with pytest.raises(DefinitionError, match="flow 'child' stands where a chunk belongs"):
        flow.batch(child)

    with pytest.raises(DefinitionError, match=r"to_sub_flow\(child\): concurrency=0"):
        flow.to_sub_flow(child, concurrency=0)
