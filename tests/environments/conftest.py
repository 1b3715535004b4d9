from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.execution.support import World

from flowdeck.environments import ExecutionEnvironmentManager
from flowdeck.execution.services import Services


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world() -> Iterator[World]:
    """A world in real time, as processes need it."""
    made = World()
    made.services = Services(center=made.center)
    yield made
    assert not made.recorder.problems, made.recorder.problems[:5]


@pytest.fixture
def manager(world: World) -> Iterator[ExecutionEnvironmentManager]:
    """A manager that leaves nothing behind."""
    made = ExecutionEnvironmentManager(world.services)
    yield made
    made.close()
