"""Every event the framework itself emits, and the one status machine derived from it.

:data:`CATALOGUE` is the law for consumers: level, payload keys, the kind of run the event belongs to, and the status it
leads *that run* to. Users may emit any other type; only the framework is held to the list (see :func:`problems`).
Documentation tables and diagrams are generated from here: :func:`catalogue_markdown`, :func:`status_mermaid`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from flowdeck.events._catalogue_rows import ROWS
from flowdeck.events.levels import LEVELS

if TYPE_CHECKING:
    from flowdeck.events.record import EventRecord

__all__ = [
    "CATALOGUE",
    "INITIAL",
    "LEVELS",
    "OPEN_FAMILIES",
    "STATUSES",
    "TERMINAL",
    "TRANSITIONS",
    "EventSpec",
    "catalogue_markdown",
    "is_framework_type",
    "next_status",
    "problems",
    "status_mermaid",
]


class EventSpec(NamedTuple):
    """One framework event."""

    name: str
    level: str
    payload_keys: tuple[str, ...]
    """Every key the payload may carry; consumers ignore keys they do not know."""
    run_kind: str | None
    """The kind of run the event belongs to, ``None`` for events without a run or of any run."""
    transition: str | None
    """The status the event leads its run to, ``None`` when it leads nowhere."""
    source: str
    """The default ``source``."""
    summary: str
    """One sentence for the documentation."""


CATALOGUE: Final[dict[str, EventSpec]] = {
    name: EventSpec(name, level, tuple(keys.split()), run_kind, transition, source, summary)
    for family in ROWS
    for source, run_kind, rows in (family,)
    for name, level, keys, transition, summary in rows
}
"""Every framework event by name."""

OPEN_FAMILIES: Final = ("execution_environment.",)
"""Families that are extensible by contract: unknown suffixes are legal."""

_FAMILIES: Final = frozenset(name.partition(".")[0] for name in CATALOGUE)

INITIAL: Final = "created"
TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})
"""Statuses nothing follows within one epoch."""

TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    "created": frozenset({"running", "failed", "cancelled", "blocked_version", "lost"}),
    "running": frozenset({"waiting", "completed", "failed", "cancelled", "blocked_version", "lost"}),
    "waiting": frozenset({"running", "completed", "failed", "cancelled", "blocked_version", "lost"}),
    "blocked_version": frozenset({"running", "cancelled", "failed"}),
    "lost": frozenset({"running", "waiting", "completed", "failed", "cancelled", "blocked_version"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""The status machine: which status may follow which. ``lost`` is concluded by observers, so a sign of life ends it."""

STATUSES: Final = tuple(TRANSITIONS)


def next_status(status: str, event_type: str) -> str:
    """Return the status after an event of the run. Unknown types and transitions the machine forbids change nothing."""
    spec = CATALOGUE.get(event_type)
    if spec is None or spec.transition is None:
        return status

    return spec.transition if spec.transition in TRANSITIONS.get(status, ()) else status


def is_framework_type(event_type: str) -> bool:
    """Return whether the type lies in a family the framework owns (listed or not)."""
    return event_type.partition(".")[0] in _FAMILIES


def problems(record: EventRecord) -> list[str]:
    """Return what is wrong with a framework event: unlisted type, other level, payload keys or run kind.

    Events outside the framework's families have no problems. Used by the tests that keep the catalogue true.
    """
    name = record.event_type
    if not is_framework_type(name) or name.startswith(OPEN_FAMILIES):
        return []

    spec = CATALOGUE.get(name)
    if spec is None:
        return [f"{name}: not in the catalogue (events/_catalogue_rows.py)"]

    out: list[str] = []
    if record.level != spec.level:
        out.append(f"{name}: level {record.level}, the catalogue says {spec.level}")

    payload = record.payload
    if spec.payload_keys != ("*",) and isinstance(payload, dict):
        unknown = sorted(str(key) for key in payload if key not in spec.payload_keys)
        if unknown:
            out.append(f"{name}: payload keys {', '.join(unknown)} are not in the catalogue")

    if spec.run_kind is not None and record.run is not None and record.run.run_kind != spec.run_kind:
        out.append(f"{name}: run kind {record.run.run_kind}, the catalogue says {spec.run_kind}")

    return out


def catalogue_markdown(names: Iterable[str] | None = None) -> str:
    """Return the catalogue as Markdown tables, one per family, for the documentation."""
    families: dict[str, list[EventSpec]] = {}
    for spec in CATALOGUE.values():
        if names is None or spec.name in names:
            families.setdefault(spec.name.partition(".")[0], []).append(spec)

    parts: list[str] = []
    for family, specs in families.items():
        parts += [
            f"### {family}.*",
            "",
            "| event | level | run | leads to | payload | |",
            "|---|---|---|---|---|---|",
        ]
        for spec in specs:
            keys = ", ".join(f"`{key}`" for key in spec.payload_keys if key != "*") or "-"
            parts.append(
                f"| `{spec.name}` | {spec.level} | {spec.run_kind or '-'} | {spec.transition or '-'} "
                f"| {keys} | {spec.summary} |"
            )

        parts.append("")

    return "\n".join(parts)


def status_mermaid() -> str:
    """Return the status machine as a Mermaid state diagram; edges are labelled with the events that lead there."""
    causes: dict[str, list[str]] = {}
    for spec in CATALOGUE.values():
        if spec.transition is not None and spec.run_kind == "workflow_execution":
            causes.setdefault(spec.transition, []).append(spec.name.partition(".")[2])

    lines = ["stateDiagram-v2", f"    [*] --> {INITIAL}"]
    for status, following in TRANSITIONS.items():
        for target in (name for name in STATUSES if name in following):
            label = " / ".join(causes.get(target, ()))
            lines.append(f"    {status} --> {target}" + (f": {label}" if label else ""))

    lines += [f"    {status} --> [*]" for status in STATUSES if status in TERMINAL]
    return "\n".join(lines) + "\n"
