"""Which files of a store hold its events now, and what their columns are. The one place that knows.

A row lies in exactly one visible source at any moment, for every reader, in any process, without a lock::

    journal/<writer>-<n>.jsonl                        kind "segment"   a writer's lines; sealed once its flock is free
    parts/<lo>-<hi>-<level>~<stem>@<visible>.parquet  kind "part"      one sealed segment, <stem> is the segment's
    days/<lo>-<hi>-<level>~c@<visible>.parquet        kind "day"       the parts and days numbered lo..hi, merged

A file appears by one rename, which is its commit, and its name says all that matters: the publisher's numbers it
covers, how often its rows were merged (``level``; 0 for parts), and ``visible``, milliseconds since the epoch. There
is no manifest, so there is nothing that could disagree with the files.

**The rule.** A Parquet file is *due* when ``visible <= now``, or when the first of what it stands for is gone (a
part's segment; a day's input with the lowest ``lo``). A due file of a higher level hides every file within its
numbers; a segment is hidden by the due part of its stem. What is hidden is deleted only :data:`KEEP_MS` after that,
the first input first. So a file exists for :data:`VISIBLE_AFTER_MS` before any reader counts it, what it stands for
exists long after, and both look at one ``now``: a reader that lists the directories a little before or after a commit
still sees each row once. Should a clock jump back, or a transaction hold an old ``now``, the second half of the rule
answers: files whose predecessors are gone count at once.

Waiting is for readers whose listing and reading are two things, as in SQL, where a file may appear between the two. One
that lists once and then names the files it reads may count a file as soon as it is there (``at_once``).

Two forms of the same rule, for readers to choose from:

- :func:`visible_sources` lists the files, for readers that can name them one by one (Python; the fastest plan).
  :func:`events_select` is the query over such a list.
- :func:`visibility_views` gives views that do it inside SQL, for ``observe.duckdb`` and its plain clients;
  :func:`visible_events_select` is the query over them.

**Columns.** Sources of every kind yield the columns of :data:`flowdeck_sinks.store.schema.COLUMNS`, by name: a segment
through :func:`~flowdeck_sinks.store.schema.journal_select`, Parquet through :func:`parquet_select`. A Parquet file
stores them as they are, JSON as text, in order of time within each segment it came from. A column added to the schema
is NULL in older files. :func:`events_select` is the union over all visible files.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from os import SEEK_END, scandir
from pathlib import Path
from typing import Final, Literal, NamedTuple

from flowdeck.events.catalogue import CATALOGUE
from flowdeck.layout import Layout
from flowdeck_sinks.store._duckdb import as_pattern, quoted
from flowdeck_sinks.store.schema import COLUMNS, empty_select, journal_lines, journal_select, line_select

__all__ = [
    "CLUSTER",
    "COMPACTED",
    "COPY_OPTIONS",
    "KEEP_MS",
    "MERGED_OPTIONS",
    "VISIBLE_AFTER_MS",
    "Listing",
    "PublishedFile",
    "Source",
    "events_select",
    "is_whole",
    "listing",
    "parquet_select",
    "published_files",
    "published_pattern",
    "segment_files",
    "store_glob",
    "stored_select",
    "visibility_views",
    "visible_events_select",
    "visible_sources",
]

VISIBLE_AFTER_MS: Final = 5_000
"""How long a new file exists before readers count it: more than any pause between two system calls of a publisher."""
KEEP_MS: Final = 30_000
"""How long after that what it stands for stays: a query of plain SQL opens its last file within that time."""

COPY_OPTIONS: Final = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 61440"
"""How Parquet files are written."""
MERGED_OPTIONS: Final = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 30720, DICTIONARY_SIZE_LIMIT 20480"
"""How merged ones are. A dictionary has a Bloom filter beside it, and one run among ten million events is found by that
of ``run_id``, of which there is one for every two rows: 8 % more bytes, a fifth of the time. Reading its events then
costs the payloads of a row group or two, so these are small."""

_LIFECYCLE: Final = ", ".join(
    f"'{name}'" for name, spec in CATALOGUE.items() if spec.run_kind == "workflow_execution" and spec.transition
)
CLUSTER: Final = (
    f"CASE WHEN event_type IN ({_LIFECYCLE}) THEN 1 WHEN error_type IS NOT NULL OR level IN ('ERROR', 'CRITICAL') "
    "OR contains(event_type, '.interrupt_') OR contains(event_type, '.intervention_') "
    "OR contains(event_type, 'pending_interrupts') OR starts_with(event_type, 'eval.') "
    "OR starts_with(event_type, 'sink.') OR starts_with(event_type, 'runtime.') "
    "OR event_type = 'triggerflow.definition_declared' THEN 0 ELSE 2 END"
)
"""Where an event stands in a merged file: 0 errors, questions, interventions, evaluations, definitions; 1 what moves
an execution's status; 2 the rest. A payload is read by the page, so one event in a thousand, scattered, would cost the
pages of all; together they are a few pages. Every cluster is in the order of time, so windows of time prune as before.
"""

_NAME: Final = re.compile(r"(\d+)-(\d+)-(\d+)~([^@~]+)@(\d+)\.parquet\Z")
_MAGIC: Final = b"PAR1"
COMPACTED: Final = "c"
"""The stem of a day."""


class PublishedFile(NamedTuple):
    """A Parquet file of a store, as its name describes it."""

    path: Path
    lo: int
    hi: int
    level: int
    stem: str
    visible_ms: int

    @classmethod
    def parse(cls, path: Path) -> PublishedFile | None:
        """Return the file of that name; ``None`` for a name that is not ours."""
        match = _NAME.match(path.name)
        if match is None:
            return None

        lo, hi, level, stem, visible = match.groups()
        return cls(path, int(lo), int(hi), int(level), stem, int(visible))

    @property
    def name(self) -> str:
        """The file name its fields give."""
        return f"{self.lo:08d}-{self.hi:08d}-{self.level}~{self.stem}@{self.visible_ms:013d}.parquet"

    @property
    def writer(self) -> str:
        """The writer of a part; empty for a day."""
        return self.stem.rpartition("-")[0]

    def hides(self, other: PublishedFile) -> bool:
        """Whether this file, when due, stands for the other."""
        return self.level > other.level and self.lo <= other.lo and self.hi >= other.hi


class Source(NamedTuple):
    """A file that holds events now."""

    kind: Literal["day", "part", "segment"]
    path: Path
    visible_from_ms: int
    """When readers began to count it, milliseconds since the epoch; 0 for a segment."""
    lo: int
    """First of the publisher's numbers it covers; 0 for a segment."""
    hi: int
    level: int
    writer: str
    """Who wrote it; empty for a day."""


