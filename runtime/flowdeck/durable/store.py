"""The execution store: what is committed of an execution, who owns it, and what is asked of it.

One protocol, three implementations: :class:`~flowdeck.durable.memory.MemoryStore`,
:class:`~flowdeck.durable.sqlite.SqliteStore` and :class:`~flowdeck.durable.postgres.store.PostgresStore`. Executions
append (:class:`~flowdeck.execution.store.Commit`); hosts claim what nobody runs and read it back; other processes list,
ask and fork.

Ownership is fenced twice: every claim raises the *token* and every commit names the *seq* it continues. Whoever lost an
execution (killed, stopped, partitioned) cannot write to it any more, even on one machine.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, Protocol

import msgspec

from flowdeck.durable._rows import AnswerResult, ExecutionRow, InterruptRow
from flowdeck.execution.control import InboxRow
from flowdeck.execution.store import Commit, CommitStore, Done

__all__ = [
    "DURABILITIES",
    "Claim",
    "Commit",
    "CommitStore",
    "Done",
    "ExecutionStore",
    "Point",
    "Retention",
    "Stored",
    "Work",
]

DURABILITIES: Final = ("live", "exit", "process", "full")
"""``live``: registered only. ``exit``: committed when a run parks or ends. ``process``: every input, survives a killed
process. ``full``: every input, survives a power cut too."""


class Stored(msgspec.Struct):
    """What the store holds of an execution, up to some input."""

    execution_id: str
    seq: int
    """Inputs in it."""
    header: dict[str, Any]
    definition: str
    """Digest of the plan the state below belongs to."""
    plans: dict[str, bytes]
    """Skeletons by digest: its own and those of its sub flows."""
    snapshot: tuple[dict[str, Any], dict[str, Any]] | None
    """State and extras to begin with; ``None``: begin with the header."""
    batches: list[tuple[int, list[list[Any]]]]
    """``(time in us, inputs)`` of each commit after the snapshot."""
    resource_keys: list[str]
    forked_from: str | None = None
    forked_at: int | None = None


class Claim(Stored):
    """A :class:`Stored` execution that now belongs to whoever asked."""

    token: int = 0
    flow_name: str = ""


class Work(msgspec.Struct, frozen=True):
    """Something a host can take up."""

    execution_id: str
    flow_name: str
    entrypoint: str | None
    token: int
    why: str
    """``lost``: its process is gone. ``inbox``: somebody asked something. ``timer``: its time has come. ``released``:
    nobody owns it. ``blocked``: nobody could take it up so far."""


class Point(msgspec.Struct, frozen=True):
    """A committed point of an execution; it can be forked from any."""

    seq: int
    """Inputs up to here."""
    time_us: int
    codes: str
    """The kinds of its inputs, one letter each; see :mod:`flowdeck.execution.recording`."""


class Retention(msgspec.Struct, frozen=True):
    """How long finished executions stay. Open ones always stay."""

    days: float | None = 30.0
    """Days after the end; ``None``: for ever."""
    keep: int | None = None
    """The newest so many stay in any case; older ones go at once. ``None``: no limit by number."""


class ExecutionStore(CommitStore, Protocol):
    """What hosts and other processes need beside :class:`~flowdeck.execution.store.CommitStore`. Thread-safe; every
    method may block for the store's own transaction and raises ``StoreError`` when the store cannot be used."""

    @property
    def owner(self) -> str:
        """Under which name this process holds executions."""

    def flush(self, timeout: float) -> bool:
        """Wait until everything submitted is committed; tell whether it is."""

    # -- ownership -----------------------------------------------------------------------------------------------

    def claim(self, execution_id: str, *, token: int | None = None, force: bool = False) -> Claim:
        """Take an execution over. Its former owner is fenced out from this moment on.

        Args:
            token: only if this is still its token: of several hosts that saw the same work, one wins.
            force: also when another living process holds it.

        Raises:
            ExecutionNotFound: the store has none of that id.
            ExecutionBusy: another process holds it, or the token has changed.
            ExecutionError: it is finished.
        """

    def release(self, execution_id: str, token: int, *, blocked: str | None = None) -> bool:
        """Give an execution up, so that any host may take it; with ``blocked`` nobody tries again by itself.

        Returns ``False`` when the token is an old one.
        """

    def heartbeat(self, seconds: float) -> None:
        """Say that this process lives; after ``seconds`` without another beat its executions may be taken over."""

    def work(self, flows: Collection[str], *, blocked: bool = False, limit: int = 100) -> list[Work]:
        """Return executions of these flows that nobody runs and that have something to do, or that lost their owner.

        ``blocked``: those that could not be taken up, too.
        """

    def next_wake_us(self, flows: Collection[str]) -> int | None:
        """Return when the next parked execution of these flows has something to do by itself, or an earlier moment."""

    # -- reading -------------------------------------------------------------------------------------------------

    def load(self, execution_id: str, at: int | None = None) -> Stored:
        """Return an execution as it was after ``at`` inputs, by default the last committed ones.

        Raises:
            ExecutionNotFound: the store has none of that id.
            ValueError: ``at`` is no committed point.
        """

    def history(self, execution_id: str) -> list[Point]:
        """Return the committed points, oldest first."""

    def get_execution(self, execution_id: str) -> ExecutionRow | None: ...

    def list_executions(self, *, open_only: bool = False, limit: int = 100) -> list[ExecutionRow]: ...

    def list_interrupts(self, *, open_only: bool = True, limit: int = 1_000) -> list[InterruptRow]: ...

    # -- asking --------------------------------------------------------------------------------------------------

    def put_inbox(
        self,
        kind: str,
        execution_id: str,
        target: str | None,
        payload: Any,
        actor: str | None,
        dedup_key: str | None = None,
    ) -> AnswerResult:
        """Ask something of an execution; see :class:`flowdeck.durable.ControlClient`."""

    def read_inbox(self, execution_id: str) -> list[InboxRow]:
        """Return the rows nobody has applied yet, early ones included, in the order they came."""

    def fork(self, execution_id: str, at: int | None = None, *, new_id: str | None = None, actor: str | None) -> str:
        """Make a new execution that goes on from a committed point of another, and return its id.

        It remembers where it came from, is owned by nobody, and a host takes it up. Interrupts keep their ids.

        Raises:
            ExecutionNotFound, ValueError: as for :meth:`load`.
            ExecutionExists: ``new_id`` is taken.
            ExecutionError: a sub flow is under way at that point.
        """

    def prune(self, retention: Retention, *, now_us: int | None = None) -> int:
        """Forget finished executions that are older than the policy wants. Returns how many."""

    def close(self, timeout: float) -> None:
        """Commit what is left and let go of the executions of this process."""
