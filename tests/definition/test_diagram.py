"""Diagrams: nodes, edges, boxes and labels, for any flow and any names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.definition.flow_parts import Spec, build, even, flow_specs, grow, note, shout

from flowdeck.definition.diagram import graph_of, to_mermaid
from flowdeck.errors import DefinitionError
from flowdeck.triggerflow import TriggerFlow

NODE = re.compile(r'^(\w+)(?:\["|\(\["|\[\["|\{")([^"]*)(?:"\]\]|"\]\)|"\]|"\})$')
EDGE = re.compile(r'^(\w+) -->(?:\|("?)([^|"]*)\2\|)? (\w+)$')


def parse(text: str) -> tuple[dict[str, str], list[tuple[str, str, str]], list[str]]:
    """Read a flowchart strictly: nodes with labels, edges with labels, boxes; every edge joins what is drawn."""
    first, *lines = text.splitlines()
    assert first == "flowchart TD"
    nodes: dict[str, str] = {}
    edges: list[tuple[str, str, str]] = []
    boxes: list[str] = []
    depth = 0
    for line in map(str.strip, lines):
        if line.startswith("subgraph "):
            depth += 1
            found = NODE.match(line.removeprefix("subgraph "))
            assert found, line
            boxes.append(found[1])
        elif line == "end":
            depth -= 1
        elif line.startswith(("classDef ", "class ")):
            continue
        elif found := EDGE.match(line):
            edges.append((found[1], found[3] or "", found[4]))
        else:
            found = NODE.match(line)
            assert found, line
            assert found[1] not in nodes, line
            nodes[found[1]] = found[2]

    assert depth == 0
    for source, _, target in edges:
        assert {source, target} <= nodes.keys(), (source, target)

    return nodes, edges, boxes


def labelled(text: str) -> list[tuple[str, str, str]]:
    """Return the edges between labels."""
    nodes, edges, _ = parse(text)
    return [(nodes[a], label, nodes[b]) for a, label, b in edges]


@settings(max_examples=35, deadline=None)
@given(spec=flow_specs())
def test_every_flow_can_be_drawn(spec: Spec) -> None:
    """Both modes are well formed, have every operator and every signal once, and box what stands in a block."""
    flow = build(spec)
    described = flow.describe()
    simple, detailed = flow.to_mermaid(), flow.to_mermaid(mode="detailed")
    for text in (simple, detailed):
        nodes, edges, _ = parse(text)
        drawn = [op for op in described["operators"] if op["kind"] != "sub_flow"]
        assert len([n for n in nodes if n.startswith("op_")]) == len(drawn)
        assert len(set(edges)) == len(edges)

    blocks = {op["group_id"] for op in described["operators"] if op["group_kind"] in ("batch", "for_each", "match")}
    boxes = [box for box in parse(simple)[2] if box.startswith("group_")]
    assert len(boxes) == len(blocks)
    assert not [box for box in parse(detailed)[2] if box.startswith("group_")]


def test_labels_and_edges() -> None:
    """The simplified mode labels outside events only; the detailed one every signal."""
    flow = TriggerFlow(name="f")
    talks = flow.chunk("talks")(shout).declare_emits("Shouted")
    flow.to(talks).match(name="choose").case(even).to(grow).case(3).to(("three", grow)).case_else().to(note).end_match()
    flow.when({"event": ["Shouted", "Elsewhere"], "runtime_data": "k"}).to(("heard", note))
    assert sorted(labelled(flow.to_mermaid())) == sorted([
        ("START", "START", "talks"),
        ("talks", "", "match\\nhit_first"),
        ("match\\nhit_first", "", "case\\neven"),
        ("case\\neven", "", "grow"),
        ("match\\nhit_first", "", "case\\n3"),
        ("case\\n3", "", "three"),
        ("match\\nhit_first", "", "else"),
        ("else", "", "note"),
        ("grow", "", "match result"),
        ("three", "", "match result"),
        ("note", "", "match result"),
        ("talks", "Shouted", "when\\nand"),
        ("Elsewhere", "Elsewhere", "when\\nand"),
        ("k", "k", "when\\nand"),
        ("when\\nand", "", "heard"),
    ])  # fmt: skip
    detailed = labelled(flow.to_mermaid(mode="detailed"))
    assert ("START", "START", "chunk\\ntalks") in detailed
    assert all(label for _, label, _ in detailed)
    with pytest.raises(ValueError, match="choose 'simplified' or 'detailed'"):
        flow.to_mermaid(mode="fancy")


def test_a_sub_flow_is_a_box_with_a_way_in_and_out() -> None:
    """The child's steps stand in a box; what comes in comes through its entry and what ends leaves by its exit."""
    inner, child, flow = TriggerFlow(name="inner"), TriggerFlow(name="child"), TriggerFlow(name="f")
    inner.to(note)
    child.to(grow).to_sub_flow(inner)
    flow.to_sub_flow(child).to(note)
    assert sorted(labelled(flow.to_mermaid())) == sorted([
        ("in", "", "grow"), ("grow", "", "in"), ("in", "", "note"), ("note", "", "out"), ("out", "", "out"),
        ("START", "START", "in"), ("out", "", "note"),
    ])  # fmt: skip
    assert len(parse(flow.to_mermaid())[2]) == 2


