"""What a store that hosts executions of a process does whatever database it writes to: SQLite's or PostgreSQL's."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any

from flowdeck.durable._rows import AnswerResult, ExecutionRow, InterruptRow
from flowdeck.durable._values import decode
from flowdeck.durable.client import ControlClient
from flowdeck.durable.control import StateControl
from flowdeck.durable.store import DURABILITIES, Claim, Commit, Done, Point, Retention, Stored, Work
from flowdeck.execution.control import InboxRow
from flowdeck.execution.mailbox import mailbox

__all__ = ["HostedStore", "inbox_row"]


class HostedStore(ABC):
    """An :class:`~flowdeck.durable.store.ExecutionStore` whose commits go through a control plane's writer thread.

    Args:
        control: the control plane of this process; its thread writes.
        durability: ``exit``, ``process`` or ``full``; see :data:`~flowdeck.durable.store.DURABILITIES`.

    Raises:
        ValueError: an unknown durability, or ``live``, which needs no store.
    """

    def __init__(self, control: StateControl, durability: str = "full") -> None:
        if durability not in DURABILITIES[1:]:
            raise ValueError(f"durability={durability!r}: expected {', '.join(map(repr, DURABILITIES[1:]))}")

        self.control = control
        self.durability = durability
        self.on_host: Callable[[Any], None] | None = None
        """Told of every execution of this process that becomes durable."""
        self.on_open: Callable[[Any], Any] | None = None
        """Returns what the inbox shall deliver to in place of an execution that is being registered."""
        self.on_reopen: Callable[[Any, str], Any] | None = None
        """Brings an execution back that was started before; awaitable."""
        self.on_rest: Callable[[Any, int | None], None] | None = None
        """Told when an execution comes to rest (with its wake-up time), and when it stirs again (``-1``)."""
        control.make_durable(durability)

    @property
    def owner(self) -> str:
        """Under which writer id this process holds executions."""
        return self.control.writer

    @property
    def gated(self) -> bool:
        """Whether handlers wait for commits."""
        return self.durability != "exit"

    # -- committing ----------------------------------------------------------------------------------------------

    def submit(self, commit: Commit, done: Done) -> None:
        if self.on_open is not None:
            for place, (name, arguments) in enumerate(commit.changes):
                if name == "opened":
                    changes = list(commit.changes)
                    changes[place] = (name, (self.on_open(arguments[0]), arguments[1]))
                    commit.changes = tuple(changes)

        self.control.submit(commit, done)

    def hosts(self, execution: Any) -> None:
        if self.on_host is not None:
            self.on_host(execution)

    def rests(self, execution: Any, wake_us: int | None) -> None:
        """An execution has come to rest, and that is committed; with ``-1`` it stirs again."""
        if self.on_rest is not None:
            self.on_rest(execution, wake_us)

    async def reopen(self, flow: Any, execution_id: str) -> Any:
        """Return the handle of an execution that is there already, or ``None``; see :meth:`Host.reopen`."""
        return None if self.on_reopen is None else await self.on_reopen(flow, execution_id)

    def flush(self, timeout: float) -> bool:
        return self.control.flush(timeout)

    @abstractmethod
    def close(self, timeout: float) -> None: ...

    # -- ownership -----------------------------------------------------------------------------------------------

    def claim(self, execution_id: str, *, token: int | None = None, force: bool = False) -> Claim:
        heard = threading.Event()
        said: list[Any] = []

        def told(answer: Any, error: BaseException | None) -> None:
            said.extend((answer, error))
            heard.set()

        self.control.ask(lambda connection: self._claimed(connection, execution_id, token, force), told)
        heard.wait()
        if said[1] is not None:
            raise said[1]

        claim: Claim = said[0]
        return claim

    async def claim_soon(self, execution_id: str, *, token: int | None = None, force: bool = False) -> Claim:
        """The same as :meth:`claim` for a running loop: claimed together with what else is committed just then."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Claim] = loop.create_future()

        def told(answer: Any, error: BaseException | None) -> None:
            mailbox(loop).post(_settle, future, answer, error)

        self.control.ask(lambda connection: self._claimed(connection, execution_id, token, force), told)
        return await future

    @abstractmethod
    def _claimed(self, connection: Any, execution_id: str, token: int | None, force: bool) -> Claim:
        """Take the execution over inside the writer's transaction, and return it: from then on nobody else changes
        it."""

    @abstractmethod
    def release(self, execution_id: str, token: int, *, blocked: str | None = None) -> bool: ...

    @abstractmethod
    def heartbeat(self, seconds: float) -> None: ...

    @abstractmethod
    def tokens(self, execution_ids: Collection[str]) -> dict[str, int]:
        """Return the present tokens of those the store knows: a higher one than one's own means it is taken over."""

    @abstractmethod
    def work(self, flows: Collection[str], *, blocked: bool = False, limit: int = 100) -> list[Work]: ...

    @abstractmethod
    def starts(self, names: Collection[str]) -> list[InboxRow]:
        """Return requests to start an execution of these flows (names or entrypoints)."""

    @abstractmethod
    def undelivered(self) -> bool:
        """Whether requests to executions of this process wait to be applied."""

    @abstractmethod
    def wait_change(self, timeout: float, stop: threading.Event) -> bool:
        """Sleep until somebody else has written, at most ``timeout`` seconds; tell whether somebody has."""

    def next_wake_us(self, flows: Collection[str]) -> int | None:
        return self._wake_after(0)

    @abstractmethod
    def _wake_after(self, after_us: int) -> int | None:
        """Return when, after that moment, the next parked execution of any flow has something to do by itself.

        What was due at that moment is nothing to wake for: :meth:`work` has named it, or it is for somebody else.
        """

    # -- reading and asking --------------------------------------------------------------------------------------

    @abstractmethod
    def load(self, execution_id: str, at: int | None = None) -> Stored: ...

    @abstractmethod
    def history(self, execution_id: str) -> list[Point]: ...

    @property
    @abstractmethod
    def client(self) -> ControlClient:
        """The lists and the inbox."""

    def get_execution(self, execution_id: str) -> ExecutionRow | None:
        return self.client.get_execution(execution_id)

    def list_executions(self, *, open_only: bool = False, limit: int = 100) -> list[ExecutionRow]:
        return self.client.list_executions(open_only=open_only, limit=limit)

    def list_interrupts(self, *, open_only: bool = True, limit: int = 1_000) -> list[InterruptRow]:
        return self.client.list_interrupts(open_only=open_only, limit=limit)

    def put_inbox(
        self,
        kind: str,
        execution_id: str,
        target: str | None,
        payload: Any,
        actor: str | None,
        dedup_key: str | None = None,
    ) -> AnswerResult:
        return self.client.put_inbox(kind, execution_id, target, payload, actor, dedup_key)

    @abstractmethod
    def read_inbox(self, execution_id: str) -> list[InboxRow]: ...

    @abstractmethod
    def fork(
        self, execution_id: str, at: int | None = None, *, new_id: str | None = None, actor: str | None
    ) -> str: ...

    @abstractmethod
    def prune(self, retention: Retention, *, now_us: int | None = None) -> int: ...


def _settle(future: asyncio.Future[Any], answer: Any, error: BaseException | None) -> None:
    if future.done():
        return

    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)


def inbox_row(row: tuple[Any, ...]) -> InboxRow:
    """Return a row of the inbox, its payload as JSON text, as an execution takes it."""
    return InboxRow(row[0], row[1], row[2], row[3], decode(row[4]), row[5], row[6], row[7])
