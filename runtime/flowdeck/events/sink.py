"""What a sink is: five things every receiver of events has."""

from __future__ import annotations

from typing import Protocol

from flowdeck.events.record import EventRecord

__all__ = ["Sink"]


class Sink(Protocol):
    """Receives records as they are emitted, on the emitting thread.

    ``accept`` must not block and must not raise; whatever takes time belongs to the sink's own thread. A sink which
    keeps a record for later reads :attr:`EventRecord.encoded` in ``accept``: only that is immune to later changes of
    the payload.

    Optional, looked up by name: ``attached(center)`` is called when the sink joins an Event Center;
    ``enter_run(run)`` is called once per execution in the context its branches inherit (for context variables a
    handler should see); ``bind_store(store_sink)`` when the same ``runtime.observe`` call attaches a store.
    """

    @property
    def name(self) -> str:
        """Unique among the sinks of one Event Center."""
        ...

    def accept(self, record: EventRecord) -> None:
        """Take one record. Called from any thread."""
        ...

    def flush(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until everything accepted is written. Return whether it is."""
        ...

    def close(self, timeout: float) -> None:
        """Flush, then release everything, within ``timeout`` seconds. Closing twice does nothing."""
        ...

    def statistics(self) -> dict[str, int | float | str]:
        """Return counters, at least ``accepted`` and ``dropped``."""
        ...
