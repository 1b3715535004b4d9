"""docs/workspace.md is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from flowdeck.events.catalogue import CATALOGUE

PAGE = Path(__file__).parents[2] / "docs" / "workspace.md"


def test_the_sample_runs(tmp_path: Path) -> None:
    """The sample of the page does what the page says."""
    (sample,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", sample], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["draft_report", "record"]


def test_every_event_is_named() -> None:
    """The page names the events of sessions and workspaces that the catalogue has."""
    text = PAGE.read_text()
    for name in CATALOGUE:
        family, _, event = name.partition(".")
        if family in ("session", "workspace"):
            assert event in text, name
