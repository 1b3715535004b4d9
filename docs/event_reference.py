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

{catalogue}
"""


def page() -> str:
    """Return the page as it should be."""
    families = ", ".join(f"`{family}*`" for family in OPEN_FAMILIES)
    made = INTRODUCTION.format(
        families=families, machine=status_mermaid().strip(), catalogue=catalogue_markdown().strip()
    )
    return made.rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
