"""Diagrams of a flow, drawn from its definition as data: from a live flow, a config, or an event in a store.

:func:`graph_of` reads a definition into nodes, edges and groups; :func:`to_mermaid` writes them as a Mermaid flowchart.
Texts from the definition are escaped: a flow may be called anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flowdeck.errors import DefinitionError

__all__ = [
    "DETAILED",
    "RUNNING_KINDS",
    "SIMPLIFIED",
    "STATUS_CLASSES",
    "Edge",
    "Graph",
    "Node",
    "graph_of",
    "to_mermaid",
]

SIMPLIFIED: Final = "simplified"
DETAILED: Final = "detailed"
STATUS_CLASSES: Final = {
    "running": "fill:#dbeafe,stroke:#2563eb,color:#1e3a8a",
    "waiting": "fill:#fef3c7,stroke:#d97706,color:#78350f",
    "completed": "fill:#dcfce7,stroke:#16a34a,color:#14532d",
    "failed": "fill:#fee2e2,stroke:#dc2626,color:#7f1d1d",
    "cancelled": "fill:#f3f4f6,stroke:#6b7280,color:#374151",
    "lost": "fill:#f3f4f6,stroke:#6b7280,color:#374151,stroke-dasharray: 4 3",
    "not_reached": "fill:#ffffff,stroke:#d1d5db,color:#9ca3af",
}
"""The look of an operator by its status in a run."""
RUNNING_KINDS: Final = ("chunk", "sub_flow", "intervention_point", "result_sink")
"""Operators that run code, and so have a status of their own."""
_MAX_NESTING: Final = 16
_BREAK: Final = "\\n"
"""A line break in a label, as Mermaid writes it."""
_LABEL_LIMIT: Final = 80
_GROUPED: Final = ("batch", "for_each", "match")
_ROUND: Final = ("result_sink",)
_DOUBLE: Final = ("batch_collect", "for_each_collect", "match_collect")
_DIAMOND: Final = ("match_route", "signal_gate")


@dataclass(slots=True)
class Node:
    """One operator, or an outside signal."""

    id: str
    kind: str
    """The operator's kind; ``signal`` for an outside signal."""
    name: str
    label: tuple[str, ...]
    """Lines: in the simplified mode a chunk's first one is left out."""
    group: str | None = None
    """The block it belongs to, by the id of its opener."""
    child: Graph | None = None
    """The graph of a sub flow."""


@dataclass(slots=True)
class Edge:
    """A signal from one node to another."""

    source: str
    target: str
    signal: str
    declared: bool = False
    """The handler emits it, as its author declared."""


