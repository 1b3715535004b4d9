"""The application: places, the tick, going back, copying, leaving. What is shown is the screens' business.

Order of calls: ``on_mount`` starts the session's threads -> first paint -> ``on_ready`` and the background work -> ten
ticks a second, each asking the session and then the screen on top -> exit stops the threads.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.app import App
from textual.binding import BindingType
from textual.screen import Screen

from flowdeck_devtools.core import text
from flowdeck_devtools.core.session import Session
from flowdeck_devtools.tui.actions import bindings_for
from flowdeck_devtools.tui.ascii import ascii_driver
from flowdeck_devtools.tui.beat import Beat
from flowdeck_devtools.tui.crash import write_report
from flowdeck_devtools.tui.everywhere import EverywhereMixin
from flowdeck_devtools.tui.hands import ActsMixin
from flowdeck_devtools.tui.keymap import load_keymap
from flowdeck_devtools.tui.places import PLACES
from flowdeck_devtools.tui.screens.base import DeckScreen
from flowdeck_devtools.tui.screens.dialogs import HelpDialog, PickDialog
from flowdeck_devtools.tui.theme import DARK, DEFAULT_THEME, LIGHT, Palette, palette_of
from flowdeck_devtools.tui.widgets.bars import FooterBar

__all__ = ["Background", "DevToolsApp"]

Background = Callable[[threading.Event], object]
"""Work beside the window, in a thread of its own; the event is set when the window closes."""


class DevToolsApp(EverywhereMixin, ActsMixin, App[None]):
    """The terminal a flow developer keeps open."""

    TITLE = "Flowdeck"
    TICK_SECONDS: ClassVar[float] = 0.1
    """Cost is per frame, not per event: 10 Hz was measured at 2.7 % of a core, 20 Hz at 6 %."""
    CSS_PATH = "base.tcss"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = PLACES
    DEFAULT_MODE = "runs"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_for("app")]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide"), (160, "-extra-wide")]  # noqa: RUF012 - as the base declares it
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+backslash"  # ours is in the action table

    def __init__(
        self,
        session: Session,
        *,
        initial_run: str | None = None,
        on_ready: Callable[[], object] | None = None,
        background: Background | None = None,
        theme: str = DEFAULT_THEME,
        ascii_only: bool = False,
    ) -> None:
        super().__init__(driver_class=ascii_driver(self.get_driver_class()) if ascii_only else None)
        self.session = session
        self.opened_run: str | None = None
        self.crash_report: Path | None = None
        self.crash: BaseException | None = None
        self.closing = threading.Event()
        self.tick_seconds: list[float] = []
        """How long the last ticks took, for the performance test and the curious."""
        self._keys, self._key_problems = load_keymap()
        self._wanted_run = initial_run
        self._when_ready = on_ready
        self._background = background
        self._places: list[str] = []
        self._last_action = "start"
        self._interrupted_at = 0.0
        self._top_state: tuple[object, ...] = ()
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = theme
        self.palette: Palette = self._make_palette()

    # -- life --------------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        self.theme_changed_signal.subscribe(self, self._theme_changed)
        if self._keys:
            self.set_keymap(self._keys)
        for problem in self._key_problems:
            self.notify(text.clean(problem), severity="warning", timeout=8, markup=False)
        self.beat = Beat(self._tick, self.TICK_SECONDS, self._handle_exception)
        self.session.start(self.beat.wake)
        self.beat.start()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # A terminal that went away or a polite kill: leave by the front door, so the screen is restored.
            try:
                asyncio.get_running_loop().add_signal_handler(number, self._terminate, number)
            except (ValueError, RuntimeError, NotImplementedError):  # not in the main thread, as in tests
                break
        self.call_after_refresh(self._first_paint)

    def _first_paint(self) -> None:
        self.session.painted()
        if self._when_ready is not None:
            self._when_ready()
        if self._background is not None:
            threading.Thread(target=self._run_background, name="flowdeck-background", daemon=True).start()

    def _run_background(self) -> None:
        assert self._background is not None
        try:
            self._background(self.closing)
        except Exception as error:  # shown to the person, who may go on looking at what is there
            words = f"the background work failed: {type(error).__name__}: {error}"
            if not self.closing.is_set():
                self.call_from_thread(self.notify, text.clean(words), severity="error", timeout=10, markup=False)

    def _terminate(self, number: int) -> None:
        self.exit(return_code=128 + number)

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.InputEvent):
            self.beat.stir()
        await super().on_event(event)

    def on_unmount(self) -> None:
        self.closing.set()
        self.beat.stop()
        self.session.stop()

    def _handle_exception(self, error: Exception) -> None:
        """An error of our own: leave, and let ``run_devtools`` say where the report is."""
        if self.crash is None:
            self.crash = error
            self.crash_report = write_report(error, self._last_action)
        self._return_code = 1
        if self._exception is None:  # tests re-raise it
            self._exception = error
            self._exception_event.set()
        self._close_messages_no_wait()

    # -- the tick ----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self.closing.is_set() or not self.screen_stack:
            return  # the window closes: a last tick may come after its screens are gone

        begun = self.session.clock.monotonic()
        if self.session.tick():
            self.beat.stir()
        if self._wanted_run is not None:
            self._open_wanted()
        screen = self.screen_stack[-1]
        if isinstance(screen, DeckScreen) and screen.ready and not screen.too_small:
            screen.tick()
            self._refresh_top(screen)
        took = self.session.clock.monotonic() - begun
        self.tick_seconds.append(took)
        if len(self.tick_seconds) > 600:
            del self.tick_seconds[:300]

    def _refresh_top(self, screen: DeckScreen) -> None:
        live = self.session.live
        problem = (live.problem, live.missing, live.dropped, live.writers_alive)
        state = (self.session.inbox.waiting, *problem, int(live.stale_for()) // 3, tuple(live.rate.history))
        if state != self._top_state:
            self._top_state = state
            screen.top.refresh()

    def _open_wanted(self) -> None:
        assert self._wanted_run is not None
        row = self.session.find_run(self._wanted_run)
        if row is not None:
            self._wanted_run = None
            self.open_run(row.run_id)

    # -- places ------------------------------------------------------------------------------------------------

    @property
    def current_place(self) -> str:
        """The id of the place on top."""
        return self.current_mode

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        screen = self.screen_stack[-1] if self.screen_stack else None
        if isinstance(screen, DeckScreen) and screen.too_small:
            return action in ("quit", "interrupt")
        return True

    def action_go(self, place: str) -> None:
        if place == self.current_mode or isinstance(self.screen, HelpDialog | PickDialog):
            return
        self._last_action = f"go {place}"
        self._wanted_run = None  # whoever goes somewhere is not taken elsewhere any more
        for question in self.session.questions:
            question.rest()
        self._places.append(self.current_mode)
        del self._places[:-20]
        self.switch_mode(place)

    def open_run(self, run_id: str) -> None:
        """Show a run on the Execution screen; one of which something was left out is read anew."""
        self.session.open_run(run_id)
        self.opened_run = run_id
        self._last_action = "open run"
        self.action_go("execution")

    def open_interrupt_of(self, execution_id: str | None) -> bool:
        """Show the first open question of an execution in the Inbox. False when it has none."""
        if not any(row.is_open and row.execution_id == execution_id for row in self.session.inbox.rows):
            return False
        self.action_go("inbox")

        def select() -> None:
            from flowdeck_devtools.tui.screens.inbox import InboxScreen

            if isinstance(self.screen, InboxScreen):
                self.screen.select_execution(execution_id)

        self.call_after_refresh(select)
        return True

    def action_go_back(self) -> None:
        screen = self.screen
        if isinstance(screen, DeckScreen) and not screen.back():
            if self._places:
                self.switch_mode(self._places.pop())
            elif self.current_mode != "runs":
                self.switch_mode("runs")

    def action_close(self) -> None:
        if self.current_mode == "runs" and not self._places:
            self.exit()
        else:
            self.action_go_back()

    def action_interrupt(self) -> None:
        now = self.session.clock.monotonic()
        if now - self._interrupted_at < 2.0:
            self.exit()
            return
        self._interrupted_at = now
        self.notify("^c again leaves DevTools; runs go on", timeout=2)

    # -- colours -----------------------------------------------------------------------------------------------

    def _make_palette(self) -> Palette:
        return palette_of(self.get_css_variables(), dark=self.current_theme.dark)

    def _theme_changed(self, _: object) -> None:
        self.palette = self._make_palette()
        self._redraw_places()

    def _redraw_places(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, DeckScreen) and screen.ready:
                screen.zone_changed()
                screen.query_one(FooterBar).refresh()
                screen.tick()
                screen.refresh(layout=False)
