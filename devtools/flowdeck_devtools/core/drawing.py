"""A flow's graph drawn with boxes and lines in cells of text: layers from top to bottom, no widget.

Boxes of one layer stand side by side; an edge that passes a layer takes a cell in it. Between two layers every edge
has a lane of its own as long as lanes are left, so that lines cross but never run into each other. What leads back
(a loop) is told in words beside the box, because a line around everything says less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from flowdeck_devtools.core.text import cells, clean, fit

__all__ = ["Box", "Drawing", "draw_boxes"]

Span = tuple[str, str]
"""Text and the role it is drawn in."""
NARROWEST = 9
WIDEST = 30
MOST_BOXES = 400
MOST_LANES = 6
_GAP = 2
_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = {
    0: " ", _UP | _DOWN: "│", _LEFT | _RIGHT: "─", _UP | _LEFT: "╯", _UP | _RIGHT: "╰", _DOWN | _LEFT: "╮",
    _DOWN | _RIGHT: "╭", _UP | _DOWN | _LEFT: "┤", _UP | _DOWN | _RIGHT: "├", _LEFT | _RIGHT | _UP: "┴",
    _LEFT | _RIGHT | _DOWN: "┬", _UP | _DOWN | _LEFT | _RIGHT: "┼", _UP: "│", _DOWN: "│", _LEFT: "─", _RIGHT: "─",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Box:
    """One operator: what stands in its box, in which role, and whether the run came by."""

    key: str
    text: str
    role: str
    hit: bool = True


@dataclass(slots=True)
class Drawing:
    """Lines of spans, and for a line the boxes that stand in it as ``(from cell, to cell, key)``."""

    lines: list[list[Span]] = field(default_factory=list)
    spots: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)


@dataclass(slots=True)
class _Item:
    key: str
    box: Box | None
    width: int
    x: int = 0

    @property
    def middle(self) -> int:
        return self.x + self.width // 2


def draw_boxes(boxes: Sequence[Box], edges: Iterable[tuple[str, str]], width: int) -> Drawing | None:
    """The graph at this width; ``None`` when it cannot be drawn readably: too many boxes, or too many side by side."""
    if not boxes or len(boxes) > MOST_BOXES:
        return None
    known = {box.key: box for box in boxes}
    forward, back = _split(known, [(a, b) for a, b in edges if a in known and b in known and a != b])
    levels = _levels(known, forward)
    layers, links = _layers(known, forward, levels, back)
    _order(layers, links)
    if not _place(layers, width):
        return None
    _straighten(layers, links, width)
    drawing = Drawing()
    for number, layer in enumerate(layers):
        entering = {b for _, b in links[number - 1]} if number else set()
        _boxes(drawing, layer, {a for a, _ in links[number]}, entering, known)
        if number + 1 < len(layers):
            _lanes(drawing, layer, layers[number + 1], links[number], known)
    return drawing


def _split(
    known: Mapping[str, Box], edges: list[tuple[str, str]]
) -> tuple[list[tuple[str, str]], dict[str, list[str]]]:
    """Edges that lead on, and those that lead back to what came before in the order of the boxes' search."""
    after: dict[str, list[str]] = {}
    for source, target in dict.fromkeys(edges):
        after.setdefault(source, []).append(target)
    state: dict[str, int] = {}
    forward: list[tuple[str, str]] = []
    back: dict[str, list[str]] = {}
    for begin in known:
        if begin in state:
            continue
        state[begin] = 1
        stack = [(begin, iter(after.get(begin, ())))]
        while stack:
            node, targets = stack[-1]
            for target in targets:
                if state.get(target) == 1:
                    back.setdefault(node, []).append(target)
                    continue
                forward.append((node, target))
                if target not in state:
                    state[target] = 1
                    stack.append((target, iter(after.get(target, ()))))
                    break
            else:
                state[node] = 2
                stack.pop()
    return forward, back


def _levels(known: Mapping[str, Box], forward: list[tuple[str, str]]) -> dict[str, int]:
    left = dict.fromkeys(known, 0)
    after: dict[str, list[str]] = {}
    for source, target in forward:
        left[target] += 1
        after.setdefault(source, []).append(target)
    levels = dict.fromkeys(known, 0)
    ready = [key for key in known if not left[key]]
    for key in ready:
        for target in after.get(key, ()):
            levels[target] = max(levels[target], levels[key] + 1)
            left[target] -= 1
            if not left[target]:
                ready.append(target)
    return levels


def _layers(
    known: Mapping[str, Box], forward: list[tuple[str, str]], levels: Mapping[str, int], back: Mapping[str, list[str]]
) -> tuple[list[list[_Item]], list[list[tuple[str, str]]]]:
    """Items by layer, with a cell for every edge that passes one, and the edges between neighbours."""
    depth = max(levels.values()) + 1
    layers: list[list[_Item]] = [[] for _ in range(depth)]
    links: list[list[tuple[str, str]]] = [[] for _ in range(depth)]
    for key, box in known.items():
        names = [known[target].text.strip("✓✗●!⊘?·↻ ").split("  ")[0] for target in back.get(key, ())]
        text = box.text + (f"  ↻ {', '.join(names)}" if names else "")
        shown = Box(key, clean(text, limit=120), box.role, box.hit)
        layers[levels[key]].append(_Item(key, shown, min(WIDEST, max(NARROWEST, cells(shown.text) + 4))))
    for source, target in forward:
        before = source
        for level in range(levels[source] + 1, levels[target]):
            passing = f"{source}\0{target}\0{level}"
            layers[level].append(_Item(passing, None, 1))
            links[level - 1].append((before, passing))
            before = passing
        links[levels[target] - 1].append((before, target))
    return layers, links


