"""The core of a durable execution: every input is written down before it is applied.

:class:`RecordedCore` is a :class:`Core` whose inputs first go to an :class:`~flowdeck.execution.input_log.InputLog`, as
arrays ``[code, child, seq, ...]``: what was called, in which core (0 is the execution's own, others are sub flows), the
sequence number before it, and the arguments with values encoded. The core is deterministic, so applying the same
records to a fresh core (:mod:`flowdeck.execution.replica`) gives the same state.

An input that another input calls inside the core is not written down: it follows from the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowdeck.execution.core import Core
from flowdeck.execution.state import CANCELLING, Interrupt, Task
from flowdeck.execution.values import encode

if TYPE_CHECKING:
    from flowdeck.execution.input_log import InputLog

__all__ = ["INPUTS", "READS", "RecordedCore", "digest_of", "lengthen", "shorten"]

READS: Final = frozenset(
    {
        "answers_by_emit",
        "check_rerun",
        "poison",
        "scope",
        "snapshot_data",
        "waiting",
        "open_group",
        "seal_group",
        "fire",
    }
)
"""Public methods of the core that change nothing, or are only called from inside inputs."""

_pack = msgspec.msgpack.Encoder().encode
_SCALARS: Final = frozenset({int, bool, type(None)})


def digest_of(encoded: Any) -> str:
    """Return 12 hex digits of an encoded value; two values of one tag that differ have different ones."""
    return hashlib.blake2b(_pack(encoded), digest_size=6).hexdigest()


def shorten(interrupt_id: str | None, home: str) -> str | None:
    """Leave out the execution's id in front of the ids it gives; half of a small record would be that."""
    if interrupt_id is None:
        return None

    if interrupt_id.startswith(home + "-"):
        return interrupt_id[len(home) :]

    return "=" + interrupt_id if interrupt_id[:1] in ("-", "=") else interrupt_id


def lengthen(short: str | None, home: str) -> str | None:
    """Undo :func:`shorten`."""
    if short is None:
        return None

    return home + short if short[:1] == "-" else short.removeprefix("=")


