"""The five levels of an event."""

from __future__ import annotations

from typing import Final

__all__ = ["LEVELS"]

LEVELS: Final = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
"""Event levels and their ranks; the ranks are those of :mod:`logging`."""
