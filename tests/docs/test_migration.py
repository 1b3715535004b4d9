"""The guide for those who come from the reference, run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.test_tutorial import blocks, pattern

GUIDE = Path(__file__).parents[2] / "docs" / "migration.md"


def test_the_program_of_the_guide_prints_what_the_guide_says(tmp_path: Path) -> None:
    """Its files are written, its commands run in order, and what they print is what the page says."""
    bin_folder = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": bin_folder, "NO_COLOR": "1", "COLUMNS": "120"}
    env.pop("FLOWDECK_STORE", None)
    printed, compared = "", 0
    for block in blocks(GUIDE):
        if block.option.startswith("title="):
            (tmp_path / block.option[7:-1]).write_text(block.text)
        elif block.language == "sh" and "pip install" not in block.text:
            done = subprocess.run(["bash", "-euc", block.text], cwd=tmp_path, env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            printed = done.stdout
        elif block.language == "text":
            assert pattern(block.text).search(re.sub(r"[ ─]+", " ", printed)), printed
            compared += 1

    assert compared == 2
