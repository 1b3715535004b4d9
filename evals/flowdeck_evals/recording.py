"""Making tapes: from a run in this process, or from any run a store holds.

Both ways start from the same bytes, the events as a journal keeps them, so secrets under known names are masked before
anything is looked at here. :func:`cleaned` then masks what the author names and whatever has the shape of a credential;
what a mask touches becomes lossy and says so when it is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowdeck import __version__
from flowdeck.errors import EvalError
from flowdeck.events.redaction import MASK
from flowdeck_evals.tapes import Tape

if TYPE_CHECKING:
    from flowdeck.events.record import EventRecord

__all__ = ["NoSuchRun", "Recorder", "cleaned", "record_many", "record_stored", "stored_runs", "tape_of_lines"]

_LEFT_OUT: Final = frozenset({"triggerflow.definition_declared", "triggerflow.stream_item_emitted"})
"""Of no use for a replay or its checks, and long: the definition is named by its fingerprint, stream items repeat
interrupts and outputs."""
_KEPT: Final = ("event_type", "level", "message", "payload", "error", "run", "meta", "timestamp")
_CREDENTIAL: Final = re.compile(
    r"(?<![A-Za-z0-9_])(?:sk|pk|rk|ghp|gho|ghs|glpat|xox[abprs])[-_](?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{16,}"
    r"|AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
)


class NoSuchRun(EvalError, LookupError):
    """No stored run is meant; the message says what was looked for and how to see what there is."""


class Recorder:
    """Collects the events of one run as a journal would write them."""

    def __init__(self) -> None:
        self._encoded: list[bytes] = []

    def accept(self, record: EventRecord) -> None:
        """Keep an event that belongs on a tape."""
        if record.event_type not in _LEFT_OUT and record.level != "DEBUG":
            self._encoded.append(record.encoded)

    def clear(self) -> None:
        """Begin anew: what was collected belongs to a run that is over."""
        self._encoded = []

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The events so far, decoded."""
        return [msgspec.json.decode(each) for each in self._encoded]

    def tape(self, **options: Any) -> Tape:
        """Return what was collected as a tape; see :func:`tape_of_lines`."""
        return tape_of_lines(self.lines, **options)


def tape_of_lines(
    lines: Iterable[Mapping[str, Any]],
    *,
    redact: Sequence[str] = (),
    volatile: Sequence[str] = (),
    source: str = "live",
    target: str = "",
) -> Tape:
    """Return a tape of one run's journal lines.

    Args:
        redact: globs over dotted paths of a payload (``result.email``, ``*.iban``); what they meet is masked.
        volatile: parts of arguments that do not count when a call is looked up; see :func:`~.tapes.digest_of`.
        source: where the lines come from, for people.
        target: the flow, as ``module:name``.
    """
    kept: list[dict[str, Any]] = []
    masked: set[str] = set()
    header: dict[str, Any] = {}
    for line in lines:
        if line["event_type"] in _LEFT_OUT:
            continue

        row = {key: line[key] for key in _KEPT if line.get(key) is not None}
        row["payload"] = cleaned(row.get("payload"), redact, masked)
        if isinstance(row.get("error"), Mapping):  # a traceback holds the paths of one machine
            row["error"] = {k: cleaned(v, (), masked) for k, v in row["error"].items() if k != "traceback"}

        kept.append(row)
        payload = row["payload"] if isinstance(row["payload"], dict) else {}
        if "key_id" in payload:
            header["key_id"] = payload["key_id"]

    tape = Tape(kept, header)
    run = tape.root
    told: dict[str, Any] = next((x["payload"] for x in kept if "definition" in (x["payload"] or ())), {})
    header |= {
        "target": target or told.get("entrypoint") or "",
        "flow": (run.get("meta") or {}).get("flow_name"),
        "fingerprint": told.get("definition"),
        "status": tape.status,
        "source": source,
        "run_id": run.get("run_id"),
        "execution_id": run.get("execution_id"),
        "flowdeck": __version__,
        "redacted": sorted(masked),
        "volatile": list(volatile),
    }
    header["lossy"] = len(tape.lossy)
    return Tape(kept, header)


def cleaned(value: Any, redact: Sequence[str], masked: set[str], path: str = "") -> Any:
    """Return ``value`` with everything masked that ``redact`` names or that looks like a credential."""
    if path and any(fnmatchcase(path, glob) for glob in redact):
        masked.add(path)
        return MASK

    if isinstance(value, Mapping):
        return {k: cleaned(v, redact, masked, f"{path}.{k}" if path else str(k)) for k, v in value.items()}

    if isinstance(value, list | tuple):
        return [cleaned(v, redact, masked, f"{path}.{i}" if path else str(i)) for i, v in enumerate(value)]

    if isinstance(value, str) and len(value) >= 20 and _CREDENTIAL.search(value):
        masked.add(path)
        return MASK

    return value


