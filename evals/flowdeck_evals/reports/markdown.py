"""Markdown, for a pull request or a job summary."""

from __future__ import annotations

from flowdeck_evals.reports import Summary, plain

__all__ = ["render"]

MOST = 30


def render(summary: Summary) -> str:
    """Return the verdict, a table by suite, and the red cases."""
    verdict = summary.verdict
    lines = [f"## Evals: {verdict.word}", ""]
    lines += [f"- **{one.rule}**: {_cell(one.message)}" for one in verdict.reasons if one.code]
    lines += [f"- {one.rule}: {_cell(one.message)}" for one in verdict.reasons if not one.code and one.measure]
    lines += ["", "| suite | cases | passed | failed | other |", "|---|---:|---:|---:|---:|"]
    for name in dict.fromkeys(one.suite for one in summary.outcomes):
        states = [one.state for one in summary.outcomes if one.suite == name and not one.control]
        failed = sum(state in ("failed", "errored", "timed_out", "diverged") for state in states)
        passed = states.count("passed")
        lines.append(f"| {_cell(name)} | {len(states)} | {passed} | {failed} | {len(states) - passed - failed} |")

    red = summary.red
    if red:
        lines += ["", "| case | state | why |", "|---|---|---|"]
        lines += [
            f"| {_cell(f'{one.suite}/{one.case_id}')} | {one.state} | {_cell(one.reason[:300])} |" for one in red[:MOST]
        ]

    if len(red) > MOST:
        lines += ["", f"and {len(red) - MOST} more"]

    lines += ["", f"{summary.seconds:.2f} s, session `{summary.session_id}`", ""]
    return plain("\n".join(lines))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'").split())
