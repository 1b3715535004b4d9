"""Whether two handlers are the same step: a chain replayed or a module reloaded must not declare its steps twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, Final

__all__ = ["same_handler", "where"]

_PLAIN: Final = (str, int, float, bool, bytes, type(None))
_MAX_DEPTH: Final = 5


def where(handler: Any) -> str:
    """Return where a handler's code stands: ``module:qualified name:line``. The same in every process."""
    if isinstance(handler, partial):
        return f"partial:{where(handler.func)}"

    code = getattr(handler, "__code__", None)
    line = f":{code.co_firstlineno}" if code is not None else ""
    module = getattr(handler, "__module__", "")
    return f"{module}:{getattr(handler, '__qualname__', type(handler).__qualname__)}{line}"


def same_handler(known: Callable[..., Any], new: Callable[..., Any], *, named: bool = False) -> bool:
    """Tell whether ``new`` is ``known`` declared again.

    The same object is; a function from the same lines with the same closure and defaults is (its module was reloaded);
    two closures of one factory, two bound methods, two partials of one function are not. With ``named``, the user has
    said by a name that they are one step, so closures may differ in objects, though not in plain values.
    """
    return _same(known, new, named, 0)


def _same(known: Any, new: Any, named: bool, depth: int) -> bool:
    if known is new or depth > _MAX_DEPTH:
        return True

    if isinstance(known, FunctionType) and isinstance(new, FunctionType):
        if where(known) != where(new):
            return False

        ours, theirs = _captured(known), _captured(new)
        return len(ours) == len(theirs) and all(
            _same_value(a, b, named, depth + 1) for a, b in zip(ours, theirs, strict=True)
        )

    if isinstance(known, partial) and isinstance(new, partial):
        return (
            _same(known.func, new.func, named, depth + 1)
            and _same_value(known.args, new.args, named, depth + 1)
            and _same_value(
                tuple(sorted(known.keywords.items())), tuple(sorted(new.keywords.items())), named, depth + 1
            )
        )

    return _equal(known, new)


def _captured(function: FunctionType) -> list[Any]:
    """Return what a function's behaviour depends on besides its code and its module."""
    values: list[Any] = []
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not bound yet
            values.append(None)

    values.extend(function.__defaults__ or ())
    values.extend((function.__kwdefaults__ or {}).values())
    return values


def _same_value(known: Any, new: Any, named: bool, depth: int) -> bool:
    if known is new:
        return True

    if isinstance(known, tuple) and isinstance(new, tuple):
        return len(known) == len(new) and all(
            _same_value(a, b, named, depth + 1) for a, b in zip(known, new, strict=True)
        )

    if isinstance(known, _PLAIN) or isinstance(new, _PLAIN):
        return type(known) is type(new) and bool(known == new)

    if callable(known) and callable(new):
        return _same(known, new, named, depth + 1) or named

    return named or _equal(known, new)


def _equal(known: Any, new: Any) -> bool:
    try:
        return bool(known == new)
    except Exception:  # an object whose comparison fails is not the same
        return False
