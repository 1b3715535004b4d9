"""What holds for the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("FLOWDECK_PUBLISH", "off")  # no child processes behind the tests' backs
os.environ.pop("FLOWDECK_MODEL", None)  # the examples' tapes are of the model on this machine

REAL_TIME = ("devtools", "e2e", "durable", "environments", "evals", "examples", "otlp", "postgres", "sinks", "web")
"""Folders whose tests drive real processes, terminals and clocks."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests in real time a second and a third try.

    On a busy machine a process may be starved for seconds. A defect fails every try; a try that had to be repeated is
    shown as ``R`` and listed at the end, so that a race is seen and not hidden.
    """
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).parts[0] in REAL_TIME:
            item.add_marker(pytest.mark.flaky(reruns=2))
