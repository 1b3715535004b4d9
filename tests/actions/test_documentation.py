"""The page on actions shows what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "actions.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_is_shown_as_it_is_and_prints_what_is_shown() -> None:
    """Code block and output block of the page are the example's."""
    path = ROOT / "examples" / "actions" / "refund.py"
    shown = [text for _, text in BLOCKS]
    output = shown[shown.index(path.read_text(encoding="utf-8")) + 1]
    ran = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=True)
    assert (ran.stdout, ran.stderr) == (output, "")


def test_every_other_sample_is_python() -> None:
    """They are fragments; they must at least be readable as they stand."""
    for language, text in BLOCKS:
        if language == "python":
            compile(text, "actions.md", "exec", flags=0x2000)  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
