"""Fixtures of the web tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Flows run on asyncio."""
    return "asyncio"
