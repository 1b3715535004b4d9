"""Ports that answer from a tape.

A call is looked up by scope, port, name and argument digest, and within that key in the order of calls. A call the tape
does not have is a *miss*, and its cause is named: ``changed`` (other arguments at the same place; with the nearest
entry and a field diff), ``exhausted`` (recorded 1, called 2), ``unknown`` (nothing of the kind at that place),
``lossy`` (recorded, but its result was redacted, cut or not storable) and, at the end, ``unused``. Each names the
line of the flow that called. Recorded exceptions are raised again; a call that was cancelled waits until it is.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from inspect import isawaitable
from random import Random
from typing import Any, Final

from flowdeck.execution.port_events import encode_arguments
from flowdeck.execution.ports import Clock, PortCall, Ports, SystemClock
from flowdeck.execution.values import decode
from flowdeck_evals.pinpoint import caller, field_diff
from flowdeck_evals.rounds import Finding
from flowdeck_evals.steering import Interventions
from flowdeck_evals.tapes import Call, Tape, digest_of
from flowdeck_evals.virtual_time import JumpingClock

__all__ = ["TapeMiss", "TapePorts", "named_error"]

_CANCELLED: Final = frozenset({"asyncio.exceptions.CancelledError", "asyncio.CancelledError"})
_FINDINGS: Final = 20
"""Divergences kept of one round; what follows the first is mostly its consequence."""
_CLASSES: Final = frozenset({"dataclass", "pydantic"})


class TapeMiss(Exception):
    """A flow asked for something its tape does not hold. ``cause``: changed, exhausted, unknown, lossy or unusable."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class RecordedError(Exception):
    """Stands for a recorded exception whose class this process does not know; the message names it."""


