"""The fluent builder: ``flow.to(a).for_each().to(b).end_for_each()``.

A :class:`Process` is a position in a flow: the trigger the next step will listen to, and the blocks it stands in.
Every method adds operators to the blueprint and returns the next position; the object itself never changes.
Source: the compatible API's process methods.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from flowdeck.definition.annotation import Annotation
from flowdeck.definition.bindings import SubFlow, is_flow, parse_capture, parse_write_back
from flowdeck.definition.blocks import Blocks, check_limit
from flowdeck.definition.blueprint import Chunk, call_site, place_of, user_frame
from flowdeck.definition.operators import Operator, Trigger, stable_id
from flowdeck.definition.refs import BUILTINS
from flowdeck.definition.retry import Retry
from flowdeck.errors import CycleWarning, DefinitionError

__all__ = ["Process"]

_TRIGGER_TYPES = ("event", "runtime_data", "flow_data", "collect")


class Process(Blocks):
    """A position in a flow, from which the next step is declared."""

    __slots__ = ()

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
        if isinstance(chunk, tuple) and len(chunk) == 2 and is_flow(chunk[1]):
            name, chunk = chunk

        if is_flow(chunk):
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
        if self._at not in op.listens and op.listens and not isinstance(chunk, Chunk | str):
            self._warn_of_cycle(op)

        self._listen(op, self._at)
        op.retry = retry or op.retry
        op.timeout = timeout or op.timeout
        op.replay_safe = op.replay_safe and replay_safe
        return self if side_branch else self._next(found.trigger)

    def _warn_of_cycle(self, op: Operator) -> None:
        """One function is one step, so using it again further down the chain leads back into it."""
        if not self._blueprint.leads_to(op, self._at):
            return

        frame = user_frame()
        text = (
            f"chunk {op.name!r}, first used at {op.place or '?'}, is used again at {place_of(frame)}, so the chain "
            f"leads back into it and goes round; for a second step, name both: "
            f'.to(("{op.name} 1", fn)) and .to(("{op.name} 2", fn)); for a loop on purpose, pass the chunk or its name'
        )
        if frame is None:
            warnings.warn(text, CycleWarning, stacklevel=2)
        else:
            registry = frame.f_globals.setdefault("__warningregistry__", {})
            name = frame.f_globals.get("__name__")
            warnings.warn_explicit(text, CycleWarning, frame.f_code.co_filename, frame.f_lineno, name, registry)

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
        if not is_flow(flow):
            raise DefinitionError(f"to_sub_flow({_label(flow)}): expected a TriggerFlow, got {flow!r}")

        label = name or flow.sub_flow_label()
        where = f"to_sub_flow({label})"
        limit = check_limit(where, concurrency)
        spec = SubFlow(flow, parse_capture(where, capture), parse_write_back(where, write_back), limit)
        op_id = "sub_flow-" + stable_id("sub_flow", self._at.id, call_site(), label)
        known = self._blueprint.operators.get(op_id)
        if known is not None and known.sub_flow is not None:
            had = known.sub_flow
            if (had.flow.name, had.capture, had.write_back, had.concurrency) != (flow.name, *_bound(spec)):
                raise DefinitionError(f"{where}: this line has declared it with another flow or bindings; give name=")

        op = self._operator(op_id, "sub_flow", label, emits=f"SubFlow-{op_id}-Result")
        op.sub_flow = spec
        op.options.update(capture=dict(capture or {}), write_back=dict(write_back or {}))
        if limit:
            op.options["concurrency"] = limit

        self._listen(op, self._at)
        return self if side_branch else self._next(op.emits)

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
                place=place_of(user_frame()),
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
        fan.concurrency = check_limit("batch", concurrency)
        self._listen(fan, self._at)
        end = self._operator(f"{op_id}-end", "batch_collect", "batch_collect", emits=f"Batch-{op_id}", group=fan)
        for chunk in found:
            op = self._chunk_operator(chunk)
            op.listen(Trigger.event(fan.emits))
            end.listen(Trigger.event(chunk.trigger))
            if chunk.id not in fan.members:
                fan.members.append(chunk.id)

        return self if side_branch else self._next(end.emits)

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

    # -- interventions -------------------------------------------------------------------------------------------

    def intervention_point(self, *, name: str, target: str | None = None) -> Self:
        """Mark a place where pending interventions become visible to what follows: those whose target is ``target``.

        The value passes through unchanged and nothing waits. Declaring the same point again changes nothing.

        Raises:
            DefinitionError: no name, or the flow has a point of that name with another target or elsewhere.
        """
        if not isinstance(name, str) or not name:
            raise DefinitionError(f"intervention_point(name={name!r}): a point needs a name")

        if target is not None and (not isinstance(target, str) or not target):
            raise DefinitionError(f"intervention_point({name!r}): target={target!r}: expected a text, or None")

        op_id = "intervention_point-" + stable_id("intervention_point", name)
        known = self._blueprint.operators.get(op_id)
        if known is not None and (known.options.get("target") != target or known.listens != [self._at]):
            raise DefinitionError(
                f"intervention_point({name!r}) is declared with another target, or at another position, already; "
                "every point needs a name of its own"
            )

        op = self._operator(op_id, "intervention_point", name, emits=f"InterventionPoint[{name}]-{op_id}")
        op.options.update(name=name, target=target)
        self._listen(op, self._at)
        return self._next(op.emits)

    # -- the rest ------------------------------------------------------------------------------------------------

    def ____(
        self,
        *args: Any,
        log_info: bool = False,
        print_info: bool = False,
        show_value: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Separate parts of a long chain for the eye, and say something where a value passes, if asked to.

        Args:
            args: texts; further keywords are texts with a name.
            log_info: emit a ``triggerflow.annotation`` event.
            print_info: print a line.
            show_value: say the value, too.
        """
        if not log_info and not print_info:
            return self

        texts = [*map(str, args), *(f"{key}={value}" for key, value in kwargs.items())]
        says = Annotation(texts, log=log_info, show=print_info, value=show_value)
        name = "annotation-" + stable_id("annotation", self._at.id, call_site(), *texts)[:8]
        return self.to((name, says), side_branch=True)

    def end(self) -> Self:
        """Deprecated: mark the value here as the result under ``$final_result``."""
        warnings.warn("end() is deprecated; read the close snapshot instead", DeprecationWarning, stacklevel=2)
        return self.to((FINAL_RESULT, _final_result))


async def _final_result(data: Any) -> Any:
    if data.get_state("$final_result") is None:
        await data.async_set_state("$final_result", data.input, emit=False)

    return data.input


FINAL_RESULT = "$final_result"
BUILTINS[FINAL_RESULT] = _final_result


def _bound(spec: SubFlow) -> tuple[Any, ...]:
    return spec.capture, spec.write_back, spec.concurrency


def _label(chunk: Any) -> str:
    if isinstance(chunk, tuple) and chunk:
        return repr(chunk[0])

    handler: Callable[..., Any] = chunk
    return str(getattr(handler, "__name__", handler))
