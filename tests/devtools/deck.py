"""A DevTools app over a store, held still or live, and waiting for conditions instead of times."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.devtools.scene import START_US
from textual.pilot import Pilot

from flowdeck_devtools.core.clock import Clock, FixedClock
from flowdeck_devtools.core.session import Session
from flowdeck_devtools.tui.app import DevToolsApp

WIDE = (120, 36)
NARROW = (80, 24)


class QuickApp(DevToolsApp):
    """Ticks faster than a person needs, so that tests wait less."""

    CSS_PATH = Path(sys.modules[DevToolsApp.__module__].__file__ or "").with_name("base.tcss")
    TICK_SECONDS = 0.03


def make_app(store: Path, *, clock: Clock | None = None, theme: str | None = None) -> DevToolsApp:
    """An app whose clock stands still 54 seconds after the start of every scene, unless another is given."""
    session = Session(store, clock=clock or FixedClock(START_US + 54_000_000), actor="ana")
    return QuickApp(session, theme=theme) if theme else QuickApp(session)


@asynccontextmanager
async def running(app: DevToolsApp, size: tuple[int, int] = WIDE) -> AsyncIterator[Pilot[None]]:
    """The app with its store read."""
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        yield pilot


async def settled(pilot: Pilot[None]) -> None:
    """Until the journal and the inbox were read and shown."""
    app = pilot.app
    assert isinstance(app, DevToolsApp)
    session = app.session
    await until(
        pilot, lambda: session.live.caught_up.is_set() and session.inbox.loaded.is_set(), "the store to be read"
    )
    before = len(app.tick_seconds)
    await until(pilot, lambda: len(app.tick_seconds) >= before + 2, "two ticks")


async def until(pilot: Pilot[None], holds: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
    """Poll a condition while the app goes on; the failure names it."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        await pilot.pause(0.01)
    await pilot.pause()  # what came on the screen has its focus before the next key


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press keys one after another and let the app answer."""
    for key in keys:
        await pilot.press(key)
    await pilot.pause()


def screen_text(app: DevToolsApp) -> str:
    """Everything on the screen, line by line, as a person would read it."""
    _width, height = app.size
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in lines[:height])
