"""The example's page in a real browser: it starts a review, sees its stages, survives a killed server, and approves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.devtools.browser import Page, browser_path, open_page
from tests.web.server import free_socket

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


def start(store: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "examples.web_review", str(store), str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
            return process
        except httpx.TransportError:
            assert time.monotonic() < deadline and process.poll() is None, "the server did not come up"
            time.sleep(0.05)


async def shown(page: Page, script: str, wanted: object) -> None:
    """Wait until a script gives what is wanted."""
    seen = None
    for _ in range(400):
        if (seen := await page.evaluate(script)) == wanted:
            return
        await asyncio.sleep(0.05)

    raise AssertionError(f"{script}: {seen!r} instead of {wanted!r}; the page said {page.problems}")


STAGES = "[...document.querySelectorAll('#stages li')].map(line => line.textContent).join('|')"
ASKED = "Reading the contract|The risk is low|The risk is low. Accept the contract?"
OPEN = "!document.getElementById('approval').hidden"


@pytest.mark.skipif(
    browser_path() is None,
    reason="no Chromium on this machine: install one (Debian: apt-get install chromium) to check the browser",
)
async def test_a_review_is_approved_on_a_page_that_stayed_open_while_its_server_was_killed(tmp_path: Path) -> None:
    listening = free_socket()
    port = listening.getsockname()[1]
    listening.close()
    server = await asyncio.to_thread(start, tmp_path / "store", port)
    try:
        async with open_page(f"http://127.0.0.1:{port}/", tmp_path / "profile") as page:
            await shown(page, "document.readyState", "complete")
            await page.evaluate("window.same = true; document.querySelector('#start button').click()")
            await shown(page, STAGES, ASKED)
            await shown(page, OPEN, True)
            assert page.problems == []
            server.kill()
            server.wait()
            await shown(page, "document.getElementById('state').textContent", "connecting again")
            server = await asyncio.to_thread(start, tmp_path / "store", port)
            await shown(page, "document.getElementById('state').textContent", "live")
            assert await page.evaluate(STAGES) == ASKED
            await page.evaluate("document.querySelector('#approval button').click()")
            await shown(page, "document.getElementById('state').textContent", "completed")
            await shown(page, STAGES, ASKED + "|Contract accepted")
            assert await page.evaluate("window.same") is True, "it was loaded again"
            assert await page.evaluate(OPEN) is False
    finally:
        server.kill()
        server.wait()
