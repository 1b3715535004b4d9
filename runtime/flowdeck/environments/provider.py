"""What makes execution environments of one kind: three methods, so that anybody can add a kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from flowdeck.environments.requirement import Handle, Requirement

__all__ = ["ExecutionEnvironmentProvider"]


@runtime_checkable
class ExecutionEnvironmentProvider(Protocol):
    """Makes, checks and releases environments of its ``kind``.

    The manager calls ``async_ensure`` -> ``async_health_check`` before each reuse -> ``async_release`` once. Nothing of
    it runs for a requirement that was not approved. A provider with more to tell emits further events through
    ``manager.emit("image_pulled", requirement)``: the family is open.

    With an attribute ``policy_keys`` (a set of names) it says which keys of a policy it obeys; a requirement that
    restricts something else is then refused instead of being run without the restriction.
    """

    kind: str

    async def async_ensure(
        self, *, requirement: Requirement, policy: Mapping[str, Any], existing_handle: Handle | None = None
    ) -> Mapping[str, Any]:
        """Make the environment. Returns ``resource`` and, if it likes, ``handle_id`` and ``meta``."""

    async def async_health_check(self, handle: Handle) -> str:
        """Return ``"ready"`` when the environment can be used once more; anything else replaces it."""

    async def async_release(self, handle: Handle) -> None:
        """End the environment and everything that runs in it."""
