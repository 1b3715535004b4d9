"""The page on agents shows what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


def test_the_first_sample_prints_what_is_shown(tmp_path: Path) -> None:
    """It runs as it stands, without a network."""
    (_, sample), (_, output) = BLOCKS[:2]
    path = tmp_path / "sample.py"
    path.write_text(sample, encoding="utf-8")
    ran = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=True)
    assert (ran.stdout, ran.stderr) == (output, "")


def test_every_other_sample_is_python() -> None:
    """They are fragments; they must at least be readable as they stand."""
    for language, text in BLOCKS:
        if language == "python":
            compile(text, "agents.md", "exec", flags=0x2000)  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
