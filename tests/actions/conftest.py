from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.execution.support import World

from flowdeck.actions import ActionRuntime


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose events must all be as the catalogue says."""
    made = World()
    yield made
    assert not made.recorder.problems, made.recorder.problems[:5]


@pytest.fixture
def actions(world: World) -> ActionRuntime:
    """Actions of a world with virtual time."""
    return ActionRuntime(world.services, name="demo")
