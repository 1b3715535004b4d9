"""Writes docs/reference/events.md from the event catalogue: ``python -m docs.event_reference``."""

# ruff: noqa: E501 - lines of a page, not of code

from __future__ import annotations

from pathlib import Path

from flowdeck.events.catalogue import OPEN_FAMILIES, catalogue_markdown, status_mermaid

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parent / "reference" / "events.md"

INTRODUCTION = """# Events

<!-- made by python -m docs.event_reference -->

Every event the framework emits. Applications may emit any other type; consumers ignore types and payload keys they do not
know. Families that grow by contract: {families}.

Every event carries `event_id`, `event_type`, `source`, `level`, `message`, `payload`, `error`, `run` (the lineage: `run_id`,
`run_kind`, `parent_run_id`, `root_run_id`, `execution_id`, `session_id`, `agent_id` …), `meta` and `timestamp` (milliseconds
since the Unix epoch; `meta.us` has microseconds).

## The status of a run

A status is never stored: it follows from the events, by one machine for the store, DevTools and traces. `lost` is concluded
by observers when a process is gone, so a sign of life ends it.

```mermaid
{machine}
```

## Catalogue

Behind each description: its level, the kind of run it belongs to, and the status it leads to.

{catalogue}
"""


def page() -> str:
    """Return the page as it should be."""
    families = ", ".join(f"`{family}*`" for family in OPEN_FAMILIES)
    made = INTRODUCTION.format(
        families=families, machine=status_mermaid().strip(), catalogue=_narrow(catalogue_markdown()).strip()
    )
    return made.rstrip() + "\n"


def _narrow(table: str) -> str:
    """Return the tables with three columns in place of six, which no page has room for."""
    lines = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| event |"):
            line = "| event | payload | |"
        elif line.startswith("|---"):
            line = "|---|---|---|"
        elif line.startswith("| `"):
            event, level, run, leads, payload, text = cells
            status = f", to `{leads}`" if leads != "-" else ""
            line = f"| {event} | {payload} | {text} *{level}, {run}{status}* |"

        lines.append(line)

    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
