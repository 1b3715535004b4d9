"""The lines above and below every screen: places and state on top, keys at the bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
from textual import events
from textual.strip import Strip
from textual.widget import Widget

from flowdeck_devtools.core.text import cells, count, fit, sparkline
from flowdeck_devtools.tui.actions import MODES, Action, footer_actions, key_label, keys_of
from flowdeck_devtools.tui.theme import Look

if TYPE_CHECKING:
    from flowdeck_devtools.tui.app import DevToolsApp

__all__ = ["FooterBar", "TopBar"]


class _Bar(Widget):
    """One line drawn from segments; remembers which cells are which so that clicks work."""

    DEFAULT_CSS = "_Bar { height: 1; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._spots: list[tuple[int, int, str]] = []

    @property
    def deck(self) -> DevToolsApp:
        app: DevToolsApp = self.app  # type: ignore[assignment]
        return app

    def _line(self, segments: list[Segment], look: Look) -> Strip:
        strip = Strip(segments)
        return strip.adjust_cell_length(self.size.width, look["text"])

    async def on_click(self, event: events.Click) -> None:
        for start, end, command in self._spots:
            if start <= event.x < end:
                await self.screen.run_action(command)
                return


class TopBar(_Bar):
    """Places, what waits, and whether the store lives: ``◆ 1 Runs … !3 waiting  ● live 412 ev/s``."""

    def render_line(self, y: int) -> Strip:
        app = self.deck
        look, active = app.palette.bar, app.palette.cursor
        width = self.size.width
        narrow = width < 110
        segments = [Segment(" ◆ ", look["accent"])]
        self._spots = []
        at = 3
        for mode in MODES:
            label = f" {mode.digit} {mode.short if narrow else mode.label} "
            here = app.current_place == mode.id
            segments.append(Segment(label, active["strong"] if here else look["dim"]))
            self._spots.append((at, at + len(label), f"app.go('{mode.id}')"))
            at += len(label)

        room = width - at
        for detail in (2, 1, 0):
            right = self._state(look, detail)
            used = sum(cells(segment.text) for segment in right)
            if used <= room:
                break
        if used <= room:
            segments.append(Segment(" " * (room - used), look["text"]))
            segments.extend(right)
        return self._line(segments, look)

    def _state(self, look: Look, detail: int) -> list[Segment]:
        """What waits, what was dropped and whether the store lives: with a sparkline, in words, or as signs alone."""
        session = self.deck.session
        live, waiting = session.live, session.inbox.waiting
        parts: list[Segment] = []
        if waiting:
            parts.append(Segment(f"! {waiting} waiting" if detail else f"!{waiting}", look["waiting"]))
        if live.dropped:
            dropped = f"▲ {count(live.dropped)} dropped" if detail else f"▲{count(live.dropped)}"
            parts.append(Segment(dropped, look["failed"]))
        text, role = connection_state(live.problem, live.missing, live.stale_for(), live.writers_alive)
        if live.words is not None and role in ("ok", "dim"):
            text, role = f"▸ {live.words()}", "running"
        if role == "ok":
            rate = live.rate.per_second
            text += f" {count(round(rate))} ev/s"
            if detail == 2:
                text += f" {sparkline(list(live.rate.history))}"
        if detail == 0:
            text = text[0] if role == "ok" else text.partition(" ")[0]
        parts.append(Segment(text, look[role]))
        spaced: list[Segment] = []
        for part in parts:
            spaced += [part, Segment("   " if detail == 2 else "  " if detail else " ", look["text"])]
        spaced[-1] = Segment(" ", look["text"])
        return spaced


def connection_state(problem: str | None, missing: bool, stale_s: float, writers: int) -> tuple[str, str]:
    """What to say about the store, and in which role."""
    if problem:
        return "✗ store error", "failed"
    if missing:
        return "○ no store yet", "dim"
    if stale_s > 3:
        return f"◌ stale {stale_s:.0f}s", "waiting"
    return ("● live", "ok") if writers else ("○ idle", "dim")


class FooterBar(_Bar):
    """The keys that do something here, most useful first, as many as fit."""

    def render_line(self, y: int) -> Strip:
        app = self.deck
        look = app.palette.bar
        segments = [Segment(" ", look["text"])]
        self._spots = []
        room, at = self.size.width - 1, 1
        for action in self._actions():
            key, label = key_label(keys_of(action)), f" {action.label}  "
            wide = cells(key) + cells(label)
            if wide > room:
                continue
            segments += [Segment(key, look["accent"]), Segment(label, look["dim"])]
            prefix = "app." if action.scope == "app" else ""
            self._spots.append((at, at + wide - 2, prefix + action.command))
            at, room = at + wide, room - wide
        return self._line(segments, look)

    def _actions(self) -> list[Action]:
        """The most useful ones that fit, but always the help: it has the others."""
        screen, place, room = self.screen, self.deck.current_place, self.size.width - 1
        usable = [
            action
            for action in footer_actions(place)
            if screen.check_action(action.command.partition("(")[0], ()) is not False
        ]
        helps = [action for action in usable if action.id == "help"]
        room -= sum(cells(f"{key_label(keys_of(action))} {action.label}  ") for action in helps)
        shown: list[Action] = []
        for action in usable:
            wide = cells(f"{key_label(keys_of(action))} {action.label}  ")
            if action not in helps and wide <= room:
                shown.append(action)
                room -= wide
        return [*shown, *helps]


class HeadLine(_Bar):
    """One line of facts under the top bar. Set ``parts`` to ``(text, role)`` pairs; the last may be right-aligned."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._left: tuple[tuple[str, str], ...] = ()
        self._right: tuple[tuple[str, str], ...] = ()

    def show(self, left: list[tuple[str, str]], right: list[tuple[str, str]] | None = None) -> None:
        """Show these parts, if they are others than before."""
        fresh = (tuple(left), tuple(right or ()))
        if fresh != (self._left, self._right):
            self._left, self._right = fresh
            self.refresh()

    @property
    def text(self) -> str:
        """What stands there, for tests."""
        return "".join(text for text, _ in (*self._left, *self._right))

    def render_line(self, y: int) -> Strip:
        look = self.deck.palette.head
        width = self.size.width
        right = self._right
        right_width = sum(cells(text) for text, _ in right)
        if sum(cells(text) for text, _ in self._left) + right_width >= width:
            right, right_width = (), 0  # what stands on the left matters more
        room = max(0, width - right_width - 1)
        segments: list[Segment] = []
        for text, role in self._left:
            if room <= 0:
                break
            shown = text if cells(text) <= room else fit(text, room)
            segments.append(Segment(shown, look.get(role, look["text"])))
            room -= cells(shown)
        if right_width < width:
            segments.append(Segment(" " * (room + 1), look["text"]))
            segments += [Segment(text, look.get(role, look["dim"])) for text, role in right]
        return self._line(segments, look)
