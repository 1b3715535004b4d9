"""What can be shown of a run beside its waterfall: why, the graph, the state, the stream, the raw event. No widget.

A page is computed from the trace alone, in any thread, and shown by whatever has lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from flowdeck_devtools.core.causes import Story
from flowdeck_devtools.core.compare import NOTHING, compare, final_state
from flowdeck_devtools.core.describe import describe
from flowdeck_devtools.core.drawing import Drawing, draw_boxes
from flowdeck_devtools.core.facts import Section
from flowdeck_devtools.core.failure import failures, first_failure
from flowdeck_devtools.core.flowgraph import graph_boxes, graph_rows, operator_steps
from flowdeck_devtools.core.links import Links
from flowdeck_devtools.core.opening import Link
from flowdeck_devtools.core.span import SpanNode, short_json
from flowdeck_devtools.core.status import glyph
from flowdeck_devtools.core.text import clean, clock_time, duration, short_id
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.wire import decode, head

__all__ = [
    "VIEWS",
    "Page",
    "StateVersion",
    "diff_page",
    "graph_page",
    "links_page",
    "raw_page",
    "state_page",
    "state_versions",
    "stream_page",
    "why_page",
]

VIEWS = ("event", "why", "graph", "state", "stream", "links", "raw")
"""The pages of the Execution screen, in the order one leafs through them."""

MOST_ROWS = 2_000
_ROLES = {"failed": "failed", "propagated": "failed", "waiting": "waiting", "running": "running", "completed": "ok"}


@dataclass(slots=True)
class Page:
    """Lines to show; ``targets`` says for a line which step it speaks of."""

    sections: list[Section] = field(default_factory=list)
    targets: dict[int, SpanNode] = field(default_factory=dict)
    links: dict[int, Link] = field(default_factory=dict)
    """What a line opens."""
    picture: Callable[[int], Drawing | None] | None = None
    """Draws what stands above the lines, for a width; its spots name the keys of ``pictured``."""
    pictured: dict[str, SpanNode] = field(default_factory=dict)

    def say(self, text: str, role: str = "text", target: SpanNode | None = None) -> None:
        """Add one line. Only pages without JSON values may have targets: then a line is a section."""
        if target is not None:
            self.targets[len(self.sections)] = target
        self.sections.append((clean(text, limit=600), None, role))


def why_page(trace: Trace, node: SpanNode | None) -> Page:
    """Why the step came to what it is; of a failed run, from its first failure on."""
    page = Page()
    story, first = Story(trace), first_failure(trace)
    about = node if node is not None and node is not trace.root else None
    if about is None and first is not None:
        page.say(f"✗ {first.text}", "failed", first.node)
        page.say(f"raised in {first.node.name}, attempt {first.attempt.number}", "dim", first.node)
        for one in failures(trace):
            if one.propagated:
                page.say(f"passed on by {one.node.name}", "dim", one.node)
            elif one.node is not first.node:
                page.say(f"also failed: {one.node.name}: {one.text}", "failed", one.node)
        page.say("")
        chain = story.why_failure(first)
    else:
        chain = story.why_node(about if about is not None else trace.root)
    for link in chain:
        event = link.event
        role = "failed" if event.error else "strong" if link.back == 0 else "text"
        said = f"{event.event_type.removeprefix('triggerflow.')}  {describe(event, limit=160)}"
        if link.because not in ("this", "caused by"):
            page.say(f"  {link.because}", "faint", link.node)
        page.say(f"{'←' if link.back else ' '} {clock_time(event.time_us)}  {said}", role, link.node)
    if not chain:
        page.say("nothing is known about what led here", "dim")
    return page


def graph_page(trace: Trace, definition: Mapping[str, Any] | None, now_us: int) -> Page:
    """The flow's operators with what this run did at each; what was not reached is dim."""
    page = Page()
    if definition is None:
        page.say("the definition of this flow is not in the store:", "dim")
        page.say("the run began before it was observed", "dim")
        return page
    steps = operator_steps(trace, now_us)
    rows = graph_rows(definition, steps)
    boxes, edges, page.pictured = graph_boxes(definition, steps)
    page.picture = lambda width: draw_boxes(boxes, edges, width)
    hit = sum(1 for row in rows if row.runs and row.steps is not None)
    page.say(f"{hit} of {sum(1 for row in rows if row.runs and not row.inside)} steps reached", "dim")
    for row in rows[:MOST_ROWS]:
        indent, done = "  " * min(row.depth, 12), row.steps
        if done is not None:
            times = f"  {done.times}×" if done.times > 1 else ""
            text = f"{glyph(done.status)} {indent}{row.name}{times}  {duration(done.us)}"
            page.say(text, _ROLES.get(done.status, "text"), done.node)
        elif row.inside:
            page.say(f"  {indent}{row.name}", "faint")
        elif row.runs:
            page.say(f"· {indent}{row.name}  not reached", "faint")
        else:
            page.say(f"  {indent}{row.name}", "dim")
    return page


@dataclass(frozen=True, slots=True)
class StateVersion:
    """One write of a state key."""

    key: str
    value: Any
    version: int | None
    time_us: int
    node: SpanNode


