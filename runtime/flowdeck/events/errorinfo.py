"""What went wrong, as data: the ``error`` field of an event."""

from __future__ import annotations

import traceback as traceback_module
from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["ErrorInfo"]

TRACEBACK_LIMIT: Final = 32_768
"""Characters kept of a traceback's text, from its end: there the cause is."""


class ErrorInfo(msgspec.Struct, kw_only=True):
    """A normalised error. Source: seed 004, field ``error``."""

    type: str | None = None
    """The exception's class name."""
    message: str | None = None
    """``str(exception)``."""
    module: str | None = None
    """The module that defines the exception's class."""
    traceback: str | None = None
    """The formatted traceback, at most 32 Ki characters from its end."""
    retryable: bool | None = None
    fatal: bool | None = None
    code: str | None = None
    details: dict[str, Any] = {}

    @classmethod
    def of(cls, error: Any) -> ErrorInfo | None:
        """Normalise an exception, a mapping, a text, an ErrorInfo or ``None``. Never raises."""
        if error is None or isinstance(error, cls):
            return error

        if isinstance(error, BaseException):
            return cls.from_exception(error)

        if isinstance(error, Mapping):
            known = {name: error[name] for name in cls.__struct_fields__ if name in error}
            try:
                return msgspec.convert(known, cls)
            except Exception as problem:
                return cls(type="InvalidErrorInfo", message=_safe_text(problem), details={"given": error})

        return cls(type="RuntimeError", message=_safe_text(error), module="builtins")

    @classmethod
    def from_exception(cls, error: BaseException) -> ErrorInfo:
        """Return class name, text, module and full traceback of ``error``. Survives a raising ``__str__``."""
        kind = type(error)
        try:
            lines = traceback_module.format_exception(kind, error, error.__traceback__)
            text = "".join(lines)
        except Exception as problem:
            text = f"<traceback not available: {type(problem).__name__}>"

        if len(text) > TRACEBACK_LIMIT:
            text = f"[{len(text) - TRACEBACK_LIMIT} earlier characters cut]\n{text[-TRACEBACK_LIMIT:]}"

        return cls(type=kind.__name__, message=_safe_text(error), module=kind.__module__, traceback=text)

    def to_dict(self) -> dict[str, Any]:
        """Return every field, also the empty ones."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


def _safe_text(value: object) -> str:
    try:
        return str(value)
    except Exception as problem:
        return f"<{type(value).__name__}: its text raised {type(problem).__name__}>"
