"""A real headless Chromium over its DevTools protocol: opens a page, types, and reads what its web socket received."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

__all__ = ["Page", "browser_path", "open_page"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-port=0", "--window-size=1320,800",
)  # fmt: skip


def browser_path() -> str | None:
    """Where a Chromium is, or ``None``."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab. ``received`` holds what its web sockets were sent, decoded."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.received = bytearray()
        self.problems: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if "id" in data:
                self._waiting.pop(data["id"]).set_result(data)
            elif data["method"] == "Network.webSocketFrameReceived":
                frame = data["params"]["response"]
                raw = frame["payloadData"]
                self.received += base64.b64decode(raw) if frame["opcode"] == 2 else raw.encode()
            elif data["method"] == "Runtime.exceptionThrown" or (
                data["method"] == "Log.entryAdded" and data["params"]["entry"]["level"] == "error"
            ):
                self.problems.append(json.dumps(data["params"])[:400])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        answer = await asyncio.wait_for(future, 20)
        assert "error" not in answer, answer
        return dict(answer["result"])

    async def evaluate(self, script: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    async def press(self, key: str) -> None:
        code = "Enter" if key == "\r" else f"Digit{key}" if key.isdigit() else f"Key{key.upper()}"
        for kind in ("keyDown", "keyUp"):
            text = key if kind == "keyDown" else ""
            virtual = ord(key.upper())
            await self.call(
                "Input.dispatchKeyEvent", type=kind, text=text, key=key, code=code, windowsVirtualKeyCode=virtual
            )

    async def picture(self) -> bytes:
        """A PNG of the page."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    async def until(self, holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:g} s for {what}; the page said {self.problems}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def open_page(url: str, profile: Path) -> AsyncIterator[Page]:
    """A page in a browser with an empty profile; both are gone afterwards."""
    path = browser_path()
    assert path is not None
    command = [path, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    nowhere = asyncio.subprocess.DEVNULL
    browser = await asyncio.create_subprocess_exec(*command, stdout=nowhere, stderr=nowhere, start_new_session=True)
    try:
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 30
        while not (port_file.exists() and port_file.read_text().count("\n")):
            if time.monotonic() > deadline or browser.returncode is not None:
                raise AssertionError("the browser did not come up")
            await asyncio.sleep(0.05)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                tab = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Network", "Runtime", "Log"):
                    await page.call(f"{domain}.enable")
                await page.call("Page.navigate", url=url)
                yield page
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        await browser.wait()
