"""Make the pictures in the documentation from a real run: ``make screenshots``.

It runs some of the examples, starts the licence audit in a child process, waits until it asks its questions, and lets
DevTools draw what it sees.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flowdeck_devtools.core.session import Session
from flowdeck_devtools.tui.app import DevToolsApp

IMAGES = Path(__file__).resolve().parent / "images"
SIZE = (120, 32)
SHOTS = (
    (("1",), "devtools-runs"),
    (("2",), "devtools-execution"),
    (("m", "tab", "tab", "z"), "devtools-graph"),
    (("z", "3"), "devtools-inbox"),
    (("5",), "devtools-events"),
)
EARLIER = (
    ("document_review", {"document": "1. Prices are those of attachment B."}),
    ("research_agent", {"question": "When does the night train run?", "task_id": "t-17"}),
    ("document_review", {"paper": "a key that its contract does not have"}),
    ("ticket_triage", "Since this morning no card goes through!"),
)
"""Examples and inputs of the runs that stand below the audit; the third is refused."""
TOKEN = "made-for-one-picture"


async def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"screenshots: not within {seconds} s: {what}")

        await asyncio.sleep(0.05)


async def draw(store: Path) -> None:
    app = DevToolsApp(Session(store, actor="ana"))
    async with app.run_test(size=SIZE) as pilot:
        session = app.session
        await until(lambda: session.live.caught_up.is_set() and session.inbox.loaded.is_set(), "the store to be read")
        await until(lambda: session.inbox.waiting >= 3, "the audit to ask")
        await pilot.press("1")
        await pilot.pause(0.6)
        await pilot.press("enter")
        await pilot.pause(0.6)
        for keys, name in SHOTS:
            for key in keys:
                await pilot.press(key)
                await pilot.pause(0.8)

            target = IMAGES / f"{name}.svg"
            target.write_text(app.export_screenshot(title="flowdeck devtools"), encoding="utf-8")
            print(f"docs/images/{target.name}")


def run_examples(store: Path) -> None:
    root = str(Path(__file__).resolve().parents[1])
    environment = {name: value for name, value in os.environ.items() if name != "FLOWDECK_MODEL"}
    environment["PYTHONPATH"] = root
    for example, given in EARLIER:
        flow = f"examples.{example}.flow:flow"
        command = [sys.executable, "-m", "flowdeck_devtools.cli", "run", flow, "--input", json.dumps(given)]
        subprocess.run([*command, "--store", str(store)], env=environment, capture_output=True, timeout=60)


def browse(store: Path) -> None:
    """The page in a real browser, where there is one."""
    from tests.devtools.browser import browser_path, open_page

    if browser_path() is None:
        print("docs/images/devtools-browser.png is left as it is: no Chromium here")
        return
    command = [
        sys.executable,
        "-m",
        "flowdeck_devtools.cli",
        "devtools",
        "--serve",
        "--port",
        "0",
        "--store",
        str(store),
    ]
    environment = {**os.environ, "FLOWDECK_DEVTOOLS_TOKEN": TOKEN}
    server = subprocess.Popen([*command, "--store", str(store)], stdout=subprocess.PIPE, env=environment, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]

        async def look(profile: Path) -> bytes:
            async with open_page(url, profile) as page:
                await page.until(lambda: b"licence-audit" in page.received, "the runs")
                for key in ("\r", "m"):
                    await page.press(key)
                    await asyncio.sleep(1.5)
                return await page.picture()

        with tempfile.TemporaryDirectory() as profile:
            picture = asyncio.run(look(Path(profile)))
        (IMAGES / "devtools-browser.png").write_bytes(picture)
        print("docs/images/devtools-browser.png")
    finally:
        server.terminate()
        server.wait()


def main() -> int:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # Relative names, so that no path of the machine gets into a picture.
        Path(folder, "site-packages").symlink_to(sysconfig.get_path("purelib"))
        os.chdir(folder)
        store = Path(".flowdeck")
        run_examples(store)
        task = {"paths": ["site-packages"], "out": "licence-audit", "store": str(store), "approve": None}
        worker = subprocess.Popen(
            [sys.executable, "-m", "flowdeck_devtools.cli._demo_worker", json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        try:
            asyncio.run(until(lambda: (store / "state.db").exists(), "the demo to start"))
            asyncio.run(draw(store))
            browse(store)
        finally:
            worker.kill()
            worker.wait()
            os.chdir(IMAGES)

    return 0


if __name__ == "__main__":
    sys.exit(main())
