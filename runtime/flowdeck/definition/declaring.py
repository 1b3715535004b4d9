"""Declaring on the flow itself: every operator, standing at ``START``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowdeck.definition.blueprint import Blueprint
from flowdeck.definition.operators import Operator, Trigger
from flowdeck.definition.process import Process
from flowdeck.definition.retry import Retry
from flowdeck.errors import DefinitionError

if TYPE_CHECKING:
    from flowdeck.definition.bindings import ChildFlow

__all__ = ["DeclaringScope"]


class DeclaringScope:
    """The part of a flow that is its definition. Each method is that of :class:`Process`, at the flow's start."""

    _blueprint: Blueprint

    @property
    def process(self) -> Process:
        """The position at ``START``."""
        return Process(self._blueprint)

    def chunk(self, handler: Any) -> Any:
        """Make a chunk of a handler; ``@flow.chunk("name")`` decorates one and returns the chunk.

        Raises:
            DefinitionError: the name is empty, or bound to another handler.
        """
        if not isinstance(handler, str):
            return self._blueprint.chunk(handler)

        if not handler:
            raise DefinitionError('chunk(""): a chunk needs a name')

        name = handler
        return lambda fn: self._blueprint.chunk(fn, name)

    def to(
        self,
        chunk: Any,
        side_branch: bool = False,
        name: str | None = None,
        *,
        retry: Retry | None = None,
        timeout: float | None = None,
        replay_safe: bool = True,
    ) -> Process:
        """Run ``chunk`` when the execution starts. See :meth:`Process.to`."""
        return self.process.to(chunk, side_branch, name, retry=retry, timeout=timeout, replay_safe=replay_safe)

    def side_branch(self, chunk: Any, *, name: str | None = None) -> Process:
        return self.process.side_branch(chunk, name=name)

    def to_sub_flow(
        self,
        flow: ChildFlow,
        *,
        side_branch: bool = False,
        name: str | None = None,
        capture: Mapping[str, Any] | None = None,
        write_back: Mapping[str, Any] | None = None,
        concurrency: int | None = None,
    ) -> Process:
        """Run another flow when the execution starts. See :meth:`Process.to_sub_flow`."""
        return self.process.to_sub_flow(
            flow, side_branch=side_branch, name=name, capture=capture, write_back=write_back, concurrency=concurrency
        )

    def when(self, trigger: Any, *, mode: str = "and") -> Process:
        """Stand where a signal is reached. See :meth:`Process.when`."""
        return self.process.when(trigger, mode=mode)

    def batch(
        self, *chunks: Any, side_branch: bool = False, concurrency: int | None = None, name: str | None = None
    ) -> Process:
        return self.process.batch(*chunks, side_branch=side_branch, concurrency=concurrency, name=name)

    def for_each(self, *, concurrency: int | None = None, name: str | None = None) -> Process:
        return self.process.for_each(concurrency=concurrency, name=name)

    def match(self, *, mode: str = "hit_first", name: str | None = None) -> Process:
        return self.process.match(mode=mode, name=name)

    def if_condition(self, condition: Any) -> Process:
        return self.process.if_condition(condition)

    def collect(
        self, collection_name: str, branch_id: str | None = None, *, mode: str = "filled_and_update"
    ) -> Process:
        return self.process.collect(collection_name, branch_id, mode=mode)

    def intervention_point(self, *, name: str, target: str | None = None) -> Process:
        """Mark a place where interventions become visible. See :meth:`Process.intervention_point`."""
        return self.process.intervention_point(name=name, target=target)

    def operators(self, trigger: str | None = None) -> list[Operator]:
        """Return the operators, or those an event starts."""
        if trigger is None:
            return list(self._blueprint.operators.values())

        return self._blueprint.listening(Trigger.event(trigger))
