"""Handlers and conditions with names, and random flows made of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st

from flowdeck import Retry
from flowdeck.triggerflow import TriggerFlow, TriggerFlowRuntimeData

__all__ = ["CHUNKS", "CONDITIONS", "Spec", "build", "flow_specs", "register"]

_NAMES = 100
Data = TriggerFlowRuntimeData
Spec = list[tuple[Any, ...]]


def size(value: Any) -> int:
    """A small number for any value, so that every handler takes every value."""
    if isinstance(value, bool | int):
        return int(value) % 1000

    if isinstance(value, dict):
        return sum(map(size, value.values())) % 1000

    return sum(map(size, value)) % 1000 if isinstance(value, list | tuple) else len(str(value))


async def grow(data: Data) -> Any:
    return size(data.input) + 1


def spread(data: Data) -> Any:
    return [size(data.input) + k for k in range(3)]


async def note(data: Data) -> Any:
    seen = [item["payload"] for item in data.interventions]
    await data.async_append_state("notes", [data.scope, size(data.input), *seen], emit=False)
    return data.input


async def shout(data: Data) -> Any:
    await data.async_emit("Shouted", size(data.input))
    return data.input


async def mark(data: Data) -> Any:
    await data.async_set_state("marked", size(data.input))
    return data.input


def even(data: Data) -> bool:
    return size(data.input) % 2 == 0


async def large(data: Data) -> bool:
    return size(data.input) > 3


CHUNKS = {fn.__name__: fn for fn in (grow, spread, note, shout, mark)}
CONDITIONS = {fn.__name__: fn for fn in (even, large)}


def register(flow: TriggerFlow) -> TriggerFlow:
    """Make every handler of this module known to a flow, under its own name and those :func:`build` gives."""
    for name, fn in CHUNKS.items():
        flow.register_chunk_handler(fn)
        for k in range(_NAMES):
            flow.register_chunk_handler(fn, name=f"{name} {k}")  # type: ignore[arg-type]

    for name, handler in {"each": grow, "child note": note, "yes": note, "no": note, "talks": shout}.items():
        flow.register_chunk_handler(handler, name=name)  # those of the flow written out in the tests

    for condition in CONDITIONS.values():
        flow.register_condition_handler(condition)  # type: ignore[arg-type]

    return flow


_names = st.sampled_from(sorted(CHUNKS))
_conditions = st.one_of(st.sampled_from(sorted(CONDITIONS)), st.integers(0, 5), st.sampled_from(["a", None, True, [1]]))
_limits = st.sampled_from([None, 1, 2])
_retries = st.sampled_from(
    [None, Retry(attempts=2), Retry(attempts=2, backoff=0.5, factor=3.0, on=(ValueError, OSError))]
)


def flow_specs(depth: int = 3) -> st.SearchStrategy[Spec]:
    """Random flows as data: a list of steps, with blocks inside blocks."""
    step = st.tuples(st.just("to"), _names, st.booleans(), _retries)
    if depth == 0:
        return st.lists(step, min_size=1, max_size=2)

    inner = flow_specs(depth - 1)
    block = st.one_of(
        st.tuples(st.just("each"), _limits, inner),
        st.tuples(st.just("batch"), st.lists(_names, min_size=1, max_size=3), _limits),
        st.tuples(
            st.just("match"),
            st.sampled_from(["hit_first", "hit_all"]),
            st.lists(st.tuples(_conditions, inner), min_size=1, max_size=2),
            st.one_of(st.none(), inner),
        ),
        st.tuples(
            st.just("sub"), inner, st.sampled_from([None, {"value": "result"}, {"runtime_data": {"c": "result"}}])
        ),
        st.tuples(st.just("when"), st.sampled_from(["and", "or", "simple_or"])),
        st.tuples(st.just("point"), st.sampled_from([None, "t"])),
        st.tuples(st.just("collect"), st.sampled_from(["filled_and_update", "filled_then_empty"])),
    )
    return st.lists(st.one_of(step, step, block), min_size=1, max_size=4)


class _Builder:
    """Declares a spec; every chunk and block gets a name of its own, since all stand on the same lines."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def name(self, base: str) -> str:
        self._count[base] += 1
        return f"{base} {self._count[base]}"

    def steps(self, at: Any, spec: Spec) -> Any:
        for kind, *rest in spec:
            at = getattr(self, kind)(at, *rest)

        return at

    def to(self, at: Any, handler: str, aside: bool, retry: Retry | None) -> Any:
        return at.to(
            (self.name(handler), CHUNKS[handler]), side_branch=aside, retry=retry, timeout=60 if aside else None
        )

    def each(self, at: Any, limit: int | None, inner: Spec) -> Any:
        return self.steps(at.for_each(concurrency=limit, name=self.name("each")), inner).end_for_each()

    def batch(self, at: Any, handlers: list[str], limit: int | None) -> Any:
        return at.batch(*((self.name(h), CHUNKS[h]) for h in handlers), concurrency=limit, name=self.name("batch"))

    def match(self, at: Any, mode: str, cases: list[tuple[Any, Spec]], otherwise: Spec | None) -> Any:
        at = at.match(mode=mode, name=self.name("match"))
        for condition, inner in cases:
            wanted = CONDITIONS.get(condition, condition) if isinstance(condition, str) else condition
            at = self.steps(at.case(wanted), inner)

        if otherwise is not None:
            at = self.steps(at.case_else(), otherwise)

        return at.end_match()

    def sub(self, at: Any, inner: Spec, write_back: Any) -> Any:
        child = TriggerFlow(name=self.name("child"))
        self.steps(child.process, inner)
        return at.to_sub_flow(child, name=child.name, capture={"input": "value"}, write_back=write_back)

    def when(self, at: Any, mode: str) -> Any:
        at.when({"event": ["Shouted", self.name("Never")], "runtime_data": "marked"}, mode=mode).to(
            (self.name("note"), note)
        )
        return at

    def point(self, at: Any, target: str | None) -> Any:
        return at.intervention_point(name=self.name("point"), target=target).to((self.name("note"), note))

    def collect(self, at: Any, mode: str) -> Any:
        place = self.name("place")
        at.collect(place, "here", mode=mode).to((self.name("note"), note))
        return at


def build(spec: Spec) -> TriggerFlow:
    """Return the flow a spec describes."""
    flow = TriggerFlow(name="random")
    _Builder().steps(flow.process, spec)
    return flow