class RecordedCore(Core):
    """A core that writes its inputs down. Without a log it is a plain core."""

    log: InputLog | None = None
    child = 0
    """Its number in the log; 0 is the execution's own core."""
    _inside = False
    """An input is being applied, so what it calls follows from it."""

    def _note(self, code: str, *fields: Any) -> bool:
        """Write an input down. Returns ``False`` when it is none: nobody records, or another input caused it."""
        if self.log is None or self._inside:
            return False

        self.log.add([code, self.child, self.seq, *fields])
        self._inside = True
        return True

    def _apply(self, name: str, *args: Any, **options: Any) -> Any:
        try:
            return getattr(Core, name)(self, *args, **options)
        except BaseException:
            if self.log is not None:
                self.log.refused()

            raise
        finally:
            self._inside = False

    def _records(self, task: Task | None = None) -> bool:
        """Whether to write an input down. The end of a handler that was left behind is none: its task is over."""
        return self.log is not None and not self._inside and (task is None or self.tasks.get(task.rec) is task)

    def _where(self, task: Task) -> str:
        return f"value at {self.ops[task.op].key}"

    def _digest(self, task: Task, tag: str, value: Any) -> str:
        """Return the digest of an effect's value, and say so when an earlier attempt committed another one."""
        found = digest_of(value)
        known = task.tags.get("#" + tag) if task.tags is not None and tag in task.tags else None
        if known is not None and known != found and self.log is not None:
            self.log.diverged(self, task, tag)

        return found

    def _ledger_changed(self) -> None:
        super()._ledger_changed()
        if self.log is not None:
            self.log.steered(self)

    # -- signals -------------------------------------------------------------------------------------------------

    def signal(self, name: str, value: Any, source: str, kind: str = "event") -> int:
        if not (self._records() and self._note("S", name, encode(value, name), source, kind)):
            return super().signal(name, value, source, kind)

        return int(self._apply("signal", name, value, source, kind))

    def emit(self, task: Task, tag: str, name: str, value: Any, awaited: bool, kind: str = "event") -> int:
        if not self._records():
            return super().emit(task, tag, name, value, awaited, kind)

        encoded = encode(value, f"emit({name!r}) in {self.ops[task.op].key}")
        found = self._digest(task, tag, encoded)
        known = task.tags is not None and tag in task.tags
        self._note("e", task.rec, tag, name, None if known else encoded, awaited, kind, None if known else found)
        try:
            return int(self._apply("emit", task, tag, name, value, awaited, kind))
        finally:
            if not known and task.tags is not None and tag in task.tags:
                task.tags["#" + tag] = found

    # -- state ---------------------------------------------------------------------------------------------------

    def mark(self, task: Task, tag: str, value: Any = None) -> bool:
        if not self._records():
            return super().mark(task, tag, value)

        found = self._digest(task, tag, encode(value))
        if task.tags is not None and tag in task.tags:
            return False

        self._note("m", task.rec, tag, found)
        new = bool(self._apply("mark", task, tag))
        assert task.tags is not None
        task.tags["#" + tag] = found
        return new

    def set_state(self, key: str, value: Any) -> None:
        if not (self._records() and self._note("s", key, encode(value, key))):
            super().set_state(key, value)
            return

        self._apply("set_state", key, value)

    def append_state(self, key: str, value: Any) -> Any:
        if not (self._records() and self._note("a", key, encode(value, key))):
            return super().append_state(key, value)

        return self._apply("append_state", key, value)

    def remember(self, task: Task, tag: str, value: Any) -> None:
        if not (self._records() and self._note("t", task.rec, tag, encode(value, tag))):
            super().remember(task, tag, value)
            return

        self._apply("remember", task, tag, value)

    # -- the end of a task ---------------------------------------------------------------------------------------

    def done(self, task: Task, value: Any) -> Task | None:
        if not self._records(task):
            return super().done(task, value)

        encoded = self._encoded(task, value) if self.wants(task) else None
        self._note("D", task.rec, encoded, shorten(task.interrupt, self.execution_id))
        following: Task | None = self._apply("done", task, value)
        return following

    def _encoded(self, task: Task, value: Any) -> Any:
        if type(value) in _SCALARS:
            return value

        assert self.log is not None
        prepared, self.log.prepared = self.log.prepared, None
        if prepared is not None and prepared[0] is value:
            return prepared[1]

        return encode(value, self._where(task))

    def wants(self, task: Task) -> bool:
        """Whether anybody gets the value a handler returns; if not, any object may be returned."""
        return bool(self.ops[task.op].next) and task.interrupt is None and task.status != CANCELLING

    def materialised(self, task: Task, items: list[Any]) -> None:
        if not (self._records(task) and self._note("M", task.rec, encode(items, self._where(task)))):
            super().materialised(task, items)
            return

        self._apply("materialised", task, items)

    def retry(self, task: Task, due_us: int = 0) -> None:
        if not (self._records(task) and self._note("r", task.rec, due_us)):
            super().retry(task, due_us)
            return

        if self.log is not None:
            self.log.due[self.child, task.num] = due_us

        self._apply("retry", task, due_us)

    # -- interrupts ----------------------------------------------------------------------------------------------

    def pause(self, task: Task | None, tag: str, now_us: int, **options: Any) -> tuple[Interrupt, bool]:
        if not self._records():
            return super().pause(task, tag, now_us, **options)

        encoded = encode({key: value for key, value in options.items() if value is not None})
        found = ""
        if task is not None:
            found = self._digest(task, tag, encoded.get("payload"))
            if task.tags is not None and tag in task.tags:
                encoded = None

        self._note("p", task.rec if task is not None else 0, tag, now_us, encoded, found)
        opened: tuple[Interrupt, bool] = self._apply("pause", task, tag, now_us, **options)
        if task is not None and task.tags is not None and opened[1]:
            task.tags["#" + tag] = found

        return opened

    def ask_rerun(self, task: Task, tag: str, now_us: int, payload: Any, schema: Any) -> Interrupt:
        if not (self._records() and self._note("Q", task.rec, tag, now_us, encode(payload), schema)):
            return super().ask_rerun(task, tag, now_us, payload, schema)

        asked: Interrupt = self._apply("ask_rerun", task, tag, now_us, payload, schema)
        return asked

    def park(self, task: Task) -> None:
        if not (self._records(task) and self._note("k", task.rec, task.interrupt)):
            super().park(task)
            return

        self._apply("park", task)

    def answer(self, interrupt_id: str, value: Any, now_us: int, actor: str | None, status: str = "resumed") -> int:
        if not (self._records() and self._note("A", interrupt_id, encode(value), now_us, actor, status)):
            return super().answer(interrupt_id, value, now_us, actor, status)

        return int(self._apply("answer", interrupt_id, value, now_us, actor, status))

    def answered_by_emit(self, interrupt: Interrupt, value: Any, now_us: int) -> None:
        if not (self._records() and self._note("b", interrupt.id, encode(value), now_us)):
            super().answered_by_emit(interrupt, value, now_us)
            return

        self._apply("answered_by_emit", interrupt, value, now_us)

    def keep_early(self, interrupt_id: str, entry: list[Any]) -> None:
        if not (self._records() and self._note("y", interrupt_id, encode(entry))):
            super().keep_early(interrupt_id, entry)
            return

        self._apply("keep_early", interrupt_id, entry)

    def project(self, task: Task, frame: str, child: Interrupt) -> Interrupt:
        if not (self._records() and self._note("j", task.rec, frame, child.id)):
            return super().project(task, frame, child)

        root: Interrupt = self._apply("project", task, frame, child)
        return root

    def child_closed(self, root_id: str, child: Interrupt) -> int:
        if not (self._records() and self._note("h", root_id)):
            return super().child_closed(root_id, child)

        return int(self._apply("child_closed", root_id, child))


