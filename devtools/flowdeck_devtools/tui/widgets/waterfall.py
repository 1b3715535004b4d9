"""A run as tree and time bars in one widget: where time went, what waits, what failed first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.segment import Segment

from flowdeck_devtools.core.bars import Piece, TimeScale, draw, ticks
from flowdeck_devtools.core.critical import PathSearch
from flowdeck_devtools.core.outline import Outline, OutlineRow
from flowdeck_devtools.core.session import KEPT_RUNS
from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.status import glyph
from flowdeck_devtools.core.stretches import stretches
from flowdeck_devtools.core.text import cells, clean, count, duration, fit
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.tui.theme import STATUS_ROLES, Look, reversed_style
from flowdeck_devtools.tui.widgets.lineview import LineView

if TYPE_CHECKING:
    from flowdeck_devtools.core.clock import Clock

__all__ = ["Waterfall"]

DURATION_CELLS = 7
PATH_SECONDS = 2.0
"""Between two searches for the critical path of a run that goes on."""


class Waterfall(LineView):
    """Rows of a trace. ``show`` gives it one; ``tick`` keeps it current."""

    header_height = 1

    def __init__(self, clock: Clock, *, id: str | None = None, preview: bool = False) -> None:
        super().__init__(id=id)
        self._clock = clock
        self.outline: Outline | None = None
        self._outlines: dict[str, Outline] = {}
        self.following = False
        self._zoom: tuple[int, int] | None = None
        self._at: SpanNode | None = None
        self._drawn: tuple[object, ...] = ()
        self._path: PathSearch | None = None
        self._path_for = (-1, 0.0)
        self._searched = False
        self.can_focus = not preview
        self.show_cursor = not preview

    # -- data --------------------------------------------------------------------------------------------------

    def show(self, trace: Trace | None) -> None:
        """Show a trace. Folding of one shown before comes back."""
        if trace is None:
            self.outline = None
            self.repaint()
            return
        if self.outline is not None and self.outline.trace is trace:
            return
        key = trace.root.key
        kept = self._outlines.get(key)
        if kept is None or kept.trace is not trace:
            kept = self._outlines[key] = Outline(trace)
            while len(self._outlines) > KEPT_RUNS:
                self._outlines.pop(next(iter(self._outlines)))
        self.outline = kept
        self._zoom, self._at = None, None
        self.cursor = self.offset_row = 0
        self._drawn = ()
        self.tick()

    def tick(self) -> bool:
        """Take over changes; while the run is open, let bars grow twice a second. True when anything was redrawn."""
        outline = self.outline
        if outline is None:
            return False
        changed = outline.refresh(self._clock.monotonic())
        if changed:
            self._restore()
        if self.following:
            self._follow(outline)
        searching = self._look_for_path() or self._searched
        self._searched = self._path is not None and self._path.busy
        beat = self._clock.now_us() // 500_000 if outline.trace.is_open else 0
        state = (outline.trace.version, beat, outline.trace.lost_us)
        if state != self._drawn or changed or searching:
            self._drawn = state
            self.repaint()
            return True
        return False

    def _restore(self) -> None:
        """Put the cursor back on its node after rows moved."""
        assert self.outline is not None
        if self._at is None:
            return
        place = self.outline.place_of(self._at)
        if place is not None and place != self.cursor:
            self.offset_row += place - self.cursor
            self.cursor = place
        self._clamp()

    def _follow(self, outline: Outline) -> None:
        newest = outline.newest_open()
        if newest is not None:
            place = outline.place_of(newest)
            self.move_to(self.cursor if place is None else place)

    def count(self) -> int:
        return len(self.outline.rows) if self.outline is not None else 0

    @property
    def current(self) -> SpanNode | None:
        """The node under the cursor."""
        if self.outline is None or not 0 <= self.cursor < len(self.outline.rows):
            return None
        return self.outline.rows[self.cursor].node

    @property
    def outline_root(self) -> SpanNode | None:
        """The node of the run itself."""
        return self.outline.trace.root if self.outline is not None else None

    def select(self, node: SpanNode) -> None:
        """Put the cursor on a node, unfolding what hides it."""
        if self.outline is None:
            return
        self.outline.reveal(node)
        self.outline.refresh(self._clock.monotonic())
        place = self.outline.place_of(node)
        if place is not None:
            self._at = node
            self.move_to(place)
            self.refresh()

    def moved(self) -> None:
        self._at = self.current
        super().moved()

    def action_row(self, step: int) -> None:
        self.following = False
        super().action_row(step)

    # -- folding and time --------------------------------------------------------------------------------------

    def fold(self) -> None:
        """Fold the node, or go to its parent when there is nothing to fold."""
        node, outline = self.current, self.outline
        if node is None or outline is None:
            return
        if node.children and not outline.is_folded(node):
            outline.fold(node, True)
            self.tick()
            return
        place = next((found for one in node.ancestors() if (found := outline.place_of(one)) is not None), None)
        if place is not None:
            self.move_to(place)

    def unfold(self) -> None:
        """Unfold the node, or go to its first child."""
        node, outline = self.current, self.outline
        if node is None or outline is None or not node.children:
            return
        if outline.is_folded(node):
            outline.fold(node, False)
            self.tick()
        else:
            self.move_to(self.cursor + 1)

    def fold_all(self, folded: bool) -> None:
        if self.outline is not None:
            self.outline.fold_all(folded)
            self.tick()

    def next_issue(self, step: int) -> bool:
        """Go to the next (or previous) step that failed by itself or waits. False when there is none."""
        node = self.outline.next_issue(self.current, step) if self.outline is not None else None
        if node is None:
            return False
        self.select(node)
        return True

    def zoom_time(self, factor: float) -> None:
        """Make the window of time narrower (2), wider (0.5), or fit the run (0)."""
        scale = self._scale(100)
        if factor == 0 or scale is None:
            self._zoom = None
        else:
            node = self.current
            around = scale.start_us + (scale.end_us - scale.start_us) // 2
            if node is not None and node.started_us is not None:
                around = node.started_us + (node.duration_us(self._now()) or 0) // 2
            whole = self._whole()
            zoomed = scale.zoomed(factor, around)
            self._zoom = (zoomed.start_us, zoomed.end_us)
            if zoomed.end_us - zoomed.start_us >= whole[1] - whole[0]:
                self._zoom = None
        self.repaint()

    def toggle_critical(self) -> bool:
        """Let the critical path stand out, or not any more. True when it does now."""
        self._path = None if self._path is not None or self.outline is None else PathSearch(self.outline.trace)
        self._path_for = (-1, 0.0)
        self._look_for_path()
        self.repaint()
        return self._path is not None

    def _look_for_path(self) -> bool:
        """Keep the critical path up to date, in a thread. True while it is looked for, or just found."""
        if self._path is None or self.outline is None:
            return False
        if self._path.trace is not self.outline.trace:
            self._path, self._path_for = PathSearch(self.outline.trace), (-1, 0.0)
        path, now = self._path, time.monotonic()
        version, at = self._path_for
        if path.busy:
            return True
        if version == path.trace.version or now - at < PATH_SECONDS:
            return False
        # The repaint of the next tick shows what a search that ended meanwhile has found.
        self._path_for = (path.trace.version, now)
        path.begin(self._now())
        return True

    def _on_path(self) -> set[int] | None:
        """The nodes of the critical path, once it was found."""
        path = self._path
        return path.nodes if path is not None and path.found else None

    def _now(self) -> int:
        """The time bars grow to: that of the clock, or of a lost run's last sign of life."""
        lost = self.outline.trace.lost_us if self.outline is not None else None
        return lost if lost is not None else self._clock.now_us()

    @property
    def zoomed(self) -> bool:
        return self._zoom is not None

    def _whole(self) -> tuple[int, int]:
        assert self.outline is not None
        trace = self.outline.trace
        start = trace.started_us or 0
        end = trace.ended_us
        if end is None:
            end = self._now()
        return start, max(end, start + 1_000)

    def _scale(self, width: int) -> TimeScale | None:
        if self.outline is None or self.outline.trace.started_us is None:
            return None
        start, end = self._zoom or self._whole()
        return TimeScale(start, end, width)

    # -- drawing -----------------------------------------------------------------------------------------------

    def _split(self, width: int) -> tuple[int, int]:
        """Cells for the names and for the bars."""
        name = max(24, min(width * 2 // 5, 48))
        bars = width - name - DURATION_CELLS - 2
        return (name, bars) if bars >= 12 else (max(8, width - DURATION_CELLS - 1), 0)

    def draw_header(self, line: int, width: int, look: Look) -> list[Segment]:
        name, bars = self._split(width)
        title = " STEP" if self._zoom is None else " STEP  (zoomed, 0 fits)"
        if self._path is not None and not self._path.found:
            title = f" STEP  (path: {count(self._path.looked)} of {count(len(self._path.trace.nodes))} …)"
        segments = [Segment(fit(title, name + 1), look["title"])]
        scale = self._scale(bars) if bars else None
        axis = [" "] * bars
        if scale is not None:
            zero = self.outline.trace.started_us or 0 if self.outline else 0
            for cell, offset in ticks(scale, zero, apart=12 if bars >= 60 else 8):
                label = (
                    "0" if offset == 0 else duration(offset).replace(".00s", "s").replace("m00s", "m").replace(".0", "")
                )
                mark = f"╷{label}" if cell else label
                if cell + len(mark) <= bars:
                    axis[cell : cell + len(mark)] = mark
        segments.append(Segment("".join(axis), look["faint"]))
        segments.append(Segment(fit("DUR", DURATION_CELLS + 1, align="right"), look["title"]))
        return segments

    def draw(self, index: int, width: int, look: Look) -> list[Segment]:
        assert self.outline is not None
        row = self.outline.rows[index]
        node = row.node
        name, bars = self._split(width)
        status = self.outline.trace.shown_status(node)
        segments = self._label(row, status, name, look)
        if bars:
            scale = self._scale(bars)
            if scale is None:
                segments.append(Segment(" " * bars, look["text"]))
            else:
                segments.extend(self._bar(node, scale, status, look))
        lasted = duration(node.duration_us(self._now()))
        if node.is_open and node.started_us is not None and status != "lost":
            lasted += "…"
        role = "dim" if status not in ("failed", "waiting", "running", "lost") else STATUS_ROLES[status]
        segments.append(Segment(fit(lasted, DURATION_CELLS + 1, align="right"), look[role]))
        return segments

    def _label(self, row: OutlineRow, status: str, room: int, look: Look) -> list[Segment]:
        node = row.node
        fold = ("▸" if row.folded else "▾") if row.foldable else " "
        indent = min(row.depth * 2, room // 2)
        segments = [
            Segment(f" {' ' * indent}{fold} ", look["faint"]),
            Segment(glyph(status) + " ", look[STATUS_ROLES.get(status, "dim")]),
        ]
        room -= indent + 4
        for text, role in self._words(row, status):
            if room <= 0:
                break
            shown = text if cells(text) <= room else fit(text, room)
            segments.append(Segment(shown, look.get(role, look["text"])))
            room -= cells(shown)
        segments.append(Segment(" " * (room + 1), look["text"]))
        if node is self.outline_root:
            segments[2] = Segment(segments[2].text, look["strong"])
        return segments

    def _words(self, row: OutlineRow, status: str) -> list[tuple[str, str]]:
        node = row.node
        words: list[tuple[str, str]] = []
        if row.merged is not None:
            words += [(f"{row.merged.title} ", "dim")]
        elif node.member is not None and node.role == "span":
            words.append((f"[{clean(node.member)}] ", "dim"))
        path = self._on_path()
        off = path is not None and id(node) not in path
        words.append((node.name, "faint" if off else "accent" if path else "text" if node.role == "span" else "dim"))
        if status == "propagated" and node is not self.outline_root:
            words.append((" passed on", "faint"))
        if row.merged is not None or (node.role == "item" or node.member is not None):
            subject = (row.merged or node).subject
            if subject:
                words.append((f" {subject}", "text"))
        progress = node.progress
        if progress is not None:
            words.append((f" {progress[0]}/{progress[1]}", "accent" if progress[0] < progress[1] else "dim"))
        if node.attempt_count > 1:
            words.append((f" ↻{node.attempt_count}", "waiting"))
        if row.folded:
            words += _below(node, status)
        return words

    def _bar(self, node: SpanNode, scale: TimeScale, status: str, look: Look) -> list[Segment]:
        pieces = draw(scale, stretches(node, status, self._now()))
        return [_segment(piece, look) for piece in pieces]


def _segment(piece: Piece, look: Look) -> Segment:
    style = look.get(piece.style, look["text"])
    return Segment(piece.text, reversed_style(style) if piece.reverse else style)


def _below(node: SpanNode, status: str) -> list[tuple[str, str]]:
    """What a folded node hides and a person should know."""
    words: list[tuple[str, str]] = []
    for inner in ("failed", "waiting", "running"):
        number = node.below(inner)
        if number and inner != status:
            words.append((f" {glyph(inner)}{number}", STATUS_ROLES[inner]))
    return words
