"""What a flow promises about the values that cross its border, as data.

Checking is :mod:`flowdeck.execution.contracts`. Source: the compatible API's contracts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

__all__ = ["PARTS", "TriggerFlowContractSpec"]

PARTS: Final = ("initial_input", "stream", "result")
"""The values a contract can speak of: what a run is started with, what it streams, and its set result."""

_NO_META: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TriggerFlowContractSpec:
    """A flow's contract as it was given: types, or JSON Schema as a dict; ``None`` where nothing is promised."""

    initial_input: Any = None
    stream: Any = None
    result: Any = None
    meta: Mapping[str, Any] = field(default_factory=lambda: _NO_META)
