"""Exporting chosen runs: whole traces, read by SQL, without a cursor. Ids are stable, so repeating one does no harm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from flowdeck.layout import Layout, is_writer_alive
from flowdeck_sinks.otlp.resumable import resumable_executions
from flowdeck_sinks.otlp.settings import OtlpSettings
from flowdeck_sinks.otlp.store_export import StoreExport
from flowdeck_sinks.otlp.store_lines import ROWS, Lines, by_writer

__all__ = ["SelectionExport"]

_COLUMNS: Final = (
    "writer, wseq, event_id, event_type, epoch_us(ts), source, level, message, payload::VARCHAR, error::VARCHAR, "
    "run::VARCHAR, meta::VARCHAR"
)
_OF_RUN: Final = (
    "SELECT DISTINCT root_run_id FROM events WHERE run_id = $wanted OR root_run_id = $wanted OR execution_id = $wanted"
)
_SINCE: Final = "SELECT DISTINCT root_run_id FROM events WHERE ts >= make_timestamp($wanted)"


class SelectionExport(StoreExport):
    """Exports the traces a run, an execution or a time span belongs to.

    Args:
        layout: the store.
        settings: where to and how.
        run: a run's, execution's or root run's id.
        since_us: every trace with an event since then, microseconds since the epoch.
        patience: see :class:`StoreExport`.
    """

    def __init__(
        self,
        layout: Layout,
        settings: OtlpSettings,
        *,
        run: str | None = None,
        since_us: int | None = None,
        patience: float | None = None,
    ) -> None:
        super().__init__(layout, settings, patience=patience)
        self._statement = f"SELECT {_COLUMNS} FROM events WHERE root_run_id IN ({_OF_RUN if run else _SINCE})"
        self._wanted: Any = run if run else since_us
        self._batches: Iterator[Lines] = iter(())
        self._writers: set[str] = set()

    def open(self) -> None:
        """Find the events.

        Raises:
            StoreError: DuckDB is missing, or the store cannot be read.
        """
        self._prepare()
        self._batches = self._selected()

    def round(self) -> int:
        """Export the next events; return how many there were."""
        lines = next(self._batches, None)
        assert self._pipeline is not None
        if lines is None:
            return 0

        self._writers.add(lines.writer)
        for text in lines.texts:
            self._pipeline.feed(text, lines.writer)

        self._send()
        return len(lines.texts)

    def settle(self) -> None:
        """Export what has ended, and what will not end any more because its process is gone."""
        assert self._pipeline is not None
        dead = {writer for writer in self._writers if not is_writer_alive(self.layout, writer)}
        if dead:
            self._pipeline.bury(dead, resumable_executions(self.layout))

        super().settle()

    def _selected(self) -> Iterator[Lines]:
        from flowdeck_sinks.store import connect

        with connect(self.layout.root) as connection:
            given = {"wanted": self._wanted}
            self._total = connection.execute(f"SELECT count(*) FROM ({self._statement})", given).fetchall()[0][0]
            cursor = connection.execute(f"{self._statement} ORDER BY ts, writer, wseq", given)
            while rows := cursor.fetchmany(ROWS):
                yield from by_writer(row for row in rows if row[4] is not None)
