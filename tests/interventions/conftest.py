from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.execution.support import World


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose events must all be as the catalogue says."""
    made = World()
    yield made
    assert not made.recorder.problems, made.recorder.problems[:5]