@settings(max_examples=50, deadline=None)
@given(names=st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=4, unique=True))
def test_any_name_is_only_a_name(names: list[str]) -> None:
    """Quotes, brackets, line breaks, markup and control characters in a name cannot break out of its label."""
    flow = TriggerFlow(name=names[0])
    at: Any = flow
    for name in names:
        at = at.to((name, grow))
        flow.when(name + '"] --> x').to((name + "!", note))

    for mode in ("simplified", "detailed"):
        text = flow.to_mermaid(mode=mode)
        nodes, _, _ = parse(text)
        assert len([n for n in nodes if n.startswith("op_")]) == 2 * len(names)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f<]", text)


def test_statuses_of_a_run() -> None:
    """Each operator gets the class of its status; what the run has not come to is shown as that."""
    flow = TriggerFlow(name="f")
    flow.to(grow).to(note).to(("last", note))
    first, second, _ = (op.id for op in flow.operators())
    text = flow.to_mermaid(statuses={first: "completed", second: "failed", "gone": "running"})
    classes = re.findall(r"^class (\S+) (\S+)$", text, re.M)
    assert [(status, len(ids.split(","))) for ids, status in classes] == [
        ("completed", 1), ("failed", 1), ("not_reached", 1),
    ]  # fmt: skip
    for _, status in classes:
        assert f"classDef {status} fill:" in text

    odd = flow.to_mermaid(statuses={first: "x; click y"})
    assert "click" not in odd


def test_a_definition_from_elsewhere() -> None:
    """A definition of another version is drawn as far as it goes; without operators it is refused."""
    operators = [
        {
            "id": "a",
            "kind": "new_kind",
            "name": None,
            "listen_signals": "?",
            "emit_signals": [{}, 3, {"trigger_event": "E"}],
        },
        {"id": "b", "listen_signals": [{"trigger_event": "E"}, {"trigger_event": "Other"}], "options": None},
        {"kind": "no id"},
        "what",
    ]
    nodes, edges, _ = parse(to_mermaid({"operators": operators}))
    assert nodes == {"op_a": "new_kind", "op_b": "step", "signal_in_event_Other": "Other"}
    assert edges == [("op_a", "", "op_b"), ("signal_in_event_Other", "Other", "op_b")]
    with pytest.raises(DefinitionError, match="no list of operators"):
        to_mermaid({"name": "x"})


def test_the_graph_as_data() -> None:
    """graph_of gives nodes with their block, edges with their signal, and the blocks."""
    flow = TriggerFlow(name="f")
    flow.for_each(name="each").to(grow).end_for_each()
    graph = graph_of(flow.describe()).to_dict()
    opener = flow.operators()[0].id
    assert [(n["kind"], n["name"], n["group"]) for n in graph["nodes"]] == [
        ("for_each_split", "each", opener),
        ("chunk", "grow", opener),
        ("for_each_collect", "end_for_each", opener),
        ("signal", "START", None),
    ]
    assert graph["groups"] == [{"id": opener, "kind": "for_each", "parent": None}]
    assert graph["edges"][0]["signal"] == "START"
