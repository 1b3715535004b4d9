"""The fluent builder: ``flow.to(a).for_each().to(b).end_for_each()``.

A :class:`Process` is a position in a flow: the trigger the next step will listen to, and the blocks it stands in.
Every method adds operators to the blueprint and returns the next position; the object itself never changes.
Source: the compatible API's process methods.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from flowdeck.definition.bindings import ChildFlow, SubFlow, parse_capture, parse_write_back
from flowdeck.definition.blueprint import Blueprint, Chunk, call_site
from flowdeck.definition.handlers import same_handler
from flowdeck.definition.operators import START, Case, Operator, Trigger, stable_id
from flowdeck.definition.retry import Retry
from flowdeck.errors import BlockError, DefinitionError

__all__ = ["Process"]

_TRIGGER_TYPES = ("event", "runtime_data", "flow_data", "collect")


class _Block:
    """A block the position stands in, as one declaration of it."""

    __slots__ = ("again", "cases", "op")

    def __init__(self, op: Operator, again: bool) -> None:
        self.op = op
        self.again = again
        """The same line has declared it before: a replay, in which nothing new may appear."""
        self.cases = 0
        """How many cases this declaration has opened."""


class Process:
    """A position in a flow, from which the next step is declared."""

    __slots__ = ("_at", "_blocks", "_blueprint")

    def __init__(self, blueprint: Blueprint, at: Trigger | None = None, blocks: tuple[_Block, ...] = ()) -> None:
        self._blueprint = blueprint
        self._at = at or Trigger.event(START)
        self._blocks = blocks

    def _next(self, at: Trigger | str, blocks: tuple[_Block, ...] | None = None) -> Self:
        trigger = Trigger.event(at) if isinstance(at, str) else at
        return type(self)(self._blueprint, trigger, self._blocks if blocks is None else blocks)

    # -- steps ---------------------------------------------------------------------------------------------------

    def to(
        self,
        chunk: Any,
        side_branch: bool = False,
        name: str | None = None,
        *,
        retry: Retry | None = None,
        timeout: float | None = None,
        replay_safe: bool = True,
    ) -> Self:
        """Run ``chunk`` (a handler, ``(name, handler)``, a chunk, the name of one, or a flow) when this is reached.

        Args:
            side_branch: the chain continues from here, beside the chunk, with the value it had.
            retry: how often a failing attempt is repeated.
            timeout: seconds one attempt may take; then it fails with ``TimeoutError``.
            replay_safe: ``False`` asks a person instead of running the chunk again after a crash.
        """
        if isinstance(chunk, tuple) and len(chunk) == 2 and isinstance(chunk[1], ChildFlow):
            name, chunk = chunk

        if isinstance(chunk, ChildFlow):
            if retry is not None or timeout is not None or not replay_safe:
                raise DefinitionError(
                    f"to({chunk.name}): retry=, timeout= and replay_safe= belong to the chunks of the sub flow"
                )

            return self.to_sub_flow(chunk, side_branch=side_branch, name=name)

        if retry is not None and not isinstance(retry, Retry):
            raise DefinitionError(f"to({_label(chunk)}): retry= takes a flowdeck.Retry, got {retry!r}")

        if timeout is not None and timeout <= 0:
            raise DefinitionError(f"to({_label(chunk)}): timeout= must be more than 0 seconds, got {timeout!r}")

        found = self._blueprint.chunk(chunk, name)
        op = self._chunk_operator(found)
        self._listen(op, self._at)
        op.retry = retry or op.retry
        op.timeout = timeout or op.timeout
        op.replay_safe = op.replay_safe and replay_safe
        return self if side_branch else self._next(found.trigger)

    def side_branch(self, chunk: Any, *, name: str | None = None) -> Self:
        """Run ``chunk`` beside the chain; the chain goes on from the same point."""
        return self.to(chunk, side_branch=True, name=name)

    def to_sub_flow(
        self,
        flow: Any,
        *,
        side_branch: bool = False,
        name: str | None = None,
        capture: Mapping[str, Any] | None = None,
        write_back: Mapping[str, Any] | None = None,
        concurrency: int | None = None,
    ) -> Self:
        """Run another flow as one step: an execution of its own, with nothing shared but what is bound.

        Args:
            capture: what the child gets: ``input``, ``runtime_data``, ``flow_data``, ``resources``, each
                ``{target path: source path}``; sources begin with ``value``, ``runtime_data``, ``flow_data`` or
                ``resources``. ``input`` also takes one source path, and is the value when it is not given.
            write_back: what comes back: ``value``, ``runtime_data``, ``flow_data``; sources begin with ``result``.
                Without it the child's result becomes the value.
            concurrency: how many of the child's handlers may run at once.

        Raises:
            DefinitionError: an unknown scope, a path that is none, or two bindings of one target.
            TypeError: a binding of the wrong type.
        """
        if not isinstance(flow, ChildFlow):
            raise DefinitionError(f"to_sub_flow({_label(flow)}): expected a TriggerFlow, got {flow!r}")

        label = name or flow.sub_flow_label()
        where = f"to_sub_flow({label})"
        limit = _limit(where, concurrency)
        spec = SubFlow(flow, parse_capture(where, capture), parse_write_back(where, write_back), limit)
        op_id = "sub_flow-" + stable_id("sub_flow", self._at.id, call_site(), label)
        known = self._blueprint.operators.get(op_id)
        if known is not None and known.sub_flow is not None:
            had = known.sub_flow
            if (had.flow.name, had.capture, had.write_back, had.concurrency) != (flow.name, *_bound(spec)):
                raise DefinitionError(f"{where}: this line has declared it with another flow or bindings; give name=")

        op = self._operator(op_id, "sub_flow", label, emits=f"SubFlow-{op_id}-Result")
        op.sub_flow = spec
        op.options.update(flow=flow.name, capture=dict(capture or {}), write_back=dict(write_back or {}))
        if limit:
            op.options["concurrency"] = limit

        self._listen(op, self._at)
        return self if side_branch else self._next(op.emits)

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

    def _chunk_operator(self, chunk: Chunk) -> Operator:
        block = self._blocks[-1].op.id if self._blocks else None
        known = self._blueprint.operators.get(chunk.id)
        self._check_replay(chunk.name, known is not None)
        if known is not None:
            self._blueprint.version += 1
            return known

        return self._blueprint.add(
            Operator(
                id=chunk.id,
                key=self._blueprint.unique_key(chunk.id, chunk.name),
                kind="chunk",
                name=chunk.name,
                emits=chunk.trigger,
                handler=chunk.handler,
                parent_group_id=block,
                declared_emits=chunk.emits,
            )
        )

    # -- gates ---------------------------------------------------------------------------------------------------

    def when(self, trigger: Any, *, mode: str = "and") -> Self:
        """Stand where an event, a chunk's completion, or a change of state is reached.

        ``trigger`` is an event name, a chunk, or a mapping with the keys ``event``, ``runtime_data``, ``flow_data``
        and ``collect``. Several triggers make a gate: ``and`` passes ``{type: {name: value}}`` once each has a value,
        ``or`` passes ``(type, name, value)`` of each arrival, ``simple_or`` the value. Leaves every block.
        """
        if mode not in ("and", "or", "simple_or"):
            raise DefinitionError(f'when(): mode must be "and", "or" or "simple_or", got {mode!r}')

        triggers = list(self._triggers(trigger))
        if not triggers:
            raise DefinitionError("when(): at least one trigger is needed")

        if len(triggers) == 1:
            return self._next(triggers[0], ())

        op_id = "when-" + stable_id("when", mode, *(t.id for t in triggers))
        op = self._operator(op_id, "signal_gate", "when", emits=f"When-{op_id}", mode=mode)
        for each in triggers:
            op.listen(each)

        return self._next(op.emits, ())

    def _triggers(self, spec: Any) -> Iterable[Trigger]:
        if not isinstance(spec, Mapping):
            yield self._trigger("event", spec)
            return

        for kind, names in spec.items():
            if kind not in _TRIGGER_TYPES:
                allowed = ", ".join(_TRIGGER_TYPES)
                raise DefinitionError(f"when(): {kind!r} is no trigger type; choose from {allowed}")

            for name in names if isinstance(names, list | tuple | set) else [names]:
                yield self._trigger(kind, name)

    def _trigger(self, kind: str, name: Any) -> Trigger:
        if isinstance(name, Chunk):
            if kind != "event":
                raise TypeError(f"when(): a chunk cannot be a {kind!r} trigger")

            return Trigger.event(name.trigger)

        if not isinstance(name, str) or not name:
            raise DefinitionError(f"when(): expected a name or a chunk, got {name!r}")

        if kind == "collect":
            return Trigger.event(f"Collect-{name}")

        if kind == "event" and name in self._blueprint.chunks:
            return Trigger.event(self._blueprint.chunks[name].trigger)

        return Trigger(kind, name)

    # -- batch ---------------------------------------------------------------------------------------------------

    def batch(
        self, *chunks: Any, side_branch: bool = False, concurrency: int | None = None, name: str | None = None
    ) -> Self:
        """Run several chunks in parallel on the same value; continue with ``{chunk name: result}``."""
        if not chunks:
            raise DefinitionError("batch(): at least one chunk is needed")

        found = [self._blueprint.chunk(chunk) for chunk in chunks]
        names = [chunk.name for chunk in found]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise DefinitionError(f"batch(): {', '.join(twice)} stands in it twice; give each a name of its own")

        op_id = "batch-" + stable_id("batch", self._at.id, call_site(), name, *names)
        fan = self._operator(op_id, "batch_fanout", name or "batch", emits=f"Batch-{op_id}-Send")
        fan.concurrency = _limit("batch", concurrency)
        self._listen(fan, self._at)
        end = self._operator(f"{op_id}-end", "batch_collect", "batch_collect", emits=f"Batch-{op_id}", group=fan)
        for chunk in found:
            op = self._chunk_operator(chunk)
            op.listen(Trigger.event(fan.emits))
            end.listen(Trigger.event(chunk.trigger))
            if chunk.id not in fan.members:
                fan.members.append(chunk.id)

        return self if side_branch else self._next(end.emits)

    # -- for_each ------------------------------------------------------------------------------------------------

    def for_each(self, *, concurrency: int | None = None, name: str | None = None) -> Self:
        """Run what follows once for each element of the value, in parallel, until ``end_for_each``.

        A value that is no sequence counts as one element. ``concurrency`` limits the elements in flight; an element
        that pauses gives its place to the next.
        """
        op_id = "for_each-" + stable_id("for_each", self._at.id, call_site(), name)
        again = op_id in self._blueprint.operators
        op = self._operator(op_id, "for_each_split", name or "for_each", emits=f"ForEach-{op_id}-Send")
        op.concurrency = _limit("for_each", concurrency)
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

    # -- collect -------------------------------------------------------------------------------------------------

    def collect(self, collection_name: str, branch_id: str | None = None, *, mode: str = "filled_and_update") -> Self:
        """Meet other branches: continue with ``{branch_id: value}`` once every branch of that name has a value.

        ``filled_and_update`` keeps the values, so a later arrival passes again; ``filled_then_empty`` starts anew.
        """
        if mode not in ("filled_and_update", "filled_then_empty"):
            raise DefinitionError(f"collect({collection_name!r}): unknown mode {mode!r}")

        branch = branch_id or stable_id("branch", self._at.id, call_site())
        op_id = "collect-" + stable_id("collect", collection_name, branch)
        event = f"Collect-{collection_name}"
        op = self._operator(op_id, "collect_branch", f"collect:{collection_name}", emits=event, mode=mode)
        op.options.update(collection_name=collection_name, branch_id=branch)
        self._listen(op, self._at)
        return self._next(event)

    # -- the rest ------------------------------------------------------------------------------------------------

    def ____(self, *args: Any, **kwargs: Any) -> Self:
        """Separate parts of a long chain for the eye; does nothing."""
        return self

    def end(self) -> Self:
        """Deprecated: mark the value here as the result under ``$final_result``."""
        warnings.warn("end() is deprecated; read the close snapshot instead", DeprecationWarning, stacklevel=2)
        return self.to(("end", _final_result))

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
                group_id=group.id if group else None if kind in ("signal_gate", "sub_flow") else op_id,
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


async def _final_result(data: Any) -> Any:
    if data.get_state("$final_result") is None:
        await data.async_set_state("$final_result", data.input, emit=False)

    return data.input


def _opener(kind: str) -> str:
    """Return the method that opens a block of this kind."""
    return "match" if kind == "match_route" else "for_each"


def _bound(spec: SubFlow) -> tuple[Any, ...]:
    return spec.capture, spec.write_back, spec.concurrency


def _same_condition(known: Any, new: Any) -> bool:
    if callable(known) or callable(new):
        return callable(known) and callable(new) and same_handler(known, new, named=True)

    return bool(known == new)


def _limit(method: str, concurrency: int | None) -> int:
    if concurrency is None:
        return 0

    if not isinstance(concurrency, int) or concurrency < 1:
        raise DefinitionError(f"{method}: concurrency={concurrency!r}: expected a whole number of at least 1")

    return concurrency


def _label(chunk: Any) -> str:
    if isinstance(chunk, tuple) and chunk:
        return repr(chunk[0])

    handler: Callable[..., Any] = chunk
    return str(getattr(handler, "__name__", handler))
