"""DevTools in a browser: only with the token, only from this machine, and really drawn by a real browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from tests.devtools.browser import browser_path, open_page
from tests.devtools.scene import Scene

pytestmark = pytest.mark.anyio
TOKEN = "a-token-that-only-we-know"


@pytest.fixture
def served(busy: Scene, tmp_path: Path) -> Iterator[str]:
    """The address of a DevTools server on the busy store, without its token."""
    command = [sys.executable, "-m", "flowdeck_devtools.cli", "devtools", "--serve", "--port", "0"]
    environment = {**os.environ, "FLOWDECK_DEVTOOLS_TOKEN": TOKEN, "TEXTUAL_ANIMATIONS": "none"}
    server = subprocess.Popen(
        [*command, "--store", str(busy.store), "--actor", "ana"], stdout=subprocess.PIPE, env=environment, text=True
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        yield found[0]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(10)
        assert server.returncode == 0


async def test_nothing_is_served_without_the_token_or_to_another_site(served: str) -> None:
    """No page, no script, no socket; a foreign host name (rebinding) or origin is refused even with the token."""
    with_token = f"{served}/?token={TOKEN}"
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        for path in ("/", "/ws", "/static/js/textual.js", "/page/page.css", "/download/x", "/?token=wrong"):
            async with session.get(served + path) as answer:
                assert answer.status == 401, path
                assert "GANGLION" not in await answer.text()
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            async with session.get(with_token, headers=headers, allow_redirects=False) as answer:
                assert answer.status == 403
        async with session.get(with_token) as answer:
            text = await answer.text()
            assert answer.status == 200
            assert str(answer.url) == f"{served}/"
            assert TOKEN not in text
            assert "http://fonts" not in text
            assert "https://" not in text
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        cookie = next(iter(jar))
        assert cookie["httponly"]
        assert cookie["samesite"] == "Strict"
        async with session.get(served + "/ws", headers={"Origin": "http://evil.example"}) as answer:
            assert answer.status == 403


@pytest.mark.skipif(
    browser_path() is None,
    reason="no Chromium on this machine: install one (Debian: apt-get install chromium) to check the browser",
)
async def test_a_real_browser_draws_the_screens_and_takes_keys(served: str, tmp_path: Path) -> None:
    """The runs appear on its canvas, a key leads to the events, and nothing is loaded from elsewhere."""
    async with open_page(f"{served}/?token={TOKEN}", tmp_path / "profile") as page:
        await page.until(lambda: b"refund-agent" in page.received, "the runs")
        assert await page.evaluate("document.body.classList.contains('-first-byte')")
        assert await page.evaluate("document.querySelectorAll('.xterm canvas').length") > 0
        assert await page.evaluate("window.location.search") == ""
        before = await page.picture()
        del page.received[:]
        await page.press("5")
        await page.until(lambda: b"FOLLOW" in page.received, "the events")
        after = await page.picture()
        assert min(len(before), len(after)) > 20_000  # an empty page compresses to a tenth of it
        assert before != after
        wanted = os.environ.get("FLOWDECK_KEEP_PICTURE")
        if wanted:
            Path(wanted).write_bytes(before)  # noqa: ASYNC240 - a picture for a person, at the end of the test
        assert page.problems == []
