"""What a flow hands to its executions: live objects, and how a worker gets them and brings old state up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

__all__ = ["FlowResources"]


class FlowResources:
    """The part of a flow that knows its live objects and its migrations."""

    _resources: dict[str, Any]
    _provider: Callable[..., Any] | None
    migrations: list[Callable[[dict[str, Any]], dict[str, Any]]]

    if TYPE_CHECKING:  # supplied by the flow

        @property
        def name(self) -> str: ...

    def resources(self, provider: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function that returns the runtime resources a worker must inject before it resumes a run."""
        self._provider = provider
        return provider

    def provided_resources(self) -> dict[str, Any]:
        """Return what the provider gives, for an execution that is taken up; empty without one.

        Raises:
            TypeError: the provider is async, or does not return a mapping.
        """
        if self._provider is None:
            return {}

        given = self._provider()
        if not isinstance(given, Mapping):
            kind = type(given).__name__
            raise TypeError(f"flow {self.name!r}: its @flow.resources function must return a dict, it returned {kind}")

        return dict(given)

    def migrate(self, migration: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        """Decorate a function that makes a run of an older definition fit this one.

        It gets the saved state (as ``execution.save()`` has it) of a run that stands in operators this definition does
        not have, and returns the state to go on with; :func:`flowdeck.durable.rename_operators` covers renamed steps.
        """
        self.migrations.append(migration)
        return migration

    def set_runtime_resource(self, key: str, value: Any) -> None:
        """Set a live object every later execution starts with."""
        self._resources[key] = value

    def get_runtime_resource(self, key: str, default: Any = None) -> Any:
        return self._resources.get(key, default)

    def del_runtime_resource(self, key: str) -> None:
        self._resources.pop(key, None)

    def update_runtime_resources(self, resources: Mapping[str, Any] | None = None, **more: Any) -> None:
        self._resources.update(resources or {}, **more)

    def clear_runtime_resources(self) -> None:
        self._resources.clear()