class TapePorts(Ports):
    """Answers the port calls of one run from ``tape``; one object serves one round.

    Args:
        stub: by port (or glob): ``tape`` (the default), ``live``, or the value every call of it returns.
            ``clock: tape | virtual | live`` is what ``data.now()`` says; ``random``: a seed.
        mutate: faults: ``{call: glob, nth: 1, raise: TimeoutError}`` or ``{call:, return: value}``.
        key: the key of argument digests; the tape must have been recorded with the same.
        live_from: a position on the tape from which on the world answers (a fork).
        otherwise: what a port does that ``stub`` does not name.
        clock: the run's own; a jumping one stands still while a call is out in the world.
        interventions: looked at before every call.
        go_live: called when a fork first asks the world.
        beyond: answers what a fork does not; by default the world.
    """

    def __init__(
        self,
        tape: Tape,
        *,
        stub: Mapping[str, Any] | None = None,
        mutate: Sequence[Mapping[str, Any]] = (),
        key: str = "",
        live_from: int | None = None,
        otherwise: str = "tape",
        clock: Clock | None = None,
        interventions: Interventions | None = None,
        go_live: Callable[[], None] = lambda: None,
        beyond: Ports | None = None,
    ) -> None:
        self._beyond = beyond
        self._interventions = interventions
        self._go_live = go_live
        self._stub = dict(stub or {})
        self._mutate = [(rule, [0]) for rule in mutate]
        self._key = key
        self._otherwise = otherwise
        self._clock = clock
        self._volatile = tape.volatile
        self._cut = live_from
        self._entries: defaultdict[tuple[str, str, str, str], deque[Call]] = defaultdict(deque)
        self._recorded: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
        self._places: defaultdict[tuple[str, str, str], list[Call]] = defaultdict(list)
        self._used: set[int] = set()
        self._calls = [call for call in tape.calls if live_from is None or call.position < live_from]
        for call in self._calls:
            self._entries[call.key].append(call)
            self._recorded[call.key] += 1
            self._places[call.scope, call.port, call.name].append(call)

        self.misses: list[tuple[str, Finding]] = []
        """``(cause, finding)`` of every miss, in the order they happened."""
        self.live_calls = 0
        """How many calls went out to the world."""

    # -- the four ports ------------------------------------------------------------------------------------------

    async def call(self, call: PortCall, fn: Callable[..., Awaitable[Any] | Any]) -> Any:
        override = await self._interventions.barrier(call) if self._interventions is not None else None
        if override is not None:
            if override.action == "fail_call":
                raise named_error(str(override.given))

            return override.given

        mutation = self._mutation(call)
        if mutation is not None:
            if "raise" in mutation:
                raise named_error(str(mutation["raise"]))

            if "return" in mutation:
                return mutation["return"]

            if "delay" in mutation:
                await self._late(mutation["delay"])
            else:
                return of_another_type(await self._answer(call, fn))

        return await self._answer(call, fn)

    async def _answer(self, call: PortCall, fn: Callable[..., Awaitable[Any] | Any]) -> Any:
        mode = self._mode(call.port)
        if mode == "live":
            return await self._live(call, fn)

        if mode != "tape":
            return mode[0]

        entry = self._take(call)
        if entry is None:
            return await (self._live(call, fn) if self._beyond is None else self._beyond.call(call, fn))

        await self._fail(entry)
        return self._decoded(entry)

    async def stream(self, call: PortCall, fn: Callable[..., AsyncIterator[Any]]) -> AsyncIterator[Any]:
        override = await self._interventions.barrier(call) if self._interventions is not None else None
        mutation = self._mutation(call) if override is None else None
        mode = self._mode(call.port)
        if override is not None:
            if override.action == "fail_call":
                raise named_error(str(override.given))

            mode = [override.given]
        elif mutation is not None:
            if "raise" in mutation:
                raise named_error(str(mutation["raise"]))

            if "return" in mutation:
                mode = [mutation["return"]]
            elif "delay" in mutation:
                await self._late(mutation["delay"])
            else:
                mode = [17]  # no stream at all would be another fault: chunks of a type nobody sends

        entry = self._take(call) if mode == "tape" else None
        if entry is not None:
            for chunk in self._decoded(entry) or ():
                yield chunk

            await self._fail(entry)
        elif mode == "tape" and self._beyond is not None:
            async for chunk in self._beyond.stream(call, fn):
                yield chunk
        elif mode in ("tape", "live"):
            self.live_calls += 1
            with self._clock.busy() if isinstance(self._clock, JumpingClock) else nullcontext():
                async for chunk in fn(*call.args):
                    yield chunk
        else:
            for chunk in mode[0]:
                yield chunk

    async def _fail(self, entry: Call) -> None:
        """Raise what the recorded call raised, if it did."""
        if entry.failure is not None:
            if entry.failure.get("type") in _CANCELLED:
                await asyncio.get_running_loop().create_future()  # whoever cancelled it then does so now

            raise _recorded_error(entry.failure)

    def now_us(self, call: PortCall, clock: Clock) -> int:
        mode = self._stub.get("clock", self._otherwise)
        if mode != "tape":
            return clock.time_us()

        entry = self._take(call)
        if entry is not None:
            return int(self._decoded(entry))

        if self._beyond is not None:
            return self._beyond.now_us(call, clock)

        return SystemClock().time_us()  # a fork that has left its tape lives today, whatever its timers count from

    def seed(self, call: PortCall) -> int:
        mode = self._stub.get("random", self._otherwise)
        if isinstance(mode, int) and not isinstance(mode, bool):
            return Random(f"{mode}/{call.scope}/{call.ordinal}").getrandbits(64)

        entry = self._take(call) if mode == "tape" else None
        if entry is not None:
            return int(self._decoded(entry))

        return super().seed(call) if self._beyond is None else self._beyond.seed(call)

    def new_id(self, call: PortCall) -> str:
        entry = self._take(call) if self._stub.get("id", self._otherwise) == "tape" else None
        if entry is not None:
            return str(self._decoded(entry))

        return super().new_id(call) if self._beyond is None else self._beyond.new_id(call)

    # -- looking up ----------------------------------------------------------------------------------------------

    def _mode(self, port: str) -> Any:
        """Return ``"tape"``, ``"live"``, or a list of the one value it returns."""
        found: Any = self._stub.get(port, _NONE)
        if found is _NONE:
            found = next((mode for glob, mode in self._stub.items() if fnmatchcase(port, glob)), self._otherwise)

        return found if found in ("tape", "live") else [found]

    def _take(self, call: PortCall) -> Call | None:
        """Return the entry that answers ``call``; ``None`` when the world shall.

        Raises:
            TapeMiss: the tape does not have it.
        """
        args = encode_arguments(call.args)
        digest = digest_of(call.port, call.name, args, self._volatile, self._key)
        key = (call.scope, call.port, call.name, digest)
        waiting = self._entries.get(key)
        if waiting:
            entry = waiting.popleft()
            self._used.add(entry.position)
            if entry.loss:
                raise self._miss(
                    "lossy",
                    call,
                    f"its result is lossy ({entry.loss}); record it again or stub {call.port!r}",
                    entry,
                )

            return entry

        place = self._places.get(key[:3], [])
        unused = [entry for entry in place if entry.position not in self._used]
        if self._cut is not None and not unused:
            self._go_live()
            return None

        if self._recorded.get(key):
            recorded = self._recorded[key]
            said = f"recorded {recorded}, called {recorded + 1}"
            raise self._miss("exhausted", call, f"the tape has no further answer: {said}", place[-1])

        if unused or place:
            nearest = max(unused or place, key=lambda entry: _likeness(entry.args, args))
            changes = "; ".join(field_diff(nearest.args, args)[:5]) or "arguments that show no difference"
            raise self._miss("changed", call, f"it is called with other arguments: {changes}", nearest, args)

        near = max(self._calls, key=lambda entry: _same_name(entry, call), default=None)
        hint = f"; the nearest is {near}" if near is not None and _same_name(near, call) > 0.6 else ""
        raise self._miss("unknown", call, f"the tape has no such call at this place{hint}", None, args)

    def _miss(self, cause: str, call: PortCall, why: str, entry: Call | None, args: Any = None) -> TapeMiss:
        source = caller()
        message = f"{call.port}.{call.name} at {call.scope or '(no scope; in a chunk, hand data=data on)'}: {why}"
        finding = Finding(
            "missing" if cause == "lossy" else "divergence",
            f"{cause}: {message}",
            scope=call.scope,
            recorded=None if entry is None else entry.args,
            actual=args,
            source=source,
            detail={"cause": cause, "port": call.port, "name": call.name},
        )
        if len(self.misses) < _FINDINGS:
            self.misses.append((cause, finding))

        return TapeMiss(cause, f"{cause}: {message}{f' ({source})' if source else ''}")

    def share_faults(self, other: TapePorts) -> None:
        """Count the faults of ``mutate`` on from where another attempt of the same round is."""
        self._mutate = other._mutate

    @property
    def unused(self) -> list[Call]:
        """What was recorded and never asked for."""
        return [
            entry
            for entry in self._calls
            if entry.position not in self._used
            and self._mode(entry.port) == "tape"
            and not (entry.port == "clock" and self._stub.get("clock") in ("virtual", "live"))
        ]

    # -- answering -----------------------------------------------------------------------------------------------

    async def _live(self, call: PortCall, fn: Callable[..., Awaitable[Any] | Any]) -> Any:
        self.live_calls += 1
        with self._clock.busy() if isinstance(self._clock, JumpingClock) else nullcontext():
            result = fn(*call.args)
            return await result if isawaitable(result) else result

    async def _late(self, seconds: float) -> None:
        await (asyncio.sleep(seconds) if self._clock is None else self._clock.sleep(seconds))

    def _mutation(self, call: PortCall) -> Mapping[str, Any] | None:
        found = None
        for rule, count in self._mutate:
            if fnmatchcase(f"{call.port}.{call.name}", str(rule["call"])):
                count[0] += 1
                if found is None and rule.get("nth", count[0]) == count[0]:
                    found = rule

        return found

    def _decoded(self, entry: Call) -> Any:
        unknown = _unknown_class(entry.result)
        if unknown:
            raise TapeMiss("unusable", f"{entry}: its result is a {unknown}, which the flow has not imported")

        return decode(entry.result)


