"""GitHub workflow commands: at most ten annotations, then a count."""

from __future__ import annotations

from flowdeck_evals.reports import Summary, plain

__all__ = ["render"]

MOST = 10


def render(summary: Summary) -> str:
    """Return one ``::error`` per red case, placed in the suite file, and a line per rule with numbers."""
    red = [one for one in summary.red if one.state != "skipped"]
    lines = []
    for one in red[:MOST]:
        place = f"file={_value(one.file, True)},line={one.line}," if one.file else ""
        lines.append(
            f"::error {place}title={_value(f'{one.suite}/{one.case_id}', True)}::{_value(f'{one.state}: {one.reason}')}"
        )

    if len(red) > MOST:
        lines.append(f"::error ::{len(red) - MOST} more cases")

    for rule in summary.verdict.reasons:
        if rule.measure is not None:
            kind = "error" if rule.code else "warning" if rule.measure.state == "inconclusive" else "notice"
            lines.append(f"::{kind} title={_value(rule.rule, True)}::{_value(rule.message)}")

    lines.append(f"::notice ::evals: {summary.verdict.word}")
    return "\n".join(lines) + "\n"


def _value(text: str, property: bool = False) -> str:
    text = plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property else text
