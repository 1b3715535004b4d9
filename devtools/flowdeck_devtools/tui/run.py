"""``run_devtools``: one call from a terminal to DevTools and back, whatever happens in between."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowdeck_devtools.core.live import LiveStore
from flowdeck_devtools.core.session import Session
from flowdeck_devtools.tui.app import Background, DevToolsApp
from flowdeck_devtools.tui.crash import FaultReport
from flowdeck_devtools.tui.theme import DARK, LIGHT

if TYPE_CHECKING:
    from flowdeck_devtools.core.sources import Source

__all__ = ["known_themes", "run_devtools"]

_THEMES = {"dark": DARK.name, "light": LIGHT.name}
FILE_BYTES = 256 * 1024 * 1024
"""A file up to this size is read whole; of a larger one the newest lines are held and the rest is asked for by SQL."""


def run_devtools(
    store: Path | str,
    *,
    initial_run: str | None = None,
    on_ready: Callable[[], object] | None = None,
    background: Background | None = None,
    actor: str | None = None,
    source: Source | None = None,
    also: Sequence[Path] = (),
    theme: str | None = None,
    ascii_only: bool = False,
) -> int:
    """Show DevTools on a store until the person leaves. Returns the exit code.

    Args:
        store: The store's directory. It may not exist yet: the window waits for it.
        initial_run: Run or execution to open as soon as it appears, by its id or the end of it.
        on_ready: Called after the first paint.
        background: Work to run in a thread beside the window; it is given an event that is set when the window closes,
            and the window waits up to five seconds for it. Heavy work belongs in a child process that this function
            starts and watches: a busy interpreter would slow the window.
        actor: The name answers are given under; the login name by default.
        also: Further stores whose runs, events and questions are shown beside those of the first.
        source: Events from elsewhere, whose store this is; closed with the window.
        theme: ``dark``, ``light`` or the name of any other theme of Textual's.
        ascii_only: Draw with ASCII characters alone.
    """
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    done = threading.Event()

    def beside(closing: threading.Event) -> object:
        assert background is not None
        try:
            return background(closing)
        finally:
            done.set()

    # A long run is hundreds of thousands of small objects that live on; the collector's default would walk through
    # them again and again (a third of the time it takes to open one). What is young is looked at in small portions: of
    # 20,000 it took 13 ms, the longest stop of a tail.
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(4_000, 50, 100)
    session = _session(Path(store), actor, source, also)
    app = DevToolsApp(
        session,
        initial_run=initial_run,
        on_ready=on_ready,
        background=beside if background is not None else None,
        theme=_THEMES.get(theme or "dark", theme or ""),
        ascii_only=ascii_only,
    )
    with FaultReport():
        try:
            app.run()
        finally:
            app.closing.set()
            session.stop()
            if source is not None:
                source.close()
            gc.set_threshold(*thresholds)
            gc.unfreeze()
            if background is not None:
                done.wait(5.0)
    if app.crash is not None:
        place = f"report: {app.crash_report}" if app.crash_report else "no report could be written"
        sys.stderr.write(f"flowdeck devtools stopped: {type(app.crash).__name__}; your runs go on. {place}\n")
        return 1
    return app.return_code or 0


def known_themes() -> list[str]:
    """The names ``theme`` takes."""
    from textual.theme import BUILTIN_THEMES

    return [*_THEMES, *_THEMES.values(), *BUILTIN_THEMES]


def _session(store: Path, actor: str | None, source: Source | None, also: Sequence[Path]) -> Session:
    if source is None:
        return Session(store, actor=actor, also=also, apart=True)
    live = LiveStore(store, clock=source.clock, eager_bytes=FILE_BYTES, words=lambda: source.problem or source.words)
    return Session(store, clock=source.clock, live=live, actor=actor, apart=True)
