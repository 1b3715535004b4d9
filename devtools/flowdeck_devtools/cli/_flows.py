"""Find the flow that ``module:attribute`` names, with an error that says what to mend."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from flowdeck_devtools.cli._errors import CliError, one_line, place_of

__all__ = ["load_flow", "load_function"]


def load_flow(spec: str) -> Any:
    """Import the flow ``module:attribute``; the working directory is searched first.

    Raises:
        CliError: the spec is malformed, the module is missing or broken, or the attribute is no flow.
    """
    module_name, colon, attribute = spec.partition(":")
    if not colon or not module_name or not attribute:
        wanted = module_name.removesuffix(".py").replace("/", ".") or "my_module"
        raise CliError(f"{spec!r} names no flow: write module:attribute, for example {wanted}:flow", 2)

    if module_name.endswith(".py") or "/" in module_name:
        wanted = module_name.removesuffix(".py").replace("/", ".")
        raise CliError(f"{spec!r} is a file: write the module, {wanted}:{attribute}", 2)

    module = _import(module_name)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise CliError(f"{module_name} has no {attribute!r}{_flows_in(module)}", 2) from None

    if not _is_flow(found):
        raise CliError(f"{spec} is of type {type(found).__name__}, no TriggerFlow{_flows_in(module)}", 2)

    return found


def load_function(spec: str) -> Any:
    """Import the function ``module:name``, which takes no arguments.

    Raises:
        CliError: the spec is malformed, the module is missing or broken, or there is no such function.
    """
    module_name, colon, name = spec.partition(":")
    if not colon or not module_name or not name:
        raise CliError(f"{spec!r} names no function: write module:name", 2)

    found = getattr(_import(module_name), name, None)
    if not callable(found):
        raise CliError(f"{module_name} has no function {name!r}", 2)

    return found


def _import(name: str) -> ModuleType:
    cwd = str(Path.cwd())
    if cwd not in sys.path:
        sys.path.insert(0, cwd)

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise CliError(f"there is no module {error.name!r} in {Path.cwd()} or the environment", 2) from None

        raise _broken(name, error) from None
    except SyntaxError as error:
        where = f"{Path(error.filename).name}:{error.lineno}" if error.filename else name
        raise CliError(f"{name} cannot be imported: {where}: {error.msg}", 2) from None
    except SystemExit as error:
        raise CliError(f"{name} ends the process while it is imported (exit {error.code})", 2) from None
    except Exception as error:
        raise _broken(name, error) from None


def _broken(name: str, error: Exception) -> CliError:
    place = place_of(error, Path.cwd())
    at = f" at {place}" if place else ""
    return CliError(f"{name} cannot be imported: {type(error).__name__}: {one_line(error)}{at}", 2)


def _is_flow(value: object) -> bool:
    from flowdeck import TriggerFlow

    return isinstance(value, TriggerFlow)


def _flows_in(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if not name.startswith("_") and _is_flow(value))
    if not names:
        return "; there is no flow in that module"

    return f"; flows there: {', '.join(names)}"
