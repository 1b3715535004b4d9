"""Tapes: what one run asked of the world and of people, what they said, and everything that happened.

A tape is a text file of JSON lines: a header, then the run's events as a journal holds them, without the writer's own
marks. Everything else is derived when it is loaded: :attr:`Tape.calls` (port calls with their results),
:attr:`Tape.answers` (interrupts with their answers), :attr:`Tape.events` (for assertions over history). So a tape can
be made from any stored run, and one file serves the levels ``recorded`` and ``history``.

A call is found by ``(scope, port, name, digest of the arguments)`` and, within that key, in the order of calls: global
order is never a key, so concurrent runs repeat. What was redacted, cut or could not be stored is *lossy*: it is kept,
and answering with it fails by name. Source: the evals reference, §3.5.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from flowdeck.errors import EvalError
from flowdeck.events.redaction import MASK
from flowdeck.execution.port_events import argument_digest
from flowdeck_evals.happenings import Happening

__all__ = ["TAPE_FORMAT", "Answer", "BadTape", "Call", "Tape", "digest_of", "loss_in", "places_of"]

TAPE_FORMAT: Final = 1
_HEADER: Final = "tape"
_PORT_EVENTS: Final = frozenset({"triggerflow.port_returned", "triggerflow.port_failed"})
_ANSWERS: Final = frozenset({"triggerflow.interrupt_answered", "triggerflow.execution_resumed"})
_ENDS: Final = {
    "triggerflow.execution_completed": "completed",
    "triggerflow.execution_failed": "failed",
    "triggerflow.execution_cancelled": "cancelled",
}
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


class BadTape(EvalError, ValueError):
    """A tape cannot be read; the message names the file, the line and the mend."""


class Call(NamedTuple):
    """One recorded port call."""

    position: int
    """Position of its event on the tape."""
    scope: str
    port: str
    name: str
    digest: str
    args: Any
    result: Any
    """Encoded as :func:`flowdeck.execution.values.encode` writes it."""
    failure: Mapping[str, Any] | None
    duration_us: int
    loss: str
    """Why its result cannot be used; empty: it can."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.scope, self.port, self.name, self.digest

    def __str__(self) -> str:
        return f"{self.port}.{self.name} at {self.scope or '(no scope)'}"


class Answer(NamedTuple):
    """One recorded interrupt and what became of it."""

    position: int
    scope: str
    kind: str
    interrupt_id: str
    payload: Any
    status: str
    """``answered``, ``expired`` or ``open``."""
    value: Any
    actor: str | None
    loss: str


def loss_in(value: Any) -> str:
    """Return why a recorded value is not what it was: redacted, moved to a blob, cut or named only. Empty: it is."""
    if value == MASK:
        return "redacted"

    if isinstance(value, Mapping):
        for mark, why in (("$blob", "kept as a blob"), ("$cut", "cut"), ("$repr", "not storable"), ("$opaque", "")):
            if mark in value and why:
                return why

        return next((why for part in value.values() if (why := loss_in(part))), "")

    if isinstance(value, list | tuple):
        return next((why for part in value if (why := loss_in(part))), "")

    return ""


def digest_of(port: str, name: str, args: list[Any], volatile: Iterable[str], key: str = "") -> str:
    """Return the digest of encoded arguments without their volatile parts.

    ``volatile`` are texts such as ``tool.search:0.request_id``: the call (a glob), a colon, a dotted path in its
    arguments.
    """
    from fnmatch import fnmatchcase

    dropped = [
        path for call, _, path in (each.partition(":") for each in volatile) if fnmatchcase(f"{port}.{name}", call)
    ]
    if dropped:
        args = _decode(_encode(args))
        for path in dropped:
            _drop(args, path.split("."))

    return argument_digest(args, "" if dropped else key)


def _drop(value: Any, path: list[str]) -> None:
    head, rest = path[0], path[1:]
    if isinstance(value, list):
        for index in range(len(value)) if head == "*" else [int(head)] if head.isdigit() else []:
            if index < len(value):
                if rest:
                    _drop(value[index], rest)
                else:
                    value[index] = None
    elif isinstance(value, dict):
        for key in list(value) if head == "*" else [head]:
            if rest:
                _drop(value.get(key), rest)
            else:
                value.pop(key, None)