_NONE: Final = object()


def _unknown_class(value: Any) -> str:
    """Return a class the result needs that nobody here has imported. Nothing is imported on a tape's word."""
    if isinstance(value, Mapping):
        body = value.get("v")
        if value.get("$type") in _CLASSES and isinstance(body, list) and body:
            module = str(body[0]).partition(":")[0]
            if module not in sys.modules and module.rpartition(".")[0] not in sys.modules:
                return str(body[0])

        return next((name for part in value.values() if (name := _unknown_class(part))), "")

    return next((name for part in value if (name := _unknown_class(part))), "") if isinstance(value, list) else ""


def _recorded_error(failure: Mapping[str, Any]) -> BaseException:
    """Return the recorded exception: of its own class when that is known here, built from its own arguments."""
    name, message = str(failure.get("type")), str(failure.get("message", ""))
    kind = _known_exception(name)
    if kind is None:
        return RecordedError(f"{name}: {message}")

    try:
        args = decode(failure["args"]) if "args" in failure else [message]
        error = kind(*args)
        if str(error) == message:
            return error
    except Exception:
        pass  # its constructor wants something else than its `args`

    try:
        error = kind.__new__(kind)
        error.args = (message,)
        return error
    except Exception:
        return RecordedError(f"{name}: {message}")


def _known_exception(name: str) -> type[BaseException] | None:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:cut]))
        if found is not None:
            for part in parts[cut:]:
                found = getattr(found, part, None)

            return found if isinstance(found, type) and issubclass(found, Exception) else None

    return None


def named_error(text: str) -> BaseException:
    """Return the exception a mutation names: ``TimeoutError`` or ``httpx.ConnectError: no route``."""
    name, _, message = text.partition(":")
    full = name.strip() if "." in name else f"builtins.{name.strip()}"
    kind = _known_exception(full)
    said = message.strip() or "put in by mutate"
    return (
        RecordedError(f"{name.strip()}: {said}") if kind is None else _recorded_error({"type": full, "message": said})
    )


def of_another_type(value: Any) -> Any:
    """Return something that a caller does not expect instead of ``value``: a number for text, text for the rest."""
    return 17 if isinstance(value, str) else "17"


def _likeness(one: Any, other: Any) -> float:
    return SequenceMatcher(None, repr(one)[:500], repr(other)[:500]).quick_ratio()


def _same_name(entry: Call, call: PortCall) -> float:
    return SequenceMatcher(
        None, f"{entry.port}.{entry.name}@{entry.scope}", f"{call.port}.{call.name}@{call.scope}"
    ).ratio()
