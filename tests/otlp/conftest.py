"""What the tests of the span mapper share."""

from __future__ import annotations

import pytest
from tests.otlp.hand import Hand


@pytest.fixture
def hand() -> Hand:
    """An execution with a step that has begun."""
    return Hand().begin()