@dataclass
class Tape:
    """One recorded run. ``lines`` are its events in order; the header says where they come from."""

    lines: list[dict[str, Any]]
    header: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    # -- the file ------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tape:
        """Read a tape.

        Raises:
            BadTape: it is missing, of a newer format, or no tape.
        """
        file = Path(path)
        try:
            rows = file.read_bytes().splitlines()
        except FileNotFoundError:
            raise BadTape(f"there is no tape {file}; record one: evals record") from None
        except OSError as problem:
            raise BadTape(f"tape {file} cannot be read: {problem.strerror}") from None

        lines: list[dict[str, Any]] = []
        for number, row in enumerate(rows, 1):
            if not row.strip():
                continue

            try:
                line = _decode(row)
            except msgspec.DecodeError as problem:
                raise BadTape(f"{file}:{number}: no JSON ({problem}); record the tape again") from None

            if not isinstance(line, dict):
                raise BadTape(f"{file}:{number}: expected an object; record the tape again")

            if lines and not _is_event(line):
                raise BadTape(f"{file}:{number}: no event of a journal; record the tape again")

            lines.append(line)

        if not lines or not isinstance(lines[0].get(_HEADER), int):
            raise BadTape(f"{file}:1: this is no tape: its first line has no 'tape' format number")

        header = lines.pop(0)
        if header[_HEADER] > TAPE_FORMAT:
            raise BadTape(f"{file}: format {header[_HEADER]} is newer than this version reads ({TAPE_FORMAT}); upgrade")

        return cls(lines, header, file)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the tape; an older one stays whole until the new one is complete.

        Raises:
            OSError: the file cannot be written.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            part.write_bytes(self.encoded)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

        self.path = file
        return file

    @property
    def encoded(self) -> bytes:
        """The file's bytes."""
        header = {_HEADER: TAPE_FORMAT, **{k: v for k, v in self.header.items() if k != _HEADER}}
        return b"\n".join(_encode(line) for line in (header, *self.lines)) + b"\n"

    @property
    def hash(self) -> str:
        """BLAKE2b of the file's bytes: goes into the case hash."""
        return hashlib.blake2b(self.encoded, digest_size=16).hexdigest()

    # -- what is on it -------------------------------------------------------------------------------------------

    @cached_property
    def events(self) -> list[Happening]:
        """What happened, in order."""
        return [Happening.of_line(line) for line in self.lines]

    @cached_property
    def calls(self) -> list[Call]:
        """The port calls, in the order they ended."""
        return [
            _call(i, line, self.volatile) for i, line in enumerate(self.lines) if line["event_type"] in _PORT_EVENTS
        ]

    @cached_property
    def answers(self) -> list[Answer]:
        """The interrupts the run itself opened (not their copies in outer executions), in the order they opened."""
        closed: dict[str, tuple[str, Any, str | None]] = {}
        for line in self.lines:
            payload = _payload(line)
            interrupt_id = payload.get("interrupt_id")
            if line["event_type"] in _ANSWERS and interrupt_id:
                closed[interrupt_id] = ("answered", payload.get("value"), payload.get("actor"))
            elif line["event_type"] == "triggerflow.interrupt_expired" and interrupt_id:
                closed.setdefault(interrupt_id, ("expired", None, None))

        places = places_of(self.lines)
        found = []
        for index, line in enumerate(self.lines):
            record = _payload(line).get("interrupt")
            if line["event_type"] != "triggerflow.interrupt_raised" or not isinstance(record, dict):
                continue

            if record.get("sub_flow_frame_id") or record.get("frame"):
                continue

            outer = record.get("projected_as") or record["id"]
            status, value, actor = closed.get(outer) or closed.get(record["id"]) or ("open", None, None)
            above = places.get((line.get("run") or {}).get("execution_id") or "", "")
            scope = f"{above}/{record.get('scope') or ''}" if above else record.get("scope") or ""
            found.append(
                Answer(
                    index, scope, str(record.get("type")), record["id"], record.get("payload"), status, value, actor,
                    loss_in(value),
                )
            )  # fmt: skip

        return found

    @property
    def volatile(self) -> tuple[str, ...]:
        """Which parts of arguments do not count; see :func:`digest_of`."""
        return tuple(self.header.get("volatile") or ())

    @property
    def lossy(self) -> list[str]:
        """What cannot be replayed from this tape, by name; empty: nothing is missing."""
        calls = [f"{call}: {call.loss}" for call in self.calls if call.loss]
        return calls + [f"answer to {each.kind} at {each.scope}: {each.loss}" for each in self.answers if each.loss]

    @property
    def outside(self) -> list[str]:
        """Interventions that came from outside while it was recorded; a replay does not repeat them."""
        return [
            str((_payload(line).get("intervention") or {}).get("id"))
            for line in self.lines
            if line["event_type"] == "triggerflow.intervention_received"
        ]

    @cached_property
    def root(self) -> Mapping[str, Any]:
        """The run of the outermost execution."""
        for line in self.lines:
            if line["event_type"] == "triggerflow.execution_started":
                return line.get("run") or {}

        return {}

    @property
    def input(self) -> Any:
        """What the run was started with, as JSON."""
        return next(
            (
                _payload(line).get("initial_value")
                for line in self.lines
                if line["event_type"] == "triggerflow.execution_started"
            ),
            None,
        )

    @property
    def status(self) -> str:
        """``completed``, ``failed``, ``cancelled``, or ``open``: it had not ended when it was recorded."""
        execution = self.root.get("execution_id")
        for line in reversed(self.lines):
            if line["event_type"] in _ENDS and (line.get("run") or {}).get("execution_id") == execution:
                return _ENDS[line["event_type"]]

        return "open"