class Listing(NamedTuple):
    """What stands in a store's directories, told apart by the rule above."""

    visible: list[PublishedFile]
    waiting: list[PublishedFile]
    """Not due yet."""
    hidden: list[PublishedFile]
    """Another file stands for them."""
    segments: list[Path]
    """Visible segments, by writer and number."""
    covered: list[tuple[Path, PublishedFile]]
    """Segments with the part that stands for them."""


def published_files(layout: Layout) -> list[PublishedFile]:
    """Return every Parquet file of the store, visible or not, in the publisher's order."""
    found = (PublishedFile.parse(path) for directory in (layout.parts, layout.days) for path in _names(directory))
    return sorted((file for file in found if file is not None), key=lambda file: (file.lo, -file.hi, -file.level))


def segment_files(layout: Layout) -> list[Path]:
    """Return the journal's segments, by writer and number."""
    return sorted(
        path for path in _names(layout.journal) if path.suffix == ".jsonl" and path.stem.rpartition("-")[2].isdigit()
    )


def listing(
    layout: Layout, now_ms: int | None = None, *, at_once: bool = False, without: Collection[Path] = ()
) -> Listing:
    """Apply the rule to the directories as they are; the arguments are those of :func:`visible_sources`."""
    now = now_ms if now_ms is not None else time.time_ns() // 1_000_000
    segments = segment_files(layout)  # before the parts: a part that comes in between only repeats what we list
    stems = {path.stem for path in segments}
    files = [file for file in published_files(layout) if file.path not in without]
    due: list[PublishedFile] = []
    waiting: list[PublishedFile] = []
    heads: dict[int, int] = {}
    for file in files:
        heads[file.lo] = min(file.level, heads.get(file.lo, file.level))
    for file in files:
        first_is_there = file.stem in stems if file.level == 0 else heads[file.lo] < file.level
        (due if at_once or file.visible_ms <= now or not first_is_there else waiting).append(file)

    hidden = _hidden_by(due, files)
    covering = {file.stem: file for file in due if file.level == 0}
    return Listing(
        visible=[file for file in due if file not in hidden],
        waiting=[file for file in waiting if file not in hidden],
        hidden=sorted(hidden),
        segments=[path for path in segments if path.stem not in covering],
        covered=[(path, covering[path.stem]) for path in segments if path.stem in covering],
    )


