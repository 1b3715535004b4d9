"""The page on interventions shows what happens."""

from __future__ import annotations

import asyncio
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "interventions.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("name", ["document_review", "ticket_triage"])
def test_an_example_is_shown_as_it_is_and_prints_what_is_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Code blocks and output block of the page are the example's."""
    shown = [text for _, text in BLOCKS]
    flow, main = ((ROOT / "examples" / name / file).read_text(encoding="utf-8") for file in ("flow.py", "__main__.py"))
    assert flow in shown
    asyncio.run(import_module(f"examples.{name}.__main__").main())
    said = capsys.readouterr()
    assert (said.out, said.err) == (shown[shown.index(main) + 1], "")


def test_every_other_sample_is_python() -> None:
    """They are fragments; they must at least be readable as they stand."""
    for language, text in BLOCKS:
        if language == "python":
            compile(text, "interventions.md", "exec", flags=0x2000)  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