def _is_event(line: Mapping[str, Any]) -> bool:
    return isinstance(line.get("event_type"), str) and all(
        isinstance(line.get(part), dict | None) for part in ("run", "meta", "error")
    )


def _payload(line: Mapping[str, Any]) -> dict[str, Any]:
    payload = line.get("payload")
    return payload if isinstance(payload, dict) else {}


def _call(index: int, line: Mapping[str, Any], volatile: tuple[str, ...]) -> Call:
    payload = _payload(line)
    scope, port, name = (str(payload.get(key, "")) for key in ("scope", "port", "name"))
    args = payload.get("args")
    failure = payload.get("failure")
    loss = loss_in(payload.get("result")) or (
        f"not storable: {payload['unrecorded']}" if "unrecorded" in payload else ""
    )
    if "result" not in payload and failure is None and not loss:
        loss = loss_in(payload) or "its result was not recorded"

    digest = str(payload.get("digest", ""))
    if volatile and isinstance(args, list):
        # The digest of the run counts every argument; it can be taken again only from arguments that are whole.
        fresh = digest_of(port, name, args, volatile)
        if fresh != argument_digest(args):
            digest = fresh
            loss = loss or (f"its arguments are {why}" if (why := loss_in(args)) else "")

    duration = (line.get("meta") or {}).get("duration_us") or 0
    return Call(index, scope, port, name, digest, args, payload.get("result"), failure, duration, loss)


def places_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the full place of every sub flow's execution, by its id: read from the port calls and steps above it."""
    scope_of_run: dict[str, tuple[str, str]] = {}
    parents: dict[str, str] = {}
    for line in lines:
        run, meta = line.get("run") or {}, line.get("meta") or {}
        if line["event_type"] == "chunk.started" and meta.get("scope"):
            scope_of_run[run.get("run_id", "")] = (run.get("execution_id") or "", meta["scope"])
        elif line["event_type"] == "triggerflow.execution_started" and run.get("parent_run_id"):
            parents[run.get("execution_id") or ""] = run["parent_run_id"]

    def place(execution: str, depth: int = 0) -> str:
        above = scope_of_run.get(parents.get(execution, ""))
        if above is None or depth > 64:
            return ""

        outer = place(above[0], depth + 1)
        return f"{outer}/{above[1]}" if outer else above[1]

    return {execution: place(execution) for execution in parents}
