"""Reports: text for people, JUnit and GitHub for CI, Markdown and HTML for a pull request, JSON for programs.

A report is a function of a :class:`Summary` that returns text. It is rendered after the verdict was committed and can
not change it. ``evals report SESSION`` renders the same from the store.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from flowdeck_evals.gate import Verdict
from flowdeck_evals.outcomes import CaseOutcome

__all__ = ["FORMATS", "Summary", "counts", "last_line", "plain", "render", "write_report"]


class Summary(msgspec.Struct):
    """What a report is made of."""

    session_id: str
    verdict: Verdict
    outcomes: list[CaseOutcome]
    seconds: float = 0.0
    level: str | None = None

    @property
    def red(self) -> list[CaseOutcome]:
        """The cases somebody should look at: what did not pass, and controls that did."""
        return [one for one in self.outcomes if (one.state == "passed") == one.control or one.state == "skipped"]


_CONTROL: Final = re.compile(r"[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def plain(text: str) -> str:
    """Return text without control characters, which neither XML nor a terminal should get."""
    return _CONTROL.sub("\ufffd", text)


def last_line(summary: Summary) -> str:
    """Return the machine-readable last line of ``evals run``."""
    verdict = summary.verdict
    totals = Counter(f"control_{one.state}" if one.control else one.state for one in summary.outcomes)
    told = " ".join(f"{state}={count}" for state, count in sorted(totals.items()))
    part = "" if verdict.part is None else f"part={verdict.part[0]}/{verdict.part[1]} "
    return f"verdict={verdict.word} code={verdict.code} session={summary.session_id} {part}{told}".rstrip()


def counts(summary: Summary) -> str:
    """Return how many cases came to what, for people: a control that failed is told as the good news it is."""
    cases = Counter(one.state for one in summary.outcomes if not one.control)
    controls = Counter(one.state for one in summary.outcomes if one.control)
    told = [f"{count} {state}" for state, count in sorted(cases.items())]
    for state, count in sorted(controls.items()):
        named = f"{count} control{'' if count == 1 else 's'}"
        ending = {"failed": " failed as it must", "passed": " passed and must fail"}.get(state, f" {state}")
        told.append(named + (ending if count == 1 else ending.replace(" it ", " they ")))

    return ", ".join(told) or "none"


def render(format: str, summary: Summary) -> str:
    """Return a report.

    Raises:
        KeyError: there is no such format.
    """
    return FORMATS[format](summary)


def write_report(format: str, path: Path, summary: Summary) -> None:
    """Write a report, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    text = render(format, summary)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _lazy(module: str) -> Callable[[Summary], str]:
    def call(summary: Summary) -> str:
        from importlib import import_module

        made: Any = import_module(f"flowdeck_evals.reports.{module}").render(summary)
        return str(made)

    return call


FORMATS: Final[dict[str, Callable[[Summary], str]]] = {
    "text": _lazy("text"),
    "junit": _lazy("junit"),
    "json": _lazy("as_json"),
    "md": _lazy("markdown"),
    "html": _lazy("html"),
    "github": _lazy("github"),
}
