"""Keeping a store in order, as functions: the ``flowdeck store`` commands and the TUI stand on these.

========================================  ==========================================================================
:func:`info`                              what is there and how large
:func:`publish`                           sealed journal segments become Parquet parts
:func:`compact`                           parts become days
:func:`prune`                             retention by age and size
:func:`export`, :func:`import_`           one DuckDB file, Parquet or JSONL, and back
:func:`doctor`, :func:`quarantine`        what is wrong and what to do; what could not be read
========================================  ==========================================================================

Each takes a :class:`~flowdeck.layout.Layout` and returns a dataclass. Those that change ``parts/`` and ``days/`` take
turns: when another process is at work the report says ``busy`` and nothing happened.
"""

from __future__ import annotations

from flowdeck_sinks.store._reports import (
    CompactReport,
    ExportReport,
    Finding,
    ImportReport,
    Policy,
    PruneReport,
    PublishReport,
    Quarantined,
    StoreInfo,
)
from flowdeck_sinks.store.compaction import compact
from flowdeck_sinks.store.doctor import doctor, info, quarantine
from flowdeck_sinks.store.export import export, import_
from flowdeck_sinks.store.publisher import publish
from flowdeck_sinks.store.retention import prune

__all__ = [
    "CompactReport",
    "ExportReport",
    "Finding",
    "ImportReport",
    "Policy",
    "PruneReport",
    "PublishReport",
    "Quarantined",
    "StoreInfo",
    "compact",
    "doctor",
    "export",
    "import_",
    "info",
    "prune",
    "publish",
    "quarantine",
]
