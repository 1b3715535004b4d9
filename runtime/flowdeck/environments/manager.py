"""The execution environment manager: declare, ensure, reuse, check, release.

Order of one :meth:`ExecutionEnvironmentManager.async_ensure`::

    approval   needed?  event approval_required, then the decision handler says yes or no; no provider runs before that
    reuse      a ready handle of the same reuse key and policy:
                   healthy    ->  ref_count + 1, the same handle, no event
                   unhealthy  ->  unhealthy, releasing, released, and a new one
    provider   ensuring  ->  provider.async_ensure  ->  ready | failed

Ensures of one reuse key take turns; others run side by side. Source: behaviour §7.4, seed 004.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from flowdeck.environments.approval import DecisionHandler, approved_policy, needs_approval
from flowdeck.environments.policy import refuse_unenforced
from flowdeck.environments.provider import ExecutionEnvironmentProvider
from flowdeck.environments.providers import built_in
from flowdeck.environments.requirement import Handle, Requirement, new_handle, normalise
from flowdeck.environments.turns import Turns
from flowdeck.errors import ExecutionEnvironmentError
from flowdeck.events.lineage import current_run
from flowdeck.execution.services import Services
from flowdeck.execution.sync import run_sync

__all__ = ["ExecutionEnvironmentManager", "environments_of"]

PROVIDER_MISSING = "execution_environment.provider_missing"
RELEASE_SECONDS = 30.0
"""How long a provider may take to release an environment."""


class ExecutionEnvironmentManager:
    """Hands out execution environments and ends them. One per runtime: ``runtime.execution_environment``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._providers: dict[str, ExecutionEnvironmentProvider] = built_in()
        self._requirements: dict[str, Requirement] = {}
        self._handles: dict[str, Handle] = {}
        self._by_reuse: dict[str, str] = {}
        self._decide: DecisionHandler | None = None
        self._lock = threading.Lock()
        self._turns = Turns()
        _managers.add(self)

    # -- providers and declarations ------------------------------------------------------------------------------

    def register_provider(self, provider: ExecutionEnvironmentProvider) -> None:
        """Let ``provider`` make environments of its kind, in place of the one before.

        Raises:
            TypeError: it is no provider.
        """
        if not isinstance(provider, ExecutionEnvironmentProvider) or not isinstance(provider.kind, str):
            raise TypeError(
                f"register_provider({provider!r}): expected kind, async_ensure, async_health_check and async_release"
            )

        self._providers[provider.kind] = provider

    def kinds(self) -> list[str]:
        """Return the kinds that can be asked for."""
        return sorted(self._providers)

    def set_decision_handler(self, handler: DecisionHandler | None) -> None:
        """Ask ``handler(requirement, policy)`` about environments that need approval.

        It returns a bool, or a dict with ``approved`` and, if it likes, ``reason`` and ``policy_override``. It may be
        async.
        """
        self._decide = handler

    def declare(self, requirement: Mapping[str, Any]) -> Requirement:
        """Remember a requirement under its id; nothing is started. Returns it complete.

        Raises:
            ActionDefinitionError: it has no kind, or a part is wrong.
        """
        made = normalise(requirement)
        with self._lock:
            self._requirements[made["requirement_id"]] = made

        self.emit("declared", made)
        return made

    def inspect(self, requirement_or_handle_id: str) -> dict[str, Any] | None:
        """Return the handle of an id, or of a requirement's id; else that requirement; else ``None``."""
        with self._lock:
            found = self._handles.get(requirement_or_handle_id)
            if found is None:
                ready = (h for h in self._handles.values() if h["requirement_id"] == requirement_or_handle_id)
                found = next(ready, self._requirements.get(requirement_or_handle_id))

            return None if found is None else dict(found)

    def list(
        self, scope: str | None = None, owner_id: str | None = None, status: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the handles there are, by scope, owner and status."""
        with self._lock:
            return [
                dict(handle)
                for handle in self._handles.values()
                if (scope is None or handle["scope"] == scope)
                and (owner_id is None or handle["owner_id"] == owner_id)
                and (status is None or handle["status"] == status)
            ]

    # -- ensuring ------------------------------------------------------------------------------------------------

    async def async_ensure(
        self,
        requirement_or_id: Mapping[str, Any] | str,
        *,
        scope: str | None = None,
        owner_id: str | None = None,
        approval: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
    ) -> Handle:
        """Return a ready handle; its ``resource`` is what one works with. Release it when done.

        Args:
            approval: a decision that was made elsewhere, such as the answer to an action's interrupt.
            policy: goes over the requirement's own, key by key.

        Raises:
            ValueError: an id nobody has declared.
            ExecutionEnvironmentError: there is no provider of that kind.
            ExecutionEnvironmentRefused: its policy has a restriction the provider cannot enforce.
            ExecutionEnvironmentApprovalRequired: it needs approval and nobody can be asked.
            ExecutionEnvironmentApprovalDenied: the answer was no.
            Exception: whatever the provider raised.
        """
        requirement = self._requirement(requirement_or_id, scope, owner_id)
        if policy:
            requirement = normalise({**requirement, "policy": {**requirement["policy"], **policy}})

        allowed = await self._allowed(requirement, approval)
        provider = self._providers.get(requirement["kind"])
        if provider is None:
            problem = ExecutionEnvironmentError(
                f"there is no provider for execution environments of kind {requirement['kind']!r}; "
                f"there are: {', '.join(self.kinds())}",
                code=PROVIDER_MISSING,
                payload={"requirement_id": requirement["requirement_id"], "kind": requirement["kind"]},
            )
            self.emit("failed", requirement, error=problem)
            raise problem

        key = requirement["reuse_key"]
        async with self._turns.of(key):
            existing = self._handles.get(self._by_reuse.get(_shared(key, allowed), ""))
            if existing is not None and await self._usable(provider, existing, requirement):
                existing["ref_count"] += 1
                return existing

            return await self._make(provider, requirement, allowed)

    async def _make(
        self, provider: ExecutionEnvironmentProvider, requirement: Requirement, policy: dict[str, Any]
    ) -> Handle:
        self.emit("ensuring", requirement)
        try:
            refuse_unenforced(provider, requirement, policy)
            given = await provider.async_ensure(requirement=requirement, policy=policy, existing_handle=None)
        except BaseException as problem:
            self.emit("failed", requirement, error=problem)
            raise

        handle = new_handle(requirement, given, policy)
        with self._lock:
            self._handles[handle["handle_id"]] = handle
            self._by_reuse[_shared(requirement["reuse_key"], policy)] = handle["handle_id"]

        self.emit("ready", requirement, handle)
        return handle

    def _requirement(self, given: Mapping[str, Any] | str, scope: str | None, owner_id: str | None) -> Requirement:
        if isinstance(given, str):
            declared = self._requirements.get(given)
            if declared is None:
                there = ", ".join(sorted(self._requirements)) or "none"
                raise ValueError(f"no execution environment {given!r} was declared (there are: {there})")

            if (scope or declared["scope"], owner_id or declared["owner_id"]) == (
                declared["scope"], declared["owner_id"]
            ):  # fmt: skip
                return declared

            return normalise({**declared, "reuse_key": ""}, scope=scope, owner_id=owner_id)

        return normalise(given, scope=scope, owner_id=owner_id)

    async def _allowed(self, requirement: Requirement, decision: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the policy to work under, once the environment is allowed."""
        if not needs_approval(requirement):
            return dict(requirement["policy"])

        if decision is None:
            self.emit("approval_required", requirement, status="pending_approval")

        return await approved_policy(requirement, decision, self._decide)

    async def _usable(self, provider: ExecutionEnvironmentProvider, handle: Handle, requirement: Requirement) -> bool:
        """Whether a ready handle can serve once more; an unhealthy one is released."""
        if handle["status"] != "ready":
            return False

        if requirement["health_check"] is False:
            return True

        error: Exception | None = None
        try:
            if await provider.async_health_check(handle) == "ready":
                return True
        except Exception as problem:
            error = problem

        handle["status"] = "unhealthy"
        self.emit("unhealthy", requirement, handle, error=error)
        await self._end(handle)
        return False

    # -- releasing -----------------------------------------------------------------------------------------------

    async def async_release(self, handle_or_id: Mapping[str, Any] | str, *, automatic: bool = False) -> None:
        """Give a handle back; its environment ends with the last one who has it. An unknown id changes nothing.

        Args:
            automatic: at the end of a call: with the policy ``auto_release=False`` it stays, for the next one, until it
                is released by hand or its scope is.
        """
        handle = self._handle(handle_or_id)
        if handle is None:
            return

        async with self._turns.of(handle["meta"]["reuse_key"]):
            if handle["handle_id"] not in self._handles:
                return

            handle["ref_count"] = max(0, handle["ref_count"] - 1)
            stays = automatic and handle["policy"].get("auto_release") is False
            if not handle["ref_count"] and not stays:
                await self._end(handle)

    def _handle(self, handle_or_id: Mapping[str, Any] | str) -> Handle | None:
        handle_id = handle_or_id if isinstance(handle_or_id, str) else handle_or_id.get("handle_id", "")
        with self._lock:
            found = self._handles.get(handle_id)
            if found is None:
                found = next((h for h in self._handles.values() if h["requirement_id"] == handle_id), None)

            return found

    async def _end(self, handle: Handle) -> None:
        """Release an environment, whoever has it. A provider that fails, or hangs, leaves it listed as failed."""
        handle["ref_count"] = 0
        handle["status"] = "releasing"
        with self._lock:
            shared = _shared(handle["meta"]["reuse_key"], handle["policy"])
            if self._by_reuse.get(shared) == handle["handle_id"]:
                del self._by_reuse[shared]

        self.emit("releasing", handle, handle)
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._providers[handle["kind"]].async_release(handle)
        except Exception as problem:
            handle["status"] = "failed"
            self.emit("failed", handle, handle, error=problem)
            return

        handle["status"] = "released"
        with self._lock:
            self._handles.pop(handle["handle_id"], None)

        self.emit("released", handle, handle)

    async def async_release_scope(self, scope: str, owner_id: str) -> None:
        """End every environment of a scope and owner, whoever still has it."""
        for handle in [h for h in self._handles.values() if h["scope"] == scope and h["owner_id"] == owner_id]:
            async with self._turns.of(handle["meta"]["reuse_key"]):
                if handle["handle_id"] in self._handles:
                    await self._end(handle)

    async def async_close(self) -> None:
        """End every environment."""
        for handle in list(self._handles.values()):
            async with self._turns.of(handle["meta"]["reuse_key"]):
                if handle["handle_id"] in self._handles:
                    await self._end(handle)

    # -- synchronous twins -----------------------------------------------------------------------------------------

    def ensure(self, requirement_or_id: Mapping[str, Any] | str, **options: Any) -> Handle:
        """Synchronous twin of :meth:`async_ensure`."""
        return run_sync(self.async_ensure(requirement_or_id, **options))

    def release(self, handle_or_id: Mapping[str, Any] | str) -> None:
        """Synchronous twin of :meth:`async_release`."""
        run_sync(self.async_release(handle_or_id))

    def release_scope(self, scope: str, owner_id: str) -> None:
        """Synchronous twin of :meth:`async_release_scope`."""
        run_sync(self.async_release_scope(scope, owner_id))

    def close(self) -> None:
        """Synchronous twin of :meth:`async_close`."""
        if self._handles:
            run_sync(self.async_close())

    # -- events --------------------------------------------------------------------------------------------------

    def emit(
        self,
        suffix: str,
        about: Mapping[str, Any],
        handle: Mapping[str, Any] | None = None,
        *,
        status: str | None = None,
        error: BaseException | None = None,
        **more: Any,
    ) -> None:
        """Emit ``execution_environment.<suffix>`` about a requirement or a handle; providers may use suffixes of their
        own. The level is ERROR when there is an error."""
        center = self._services.center
        event = center.type(f"execution_environment.{suffix}", "ERROR" if error is not None else "INFO")
        if not event.sinks:
            return

        payload = {name: about[name] for name in ("requirement_id", "kind", "scope", "owner_id", "resource_key")}
        payload["handle_id"] = handle["handle_id"] if handle is not None else ""
        payload["status"] = status or suffix
        payload["reuse_key"] = about.get("reuse_key") or about["meta"]["reuse_key"]
        if error is not None:
            payload["error"] = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

        message = f"execution environment {payload['requirement_id']} {payload['status']}"
        event.emit({**payload, **more}, run=current_run.get(), error=error, message=message, source=SOURCE)


def _shared(reuse_key: str, policy: Mapping[str, Any]) -> str:
    """Return under what a handle is shared: nobody gets an environment that works under another policy than asked."""
    return f"{reuse_key}\0{json.dumps(policy, sort_keys=True, default=repr)}"


SOURCE = "ExecutionEnvironmentManager"
_managers: weakref.WeakSet[ExecutionEnvironmentManager] = weakref.WeakSet()


def environments_of(services: Services) -> ExecutionEnvironmentManager:
    """Return the manager of a runtime's services, made at first use."""
    found = services.environments
    if found is None:
        found = services.environments = ExecutionEnvironmentManager(services)

    assert isinstance(found, ExecutionEnvironmentManager)
    return found


@atexit.register
def _close_all() -> None:
    """Orderly, so that temporary directories go, too; children end with the process in any case."""
    for manager in list(_managers):
        try:
            manager.close()
        except Exception:  # the interpreter is going down
            pass
