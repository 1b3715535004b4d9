"""Which events belong to what a program watches: ``bridge.watch(target)`` of the compatible API.

An event belongs to a target when its run, or a run above it, is the target's. Events without a run, and definitions,
belong to everybody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from flowdeck.compat.diagrams import DEFINITION_DECLARED
from flowdeck.execution.execution import TriggerFlowExecution
from flowdeck.triggerflow import TriggerFlow

if TYPE_CHECKING:
    from flowdeck.events.lineage import RunContext
    from flowdeck.events.record import EventRecord

__all__ = ["Watched"]

KEPT: Final = 10_000
"""Runs whose verdict is remembered."""
_TYPES: Final = {
    "flow": "flow_name",
    "trigger_flow": "flow_name",
    "triggerflow": "flow_name",
    "workflow": "flow_name",
    "agent": "agent_name",
    "action": "action_name",
    "tool": "action_name",
    "function": "action_name",
    "execution": "execution_id",
    "request": "response_id",
    "response": "response_id",
    "session": "session_id",
}
"""What a target of that type is known by: a field of the run, or a key of its meta."""

Test = Callable[["RunContext"], bool]


class Watched:
    """The targets of one bridge. Called with a record, says whether it belongs to one of them."""

    def __init__(self) -> None:
        self.everything = False
        """``Agently`` itself is a target."""
        self._tests: list[Test] = []
        self._verdicts: dict[str, bool] = {}
        self._lock = threading.Lock()

    def add(self, target: Any) -> None:
        """Watch a flow, an execution, an agent, a tool function, a request or response, or a dict with
        ``target_type`` and ``target_name``.

        Raises:
            TypeError: it is none of these.
        """
        test = _test_of(target)
        with self._lock:
            self._tests = [*self._tests, test]
            self._verdicts = {}

    def __call__(self, record: EventRecord) -> bool:
        run = record.run
        return self.everything or run is None or record.event_type == DEFINITION_DECLARED or self._belongs(run)

    def _belongs(self, run: RunContext) -> bool:
        verdicts = self._verdicts
        key = run.run_id
        known = verdicts.get(key)
        if known is None:
            known = any(test(run) for test in self._tests) or (run.parent is not None and self._belongs(run.parent))
            if len(verdicts) >= KEPT:
                verdicts = self._verdicts = {}

            verdicts[key] = known

        return known


def _test_of(target: Any) -> Test:
    if isinstance(target, Mapping):
        kind, name = target.get("target_type"), target.get("target_name")
        field = _TYPES.get(kind) if isinstance(kind, str) else None
        if field is None or not isinstance(name, str):
            raise TypeError(
                f'watch({dict(target)!r}): expected {{"target_type": one of {", ".join(_TYPES)}, "target_name": text}}'
            )

        return _has(field, name)

    if isinstance(target, TriggerFlow):
        return _has("flow_name", target.name)

    if isinstance(target, TriggerFlowExecution):
        return _has("execution_id", target.id)

    for field in ("agent_id", "response_id"):
        if isinstance(own := getattr(target, field, None), str):
            return _has(field, own)

    if hasattr(target, "activate_session") and isinstance(own := getattr(target, "id", None), str):
        return _has("agent_id", own)

    if callable(target) and isinstance(own := getattr(target, "__name__", None), str):
        return _has("action_name", own)

    raise TypeError(
        f"watch({target!r}): expected Agently, a flow, an execution, an agent, a tool function, a response, or a dict "
        'with "target_type" and "target_name"'
    )


def _has(field: str, wanted: str) -> Test:
    if field in ("flow_name", "action_name"):
        return lambda run: run.meta.get(field) == wanted

    return lambda run: getattr(run, field) == wanted
