"""Whether any process can go on with a flow's executions, wherever an engine takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

__all__ = ["ENGINES", "obstacles"]

ENGINES: Final = ("postgres", "dbos")


def obstacles(
    engine: str, *, name: str | None, entrypoint: str | None, provider: Callable[..., Any] | None
) -> list[str]:
    """Return what stands between a flow and other processes, a sentence each; empty when nothing does.

    Args:
        engine: one of :data:`ENGINES`.
        name: the name it was given, if any.
        entrypoint: where it can be imported from.
        provider: its ``@flow.resources`` function.

    Raises:
        ValueError: there is no such engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"no engine {engine!r}: choose from {', '.join(ENGINES)}")

    found = []
    if name is None:
        found.append("it has no name, and gets another one in every process: write TriggerFlow(name=...)")

    if entrypoint is None:
        found.append("no other process can import it: bind it to a name of a module that is not __main__")

    if provider is not None and inspect.iscoroutinefunction(provider):
        found.append("its @flow.resources function is async: a process that takes up an execution calls it and waits")
    elif provider is not None and _needs(provider):
        found.append(f"its @flow.resources function needs arguments that nobody gives: {', '.join(_needs(provider))}")

    return found


def _needs(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []

    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is inspect.Parameter.empty and each.kind not in variable]
