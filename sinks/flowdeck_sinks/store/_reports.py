"""What the keepers of a store answer: plain dataclasses for scripts (``--json``) and tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
]


@dataclass(slots=True)
class PublishReport:
    """What :func:`~flowdeck_sinks.store.maintenance.publish` did."""

    busy: bool = False
    """Another process is at work on the store; nothing was done."""
    segments: int = 0
    """Segments that became parts."""
    events: int = 0
    bytes: int = 0
    """Size of the new parts."""
    removed: int = 0
    """Files deleted because newer ones stand for them."""
    orphans: int = 0
    """Unfinished files of killed publishers that were deleted."""
    quarantined: int = 0
    """Lines that could not be read and were set aside."""
    waiting: int = 0
    """Files that newer ones stand for, but that are still too young to delete."""
    problems: list[str] = field(default_factory=list)
    """What could not be published, with the reason; it stays where it is and is tried again."""


@dataclass(slots=True)
class CompactReport:
    """What :func:`~flowdeck_sinks.store.maintenance.compact` did."""

    busy: bool = False
    merged: int = 0
    """Files that went into larger ones."""
    files: int = 0
    """Larger files made."""
    events: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    removed: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Policy:
    """What retention removes. ``None`` means without limit."""

    max_age_days: float | None = None
    """Events older than this go."""
    max_bytes: int | None = None
    """While the published files are larger than this, the oldest go."""
    keep_open: bool = True
    """Keep lifecycle, interrupt and definition events of executions that have not ended, however old."""
    keep_evals: bool = True
    """Keep ``eval.*`` events (sessions, rounds, checks, baselines), however old."""
    require_export: bool = False
    """Keep what an exporter with a cursor has not exported yet."""


@dataclass(slots=True)
class PruneReport:
    """What :func:`~flowdeck_sinks.store.maintenance.prune` did, or would do."""

    busy: bool = False
    dry_run: bool = False
    files_removed: int = 0
    files_rewritten: int = 0
    events_removed: int = 0
    events_kept: int = 0
    """Old events that stay because their execution is open, or they belong to an evaluation."""
    waiting: int = 0
    """Files that were left out because what they were made of is not deleted yet."""
    bytes_before: int = 0
    bytes_after: int = 0
    blobs_removed: int = 0
    oldest: str | None = None
    """Time of the oldest event that stays and is not kept for a reason above (ISO 8601, UTC)."""
    not_exported: dict[str, int] = field(default_factory=dict)
    """Removed events that an exporter had not exported, by the exporter's name."""
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ExportReport:
    """What :func:`~flowdeck_sinks.store.maintenance.export` wrote."""

    target: Path
    kind: str
    events: int = 0
    bytes: int = 0
    blobs: int = 0


@dataclass(slots=True)
class ImportReport:
    """What :func:`~flowdeck_sinks.store.maintenance.import_` took in."""

    source: Path
    events: int = 0
    duplicates: int = 0
    """Events the store had already (same writer and ``wseq``, or same id)."""
    damaged: int = 0
    """Lines that are no events; they are in quarantine."""
    blobs: int = 0
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing :func:`~flowdeck_sinks.store.maintenance.doctor` noticed."""

    level: Literal["ok", "note", "warning", "error"]
    what: str
    mend: str
    """What to do about it; empty when nothing."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One line or file that could not be read, kept as it was found."""

    path: Path
    reason: str
    origin: str
    """The file it was found in."""
    line: int
    """Its line there, from 1; 0 for a whole file."""
    size: int
    preview: str
    """Its beginning, free of control characters."""


@dataclass(slots=True)
class StoreInfo:
    """What a store holds and how large it is."""

    root: Path
    id: str
    format: int
    created_by: str
    created_us: int
    events: int = 0
    oldest: str | None = None
    newest: str | None = None
    segments: int = 0
    segment_bytes: int = 0
    open_segments: int = 0
    parts: int = 0
    part_bytes: int = 0
    days: int = 0
    day_bytes: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    hidden_bytes: int = 0
    """Files that newer ones stand for and that will be deleted."""
    state_bytes: int = 0
    quarantined: int = 0
    writers: list[str] = field(default_factory=list)
    """Ids of the writers alive now."""
    cursors: dict[str, int] = field(default_factory=dict)
    """Per exporter: how many events it has not exported yet."""
    last_publish_us: int | None = None
    bytes_per_event: float | None = None
    """Of the published events."""
