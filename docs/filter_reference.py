"""Writes docs/reference/filters.md from the filter language itself: ``python -m docs.filter_reference``."""

# ruff: noqa: E501 - lines of a page, not of code

from __future__ import annotations

from pathlib import Path

from flowdeck_devtools.filter import parse
from flowdeck_devtools.filter.fields import ALIASES, FIELDS, NUMERIC

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parent / "reference" / "filters.md"

EXAMPLES = (
    ("status:failed flow:refund*", "side by side: both must hold"),
    ("level>=warn (kind:chunk.* OR kind:action.*)", "alternatives in brackets; levels are ordered"),
    ("-kind:model.* NOT user:ana", "what must not hold"),
    ("data.order.amount>25", "a payload by its path"),
    ("dur>1.5s attempt>1", "durations have units"),
    ('"upstream 504"', "a phrase, anywhere"),
    ("error~^Tool", "a regular expression in a field"),
    ("last:15m", "not older than"),
)

INTRODUCTION = """# Filters

<!-- made by python -m docs.filter_reference -->

One language in the Runs and Events screens and after `--filter` of `flowdeck runs`, `events` and `tail`. It is parsed once and
compiled to a test on live lines, and to SQL for published history; both give the same rows.

```text
expr    := and (OR and)*
and     := term+                       side by side: all must hold; AND may stand between
term    := -term | NOT term | ( expr ) | field:pattern | field op value | field~regex | "phrase" | /regex/ | word
pattern := a,b,c                       any of; * stands for anything, ? for one character; or /regex/
op      := > >= < <= = !=
```

Case never matters. Regular expressions are those that Python and RE2 read alike; others are refused where they are typed.
A mistake names its column, and what it might have meant.

## Fields

| field | short for it | values | meaning |
|---|---|---|---|
{fields}
| `data.<path>` | `payload.<path>` | text or number | the event's payload by path |
| `attr.<path>` | `meta.<path>` | text or number | the event's and the run's meta by path |

Durations are numbers with `us`, `ms`, `s` (also without a unit), `m`, `h` or `d`; times are ISO (local unless they have a
zone) or counted back from now (`-15m`).

## Examples

| filter | |
|---|---|
{examples}
"""


def page() -> str:
    """Return the page as it should be."""
    short: dict[str, list[str]] = {}
    for alias, field in ALIASES.items():
        short.setdefault(field, []).append(f"`{alias}`")

    fields = "\n".join(
        f"| `{name}` | {' '.join(short.get(name, ()))} | {'number' if name in NUMERIC else 'text'} | {meaning} |"
        for name, meaning in FIELDS.items()
    )
    for text, _ in EXAMPLES:
        parse(text)  # an example that is no filter must not be printed

    rows = "\n".join(f"| {_code(text)} | {meaning} |" for text, meaning in EXAMPLES)
    return INTRODUCTION.format(fields=fields, examples=rows)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
