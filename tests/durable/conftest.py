"""Fixtures of the execution tests are of use here too."""

from __future__ import annotations

from tests.execution.conftest import anyio_backend, world

__all__ = ["anyio_backend", "world"]