def _plain(name: str, code: str, kinds: str) -> Callable[..., Any]:
    """Make the recorded form of an input whose arguments need no encoding; ``t`` in ``kinds`` is a task."""

    def recorded(self: RecordedCore, *args: Any) -> Any:
        if not self._records(args[0] if kinds[:1] == "t" else None):
            return getattr(Core, name)(self, *args)

        # strict=False: the last arguments may have been left to their defaults
        fields = [_field(kind, value) for kind, value in zip(kinds, args, strict=False)]
        self._note(code, *fields)
        return self._apply(name, *args)

    recorded.__name__ = name
    recorded.__doc__ = getattr(Core, name).__doc__
    return recorded


def _field(kind: str, value: Any) -> Any:
    if kind == "t":
        return value.rec

    return list(value) if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str) else value


_PLAIN: Final = {
    "del_state": ("d", "p"),
    "routed": ("R", "tp"),
    "passed": ("P", "t"),
    "again": ("g", "t"),
    "failed": ("F", "tpp"),
    "stopped": ("x", "t"),
    "refuse": ("N", "pp"),
    "set_concurrency": ("c", "p"),
    "restart": ("V", ""),
    "expire": ("E", "pp"),
    "cancel_interrupt": ("C", "ppp"),
    "take_early": ("z", "p"),
    "cancel_group": ("X", "pp"),
    "cancel_all": ("Y", "p"),
    "lend": ("L", "tpp"),
}
for _name, (_code, _kinds) in _PLAIN.items():
    setattr(RecordedCore, _name, _plain(_name, _code, _kinds))

INPUTS: Final = frozenset(
    {
        *_PLAIN,
        "signal",
        "emit",
        "mark",
        "set_state",
        "append_state",
        "remember",
        "done",
        "materialised",
        "retry",
        "pause",
        "ask_rerun",
        "park",
        "answer",
        "answered_by_emit",
        "keep_early",
        "project",
        "child_closed",
    }
)
"""Every input a core understands. A test compares this list with the core's public methods."""
