"""What is imported when: checked in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest


def modules_after(code: str) -> set[str]:
    """The top-level modules a fresh interpreter has loaded after running code."""
    report = "import sys; print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


CORE = [
    "bars",
    "clock",
    "columns",
    "describe",
    "facts",
    "history",
    "inbox",
    "index",
    "jsonlines",
    "live",
    "model",
    "opened",
    "outline",
    "ring",
    "schema",
    "scope",
    "session",
    "span",
    "status",
    "text",
    "trace",
    "window",
    "wire",
]


def test_the_headless_core_and_the_filter_never_load_textual() -> None:
    """The command line and tests share the core with the screens."""
    code = "".join(f"import flowdeck_devtools.core.{name}\n" for name in CORE) + "import flowdeck_devtools.filter\n"
    assert "textual" not in modules_after(code)


def test_every_core_module_is_checked() -> None:
    """A new module cannot escape the test above."""
    import flowdeck_devtools.core as core

    listed = subprocess.run(["ls", *core.__path__], capture_output=True, text=True, check=True).stdout.split()
    assert {name.removesuffix(".py") for name in listed if name.endswith(".py")} - {"__init__"} == set(CORE)


@pytest.mark.parametrize("heavy", ["duckdb", "tree_sitter", "pandas"])
def test_opening_a_window_does_not_load_heavy_libraries(heavy: str) -> None:
    """SQL is loaded when history is asked for; syntax highlighting never (tree-sitter 0.26.1 ends the process)."""
    assert heavy not in modules_after("import flowdeck_devtools.tui")
