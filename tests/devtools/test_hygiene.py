"""What is imported when: checked in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import flowdeck_devtools


def modules_after(code: str) -> set[str]:
    """The top-level modules a fresh interpreter has loaded after running code."""
    report = "import sys; print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


ROOMS = ("core", "filter")
HEADLESS = [
    f"flowdeck_devtools.{room}.{path.stem}"
    for room in ROOMS
    for path in sorted((Path(flowdeck_devtools.__path__[0]) / room).glob("*.py"))
    if path.stem != "__init__"
]
"""Every module of the headless rooms: a new one cannot escape."""


def test_the_headless_core_and_the_filter_never_load_textual() -> None:
    """The command line and tests share the core with the screens."""
    assert {"flowdeck_devtools.core.trace", "flowdeck_devtools.filter.sql"} <= set(HEADLESS)
    assert "textual" not in modules_after("".join(f"import {name}\n" for name in HEADLESS))


@pytest.mark.parametrize("heavy", ["duckdb", "tree_sitter", "pandas"])
def test_opening_a_window_does_not_load_heavy_libraries(heavy: str) -> None:
    """SQL is loaded when history is asked for; syntax highlighting never (tree-sitter 0.26.1 ends the process)."""
    assert heavy not in modules_after("import flowdeck_devtools.tui")