# -- from a store ----------------------------------------------------------------------------------------------------


def stored_runs(store: str | Path | None, where: str, limit: int = 100) -> list[str]:
    """Return the root run ids that a SQL condition over the view ``runs`` chooses, newest first.

    Raises:
        NoSuchRun: it chooses none.
        StoreError: the store cannot be read, or the condition is no SQL.
    """
    from flowdeck.layout import resolve_store
    from flowdeck_sinks.store import Reader

    with Reader(resolve_store(store)) as reader:
        sql = (
            f"SELECT coalesce(root_run_id, run_id) AS root FROM runs WHERE ({where}) "
            f"GROUP BY root ORDER BY max(started_at) DESC LIMIT {int(limit)}"
        )
        found = [str(row[0]) for row in reader.query(sql)]

    if not found:
        raise NoSuchRun(f"no stored flow run satisfies {where!r}; see: flowdeck sql 'SELECT * FROM runs'")

    return found


def record_stored(store: str | Path | None, run: str, **options: Any) -> Tape:
    """Return the tape of one stored run, named by its run id or execution id; options as :func:`tape_of_lines`.

    A run inside another one (a sub flow) is recorded with the outermost.

    Raises:
        NoSuchRun: the store has no such run.
        StoreError: the store cannot be read.
    """
    from flowdeck.layout import resolve_store

    lines = list(_stored_lines(store, run))
    if not lines:
        raise NoSuchRun(f"the store has no run {run!r}; see: flowdeck runs")

    folder = resolve_store(store) / "blobs"
    return tape_of_lines((_with_blob(line, folder) for line in lines), source="store", **options)


def record_many(store: str | Path | None, runs: Sequence[str]) -> dict[str, Tape]:
    """Return the tapes of many stored runs by root run id, read in one go; those the store does not have are left out.

    Raises:
        StoreError: the store cannot be read.
    """
    from flowdeck.layout import resolve_store
    from flowdeck_sinks.store import Reader

    folder = resolve_store(store) / "blobs"
    found: dict[str, list[dict[str, Any]]] = {}
    with Reader(resolve_store(store)) as reader:
        for root, *row in reader.query(_MANY_SQL, [list(runs)]):
            found.setdefault(str(root), []).append(_with_blob(_line(row), folder))

    return {root: tape_of_lines(lines, source="store") for root, lines in found.items()}


_MANY_SQL: Final = """
SELECT coalesce(root_run_id, run_id) AS root, event_type, level, message, payload, error, run, meta, epoch_us(ts)
FROM events
WHERE coalesce(root_run_id, run_id) IN (SELECT unnest($1)) AND level <> 'DEBUG'
ORDER BY ts, writer, wseq
"""
_SQL: Final = """
SELECT event_type, level, message, payload, error, run, meta, epoch_us(ts)
FROM events
WHERE root_run_id IN (SELECT coalesce(root_run_id, run_id) FROM events WHERE run_id = $1 OR execution_id = $1)
  AND level <> 'DEBUG'
ORDER BY ts, writer, wseq
"""


def _stored_lines(store: str | Path | None, run: str) -> Iterator[dict[str, Any]]:
    from flowdeck.layout import resolve_store
    from flowdeck_sinks.store import Reader

    with Reader(resolve_store(store)) as reader:
        for row in reader.query(_SQL, [run]):
            yield _line(row)


def _line(row: Sequence[Any]) -> dict[str, Any]:
    kind, level, message, payload, error, lineage, meta, time_us = row
    return {
        "event_type": kind,
        "level": level,
        "message": message,
        "payload": _json(payload),
        "error": _json(error),
        "run": {k: v for k, v in (_json(lineage) or {}).items() if v is not None},
        "meta": _json(meta) or {},
        "timestamp": time_us // 1000 if time_us is not None else 0,
    }


def _json(text: Any) -> Any:
    return json.loads(text) if isinstance(text, str | bytes) else text


def _with_blob(line: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put a payload back that was moved out of its event for its size; when its file is gone it stays lossy."""
    payload = line.get("payload")
    digest = payload.get("$blob") if isinstance(payload, dict) else None
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{16,128}", digest):
        return line

    try:
        return {**line, "payload": json.loads((folder / digest).read_bytes())}
    except (OSError, ValueError):
        return line
