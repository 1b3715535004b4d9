"""Blocks of a flow: ``for_each`` and ``match``, and the position in a flow that every method starts from."""

from __future__ import annotations

from typing import Any, Self

from flowdeck.definition.blueprint import Blueprint, call_site
from flowdeck.definition.handlers import same_handler
from flowdeck.definition.operators import START, Case, Operator, Trigger, stable_id
from flowdeck.errors import BlockError, DefinitionError

__all__ = ["Blocks", "check_limit"]

_UNGROUPED = ("signal_gate", "sub_flow", "intervention_point")


class _Block:
    """A block the position stands in, as one declaration of it."""

    __slots__ = ("again", "cases", "op")

    def __init__(self, op: Operator, again: bool) -> None:
        self.op = op
        self.again = again
        """The same line has declared it before: a replay, in which nothing new may appear."""
        self.cases = 0
        """How many cases this declaration has opened."""


class Blocks:
    """A position in a flow, and the methods that open and close blocks there."""

    __slots__ = ("_at", "_blocks", "_blueprint")

    def __init__(self, blueprint: Blueprint, at: Trigger | None = None, blocks: tuple[_Block, ...] = ()) -> None:
        self._blueprint = blueprint
        self._at = at or Trigger.event(START)
        self._blocks = blocks

    def _next(self, at: Trigger | str, blocks: tuple[_Block, ...] | None = None) -> Self:
        trigger = Trigger.event(at) if isinstance(at, str) else at
        return type(self)(self._blueprint, trigger, self._blocks if blocks is None else blocks)

    # -- for_each ------------------------------------------------------------------------------------------------

    def for_each(self, *, concurrency: int | None = None, name: str | None = None) -> Self:
        """Run what follows once for each element of the value, in parallel, until ``end_for_each``.

        A value that is no sequence counts as one element. ``concurrency`` limits the elements in flight; an element
        that pauses gives its place to the next.
        """
        op_id = "for_each-" + stable_id("for_each", self._at.id, call_site(), name)
        again = op_id in self._blueprint.operators
        op = self._operator(op_id, "for_each_split", name or "for_each", emits=f"ForEach-{op_id}-Send")
        op.concurrency = check_limit("for_each", concurrency)
        self._listen(op, self._at)
        return self._next(op.emits, (*self._blocks, _Block(op, again)))

    def end_for_each(self) -> Self:
        """Wait for every element and continue with the list of results, in the order of the input."""
        block = self._innermost("end_for_each", "for_each_split").op
        op_id = f"{block.id}-end"
        op = self._operator(op_id, "for_each_collect", "end_for_each", emits=f"ForEach-{block.id}-End", group=block)
        self._listen(op, self._at)
        return self._next(op.emits, self._blocks[:-1])

    # -- match ---------------------------------------------------------------------------------------------------

    def match(self, *, mode: str = "hit_first", name: str | None = None) -> Self:
        """Open a choice. ``hit_first`` takes the first case that holds, ``hit_all`` every one, in parallel."""
        if mode not in ("hit_first", "hit_all"):
            raise DefinitionError(f'match(): mode must be "hit_first" or "hit_all", got {mode!r}')

        op_id = "match-" + stable_id("match", self._at.id, call_site(), name, mode)
        again = op_id in self._blueprint.operators
        op = self._operator(op_id, "match_route", name or "match", emits=f"Match-{op_id}-Pass", mode=mode)
        self._listen(op, self._at)
        return self._next(op.emits, (*self._blocks, _Block(op, again)))

    def case(self, condition: Any) -> Self:
        """Open an arm. It is taken when ``condition(data)`` is true, or equals the value; a plain value is compared."""
        block = self._innermost("case", "match_route")
        match = block.op
        self._end_arm(match)
        nth = block.cases
        block.cases += 1
        case_id = stable_id("case", match.id, nth)
        case = Case(case_id, condition, f"Match-{match.id}-Case-{case_id}")
        if nth == len(match.cases):
            self._check_replay(f"case {nth}", False)
            match.cases.append(case)
        elif _same_condition(match.cases[nth].condition, condition):
            match.cases[nth] = case
        else:
            raise DefinitionError(
                f"match {match.key!r} was declared on this line before, with another case {nth}; give each a name="
            )

        return self._next(case.emits)

    def case_else(self) -> Self:
        """Open the arm that is taken when no case holds. Without one the value passes through unchanged."""
        block = self._innermost("case_else", "match_route").op
        if not block.cases:
            raise BlockError(f"case_else(): a case must come first in {block.key!r}")

        self._end_arm(block)
        block.else_emits = f"Match-{block.id}-Else"
        return self._next(block.else_emits)

    def end_match(self) -> Self:
        """Continue with the taken arm's last value (``hit_first``) or the list of them (``hit_all``)."""
        block = self._innermost("end_match", "match_route").op
        if not block.cases:
            raise BlockError(f"end_match(): {block.key!r} has no case")

        self._end_arm(block)
        end = self._match_end(block)
        self._listen(end, Trigger.event(block.emits))
        return self._next(end.emits, self._blocks[:-1])

    def _end_arm(self, block: Operator) -> None:
        if self._at != Trigger.event(block.emits):
            self._listen(self._match_end(block), self._at)

    def _match_end(self, block: Operator) -> Operator:
        op_id = f"{block.id}-end"
        return self._operator(op_id, "match_collect", "end_match", emits=f"Match-{block.id}-Result", group=block)

    def if_condition(self, condition: Any) -> Self:
        """Open ``if``: the same as ``match().case(condition)``."""
        return self.match(name="if").case(condition)

    def elif_condition(self, condition: Any) -> Self:
        """The next condition to try."""
        return self.case(condition)

    def else_condition(self) -> Self:
        """The arm that is taken when no condition holds."""
        return self.case_else()

    def end_condition(self) -> Self:
        """Close ``if``: the same as ``end_match``."""
        return self.end_match()

    # -- adding operators ----------------------------------------------------------------------------------------

    def _listen(self, op: Operator, at: Trigger) -> None:
        self._check_replay(op.key, at in op.listens)
        op.listen(at)

    def _check_replay(self, key: str, known: bool) -> None:
        block = self._blocks[-1] if self._blocks else None
        if block is not None and block.again and not known:
            raise DefinitionError(
                f"{_opener(block.op.kind)} {block.op.key!r} was declared on this line before, without {key!r}. "
                "Two blocks need a name= each; a block declared again must have the same steps, under names if lambdas"
            )

    def _operator(
        self, op_id: str, kind: str, name: str, *, emits: str, mode: str = "", group: Operator | None = None
    ) -> Operator:
        block = self._blocks[-1].op.id if self._blocks else None
        self._check_replay(name, op_id in self._blueprint.operators)
        key = self._blueprint.unique_key(op_id, name)
        return self._blueprint.add(
            Operator(
                id=op_id,
                key=key,
                kind=kind,
                name=name,
                emits=emits,
                mode=mode,
                group_id=group.id if group else None if kind in _UNGROUPED else op_id,
                parent_group_id=block if group is None else group.parent_group_id,
            )
        )

    def _innermost(self, method: str, kind: str) -> _Block:
        if not self._blocks:
            raise BlockError(f"{method}(): no {_opener(kind)} is open here")

        block = self._blocks[-1]
        if block.op.kind != kind:
            raise BlockError(f"{method}(): the innermost open block is {block.op.key!r}, close it first")

        return block


def _opener(kind: str) -> str:
    """Return the method that opens a block of this kind."""
    return "match" if kind == "match_route" else "for_each"


def _same_condition(known: Any, new: Any) -> bool:
    if callable(known) or callable(new):
        return callable(known) and callable(new) and same_handler(known, new, named=True)

    return bool(known == new)


def check_limit(method: str, concurrency: int | None) -> int:
    """Return a concurrency limit as a number; 0 is none.

    Raises:
        DefinitionError: it is no whole number of at least 1; ``method`` is named.
    """
    if concurrency is None:
        return 0

    if not isinstance(concurrency, int) or concurrency < 1:
        raise DefinitionError(f"{method}: concurrency={concurrency!r}: expected a whole number of at least 1")

    return concurrency
