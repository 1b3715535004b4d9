"""The graph of a flow as boxes and lines: what is drawn where, at any width and for any graph."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from flowdeck_devtools.core.drawing import Box, Drawing, draw_boxes


def box(name: str, *, hit: bool = True) -> Box:
    return Box(name, f"✓ {name}" if hit else f"· {name}", "ok" if hit else "faint", hit)


def text(drawing: Drawing | None) -> str:
    assert drawing is not None
    return "\n".join("".join(part for part, _ in line).rstrip() for line in drawing.lines)


def test_a_branch_that_was_not_taken_is_drawn_dashed_and_faint() -> None:
    """Boxes with their status, a line to each branch, both meeting again."""
    boxes = [box("plan"), box("yes"), box("no", hit=False), box("end")]
    drawing = draw_boxes(boxes, [("plan", "yes"), ("plan", "no"), ("yes", "end"), ("no", "end")], 40)
    assert text(drawing) == "\n".join(
        [
            "               ╭────────╮",
            "               │ ✓ plan │",
            "               ╰────┬───╯",
            "                    ├──────────╮",
            "                ╭───┴───╮  ╭┄┄┄┴┄┄┄╮",
            "                │ ✓ yes │  ┊ · no  ┊",
            "                ╰───┬───╯  ╰┄┄┄┬┄┄┄╯",
            "                    ╰─────╮    │",
            "                          ├────╯",
            "                      ╭───┴───╮",
            "                      │ ✓ end │",
            "                      ╰───────╯",
        ]
    )
    assert drawing is not None
    assert drawing.lines[8][1:] == [("├", "dim"), ("────╯", "line")]
    assert drawing.spots[5] == [(16, 25, "yes"), (27, 36, "no")]


def test_a_loop_is_told_in_words() -> None:
    """What leads back would be a line around everything."""
    drawing = draw_boxes([box("plan"), box("act")], [("plan", "act"), ("act", "plan")], 40)
    assert "✓ act  ↻ plan" in text(drawing)


def test_what_does_not_fit_is_not_drawn() -> None:
    """The list below it says the same."""
    boxes = [box("a"), *(box(f"branch {number}") for number in range(8))]
    assert draw_boxes(boxes, [("a", one.key) for one in boxes[1:]], 40) is None
    assert draw_boxes([], [], 40) is None


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30),
    st.integers(20, 120),
    st.text(max_size=12),
)
def test_any_graph_is_drawn_within_its_width(number: int, edges: list[tuple[int, int]], width: int, word: str) -> None:
    """Cycles, self loops, unknown ends, hostile names: every line fits, and every box stands in it once."""
    boxes = [box(f"{place} {word}", hit=place % 3 != 0) for place in range(number)]
    keys = [one.key for one in boxes] + ["nowhere"] * 12
    drawing = draw_boxes(boxes, [(keys[a], keys[b]) for a, b in edges], width)
    if drawing is None:
        return
    assert all(sum(cell_len(part) for part, _ in line) <= width for line in drawing.lines)
    spots = [key for row, found in drawing.spots.items() for _, _, key in found]
    assert sorted(spots) == sorted(keys[:number] * 3)