@dataclass(slots=True)
class Graph:
    """A flow as nodes and edges, in the order of declaration."""

    name: str
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    groups: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Group id -> its kind, and the group it stands in."""

    def to_dict(self) -> dict[str, Any]:
        """Return the graph as JSON-safe data."""
        return {
            "name": self.name,
            "nodes": [
                {
                    "id": node.id,
                    "kind": node.kind,
                    "name": node.name,
                    "group": node.group,
                    "sub_flow": node.child.to_dict() if node.child is not None else None,
                }
                for node in self.nodes.values()
            ],
            "edges": [
                {"source": e.source, "target": e.target, "signal": e.signal, "declared": e.declared} for e in self.edges
            ],
            "groups": [{"id": key, "kind": kind, "parent": up} for key, (kind, up) in self.groups.items()],
        }


def graph_of(definition: Mapping[str, Any], depth: int = 0) -> Graph:
    """Read a definition (a flow config, or what ``definition_declared`` carries) into a graph.

    What is missing or odd in it is left out: a definition from a store may be of another version.

    Raises:
        DefinitionError: it has no list of operators.
    """
    operators = definition.get("operators")
    if not isinstance(operators, list):
        raise DefinitionError("the definition has no list of operators")

    graph = Graph(str(definition.get("name") or "flow"))
    listed = [op for op in operators if isinstance(op, Mapping) and isinstance(op.get("id"), str)]
    for op in listed:
        _add_node(graph, op, depth)

    sources: dict[str, list[tuple[str, bool]]] = {}
    for op in listed:
        for signal in _signals(op, "emit_signals"):
            sources.setdefault(_signal_id(signal), []).append((op["id"], signal.get("role") == "declared_emit"))

    closed = {op.get("group_id") for op in listed if (op.get("options") or {}).get("is_else")}
    for op in listed:
        for signal in _signals(op, "listen_signals"):
            wanted = _signal_id(signal)
            name = str(signal.get("trigger_event"))
            found = sources.get(wanted)
            if found is None:
                graph.nodes.setdefault(f"signal:{wanted}", Node(f"signal:{wanted}", "signal", name, (name,)))
                found = [(f"signal:{wanted}", False)]

            for source, declared in found:
                passes = op.get("kind") == "match_collect" and graph.nodes[source].kind == "match_route"
                if not (passes and op.get("group_id") in closed):  # with an else, no value passes a match by
                    graph.edges.append(Edge(source, op["id"], name, declared))

    return graph


def _add_node(graph: Graph, op: Mapping[str, Any], depth: int) -> None:
    kind, options = str(op.get("kind") or "step"), op.get("options")
    if kind == "chunk" and op.get("name") == "$final_result":
        kind = "result_sink"

    options = options if isinstance(options, Mapping) else {}
    group = op.get("group_id") or op.get("parent_group_id")
    group_kind = op.get("group_kind") or op.get("parent_group_kind")
    node = Node(op["id"], kind, str(op.get("name") or kind), _label(kind, op, options))
    if isinstance(group, str) and group_kind in _GROUPED:
        node.group = group
        parent = op.get("parent_group_id")
        known = graph.groups.get(group)
        own = parent if isinstance(parent, str) and parent != group and op.get("group_id") else None
        graph.groups[group] = (str(group_kind), own if known is None else known[1] or own)

    child = options.get("sub_flow_config")
    if kind == "sub_flow" and isinstance(child, Mapping) and depth < _MAX_NESTING:
        node.child = graph_of(child, depth + 1)

    graph.nodes[node.id] = node


def _label(kind: str, op: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, ...]:
    name, mode = str(op.get("name") or kind), str(options.get("mode") or "")
    if kind == "match_case":
        if options.get("is_else"):
            return ("else",)

        ref = op.get("condition_ref")
        ref = ref if isinstance(ref, Mapping) else {}
        shown = ref.get("name") or _callable_label(ref) if ref else repr(options.get("condition_value"))
        return ("case", str(shown))

    return {
        "chunk": ("chunk", name),
        "signal_gate": ("when", mode),
        "batch_fanout": ("batch",),
        "batch_collect": ("batch collect",),
        "for_each_split": ("for each",),
        "for_each_collect": ("for each collect",),
        "match_route": ("match", mode),
        "match_collect": ("match result",),
        "collect_branch": ("collect", str(options.get("collection_name", name))),
        "intervention_point": ("intervention", name),
        "sub_flow": ("subflow", name),
        "result_sink": ("result",),
    }.get(kind, (kind,) if name == kind else (kind, name))


def _callable_label(ref: Mapping[str, Any]) -> str:
    """Return ``name@file:line``, which tells lambdas apart."""
    place = f"@{ref.get('file')}:{ref.get('line')}" if ref.get("file") else ""
    return f"{ref.get('callable_name') or '?'}{place}"


def _signals(op: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    found = op.get(key)
    for signal in found if isinstance(found, list) else ():
        if isinstance(signal, Mapping) and signal.get("trigger_event"):
            yield signal


def _signal_id(signal: Mapping[str, Any]) -> str:
    return f"{signal.get('trigger_type') or 'event'}:{signal.get('trigger_event')}"


def to_mermaid(
    definition: Mapping[str, Any], *, mode: str = SIMPLIFIED, statuses: Mapping[str, str] | None = None
) -> str:
    """Return a definition as a Mermaid flowchart.

    Args:
        statuses: operator id -> status in a run; operators without one are shown as not reached.

    Raises:
        DefinitionError: an unknown mode, or a definition without operators.
    """
    if mode not in (SIMPLIFIED, DETAILED):
        raise DefinitionError(f"to_mermaid(mode={mode!r}): choose {SIMPLIFIED!r} or {DETAILED!r}")

    graph = graph_of(definition)
    drawing = _Drawing(mode == DETAILED, statuses)
    drawing.contract(graph.name, definition.get("contract"))
    drawing.nodes(graph, "", "")
    drawing.signals(graph)
    drawing.edges(graph, "", "")
    drawing.classes()
    return "\n".join(drawing.lines) + "\n"


class _Drawing:
    """Mermaid lines while they are written."""

    def __init__(self, detailed: bool, statuses: Mapping[str, str] | None) -> None:
        self.lines = ["flowchart TD"]
        self._detailed = detailed
        self._statuses = statuses
        self._classes: dict[str, list[str]] = {}
        self._ids: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def contract(self, name: str, contract: Any) -> None:
        """Draw what the flow promises, as a box of its own."""
        lines = ["contract"]
        for part, shown in (("initial_input", "input"), ("stream", "stream"), ("result", "result")):
            promised = contract.get(part) if isinstance(contract, Mapping) else None
            if isinstance(promised, Mapping):
                lines.append(f"{shown}: {promised.get('label') or 'any'}")

        if len(lines) > 1:
            self.lines.append(f'{self._id("contract", name)}[["{_BREAK.join(map(_escape, lines))}"]]')

    def nodes(self, graph: Graph, prefix: str, indent: str) -> None:
        top: list[Node] = []
        inside: dict[str, list[Node]] = {}
        for node in graph.nodes.values():
            if node.kind != "signal":
                (top if node.group is None or self._detailed else inside.setdefault(node.group, [])).append(node)

        for node in top:
            self._node(node, prefix, indent)

        for group, (_, parent) in graph.groups.items():
            if parent not in graph.groups or parent == group:
                self._group(graph, group, inside, prefix, indent)

    def _group(
        self, graph: Graph, group: str, inside: dict[str, list[Node]], prefix: str, indent: str, depth: int = 0
    ) -> None:
        found = inside.pop(group, [])
        if not found or depth > _MAX_NESTING:
            return

        self.lines.append(f'{indent}subgraph {self._id(f"{prefix}group", group)}["{graph.groups[group][0]}"]')
        for node in found:
            self._node(node, prefix, indent + "  ")

        for other, (_, parent) in graph.groups.items():
            if parent == group:
                self._group(graph, other, inside, prefix, indent + "  ", depth + 1)

        self.lines.append(f"{indent}end")

    def _node(self, node: Node, prefix: str, indent: str) -> None:
        if node.child is not None:
            self._sub_flow(node, prefix, indent)
            return

        lines = node.label if self._detailed or node.kind != "chunk" else node.label[1:]
        text = _BREAK.join(map(_escape, filter(None, lines)))
        before, after = '["', '"]'
        if node.kind in _DOUBLE:
            before, after = '[["', '"]]'
        elif node.kind in _DIAMOND:
            before, after = '{"', '"}'
        elif node.kind in _ROUND:
            before, after = '(["', '"])'

        drawn = self._id(f"{prefix}op", node.id)
        self.lines.append(f"{indent}{drawn}{before}{text}{after}")
        self._mark(node, drawn, prefix)

    def _sub_flow(self, node: Node, prefix: str, indent: str) -> None:
        assert node.child is not None
        inner = f"sf_{self._id(f'{prefix}sub', node.id)}_"
        box, entry, leave = (self._id(f"{prefix}subflow{part}", node.id) for part in ("", "_in", "_out"))
        self.lines.append(f'{indent}subgraph {box}["subflow\\n{_escape(node.name)}"]')
        self.lines.append(f'{indent}  {entry}(["in"])')
        self.nodes(node.child, inner, indent + "  ")
        self.lines.append(f'{indent}  {leave}(["out"])')
        self.edges(node.child, inner, indent + "  ", entry, leave)
        self.lines.append(f"{indent}end")
        self._mark(node, box, prefix)

    def signals(self, graph: Graph) -> None:
        for node in graph.nodes.values():
            if node.kind == "signal":
                self.lines.append(f'{self._id("signal_in", node.id[7:])}["{_escape(node.name)}"]')

    def edges(self, graph: Graph, prefix: str, indent: str, entry: str = "", leave: str = "") -> None:
        """Draw the signals. In a sub flow, what comes from outside comes through ``entry``; ends go to ``leave``."""
        goes_on: set[str] = set()
        for edge in graph.edges:
            source, target = graph.nodes[edge.source], graph.nodes[edge.target]
            goes_on.add(edge.source)
            outside = source.kind == "signal"
            begin = self._end(source, prefix, "out") if not outside else entry or self._id("signal_in", source.id[7:])
            shown = self._detailed or edge.declared or (outside and (not entry or edge.signal != "START"))
            arrow = f" -->|{_escape(edge.signal, quoted=True)}| " if shown else " --> "
            self.lines.append(f"{indent}{begin}{arrow}{self._end(target, prefix, 'in')}")

        for node in graph.nodes.values() if leave else ():
            if node.id not in goes_on and node.kind != "signal":
                self.lines.append(f"{indent}{self._end(node, prefix, 'out')} --> {leave}")

    def _end(self, node: Node, prefix: str, side: str) -> str:
        """Return the drawn node at which an edge begins or ends: a sub flow has a way in and a way out."""
        return self._id(f"{prefix}subflow_{side}" if node.child is not None else f"{prefix}op", node.id)

    def _mark(self, node: Node, drawn: str, prefix: str) -> None:
        if self._statuses is not None and not prefix and node.kind in RUNNING_KINDS:
            status = self._statuses.get(node.id, "not_reached")
            self._classes.setdefault(status if status in STATUS_CLASSES else "not_reached", []).append(drawn)

    def classes(self) -> None:
        for status, drawn in self._classes.items():
            self.lines.append(f"classDef {status} {STATUS_CLASSES[status]}")
            self.lines.append(f"class {','.join(drawn)} {status}")

    def _id(self, prefix: str, text: str) -> str:
        """Return an id Mermaid takes; two texts never share one."""
        found = self._ids.get((prefix, text))
        if found is None:
            base = found = re.sub(r"[^A-Za-z0-9_]", "_", f"{prefix}_{text}")
            k = 1
            while found in self._taken:
                k += 1
                found = f"{base}_{k}"

            self._taken.add(found)
            self._ids[prefix, text] = found

        return found


def _escape(text: str, *, quoted: bool = False) -> str:
    """Return text for a label. What Mermaid or a browser would obey becomes an entity; long texts are cut."""
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if len(flat) > _LABEL_LIMIT:
        flat = flat[: _LABEL_LIMIT - 1] + "…"

    plain = re.sub(r'[#"<>&`\\;|]', lambda m: f"#{ord(m.group())};", flat)
    if quoted and re.search(r"[^A-Za-z0-9_ .\-]", plain):
        return f'"{plain}"'

    return plain
