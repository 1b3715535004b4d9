"""Names an event type also answers to when somebody subscribes.

``triggerflow.X``, ``workflow.X`` and ``trigger_flow.X`` are one name, in patterns too. Only matching knows about it: a
delivered event keeps the type it was emitted with. ``action.*`` and ``tool.*`` are separate events and never match each
other. Source: seed 004; the design's §2, "Aliases".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from functools import lru_cache
from typing import Final

__all__ = [
    "get_triggerflow_event_aliases",
    "is_pattern",
    "matcher",
    "matches_observation_event_type",
    "normalize_triggerflow_event_type",
]

PRIMARY: Final = "triggerflow."
LEGACY: Final = ("workflow.", "trigger_flow.")
_WILD: Final = frozenset("*?[")


def normalize_triggerflow_event_type(event_type: str) -> str:
    """Return ``event_type`` (or pattern) under its primary name: ``workflow.x`` becomes ``triggerflow.x``."""
    for prefix in LEGACY:
        if event_type.startswith(prefix):
            return PRIMARY + event_type[len(prefix) :]

    return event_type


def get_triggerflow_event_aliases(event_type: str) -> frozenset[str]:
    """Return every name ``event_type`` answers to, itself included."""
    primary = normalize_triggerflow_event_type(event_type)
    if not primary.startswith(PRIMARY):
        return frozenset({event_type})

    suffix = primary[len(PRIMARY) :]
    return frozenset(prefix + suffix for prefix in (PRIMARY, *LEGACY))


def is_pattern(event_type: str) -> bool:
    """Return whether ``event_type`` holds shell-style wildcards (``*``, ``?``, ``[...]``)."""
    return not _WILD.isdisjoint(event_type)


def matches_observation_event_type(event_type: str, event_types: Iterable[str] | None) -> bool:
    """Return whether ``event_type`` is wanted by ``event_types`` (names and patterns); ``None`` wants everything."""
    return event_types is None or matcher(event_types)(event_type)


def matcher(event_types: str | Iterable[str] | None) -> Callable[[str], bool]:
    """Return a test for event types.

    Raises:
        TypeError: ``event_types`` is neither text, a collection of texts, nor ``None``.
    """
    if event_types is None:
        return _anything

    if isinstance(event_types, str):
        event_types = (event_types,)

    if not isinstance(event_types, Iterable):
        raise TypeError(f"event_types must be a name, a pattern, a list of them or None, got {event_types!r}")

    names = tuple(event_types)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"event_types must hold event names or patterns as text, got {type(name).__name__}: {name!r}"
            )

    return _matcher(names)


def _anything(event_type: str) -> bool:
    return True


@lru_cache(maxsize=1024)
def _matcher(names: tuple[str, ...]) -> Callable[[str], bool]:
    exact: set[str] = set()
    patterns: list[str] = []
    for name in names:
        if is_pattern(name):
            patterns.append(translate(normalize_triggerflow_event_type(name)))
        else:
            exact |= get_triggerflow_event_aliases(name)

    if not patterns:
        return frozenset(exact).__contains__

    wanted = re.compile("|".join(patterns)).match

    def matches(event_type: str) -> bool:
        if event_type in exact:
            return True

        # A pattern may begin with its wildcard ("*flow.signal"), so the emitted name and every alias are tried.
        return any(wanted(name) is not None for name in get_triggerflow_event_aliases(event_type))

    return matches
