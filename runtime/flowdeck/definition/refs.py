"""How a handler is named outside the process: references in exported configs, and the registry that resolves them.

A config holds no code. A handler is referred to by the name it was registered under, else by its function's own name;
whoever imports the config registers a handler under that name first. Nothing is imported on a config's word.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from flowdeck.definition.handlers import same_handler, where
from flowdeck.errors import DefinitionError

__all__ = ["BUILTINS", "EXPORTABLE", "Handler", "Registry", "handler_ref", "label"]

Handler = Callable[..., Any]

BUILTINS: Final[dict[str, Handler]] = {}
"""Handlers that builder methods bring themselves, by reserved name; every process has them."""
EXPORTABLE: Final = ("registered", "inspected")
"""Kinds of references another process can resolve."""


class Registry:
    """The handlers of one kind (``chunk`` or ``condition``) that a flow has been given names for."""

    __slots__ = ("_by_name", "kind")

    def __init__(self, kind: str, known: dict[str, Handler] | None = None) -> None:
        self.kind = kind
        self._by_name: dict[str, Handler] = dict(known or {})

    def register(self, handler: Any, name: str | None = None) -> None:
        """Name a handler. Registering the same one again changes nothing.

        Raises:
            DefinitionError: it is a lambda or not callable, has no name, or the name belongs to another handler.
        """
        method = f"register_{self.kind}_handler"
        if not callable(handler):
            raise DefinitionError(f"{method}({handler!r}): expected a function")

        if _is_lambda(handler):
            raise DefinitionError(
                f"{method}({label(handler)}): a lambda has no name another process could find; write it with def"
            )

        name = name or getattr(handler, "__name__", None)
        if not isinstance(name, str) or not name:
            raise DefinitionError(f"{method}({label(handler)}): it has no name of its own; give name=")

        known = self._by_name.get(name, BUILTINS.get(name))
        if known is not None and not same_handler(known, handler, named=True):
            raise DefinitionError(
                f"{method}: {name!r} is {where(known)} already, not {where(handler)}; give another name="
            )

        self._by_name[name] = handler

    def find(self, name: str) -> Handler | None:
        """Return the handler of that name."""
        return self._by_name.get(name) or (BUILTINS.get(name) if self.kind == "chunk" else None)

    def name_of(self, handler: Any) -> str | None:
        """Return the name a handler was registered under."""
        for name, known in (*self._by_name.items(), *(BUILTINS.items() if self.kind == "chunk" else ())):
            if known is handler or (type(known) is MethodType and known == handler):
                return str(name)

        return None

    def copy(self) -> Registry:
        return Registry(self.kind, self._by_name)

    def update(self, other: Registry) -> None:
        """Take over another registry's names.

        Raises:
            DefinitionError: a name is bound to different handlers.
        """
        for name, handler in other._by_name.items():
            self.register(handler, name)


def handler_ref(handler: Any, name: str | None = None) -> dict[str, Any] | None:
    """Return how ``handler`` is named outside the process, as JSON-safe data; ``None`` for what is not callable.

    ``kind`` is ``registered`` (it has the given ``name``), ``inspected`` (a plain function, found by its own name),
    ``anonymous`` (a lambda) or ``unknown`` (an object, a partial, a bound method). ``file`` is a base name: the paths
    of the machine stay on it.
    """
    if not callable(handler):
        return None

    own = getattr(handler, "__name__", None)
    if name is not None:
        kind = "registered"
    elif _is_lambda(handler):
        kind = "anonymous"
    elif _is_plain_function(handler):
        kind, name = "inspected", own
    else:
        kind = "unknown"

    function = _function(handler)
    code = getattr(function, "__code__", None)
    return {
        "kind": kind,
        "name": name,
        "callable_name": own if isinstance(own, str) else type(handler).__name__,
        "module": getattr(function, "__module__", None),
        "qualname": getattr(function, "__qualname__", None),
        "file": PurePath(code.co_filename).name if code is not None else None,
        "line": code.co_firstlineno if code is not None else None,
    }


def label(handler: Any) -> str:
    """Return what a person calls a handler: its name, or ``<lambda>@file:line``."""
    function = _function(handler)
    code = getattr(function, "__code__", None)
    if _is_lambda(handler) and code is not None:
        return f"<lambda>@{PurePath(code.co_filename).name}:{code.co_firstlineno}"

    return str(getattr(handler, "__qualname__", None) or getattr(function, "__qualname__", type(handler).__name__))


def _function(handler: Any) -> Any:
    """Return the function in a partial or a bound method; an object's ``__call__``."""
    while isinstance(handler, partial):
        handler = handler.func

    handler = getattr(handler, "__func__", handler)
    return handler if isinstance(getattr(handler, "__qualname__", None), str) else type(handler).__call__


def _is_plain_function(handler: Any) -> bool:
    """A function its name stands for: bound methods and the like also depend on an object."""
    return isinstance(handler, FunctionType) or (
        isinstance(handler, BuiltinFunctionType) and isinstance(handler.__self__, ModuleType)
    )


def _is_lambda(handler: Any) -> bool:
    return getattr(handler, "__name__", None) == "<lambda>"
