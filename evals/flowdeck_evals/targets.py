"""What is evaluated: a flow, an agent, a factory of either, or a callable, found by ``module:name``.

An agent is evaluated as a flow of one step that gives it the case's input and keeps its answer. So its model calls are
ports with a place, and everything that works for flows works for agents: tapes, scripted people, interventions.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowdeck.errors import EvalError

__all__ = ["find_object", "find_target", "is_agent", "is_flow"]


def find_target(spec: Any) -> Any:
    """Return the target itself, what ``module:name`` names or the object it was given; an agent as a flow.

    A function without parameters is a factory: it makes the flow or agent anew for each round.

    Raises:
        EvalError: there is no such thing, its module cannot be imported, or it cannot be run.
    """
    found = find_object(spec) if isinstance(spec, str) else spec
    if is_agent(found):
        return _agent_flow(found)

    if is_flow(found):
        return found

    if not callable(found):
        raise EvalError(f"target {spec} is a {type(found).__name__}: neither a flow, nor an agent, nor a callable")

    return _Made(found, str(spec)) if _wants_nothing(found) else found


def is_flow(target: Any) -> bool:
    """Whether executions of it can be created."""
    return hasattr(target, "create_execution") and not isinstance(target, type)


def is_agent(target: Any) -> bool:
    """Whether requests of it can be created."""
    return hasattr(target, "create_request") and not isinstance(target, type)


def _agent_flow(agent: Any) -> Any:
    """Return a flow of one step that asks an agent; its result is the answer's data."""
    from flowdeck import TriggerFlow

    async def turn(data: Any) -> None:
        answer = await agent.create_request().input(data.input).async_start(data=data)
        await data.async_set_state("$final_result", answer, emit=False)

    flow = TriggerFlow(name=f"agent:{agent.name}")
    flow.to(turn)
    return flow


def _wants_nothing(target: Any) -> bool:
    try:
        return not inspect.signature(target).parameters
    except (TypeError, ValueError):  # a builtin may not tell
        return False


class _Made:
    """A flow that is made anew for each execution."""

    def __init__(self, factory: Callable[[], Any], name: str) -> None:
        self._factory, self._name = factory, name

    def create_execution(self, **options: Any) -> Any:
        made = self._factory()
        flow = _agent_flow(made) if is_agent(made) else made
        if not is_flow(flow):
            raise EvalError(
                f"target {self._name} takes no input, so it must make a flow or an agent; it gave a "
                f"{type(made).__name__}"
            )

        return flow.create_execution(**options)


def find_object(spec: str) -> Any:
    """Return what ``module:name`` names; the working directory is searched first.

    Raises:
        EvalError: it is not there; the message names what is missing.
    """
    name, _, attribute = spec.partition(":")
    cwd = str(Path.cwd())
    if cwd not in sys.path:
        sys.path.insert(0, cwd)

    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise EvalError(f"{spec}: there is no module {error.name!r} in {cwd} or the environment") from None

        raise EvalError(f"{spec}: {name} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise EvalError(f"{spec}: {name} cannot be imported: {type(error).__name__}: {error}") from error

    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise EvalError(f"{spec}: {name} has no {attribute!r}") from None

    return found