def state_versions(trace: Trace) -> list[StateVersion]:
    """Every recorded write of the run's state, oldest first. They are DEBUG events, stored where those are."""
    found: list[tuple[tuple[int, int, int, int], StateVersion]] = []
    for line, node in trace.lines_with(b'"triggerflow.state_changed"'):
        event, meta = decode(line), head(line).meta
        payload = event.payload_map()
        key, version = payload.get("key"), payload.get("version")
        if event.event_type != "triggerflow.state_changed" or not isinstance(key, str):
            continue
        place = (meta.epoch, meta.seq, meta.sub, len(found)) if meta is not None else (0, 0, 0, len(found))
        number = version if isinstance(version, int) else None
        found.append((place, StateVersion(key, payload.get("value"), number, event.time_us, node)))
    found.sort(key=lambda entry: entry[0])
    return [one for _, one in found]


def state_page(trace: Trace, node: SpanNode | None, links: Links | None = None) -> Page:
    """The state when the step under the cursor ended, and every version of it before."""
    page = Page()
    versions = state_versions(trace)
    until = node.ended_us if node is not None and node is not trace.root else None
    before = [one for one in versions if until is None or one.time_us <= until]
    if before:
        held: dict[str, Any] = {one.key: one.value for one in before}
        name = f"after {node.name}" if until is not None and node is not None else "now"
        page.sections.append((f"state {clean(name)}, version {len(before)} of {len(versions)}", held, "title"))
        page.sections.append(("", None, "dim"))
        for number in range(len(before), max(0, len(before) - MOST_ROWS), -1):
            one = before[number - 1]
            page.say(f"@{number}  {clock_time(one.time_us)}  {one.key} = {short_json(one.value, 200)}  {one.node.name}")
        return page
    if links is not None and links.state is not None:
        page.sections.append(("state in the newest checkpoint", links.state, "title"))
    result = final_state(trace)
    if result is not NOTHING:
        page.sections.append(("the run ended with", {"value": result} if result is None else result, "title"))
    if not page.sections:
        page.say("no state is stored of this run", "dim")
    page.say("versions are shown where DEBUG events are stored: observe(store=..., level='DEBUG')", "faint")
    return page


def stream_page(trace: Trace) -> Page:
    """What left on the runtime stream, in order: what the product's users saw."""
    page, items = Page(), []
    for line, node in trace.lines_with(b"stream_item_emitted"):
        event = decode(line)
        items.append((event.time_us, event.wseq, event.payload_map(), node))
    items.sort(key=lambda one: one[:2])
    begun = trace.started_us or 0
    page.say(f"{len(items)} items", "dim")
    for at, _, payload, node in items[-MOST_ROWS:]:
        item = payload.get("item")
        text = item if isinstance(item, str) else short_json(item, 400)
        page.say(f"+{duration(at - begun)}  {text}", "text", node)
    return page


def links_page(links: Links) -> Page:
    """Checkpoints, workspace records and links, artifacts, questions."""
    page = Page()
    for title, rows in links.groups():
        if rows:
            page.say(f"{title}  {len(rows)}", "title")
            for text, link in rows[:MOST_ROWS]:
                if link is not None:
                    page.links[len(page.sections)] = link
                page.say(f"  {text}")
    if page.links:
        page.say("")
        page.say("enter opens what a line names", "faint")
    if not page.sections:
        page.say("nothing is stored of this run beside its events", "dim")
    return page


def diff_page(a: Trace, b: Trace, now_us: int, *, names: Sequence[str] = ("", ""), everything: bool = False) -> Page:
    """Two runs side by side: what differs in path, outcome, output and time, in the input and in the final state."""
    page, found = Page(), compare(a, b)
    for side, trace, name in zip("ab", (a, b), names, strict=True):
        lasted = duration(trace.root.duration_us(now_us))
        page.say(f"{side}  {name} {short_id(trace.root.key)}  {glyph(trace.status)} {trace.status}  {lasted}", "strong")
    first = found.first
    page.say(f"they part at {first.place}" if first is not None else "same path, outcomes and outputs", "accent")
    for title, changed in (("input", found.input), ("state", found.state)):
        for one in changed[:MOST_ROWS]:
            page.say(f"{title}  {one.path}:  {_value(one.a)} → {_value(one.b)}", "waiting")
    page.say("")
    for place in (found.places if everything else found.differing)[:MOST_ROWS]:
        a_us, b_us = place.times(now_us)
        times = f"  {duration(a_us)} → {duration(b_us)}" if a_us is not None and b_us is not None else ""
        outcome = " → ".join(node.status if node is not None else "–" for node in (place.a, place.b))
        role = {"same": "dim", "only in a": "violet", "only in b": "violet"}.get(place.difference, "failed")
        role = "waiting" if place.difference in ("output", "attempts") else role
        page.say(f"{place.difference:<10} {place.place}  {outcome}{times}", role)
        if place.difference == "output":
            page.say(f"           - {_value(place.output_a)}", "dim")
            page.say(f"           + {_value(place.output_b)}", "dim")
    return page


def _value(value: Any) -> str:
    return "–" if value is NOTHING else short_json(value, 120)


def raw_page(line: bytes | None) -> Page:
    """The event as it was written."""
    page = Page()
    if line is None:
        page.say("no event chosen", "dim")
        return page
    try:
        text = msgspec.json.format(line, indent=2).decode("utf-8", "replace")
    except msgspec.MsgspecError:
        text = line.decode("utf-8", "replace")
    for row in text.splitlines()[:MOST_ROWS]:
        page.say(row)
    return page