def visible_sources(
    layout: Layout, now_ms: int | None = None, *, at_once: bool = False, without: Collection[Path] = ()
) -> list[Source]:
    """Return the files that hold the store's events at this moment: each row in exactly one of them.

    Days and parts come first, in the publisher's order, then segments by writer and number. A file may be gone when it
    is opened, :data:`KEEP_MS` after it was listed or when retention removed it: list again.

    Args:
        layout: The store.
        now_ms: Milliseconds since the epoch; now when omitted.
        at_once: Count every file that is there. For readers that read the files of one such list, and no others.
        without: Published files to pass over, because they cannot be read: what they stand for counts if it is there.
    """
    found = listing(layout, now_ms, at_once=at_once, without=without)
    published = [
        Source(
            "part" if file.level == 0 else "day",
            file.path,
            file.visible_ms,
            file.lo,
            file.hi,
            file.level,
            file.writer if file.level == 0 else "",
        )
        for file in found.visible
    ]
    return published + [Source("segment", path, 0, 0, 0, 0, path.stem.rpartition("-")[0]) for path in found.segments]


def visibility_views(layout: Layout) -> dict[str, str]:
    """Return the same rule as SQL: bodies of views by name, in order of creation.

    ``_files`` (file, lo, hi, level, stem, visible_ms, due), ``_live_files`` (file) names the Parquet files to read
    and ``_covered`` (stem) the segments not to. Every branch of a query sees one ``now()``. Files are named as
    DuckDB's ``filename`` column gives them. See :func:`published_pattern` for the pattern to read.
    """
    name = r"'(\d+)-(\d+)-(\d+)~([^@~]+)@(\d+)\.parquet$'"
    segments = store_glob(layout, "journal/*-*.jsonl")
    return {
        "_segments": f"SELECT parse_filename(file, true) AS stem FROM glob({segments})",
        "_named": (
            f"SELECT file, named.lo::BIGINT AS lo, named.hi::BIGINT AS hi, named.level::BIGINT AS level, "
            f"named.stem AS stem, named.visible::BIGINT AS visible_ms FROM (SELECT file, regexp_extract("
            f"parse_filename(file), {name}, ['lo', 'hi', 'level', 'stem', 'visible']) AS named "
            f"FROM glob({published_pattern(layout)})) WHERE named.lo <> ''"
        ),
        "_files": (
            "SELECT f.*, visible_ms <= epoch_ms(now()) OR CASE WHEN level = 0 THEN stem NOT IN (SELECT stem FROM "
            "_segments) ELSE level = min(level) OVER (PARTITION BY lo) END AS due FROM _named AS f"
        ),
        "_live_files": (
            "SELECT file FROM _files AS f WHERE due AND NOT EXISTS (SELECT 1 FROM _files AS o WHERE o.due "
            "AND o.level > f.level AND o.lo <= f.lo AND o.hi >= f.hi)"
        ),
        "_covered": "SELECT stem FROM _files WHERE due AND level = 0",
    }


