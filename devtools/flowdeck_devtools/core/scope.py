"""Scopes: where in a flow something happened, as a path (DESIGN §2, Scope).

``segment("/"segment)*`` with ``segment = name["["index"]"]["#"activation]``, percent-encoded. The index is a for_each
item, a batch member or a child; the activation counts repeated visits and is omitted at 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

__all__ = ["Segment", "parse_scope", "steps_of"]

_SEGMENT = re.compile(r"^(?P<name>.*?)(?:\[(?P<index>[^\]]*)\])?(?:#(?P<activation>\d+))?$", re.DOTALL)
MAX_SEGMENTS = 66
"""The runtime cuts deeper scopes to ``~<hash>`` and 64 parts; a foreign producer may not."""


class Segment(NamedTuple):
    """One part of a scope: ``member`` is what stands in brackets, ``path`` the scope up to its end."""

    name: str
    member: str | None
    activation: int
    path: str

    @property
    def group_path(self) -> str:
        """The path that all indices of this part share."""
        if self.member is None:
            return self.path
        return self.path[: self.path.rindex("[")]


def parse_scope(scope: str) -> list[Segment]:
    """The parts of a scope from the outside in. Any text gives a result; what does not parse is a name."""
    found: list[Segment] = []
    end = 0
    for part in scope.split("/", MAX_SEGMENTS - 1):
        end += len(part) + (1 if found else 0)
        match = _SEGMENT.match(part)
        if match is None:
            found.append(Segment(part, None, 0, scope[:end]))
            continue

        index, activation = match["index"], match["activation"]
        found.append(
            Segment(
                unquote(match["name"]),
                None if index is None else unquote(index),
                int(activation) if activation and len(activation) < 10 else 0,
                scope[:end],
            )
        )
    return found


def steps_of(scope: str) -> Iterator[tuple[str, str | None]]:
    """The ``path`` of each part as ``parse_scope`` gives it, and its ``group_path`` where it has a member."""
    end = -1
    for part in scope.split("/", MAX_SEGMENTS - 1):
        end += len(part) + 1
        path = scope[:end]
        match = _SEGMENT.match(part) if "[" in part else None
        yield path, path[: path.rindex("[")] if match is not None and match["index"] is not None else None
