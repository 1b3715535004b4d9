"""DevTools in a real pseudo-terminal: what is measured from outside while keys are pressed and events come.

Used by ``benchmarks.tui``. CPU is that of DevTools' process, all threads; of the user interface's thread alone where it
says so. Wall time is given only where it is the point (from a key or an event to the terminal), as percentiles.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.devtools.scene import Scene
from tests.devtools.terminal import Terminal

__all__ = ["emitted_to_visible", "first_paint", "idle", "keys", "runs_page", "tail", "waterfall"]

TAIL_SECONDS = 15.0
PER_SECOND = 10_000

# Writes what it measured beside the store when it ends: CPU to the first paint, and the CPU of the user interface's
# thread between beats (a tick, the painting after it and all keys).
INSTRUMENTED = """
import atexit, json, sys, time
from flowdeck_devtools.tui import run_devtools
from flowdeck_devtools.tui.beat import Beat
found = {"beats": []}
run, at = Beat._run, [0.0]
def beat(self):
    now = time.thread_time()
    found["beats"].append((now - at[0]) * 1000)
    run(self)
    at[0] = now
Beat._run = beat
def painted():
    found["paint"] = time.process_time()
code = run_devtools(sys.argv[1], on_ready=painted)
open(sys.argv[1] + ".measured", "w").write(json.dumps(found))
sys.exit(code)
"""


def _end(terminal: Terminal, store: Path) -> dict[str, list[float]]:
    terminal.press("\x11")
    terminal.wait_exit()
    terminal.close()
    path = Path(f"{store}.measured")
    found: dict[str, list[float]] = json.loads(path.read_text())
    path.unlink()
    return found


def percentile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def first_paint(store: Path, rounds: int = 5) -> dict[str, float]:
    """CPU seconds from the start of the process to its first picture, and memory a while later."""
    taken: list[float] = []
    resident = 0.0
    for _ in range(rounds):
        terminal = Terminal(store, code=INSTRUMENTED)
        terminal.wait_for("runs", 30)
        time.sleep(4.0)
        resident = max(resident, terminal.rss_mb())
        taken.append(_end(terminal, store)["paint"])  # type: ignore[arg-type]
    return {"paint: s CPU to the first picture": statistics.median(taken), "paint: MB resident after 4 s": resident}


def idle(store: Path, seconds: float = 20.0) -> dict[str, float]:
    """Percent of a core while nothing happens, on Runs."""
    terminal = Terminal(store)
    terminal.wait_for("runs", 30)
    time.sleep(8.0)
    begun, at = terminal.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    share = 100 * (terminal.cpu_seconds() - begun) / (time.monotonic() - at)
    terminal.close()
    return {"idle: % of a core": share}


def _press(terminal: Terminal, names: list[str], gap: float) -> tuple[list[float], float]:
    """Press keys one by one; milliseconds to the first bytes that follow each, and CPU milliseconds a key."""
    waits: list[float] = []
    cpu = terminal.cpu_seconds()
    for name in names:
        before = terminal.written
        begun = time.perf_counter()
        terminal.press(name)
        while terminal.written == before and time.perf_counter() - begun < 2.0:
            time.sleep(0.0005)
        waits.append((time.perf_counter() - begun) * 1000)
        time.sleep(gap)
    return waits, (terminal.cpu_seconds() - cpu) * 1000 / len(names)


def keys(scene: Scene, steps: int = 400) -> dict[str, float]:
    """Key to paint: the cursor moved in the waterfall of a run with many steps."""
    run = scene.execution("keys", at=0.0)
    for number in range(steps):
        run.step(f"for_each[{number}]/work", "work", at=number * 0.01, lasts=0.02, value={"n": number})
    run.finish(at=steps * 0.01 + 1.0)
    terminal = Terminal(scene.store)
    terminal.wait_for("keys")
    terminal.press("\r")
    terminal.wait_for("waterfall")
    time.sleep(2.0)
    waits, cpu = _press(terminal, (["j"] * 40 + ["k"] * 20) * 2, 0.03)
    terminal.close()
    return {
        "keys: ms from key to paint, median": statistics.median(waits),
        "keys: ms from key to paint, p95": percentile(waits, 0.95),
        "keys: ms CPU a key": cpu,
    }


def runs_page(store: Path, pages: int = 40) -> dict[str, float]:
    """CPU of turning a page of the runs, after the past has been read."""
    terminal = Terminal(store)
    terminal.wait_for("runs", 30)
    time.sleep(6.0)
    _press(terminal, ["\x1b[6~"] * 5, 0.2)
    time.sleep(3.0)
    waits, cpu = _press(terminal, ["\x1b[5~", "\x1b[6~"] * (pages // 2), 0.1)
    terminal.close()
    return {"runs: ms CPU a page": cpu, "runs: ms from page key to paint, p95": percentile(waits, 0.95)}


def _child_mb(pid: int) -> float:
    """Memory of the largest child process, Linux only."""
    found = [0]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread or a child that has just ended
            for child in (task / "children").read_text().split():
                status = Path(f"/proc/{child}/status").read_text()
                found += [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    return max(found) / 1024


def waterfall(scene: Scene, lines: Callable[[Scene], int], name: str) -> dict[str, float]:
    """A run of very many steps on the screen: CPU of a page and of a second of watching it."""
    events = lines(scene)
    terminal = Terminal(scene.store)
    terminal.wait_for(name, 60)
    before = terminal.cpu_seconds()
    terminal.press("\r")
    terminal.wait_for("waterfall", 30)
    child_mb, peak_mb, begun = 0.0, 0.0, time.monotonic()
    while not terminal.saw(f"{events:,} events") and time.monotonic() - begun < 120.0:
        child_mb, peak_mb = max(child_mb, _child_mb(terminal.pid)), max(peak_mb, terminal.rss_mb())
        time.sleep(0.05)
    terminal.wait_for(f"{events:,} events", 1.0)
    opening = terminal.cpu_seconds() - before
    # Its bars grow twice a second, because the run is open: what that costs.
    time.sleep(4.0)
    watched = terminal.cpu_seconds()
    time.sleep(10.0)
    refresh = (terminal.cpu_seconds() - watched) * 1000 / 20
    waits, cpu = _press(terminal, ["\x1b[6~"] * 40, 0.1)
    resident = terminal.rss_mb()
    terminal.close()
    return {
        "waterfall: ms CPU a refresh, 100,000 steps, all threads": refresh,
        "waterfall: ms CPU a page, with the panes beside it": cpu,
        "waterfall: ms from page key to paint, p95": percentile(waits, 0.95),
        "waterfall: MB resident": resident,
        "waterfall: MB resident at most while it is read": peak_mb,
        "waterfall: MB of the child that reads it, at most": child_mb,
        "waterfall: s CPU to open it, without the child": opening,
    }


def emitted_to_visible(scene: Scene, number: int = 200) -> dict[str, float]:
    """From the write of an event by another process to the bytes on the terminal, at times of no rhythm."""
    scene.execution("probe", at=0.0)
    terminal = Terminal(scene.store)
    terminal.wait_for("probe")
    terminal.press("5")
    terminal.wait_for("FOLLOW")
    chance, took = random.Random(7), []
    for place in range(number):
        # Every fifth time the window has gone to rest before.
        time.sleep(3.0 + chance.random() if place % 25 == 24 else chance.random() * 0.3)
        token = f"mark{place:05d}z"
        begun = time.perf_counter()
        scene.emit(f"probe.{token}", at=1.0 + place)
        while not terminal.saw(token) and time.perf_counter() - begun < 3.0:
            time.sleep(0.001)
        took.append((time.perf_counter() - begun) * 1000)
        terminal.forget()
    terminal.close()
    return {
        "visible: ms from emit to terminal, median": statistics.median(took),
        "visible: ms, p99": percentile(took, 0.99),
    }


def tail(scene: Scene) -> dict[str, float]:
    """The tail of 10,000 events a second, as percent of a core, and what a beat costs the user interface."""
    run = scene.execution("busy", at=0.0)
    terminal = Terminal(scene.store, code=INSTRUMENTED)
    terminal.wait_for("busy")
    terminal.press("5")
    time.sleep(2.0)
    batch = PER_SECOND // 50
    step = run.step_run()
    payload = {"chunk_name": "work", "input": {"text": "x" * 500}}
    lines = [
        scene.line("chunk.started", at=50.0, run=step, payload=payload, scope=f"for_each[{n}]/work", attempt=1)
        for n in range(int(PER_SECOND * (TAIL_SECONDS + 2)))
    ]
    place, started = 0, time.monotonic()
    begun = terminal.cpu_seconds()
    while time.monotonic() - started < TAIL_SECONDS and place < len(lines):
        scene._file.write(b"\n".join(lines[place : place + batch]) + b"\n")
        place += batch
        time.sleep(max(0.0, started + place / PER_SECOND - time.monotonic()))
    wall = time.monotonic() - started
    share, resident = 100 * (terminal.cpu_seconds() - begun) / wall, terminal.rss_mb()
    beats = _end(terminal, scene.store)["beats"][30:]
    return {
        "tail: events/s written": place / wall,
        "tail: % of a core at that rate": share,
        "tail: ms CPU of a beat, tick and paint, p99": percentile(beats, 0.99),
        "tail: MB resident": resident,
    }
