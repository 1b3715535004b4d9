"""The tutorial, block by block, as a newcomer types it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    option: str
    text: str


def blocks(page: Path = TUTORIAL) -> Iterator[Block]:
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield Block(found[1], found[2] or "", found[3])


def pattern(expected: str) -> re.Pattern[str]:
    """The expected output: `…` stands for anything, also for whole lines; spaces for at least one space."""
    parts = [re.escape(part) for part in re.sub(r"[ ─]+", " ", expected.strip()).split("…")]
    return re.compile(r"[\s\S]*?".join(parts).replace("\\ ", r"\s+").replace("\\\n", r"\s*\n\s*"))


def test_every_block_of_the_tutorial_works_as_it_stands(tmp_path: Path) -> None:
    """Files are written, commands run in order, and what they print is what the page says."""
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "FLOWDECK_STORE": str(tmp_path / ".flowdeck"),
    }
    background: list[subprocess.Popen[bytes]] = []
    printed, ran = "", 0
    shell = ["bash", "-euo", "pipefail", "-c"]
    try:
        for block in blocks():
            if block.option.startswith("title="):
                file = tmp_path / block.option[7:-1]
                file.parent.mkdir(exist_ok=True)
                file.write_text(block.text)
            elif block.language == "sh" and block.option == "background":
                started = subprocess.Popen([*shell, block.text], cwd=tmp_path, env=env, start_new_session=True)
                background.append(started)
                if "oteltap" not in block.text:
                    wait_for_the_question(tmp_path, env)
                else:
                    time.sleep(1.0)
            elif block.language in ("sh", "python"):
                command = [*shell, block.text] if block.language == "sh" else [sys.executable, "-c", block.text]
                done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
                assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
                printed = done.stdout
                ran += 1
            elif block.language == "text":
                assert pattern(block.text).search(re.sub(r"[ ─]+", " ", printed)), f"{block.text}\n--- got\n{printed}"

        assert ran == 9, "blocks were not found"
        assert background[1].wait(10) == 0, "the collector did not get the span it waited for"
    finally:
        for process in background:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_the_question(folder: Path, env: dict[str, str]) -> None:
    deadline = time.monotonic() + 20
    while True:
        listed = subprocess.run(["flowdeck", "interrupts", "list", "--json"], cwd=folder, env=env, capture_output=True)
        if listed.returncode == 0 and listed.stdout.strip() not in (b"", b"[]"):
            return

        assert time.monotonic() < deadline, listed.stderr
        time.sleep(0.1)
