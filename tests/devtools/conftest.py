"""What every DevTools test needs: no animations, times in UTC, scenes that are closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")  # read when Textual is imported

import textual._wait
from tests.devtools.scene import Scene, busy_store

from flowdeck_devtools.core import text

# A pilot waits after each key until the process has been idle for a while, twice: 40 ms. What tests go on to wait for
# is a condition on the screen, so 8 ms do, and the slowest of them take half the time.
textual._wait.SLEEP_GRANULARITY = 1 / 250
textual._wait.SLEEP_IDLE = 1 / 500


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    text.use_utc(True)
    yield
    text.use_utc(False)


@pytest.fixture
def anyio_backend() -> str:
    """Textual runs on asyncio."""
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def scene(store: Path) -> Iterator[Scene]:
    made = Scene(store)
    yield made
    made.close()


@pytest.fixture
def busy(store: Path) -> Iterator[Scene]:
    made = busy_store(store)
    yield made
    made.close()
