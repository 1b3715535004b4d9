"""DevTools as a process in a real terminal: it leaves it as it found it, whatever happens."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.devtools.scene import Scene
from tests.devtools.terminal import Terminal, wait_until

from flowdeck_devtools.core.wire import head

LEAVES_ALTERNATE_SCREEN = "\x1b[?1049l"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where crash reports go in these tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "flowdeck"


@pytest.fixture
def terminal(busy: Scene, home: Path) -> Iterator[Terminal]:
    opened = Terminal(busy.store)
    opened.wait_for("refund-agent")
    yield opened
    opened.close()


def test_it_starts_shows_the_runs_and_quits(terminal: Terminal, home: Path) -> None:
    """Exit code 0, the terminal is given back, no report stays behind."""
    terminal.press("\x11")
    assert terminal.wait_exit() == 0
    assert terminal.saw(LEAVES_ALTERNATE_SCREEN)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_through_the_front_door(terminal: Terminal, number: signal.Signals) -> None:
    """The terminal is restored and the exit code says which signal."""
    os.kill(terminal.pid, number)
    assert terminal.wait_exit() == 128 + number
    assert terminal.saw(LEAVES_ALTERNATE_SCREEN)


def test_a_shrunken_terminal_is_survived(terminal: Terminal) -> None:
    """Down to 40x10 and back, as window managers do."""
    terminal.resize(40, 10)
    terminal.wait_for("needs 80x24")
    terminal.forget()
    terminal.resize(120, 36)
    terminal.wait_for("refund-agent")
    terminal.press("5")
    terminal.wait_for("FOLLOW")


CRASHING = """
import sys
from flowdeck_devtools.tui import run_devtools
from flowdeck_devtools.tui.screens.events import EventsScreen
def tick(self):
    secret = "the-secret-value"
    raise RuntimeError("boom")
EventsScreen.tick = tick
sys.exit(run_devtools(sys.argv[1]))
"""


def test_a_crash_restores_the_terminal_and_leaves_one_line_and_a_report(busy: Scene, home: Path) -> None:
    """The report has the traceback and the last action, not the values of variables, and is its owner's alone."""
    crashing = Terminal(busy.store, code=CRASHING)
    try:
        crashing.wait_for("refund-agent")
        crashing.press("5")
        assert crashing.wait_exit() == 1
        (report,) = home.iterdir()
        wait_until(lambda: crashing.saw(report.name), 2.0, "the line with the report's path")
        assert crashing.saw(LEAVES_ALTERNATE_SCREEN)
        assert not crashing.saw("Traceback")
        text = report.read_text()
        assert "RuntimeError: boom" in text
        assert "last action: go events" in text
        assert "the-secret-value" not in text.replace('secret = "the-secret-value"', "")
        assert report.stat().st_mode & 0o777 == 0o600
    finally:
        crashing.close()


BACKGROUND = """
import sys, threading
from pathlib import Path
from flowdeck_devtools.tui import run_devtools
folder = Path(sys.argv[1])
def beside(closing):
    (folder / "began").touch()
    closing.wait()
    (folder / "ended").touch()
sys.exit(run_devtools(folder, background=beside, on_ready=lambda: (folder / "ready").touch()))
"""


def test_work_beside_the_window_begins_after_the_first_paint_and_is_told_to_end(busy: Scene, home: Path) -> None:
    """The window waits for it when it closes."""
    opened = Terminal(busy.store, code=BACKGROUND)
    try:
        wait_until((busy.store / "began").exists, 10.0, "the work to begin")
        assert (busy.store / "ready").exists()
        opened.press("\x11")
        assert opened.wait_exit() == 0
        assert (busy.store / "ended").exists()
    finally:
        opened.close()


def test_an_event_written_elsewhere_is_seen_within_a_quarter_of_a_second(terminal: Terminal, busy: Scene) -> None:
    """From the write of the journal line to the terminal's output; the median of ten, on a machine that may be busy."""
    terminal.press("5")
    terminal.wait_for("FOLLOW")
    took = []
    for number in range(10):
        begun = time.monotonic()
        busy.emit(f"probe.number{number}x", at=60.0 + number)
        terminal.wait_for(f"probe.number{number}x")
        took.append(time.monotonic() - begun)
    assert sorted(took)[5] < 0.25


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from /proc")
def test_a_flood_costs_the_window_a_small_multiple_of_reading_it(terminal: Terminal, busy: Scene) -> None:
    """Ten thousand events a second: at most 15 times what it takes this process to read the same lines (8-10 measured).

    Both are CPU time, so a slow or busy machine changes neither side alone.
    """
    terminal.press("5")
    terminal.wait_for("FOLLOW")
    run = busy.execution("load", at=60.0)
    lines = [busy.line("user.load", at=60.0, run=run.run, payload={"text": "x" * 300}) for _ in range(20_000)]
    begun = time.process_time()
    assert sum(head(line).wseq for line in lines)
    bare = time.process_time() - begun
    cpu, began, written = terminal.cpu_seconds(), time.monotonic(), 0
    while written < len(lines):
        due = min(len(lines), int((time.monotonic() - began) * 10_000))
        if due > written:
            busy._file.write(b"\n".join(lines[written:due]) + b"\n")
            written = due
        time.sleep(0.01)
    print("RATIO", (terminal.cpu_seconds() - cpu) / bare, bare)
    assert terminal.cpu_seconds() - cpu < 15 * bare


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from /proc")
def test_a_tail_of_ten_thousand_events_a_second_costs_little(terminal: Terminal, busy: Scene) -> None:
    """Process CPU over five seconds, which a busy machine does not change: 8-9 % of a core measured, 15 % allowed."""
    terminal.press("5")
    terminal.wait_for("FOLLOW")
    busy.execution("load", at=60.0)
    sample = busy.line("user.load", at=60.0, payload={"text": "x" * 300}) + b"\n"
    began, cpu, written = time.monotonic(), 0.0, 0
    while (passed := time.monotonic() - began) < 7.0:
        due = int(passed * 10_000)
        if due > written:
            busy._file.write(sample * (due - written))
            written = due
        if not cpu and passed > 2.0:
            cpu, since = terminal.cpu_seconds(), time.monotonic()
        time.sleep(0.01)
    used = (terminal.cpu_seconds() - cpu) / (time.monotonic() - since)
    assert used < 0.15
