"""The execution environments of one flow execution: there while it runs, gone when it closes.

Their resources are runtime resources under their ``resource_key``. They are never saved: whoever takes the run up
again gets fresh ones, which is why the keys stand in the resources from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flowdeck.environments.manager import ExecutionEnvironmentManager, environments_of
from flowdeck.environments.requirement import normalise

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.services import Services

__all__ = ["ExecutionLease", "lease_for"]


class ExecutionLease:
    """What an execution has asked for, and has been given.

    Raises:
        ActionDefinitionError: a requirement is declared wrongly.
    """

    def __init__(self, manager: ExecutionEnvironmentManager, wanted: Iterable[Any], owner_id: str) -> None:
        self._manager = manager
        self._owner = owner_id
        self._wanted: list[dict[str, Any]] = []
        for each in wanted:
            known = manager.inspect(each) if isinstance(each, str) else each
            if known is None:
                raise ValueError(f"no execution environment {each!r} was declared")

            scope = (each.get("scope") if isinstance(each, Mapping) else None) or "execution"
            own = {k: v for k, v in known.items() if k not in ("reuse_key", "owner_id")}
            self._wanted.append(normalise({**own, "scope": scope, "owner_id": known.get("owner_id") or owner_id}))

        for made in self._wanted:
            if made["scope"] == "execution":
                made.update(normalise({**made, "reuse_key": ""}, owner_id=owner_id))

        self._handles: list[dict[str, Any]] = []

    @property
    def keys(self) -> list[str]:
        """The resource keys, known before anything is started."""
        return [each["resource_key"] for each in self._wanted]

    async def open(self, execution: TriggerFlowExecution) -> None:
        """Ensure what is not there yet and hand the resources to ``execution``.

        Raises:
            ExecutionEnvironmentError: one cannot be had; those that could are released again.
        """
        if self._handles:
            return

        try:
            for requirement in self._wanted:
                handle = await self._manager.async_ensure(requirement)
                self._handles.append(handle)
                execution._own_resources()[requirement["resource_key"]] = handle["resource"]
        except BaseException:
            await self.close(execution)
            raise

    async def close(self, execution: TriggerFlowExecution) -> None:
        """Give everything back. The resources are gone, and say so when they are asked for."""
        handles, self._handles = self._handles, []
        for handle in handles:
            await self._manager.async_release(handle)

        await self._manager.async_release_scope("execution", self._owner)
        for key in self.keys:
            execution._own_resources().pop(key, None)


def lease_for(services: Services, wanted: Any, execution_id: str) -> ExecutionLease:
    """Return the lease of an execution that is being created."""
    given = [wanted] if isinstance(wanted, str | Mapping) else list(wanted)
    return ExecutionLease(environments_of(services), given, execution_id)
