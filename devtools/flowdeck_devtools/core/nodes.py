"""All spans of a trace by their keys, which nobody holds: found by walking down the tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.spanform import Role, steps, tail_of

__all__ = ["Nodes"]

_ROLES: dict[str, Role] = {"s": "span", "g": "group", "i": "item"}


class Nodes(Mapping[str, SpanNode]):
    """Looks like a dict from keys to spans, without 150 bytes for each: a key is made when somebody asks for it.

    Args:
        root: The trace's root.
        of_run: The spans of runs, by the ids of the runs.
    """

    def __init__(self, root: SpanNode, of_run: Mapping[str, SpanNode]) -> None:
        self._root, self._of_run = root, of_run
        self.count = 1
        """How many there are; kept by the trace."""
        self.elsewhere: dict[str, SpanNode] = {}
        """Those with a place in the scope that stand higher up than it says, because that is too deep."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: str) -> SpanNode:
        run = self._of_run.get(key)
        if run is not None and run.form.is_keyed and run.tail == key:
            return run
        found = self.elsewhere.get(key)
        if found is None:
            ids = key.split("\0")
            owner = self._of_run.get(ids[0])
            for place in ids[1:]:
                if owner is None or place[:1] not in _ROLES:
                    raise KeyError(key)
                owner = self.placed(owner, _ROLES[place[0]], place[1:])
            found = owner
        if found is None or found.key != key:
            raise KeyError(key)
        return found

    def placed(self, owner: SpanNode, last: Role, scope: str) -> SpanNode | None:
        """The span at a place of the scope that begins in a run."""
        node: SpanNode | None = owner
        above = ""
        for role, path in steps(scope, last):
            assert node is not None
            node = node.child_at(role, tail_of(above, path)) or self.moved_up(owner, role, path)
            if node is None:
                return None
            above = path
        return node

    def moved_up(self, owner: SpanNode, role: Role, path: str) -> SpanNode | None:
        """The span at a place that is too deep to be drawn there."""
        return self.elsewhere.get(f"{owner.key}\0{role[0]}{path}") if self.elsewhere else None

    def __iter__(self) -> Iterator[str]:
        return (node.key for node in self._in_order())

    def values(self) -> list[SpanNode]:  # type: ignore[override]  # a list: it may be walked while the tree grows
        """All spans in the order their events came, groups before their first member."""
        return self._in_order()

    def _in_order(self) -> list[SpanNode]:
        found: list[SpanNode] = []
        stack = [self._root]
        while stack:
            node = stack.pop()
            found.append(node)
            stack.extend(reversed(node.children))
        places = [-1] * len(found)
        following = -1
        for place in range(len(found) - 1, -1, -1):
            first = found[place].first_number
            following = places[place] = first if first >= 0 else following
        return [found[place] for place in sorted(range(len(found)), key=places.__getitem__)]
