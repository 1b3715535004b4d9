"""The report a person reads at the shell."""

from __future__ import annotations

from flowdeck_evals.reports import Summary, plain

__all__ = ["render"]

MOST = 50


def render(summary: Summary) -> str:
    """Return the red cases with their reasons, then the verdict and why."""
    lines: list[str] = []
    red = summary.red
    for one in red[:MOST]:
        where = f"  {one.file}:{one.line}" if one.file else ""
        state = "passed, and must fail" if one.control and one.state == "passed" else one.state
        lines.append(f"{state:>13}  {one.suite}/{one.case_id}{where}")
        if one.reason:
            lines.append(f"{'':15}{one.reason}")

        run = next((r.run_id for r in one.rounds if r.state != "passed" and r.run_id), None)
        if run:
            lines.append(f"{'':15}flowdeck sql \"FROM run_events('{run}')\"")

    if len(red) > MOST:
        lines.append(f"{'':15}and {len(red) - MOST} more")

    verdict = summary.verdict
    rounds = sum(len(one.rounds) for one in summary.outcomes)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(verdict.totals.items()))
    if lines:
        lines.append("")

    lines.append(f"{len(summary.outcomes)} cases ({counts or 'none'}), {rounds} rounds in {summary.seconds:.2f} s")
    retried = sum(r.attempts - 1 for one in summary.outcomes for r in one.rounds)
    if retried:
        lines.append(f"{retried} attempts were repeated after errors of the infrastructure")

    for name, why in verdict.excused.items():
        lines.append(f"known failure: {name}: {why}")

    if verdict.flaky:
        lines.append(f"flaky: {', '.join(verdict.flaky[:10])}")

    for reason in verdict.reasons:
        if reason.code:
            lines.append(f"{reason.rule}: {reason.message}")

    lines.append(f"{verdict.word.upper()}")
    return plain("\n".join(lines))
