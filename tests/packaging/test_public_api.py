"""What is public changes on purpose only, and the pages made from the code are up to date."""

from __future__ import annotations

import difflib

import pytest
from tests.packaging.public_api import SNAPSHOT, described

from docs import command_reference, event_reference, filter_reference

REFERENCES = [event_reference, command_reference, filter_reference]


def test_the_public_api_is_the_one_written_down() -> None:
    """A change of it is seen in review: `python -m tests.packaging.public_api` writes it down."""
    kept, now = SNAPSHOT.read_text(encoding="utf-8"), described()
    assert kept == now, "\n".join(difflib.unified_diff(kept.splitlines(), now.splitlines(), lineterm="", n=0))


@pytest.mark.parametrize("reference", REFERENCES, ids=["events", "commands", "filters"])
def test_a_reference_is_what_the_code_says(reference: object) -> None:
    """`make docs` writes the references anew."""
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page()  # type: ignore[attr-defined]
