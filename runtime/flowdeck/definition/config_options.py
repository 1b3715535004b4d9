"""The options of one operator in a ``trigger_flow/v1`` config, each checked by a function of its own.

All raise :class:`~flowdeck.errors.ConfigError` with the operator and the option in its text.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any, Final

import msgspec

from flowdeck.definition.annotation import Annotation
from flowdeck.definition.blocks import check_limit
from flowdeck.definition.config_schema import AnnotationConfig, OpConfig, RetryConfig
from flowdeck.definition.retry import Retry
from flowdeck.errors import ConfigError, DefinitionError

__all__ = ["annotation_of", "limit_of", "mode_of", "need_texts", "retry_of", "texts_of", "timeout_of"]

_MODES: Final = {
    "signal_gate": ("and", "or", "simple_or"),
    "match_route": ("hit_first", "hit_all"),
    "collect_branch": ("filled_and_update", "filled_then_empty"),
}


def mode_of(op: OpConfig) -> str:
    """Return ``mode``; empty for kinds of operators that have none."""
    mode, allowed = op.options.get("mode", ""), _MODES.get(op.kind)
    if allowed is None:
        return ""

    if mode not in allowed:
        raise ConfigError(f"{op}: options.mode must be one of {', '.join(allowed)}, got {mode!r}")

    return str(mode)


def timeout_of(op: OpConfig) -> float | None:
    """Return ``timeout`` in seconds."""
    timeout = op.options.get("timeout")
    if timeout is None:
        return None

    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ConfigError(f"{op}: options.timeout must be more than 0 seconds, got {timeout!r}")

    return float(timeout)


def retry_of(op: OpConfig) -> Retry | None:
    """Return how a failing attempt is repeated."""
    given = op.options.get("retry")
    if given is None:
        return None

    try:
        checked = msgspec.convert(given, RetryConfig)
        kinds = tuple(_error_class(op, name) for name in checked.on)
        return Retry(**{**msgspec.structs.asdict(checked), "on": kinds})
    except ConfigError:
        raise
    except ValueError as problem:  # msgspec's own derives from it
        raise ConfigError(f"{op}: options.retry: {problem}") from None


def annotation_of(op: OpConfig) -> Annotation:
    """Return the chunk that an annotation makes."""
    try:
        return Annotation(**msgspec.to_builtins(msgspec.convert(op.options["annotation"], AnnotationConfig)))
    except msgspec.ValidationError as problem:
        raise ConfigError(f"{op}: options.annotation: {problem}") from None


def _error_class(op: OpConfig, name: str) -> type[BaseException]:
    """Find an exception by ``Name`` (a built-in) or ``module:Name`` (of a module that is loaded already)."""
    module, colon, path = name.rpartition(":")
    found: Any = sys.modules.get(module) if colon else builtins
    for part in path.split("."):
        found = getattr(found, part, None)

    if isinstance(found, type) and issubclass(found, BaseException):
        return found

    hint = f"import {module!r} before loading" if colon and module not in sys.modules else "there is no such exception"
    raise ConfigError(f"{op}: options.retry.on: {name!r}: {hint}")


def limit_of(op: OpConfig) -> int:
    """Return ``concurrency``; 0 is no limit."""
    try:
        return check_limit(str(op), op.options.get("concurrency"))
    except DefinitionError as problem:
        raise ConfigError(str(problem)) from None


def texts_of(op: OpConfig, option: str) -> list[str]:
    """Return an option that is a list of texts; empty when it is not given."""
    value = op.options.get(option, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{op}: options.{option} must be a list of texts")

    return list(value)


def need_texts(op: OpConfig, *options: str) -> None:
    """Refuse an operator without these options, or with other values than texts in them."""
    for option in options:
        if not isinstance(op.options.get(option), str):
            raise ConfigError(f"{op}: options.{option} must be text")
