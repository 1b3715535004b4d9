"""Comparing an output with what was expected: exact, in part, with tolerance, by comparators.

A difference is named by its dotted path; only the first few are said. JSON equality is the standard's: 1 equals 1.0
and is not true. Source: the evals reference, §3.2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import translate
from typing import Any, Final, NamedTuple

from flowdeck.execution.json_schema import same_json

__all__ = ["Tolerance", "comparison", "differences", "get_path", "plain", "short"]

MOST_DIFFERENCES: Final = 5


class Tolerance(NamedTuple):
    """How far numbers may be apart; ``applies`` says at which paths."""

    absolute: float = 0.0
    relative: float = 0.0
    applies: Callable[[str], bool] | None = None

    @classmethod
    def of(cls, given: Any) -> Tolerance:
        if isinstance(given, Mapping):
            paths = given.get("paths")
            applies = globs(paths) if paths else None
            return cls(float(given.get("abs", 0.0)), float(given.get("rel", 0.0)), applies)

        return cls(float(given))


def globs(patterns: list[str]) -> Callable[[str], bool]:
    """Return a test whether a dotted path fits one of the globs; ``*`` crosses dots."""
    found = re.compile("|".join(translate(pattern) for pattern in patterns)).match
    return lambda path: found(path) is not None


def plain(value: Any) -> Any:
    """Return a value as JSON has it, for comparing with what a file says; what JSON has not stays as it is."""
    if value is None or isinstance(value, str | int | float | bool):
        return value

    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}

    if isinstance(value, list | tuple):
        return [plain(part) for part in value]

    if isinstance(value, set | frozenset):
        return sorted((plain(part) for part in value), key=repr)

    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")

    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}

    iso = getattr(value, "isoformat", None)
    return iso() if iso is not None else str(value) if type(value).__name__ in ("UUID", "Decimal") else value


def differences(
    actual: Any,
    expected: Any,
    *,
    partial: bool = False,
    ignored: Callable[[str], bool] | None = None,
    tolerance: Tolerance | None = None,
    path: str = "",
) -> Iterator[str]:
    """Yield what differs, each with its path: ``items.2.amount: 4 instead of 5``. ``partial`` allows further keys."""
    if ignored is not None and path and ignored(path):
        return

    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key, wanted in expected.items():
            at = f"{path}.{key}" if path else str(key)
            if key in actual:
                yield from differences(
                    actual[key], wanted, partial=partial, ignored=ignored, tolerance=tolerance, path=at
                )
            elif ignored is None or not ignored(at):
                yield f"{at}: missing, expected {short(wanted)}"

        if not partial:
            for key in actual:
                at = f"{path}.{key}" if path else str(key)
                if key not in expected and (ignored is None or not ignored(at)):
                    yield f"{at}: not expected, it is {short(actual[key])}"
    elif isinstance(expected, list) and isinstance(actual, list | tuple):
        for index, (found, wanted) in enumerate(zip(actual, expected, strict=False)):
            at = f"{path}.{index}" if path else str(index)
            yield from differences(found, wanted, partial=partial, ignored=ignored, tolerance=tolerance, path=at)

        if len(actual) != len(expected):
            yield f"{path or 'output'}: {len(actual)} items instead of {len(expected)}"
    elif not _equal(actual, expected, tolerance, path):
        yield f"{path or 'output'}: {short(actual)} instead of {short(expected)}"


def _equal(actual: Any, expected: Any, tolerance: Tolerance | None, path: str) -> bool:
    if same_json(actual, expected):
        return True

    if tolerance is None or not (_is_number(actual) and _is_number(expected)):
        return False

    if tolerance.applies is not None and not tolerance.applies(path):
        return False

    return math.isclose(actual, expected, rel_tol=tolerance.relative, abs_tol=tolerance.absolute)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_ABSENT: Final = object()


def get_path(value: Any, path: str) -> Any:
    """Return what stands at a dotted path; :data:`_ABSENT`'s truth is asked with :func:`exists`."""
    for part in path.split(".") if path else ():
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _ABSENT

    return value


def comparison(wanted: Any) -> Callable[[Any], bool]:
    """Compile a literal or comparators into a test of a value (absent is :data:`_ABSENT`).

    Values that cannot be ordered (text and number) do not fit, they do not raise.
    """
    from flowdeck_evals.format import is_comparison

    if not is_comparison(wanted):
        return lambda value: same_json(value, wanted) if value is not _ABSENT else False

    tests = [_COMPARATORS[name](limit) for name, limit in wanted.items()]
    return lambda value: all(test(value) for test in tests)


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any], Callable[[Any], bool]]:
    def of(limit: Any) -> Callable[[Any], bool]:
        def holds(value: Any) -> bool:
            try:
                return value is not _ABSENT and test(value, limit)
            except TypeError:
                return False

        return holds

    return of


def _like(limit: Any) -> Callable[[Any], bool]:
    found = re.compile(translate(str(limit))).match
    return lambda value: isinstance(value, str) and found(value) is not None


def _regex(limit: Any) -> Callable[[Any], bool]:
    found = re.compile(str(limit)).search
    return lambda value: isinstance(value, str) and found(value) is not None


_COMPARATORS: Final[dict[str, Callable[[Any], Callable[[Any], bool]]]] = {
    "eq": lambda limit: lambda value: value is not _ABSENT and same_json(value, limit),
    "ne": lambda limit: lambda value: value is _ABSENT or not same_json(value, limit),
    "lt": _ordered(lambda value, limit: value < limit),
    "le": _ordered(lambda value, limit: value <= limit),
    "gt": _ordered(lambda value, limit: value > limit),
    "ge": _ordered(lambda value, limit: value >= limit),
    "in": lambda limit: lambda value: any(same_json(value, one) for one in _listed(limit)),
    "like": _like,
    "regex": _regex,
    "any_of": lambda limit: (lambda tests: lambda value: any(t(value) for t in tests))(
        [comparison(one) for one in _listed(limit)]
    ),
    "exists": lambda limit: lambda value: (value is not _ABSENT) == bool(limit),
}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def short(value: Any, limit: int = 80) -> str:
    """Return a value on one line, cut to ``limit`` characters."""
    text = "nothing" if value is _ABSENT else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
