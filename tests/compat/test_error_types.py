"""The compatible API's errors: whatever class of ours is raised, it is also the built-in one a program catches."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import pydantic
import pytest

from flowdeck.compat import Agently, EventCenter, ObservationEvent, TriggerFlow

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def named(data: Any) -> Any:
    return data.input


async def pausing(data: Any) -> Any:
    return await data.async_pause_for(resume_to="next")


def flow(*steps: Any) -> TriggerFlow:
    made = TriggerFlow(name="f")
    at: Any = made
    for step in steps:
        at = at.to(step)

    return made


def run(made: TriggerFlow, value: Any = None, then: Callable[[Any], Any] | None = None, **options: Any) -> Any:
    """Start an execution and do something with it."""

    async def main() -> Any:
        execution = made.create_execution(auto_close=False, **options)
        await execution.async_start(value)
        return await then(execution) if then is not None else None

    return asyncio.run(main())


def exported(**changes: Any) -> dict[str, Any]:
    return {**flow(named).get_flow_config(), **changes}


def sub(**bindings: Any) -> Any:
    return flow().to_sub_flow(flow(named), **bindings)


async def twice(execution: Any) -> None:
    (interrupt,) = execution.get_pending_interrupts()
    await execution.async_continue_with(interrupt, 1)
    await execution.async_continue_with(interrupt, 1)


async def closed_then(execution: Any, action: Callable[[Any], Any]) -> Any:
    await execution.async_close(pending_interrupts="cancel")
    return await action(execution)


def add_conflicting() -> None:
    config = exported()
    config["operators"][0]["options"]["timeout"] = 1.0
    flow(named).load_flow_config(config, replace=False)


CASES: dict[str, tuple[type[BaseException], Callable[[], Any]]] = {
    # 1. definition
    "unknown chunk name": (NotImplementedError, lambda: flow("nobody")),
    "a name for two callables": (ValueError, lambda: flow(("a", named), ("a", pausing))),
    "declare_emits of no text": (TypeError, lambda: flow().chunk("c")(named).declare_emits(1)),  # type: ignore[arg-type]
    "end_for_each without for_each": (NotImplementedError, lambda: flow().process.end_for_each()),
    "case without match": (NotImplementedError, lambda: flow().process.case(named)),
    "case_else before a case": (NotImplementedError, lambda: flow().match().case_else()),
    "a chunk as a state trigger": (TypeError, lambda: flow().when({"runtime_data": flow().chunk("c")(named)})),
    "an intervention point without a name": (ValueError, lambda: flow().intervention_point(name="")),
    "two points of one name": (
        ValueError,
        lambda: flow().intervention_point(name="p", target="a").intervention_point(name="p", target="b"),
    ),
    "register a lambda": (ValueError, lambda: flow().register_chunk_handler(lambda data: 1)),
    "register a lambda as a condition": (ValueError, lambda: flow().register_condition_handler(lambda data: True)),
    "capture into an unknown scope": (ValueError, lambda: sub(capture={"weather": {"a": "value"}})),
    "capture of no mapping": (TypeError, lambda: sub(capture={"runtime_data": "value"})),
    "capture with a bad path": (ValueError, lambda: sub(capture={"input": {"a-b": "value"}})),
    "capture with conflicting paths": (
        ValueError,
        lambda: sub(capture={"input": {"a": "value", "a.b": "value"}}),
    ),
    "capture from what is not there": (KeyError, lambda: run_sub(capture={"input": "value.missing"})),
    "require_resource": (KeyError, lambda: run(flow(("r", lambda data: data.require_resource("db"))))),
    "a contract of no type": (TypeError, lambda: flow().set_contract(stream="text")),
    "an input against the contract": (ValueError, lambda: run(flow(named).set_contract(initial_input=int), "x")),
    "export a lambda": (ValueError, lambda: flow(lambda data: 1).get_flow_config()),
    "a config of no mapping": (TypeError, lambda: flow().load_flow_config([])),  # type: ignore[arg-type]
    "a config of another version": (ValueError, lambda: flow().load_flow_config(exported(version="trigger_flow/v9"))),
    "a handler nobody registered": (ValueError, lambda: flow().load_flow_config(exported())),
    "conflicting ids": (ValueError, add_conflicting),
    "an unknown diagram": (ValueError, lambda: flow(named).to_mermaid(mode="round")),
    # 2. execution
    "sync start without auto_close": (ValueError, lambda: flow(named).create_execution(auto_close=False).start()),
    "a hidden start without auto_close": (ValueError, lambda: flow(named).start(auto_close=False)),
    "an unknown close policy": (
        ValueError,
        lambda: run(flow(named), then=lambda e: e.async_close(pending_interrupts="x")),
    ),
    "close with open interrupts": (RuntimeError, lambda: run(flow(pausing), then=lambda e: e.async_close())),
    "what a chunk raises": (ZeroDivisionError, lambda: run(flow(("z", lambda data: 1 / 0)))),
    # 3. pause and resume
    "an unknown interrupt": (KeyError, lambda: run(flow(pausing), then=lambda e: e.async_continue_with("i", 1))),
    "an interrupt answered twice": (ValueError, lambda: run(flow(pausing), then=twice)),
    "a pause nobody could answer": (RuntimeError, lambda: flow(pausing).start()),
    "load nothing": (TypeError, lambda: flow(named).create_execution().load(None)),  # type: ignore[arg-type]
    "load no mapping": (TypeError, lambda: flow(named).create_execution().load([])),  # type: ignore[arg-type]
    "load malformed text": (ValueError, lambda: flow(named).create_execution().load("{")),
    # 4. interventions
    "interventions disabled": (RuntimeError, lambda: run(flow(named), then=lambda e: e.async_intervene(1))),
    "an intervention on a closed execution": (
        RuntimeError,
        lambda: run(
            flow(named), then=lambda e: closed_then(e, lambda e: e.async_intervene(1)), intervention_mode="auto"
        ),
    ),
    "metadata of no mapping": (TypeError, lambda: steered(lambda e: e.async_intervene(1, metadata=3))),
    "auto with explicit points": (
        ValueError,
        lambda: run(with_point(), intervention_mode="auto"),
    ),
    "an unknown mode": (ValueError, lambda: run(flow(named), intervention_mode="always")),
    "consumed by nobody": (ValueError, lambda: steered(lambda e: e.async_mark_intervention_consumed("i", consumer=""))),
    "consumed otherwise": (
        ValueError,
        lambda: steered(lambda e: e.async_mark_intervention_consumed("i", consumer="c", status="seen")),
    ),
    "an unknown intervention": (
        KeyError,
        lambda: steered(lambda e: e.async_mark_intervention_consumed("i", consumer="c")),
    ),
    # 5. events
    "an event without a type": (pydantic.ValidationError, lambda: EventCenter().emit({"message": "m"})),
    "an unknown level": (pydantic.ValidationError, lambda: ObservationEvent(event_type="a.b", level="LOUD")),  # type: ignore[arg-type]
    "an error that is emitted": (LookupError, lambda: EventCenter().create_emitter("s").error(LookupError("x"))),
    "a text that is emitted as an error": (RuntimeError, lambda: EventCenter().create_emitter("s").critical("x")),
    "a debug mode there is not": (ValueError, lambda: Agently.set_settings("debug", "loud")),
}


def with_point() -> TriggerFlow:
    made = flow(named)
    made.intervention_point(name="p")
    return made


def run_sub(**bindings: Any) -> Any:
    made = flow()
    made.to_sub_flow(flow(named), **bindings)
    return run(made, {})


def steered(then: Callable[[Any], Any]) -> Any:
    return run(flow(named), then=then, intervention_mode="auto")


@pytest.mark.parametrize("case", CASES)
def test_an_error_has_the_type_a_program_catches(case: str) -> None:
    """And says what is wrong."""
    wanted, act = CASES[case]
    with pytest.raises(wanted) as caught:
        act()

    assert str(caught.value)


def test_what_warns_instead_of_raising() -> None:
    """A signal, an answer, a stream item and a second start after the close: a RuntimeWarning each, and no error."""

    async def main() -> list[str]:
        execution = flow(pausing).create_execution(auto_close=False)
        await execution.async_start()
        (interrupt,) = execution.get_pending_interrupts()
        await execution.async_close(pending_interrupts="cancel")
        told = []
        for action in (
            lambda: execution.async_emit("Go"),
            lambda: execution.async_continue_with(interrupt, 1),
            lambda: execution.async_put_into_stream(1),
            lambda: execution.async_unseal(),
            lambda: execution.async_start(),
        ):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                await action()  # type: ignore[no-untyped-call]

            told.append(" ".join(sorted({w.category.__name__ for w in caught})))

        return told

    assert asyncio.run(main()) == ["RuntimeWarning"] * 5
    EventCenter().unregister_hook("nobody")