def _order(layers: list[list[_Item]], links: list[list[tuple[str, str]]]) -> None:
    """Each item near the middle of those before it: two passes down, which is enough for flows."""
    for _ in range(2):
        for number in range(1, len(layers)):
            places = {item.key: at for at, item in enumerate(layers[number - 1])}
            above: dict[str, list[int]] = {}
            for source, target in links[number - 1]:
                above.setdefault(target, []).append(places[source])
            weight = {key: sum(found) / len(found) for key, found in above.items()}
            layers[number].sort(key=lambda item, weight=weight: weight.get(item.key, 0.0))  # type: ignore[misc]


def _place(layers: list[list[_Item]], width: int) -> bool:
    for layer in layers:
        gaps = _GAP * (len(layer) - 1)
        spare = width - gaps - sum(item.width for item in layer)
        while spare < 0:
            widest = max(layer, key=lambda item: item.width)
            if widest.width <= NARROWEST:
                return False
            widest.width -= 1
            spare += 1
        x = spare // 2
        for item in layer:
            item.x = x
            x += item.width + _GAP
    return True


def _straighten(layers: list[list[_Item]], links: list[list[tuple[str, str]]], width: int) -> None:
    """Move an item under what leads to it where there is room, so that chains are straight lines."""
    for number in range(1, len(layers)):
        middles = {item.key: item.middle for item in layers[number - 1]}
        above: dict[str, list[int]] = {}
        for source, target in links[number - 1]:
            above.setdefault(target, []).append(middles[source])
        least = 0
        layer = layers[number]
        for at, item in enumerate(layer):
            later = layer[at + 1 :]
            most = width - item.width - sum(one.width + _GAP for one in later)
            found = above.get(item.key)
            wanted = round(sum(found) / len(found)) - item.width // 2 if found else item.x
            item.x = max(least, min(wanted, most))
            least = item.x + item.width + _GAP


def _boxes(
    drawing: Drawing, layer: list[_Item], leaving: set[str], entering: set[str], known: Mapping[str, Box]
) -> None:
    """The three lines of a layer's boxes."""
    top: list[Span] = []
    middle: list[Span] = []
    bottom: list[Span] = []
    at = 0
    spots: list[tuple[int, int, str]] = []
    for item in sorted(layer, key=lambda one: one.x):
        space = (" " * (item.x - at), "text")
        at = item.x + item.width
        box = item.box
        if box is None:
            role = "dim" if _is_hit(item.key, known) else "line"
            for line in (top, middle, bottom):
                line += [space, ("│", role)]
            continue
        role, side, room = ("line", "┊", "┄") if not box.hit else ("dim", "│", "─")
        inner, place = item.width - 2, item.width // 2 - 1
        up = "┴" if item.key in entering else room
        down = "┬" if item.key in leaving else room
        top += [space, (f"╭{room * place}{up}{room * (inner - place - 1)}╮", role)]
        middle += [space, (side, role), (" " + fit(box.text, inner - 1), box.role), (side, role)]
        bottom += [space, (f"╰{room * place}{down}{room * (inner - place - 1)}╯", role)]
        spots.append((item.x, item.x + item.width, item.key))
    for line in (top, middle, bottom):
        drawing.spots[len(drawing.lines)] = spots
        drawing.lines.append(line)


def _lanes(
    drawing: Drawing, above: list[_Item], below: list[_Item], links: list[tuple[str, str]], known: Mapping[str, Box]
) -> None:
    """The lines between two layers; those to and from what was not reached are faint."""
    middles = {item.key: item.middle for item in (*above, *below)}
    runs = sorted({(middles[a], middles[b]) for a, b in links})
    width = max([*middles.values(), 0]) + 1
    lanes: list[int] = []
    lane_of: dict[tuple[int, int], int] = {}
    for start, end in runs:
        if start == end:
            continue
        low, high = min(start, end), max(start, end)
        lane = next((place for place, until in enumerate(lanes) if until < low), len(lanes))
        if lane >= MOST_LANES:
            lane = lane_of[start, end] = MOST_LANES - 1
        elif lane == len(lanes):
            lanes.append(high)
        lanes[lane] = max(lanes[lane], high)
        lane_of[start, end] = lane
    height = max(1, len(lanes))
    grid = [[0] * width for _ in range(height)]
    alive = [[False] * width for _ in range(height)]
    taken = {(middles[a], middles[b]) for a, b in links if _is_hit(a, known) and _is_hit(b, known)}
    for start, end in runs:
        lane = lane_of.get((start, end), 0)
        for row in range(height):
            column = start if row <= lane else end
            low, high = (column, column) if start == end or row != lane else (min(start, end), max(start, end))
            if (start, end) in taken:
                alive[row][low : high + 1] = [True] * (high + 1 - low)
            if low == high:
                grid[row][column] |= _UP | _DOWN
                continue
            grid[row][start] |= _UP | (_RIGHT if end > start else _LEFT)
            grid[row][end] |= _DOWN | (_LEFT if end > start else _RIGHT)
            for place in range(low + 1, high):
                grid[row][place] |= _LEFT | _RIGHT
    for masks, hits in zip(grid, alive, strict=True):
        cellwise = [(_LINES[mask], "dim" if hit else "line") for mask, hit in zip(masks, hits, strict=True)]
        spans = groupby(cellwise, key=itemgetter(1))
        drawing.lines.append([("".join(text for text, _ in group), role) for role, group in spans])


def _is_hit(key: str, known: Mapping[str, Box]) -> bool:
    """Whether the run came by: of a passing edge, by both its ends."""
    return all(known[part].hit for part in key.split("\0")[:2] if part in known)
