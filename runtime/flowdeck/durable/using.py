"""``runtime.use_store(...)``: from now on the executions of a runtime are durable, with no change to a flow."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from flowdeck.durable._hosted import HostedStore
from flowdeck.durable.control import open_control
from flowdeck.durable.host import LEASE_SECONDS, Host
from flowdeck.durable.postgres.address import address_of
from flowdeck.durable.sqlite import SqliteStore
from flowdeck.durable.store import DURABILITIES, ExecutionStore, Retention
from flowdeck.execution.services import Services
from flowdeck.layout import Layout, StorePermission, WriterLock, resolve_store

__all__ = ["DurableStore", "open_durable", "open_store"]


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
    def path(self) -> Any:
        """The ``state.db``, the URL's parts, or ``None`` when the store is in memory."""
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
        self._forks = _forks

    def __call__(self) -> str:
        if self._forks != _forks:
            self._lock, self._forks = WriterLock(self._layout), _forks

        return self._lock.writer

    def release(self) -> None:
        self._lock.release()


_forks = 0
"""How many forks lie between this process and the first; asking for the process's id every time would cost more."""


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


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
        store: a directory, ``None`` for ``FLOWDECK_STORE`` or ``./.flowdeck``, the URL of a PostgreSQL store, or an
            execution store. With ``FLOWDECK_EXECUTIONS`` a directory means the PostgreSQL store that it names.
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

    address = address_of(store)
    layout = Layout.create(resolve_store(store)) if address is None else _own_layout()
    identity = _Identity(layout)
    opened: HostedStore
    try:
        if address is None:
            opened = SqliteStore(open_control(layout.root, identity), durability)
        else:
            from flowdeck.durable.postgres.store import open_postgres

            opened = open_postgres(
                address, identity, durability, lock=lambda: str(layout.lock_path(identity())), lease=lease
            )

        if retention is not None:
            opened.prune(retention)
    except BaseException:
        identity.release()
        raise

    host = Host(opened, services, lease=lease)
    services.store = opened
    return DurableStore(services, opened, host, identity)


def open_store(store: Any = None) -> HostedStore:
    """Open an execution store to look, fork and prune; nothing runs in it.

    Args:
        store: a directory, or the URL of a PostgreSQL store.

    Raises:
        StoreError: the store cannot be used.
    """
    address = address_of(store)
    if address is None:
        return SqliteStore(open_control(resolve_store(store), ""), "process")

    from flowdeck.durable.postgres.store import open_postgres

    return open_postgres(address, "", "process")


def _own_layout() -> Layout:
    """Return where processes of this user that keep no store directory of their own hold their locks.

    Raises:
        StorePermission: somebody else has made that folder.
    """
    root = Path(tempfile.gettempdir()) / f"flowdeck-{os.getuid()}"
    layout = Layout(root)
    layout.writers.mkdir(0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid() or root.is_symlink():
        raise StorePermission(f"{root} belongs to somebody else; set TMPDIR to a directory of your own")

    root.chmod(0o700)
    return layout
