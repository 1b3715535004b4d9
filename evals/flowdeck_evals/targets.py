"""What is evaluated: a flow, or a callable, found by ``module:name``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from flowdeck.errors import EvalError

__all__ = ["find_object", "find_target", "is_flow"]


def find_target(spec: Any) -> Any:
    """Return the target itself: what ``module:name`` names, or the object it was given.

    Raises:
        EvalError: there is no such thing, its module cannot be imported, or it cannot be run.
    """
    found = find_object(spec) if isinstance(spec, str) else spec
    if not is_flow(found) and not callable(found):
        raise EvalError(f"target {spec} is a {type(found).__name__}: neither a flow nor a callable")

    return found


def is_flow(target: Any) -> bool:
    """Whether executions of it can be created."""
    return hasattr(target, "create_execution") and not isinstance(target, type)


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
