"""The shape of a ``trigger_flow/v1`` config, as typed structs: what is checked before its meaning is.

Unknown fields of a config, an operator or a signal are refused: a misspelt one would be a step that never runs. An
operator's ``options`` are open.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["KINDS", "AnnotationConfig", "FlowConfig", "OpConfig", "RefConfig", "RetryConfig", "SignalConfig"]

KINDS: Final = (
    "chunk",
    "signal_gate",
    "batch_fanout",
    "batch_collect",
    "for_each_split",
    "for_each_collect",
    "match_route",
    "match_case",
    "match_collect",
    "collect_branch",
    "intervention_point",
    "sub_flow",
    "result_sink",
)


class SignalConfig(msgspec.Struct, forbid_unknown_fields=True):
    """An event, or a change of state, that an operator listens to or emits."""

    trigger_event: str
    trigger_type: str = "event"
    id: str | None = None
    role: str | None = None


class RefConfig(msgspec.Struct):
    """The name a handler or a condition is found by; what else it says is for people."""

    kind: str = "registered"
    name: str | None = None
    callable_name: str | None = None
    file: str | None = None
    line: int | None = None


class OpConfig(msgspec.Struct, forbid_unknown_fields=True):
    """One operator."""

    id: str
    kind: str
    name: str | None = None
    key: str | None = None
    listen_signals: list[SignalConfig] = []
    emit_signals: list[SignalConfig] = []
    options: dict[str, Any] = {}
    handler_ref: RefConfig | None = None
    condition_ref: RefConfig | None = None
    group_id: str | None = None
    group_kind: str | None = None
    parent_group_id: str | None = None
    parent_group_kind: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} ({self.id})"


class FlowConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The whole config."""

    version: str
    operators: list[OpConfig]
    name: str | None = None
    meta: dict[str, Any] | None = None
    contract: dict[str, Any] | None = None


class RetryConfig(msgspec.Struct, forbid_unknown_fields=True):
    """``options.retry``; ``on`` names exceptions."""

    attempts: int = 3
    backoff: float = 0.0
    factor: float = 2.0
    max_backoff: float = 60.0
    jitter: float = 0.0
    on: list[str] = msgspec.field(default_factory=lambda: ["Exception"])


class AnnotationConfig(msgspec.Struct, forbid_unknown_fields=True):
    """``options.annotation``: what a ``.____(…)`` says."""

    texts: list[str]
    log: bool
    show: bool
    value: bool
