"""``runtime.use_store(...)``: from now on the executions of a runtime are durable, with no change to a flow."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

from flowdeck.durable.control import open_control
from flowdeck.durable.host import LEASE_SECONDS, Host
from flowdeck.durable.sqlite import SqliteStore
from flowdeck.durable.store import DURABILITIES, ExecutionStore, Retention
from flowdeck.execution.services import Services
from flowdeck.layout import Layout, WriterLock, resolve_store

__all__ = ["DurableStore", "open_durable"]


class DurableStore:
    """An execution store in use. Made by :meth:`flowdeck.Runtime.use_store`; closing lets go of its executions."""

    def __init__(self, services: Services, store: ExecutionStore, host: Host | None, lock: _Identity | None) -> None:
        self.store = store
        self.host = host
        """Takes parked executions up again; ``None`` for a store in memory."""
        self._services = services
        self._lock = lock
        self._closed = False

    @property
    def path(self) -> Path | None:
        """The ``state.db``, or ``None`` when the store is in memory."""
        return getattr(self.store, "path", None)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything that was submitted is committed; tell whether it is."""
        return self.store.flush(timeout)

    def prune(self, retention: Retention | None = None) -> int:
        """Forget finished executions that are older than the policy wants. Returns how many."""
        return self.store.prune(retention or Retention())

    def close(self, timeout: float = 5.0) -> None:
        """Commit what is left and let go: what is open can be taken up by another process. Closing twice does
        nothing."""
        if self._closed:
            return

        self._closed = True
        if self._services.store is self.store:
            self._services.store = None

        (self.host or self.store).close(timeout)
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> DurableStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Identity:
    """The writer id of this process, and its lock; a forked child gets its own."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = WriterLock(layout)
        self._pid = os.getpid()

    def __call__(self) -> str:
        if self._pid != os.getpid():
            self._lock, self._pid = WriterLock(self._layout), os.getpid()

        return self._lock.writer

    def release(self) -> None:
        self._lock.release()


def open_durable(
    services: Services,
    store: Any = None,
    *,
    durability: str = "full",
    retention: Retention | None = None,
    lease: float = LEASE_SECONDS,
) -> DurableStore:
    """Make the executions that ``services`` host durable.

    Args:
        store: a directory, ``None`` for ``FLOWDECK_STORE`` or ``./.flowdeck``, or an execution store.
        durability: ``exit``, ``process`` or ``full``.
        retention: forget finished executions by this policy, now; a worker does it again from time to time.
        lease: seconds without a beat after which this process counts as stuck.

    Raises:
        StoreError: the store cannot be used.
        ValueError: an unknown durability.
    """
    if hasattr(store, "submit"):
        services.store = store
        return DurableStore(services, store, None, None)

    if durability not in DURABILITIES[1:]:
        raise ValueError(
            f"durability={durability!r}: expected {', '.join(map(repr, DURABILITIES[1:]))}; "
            "without use_store() executions are live"
        )

    layout = Layout.create(resolve_store(store))
    identity = _Identity(layout)
    try:
        sqlite = SqliteStore(open_control(layout.root, identity), durability)
        if retention is not None:
            sqlite.prune(retention)
    except BaseException:
        identity.release()
        raise

    host = Host(sqlite, services, lease=lease)
    services.store = sqlite
    return DurableStore(services, sqlite, host, identity)