def visible_events_select(layout: Layout) -> str:
    """Return the SELECT of every event, for a database that has the views of :func:`visibility_views`.

    ``parts/`` must hold the empty first part that the catalog puts there: a glob without a match is an error.
    """
    columns = ", ".join(column.name for column in COLUMNS)
    lines = (
        f"(SELECT * FROM {journal_lines(store_glob(layout, 'journal/*.jsonl'))} "
        "WHERE parse_filename(filename, true) NOT IN (SELECT stem FROM _covered))"
    )
    return (
        f"SELECT {columns} FROM ({parquet_select(published_pattern(layout), filename=True)}) "
        f"WHERE filename IN (SELECT file FROM _live_files) "
        f"UNION ALL SELECT {columns} FROM ({line_select(lines)})"
    )


def published_pattern(layout: Layout) -> str:
    """Return the quoted glob of every Parquet file of the store, the empty first part (always there) among them."""
    return store_glob(layout, "[pd]a*/*.parquet")


def parquet_select(files: str | Sequence[Path], *, filename: bool = False, alike: bool = False) -> str:
    """Return the SELECT that yields the schema's columns from Parquet files; columns older files lack are NULL.

    Args:
        files: Paths, or one quoted glob (:func:`published_pattern`).
        filename: Add the column ``filename`` at the end.
        alike: All of them have every column of the schema: planning a query then takes a quarter of the time.
    """
    source = files if isinstance(files, str) else f"[{', '.join(quoted(as_pattern(path)) for path in files)}]"
    documents = ", ".join(f"{column.name}::JSON AS {column.name}" for column in COLUMNS if column.type == "JSON")
    return (
        f"SELECT * REPLACE ({documents}) FROM read_parquet({source}, union_by_name = {str(not alike).lower()}"
        f"{', filename = true' if filename else ''})"
    )


def stored_select(events: str, *, ordered: bool = False, clustered: bool = False) -> str:
    """Return the SELECT of what a Parquet file stores: all columns of the schema.

    Args:
        events: A query that yields those columns, such as :func:`~flowdeck_sinks.store.schema.journal_select`.
        ordered: Sort by time. A part is sorted; what is made of sorted files in order is not sorted again: DuckDB
            would hold whole rows for it, and a million of them do not fit.
        clustered: Put what is rare and often asked for first (see :data:`CLUSTER`), each cluster in the order it comes
            in. ``events`` is read once for each.
    """
    columns = ", ".join(column.name for column in COLUMNS)
    if clustered:
        return " UNION ALL ".join(f"SELECT {columns} FROM ({events}) WHERE {CLUSTER} = {n}" for n in range(3))

    return f"SELECT {columns} FROM ({events})" + (" ORDER BY ts, writer, wseq" if ordered else "")


def events_select(sources: Sequence[Source], *, alike: bool = False) -> str:
    """Return the SELECT of every event in ``sources``, with the schema's columns in order.

    Args:
        sources: From :func:`visible_sources`.
        alike: As for :func:`parquet_select`, of the published ones.
    """
    published = [source.path for source in sources if source.kind != "segment"]
    segments = [as_pattern(source.path) for source in sources if source.kind == "segment"]
    selects = [parquet_select(published, alike=alike)] if published else []
    if segments:
        selects.append(journal_select(f"[{', '.join(map(quoted, segments))}]"))
    columns = ", ".join(column.name for column in COLUMNS)
    body = " UNION ALL BY NAME ".join(selects if alike and selects else [*selects, empty_select()])
    return f"SELECT {columns} FROM ({body})"


def is_whole(path: Path) -> bool:
    """Return whether a Parquet file has its beginning and its end. A file that is gone is not."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
            file.seek(-len(_MAGIC), SEEK_END)
            return head == _MAGIC and file.read() == _MAGIC
    except OSError:
        return False


def _hidden_by(due: list[PublishedFile], files: list[PublishedFile]) -> set[PublishedFile]:
    # Files of level 0 are many and hide nothing; days are few.
    days = [file for file in due if file.level]
    return {file for file in files if any(day.hides(file) for day in days)}


def _names(directory: Path) -> list[Path]:
    try:
        with scandir(directory) as entries:
            return [directory / entry.name for entry in entries if not entry.name.startswith((".", "_"))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def store_glob(layout: Layout, inside: str) -> str:
    """Return the quoted glob of files in the store."""
    return quoted(f"{as_pattern(layout.root)}/{inside}")
