"""The report a person reads at the shell."""

from __future__ import annotations

from flowdeck_evals.reports import Summary, counts, plain

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
    if lines:
        lines.append("")

    lines.append(f"{len(summary.outcomes)} cases ({counts(summary)}), {rounds} rounds in {summary.seconds:.2f} s")
    retried = sum(r.attempts - 1 for one in summary.outcomes for r in one.rounds)
    if retried:
        lines.append(f"{retried} attempts were repeated after errors of the infrastructure")

    for name, why in verdict.excused.items():
        lines.append(f"known failure: {name}: {why}")

    if verdict.flaky:
        more = f" and {len(verdict.flaky) - 10} more" if len(verdict.flaky) > 10 else ""
        lines.append(f"flaky: {', '.join(verdict.flaky[:10])}{more}")

    for name, held in verdict.quarantined.items():
        lines.append(f"in quarantine: {name}: {held}")

    lines += [f"{reason.rule}: {reason.message}" for reason in verdict.reasons if reason.code or reason.measure]
    for name, (cases, drop) in verdict.sees.items():
        seen = "none: too few" if drop is None else f"about {drop * 100:.1f} points"
        lines.append(f"smallest drop that {cases} sampled cases of {name} can show (80 % power): {seen}")

    for name, (cases, mean, low, high) in verdict.advice.items():
        sure = f", 95 % sure between {low:.3g} and {high:.3g}" if low is not None and high is not None else ""
        lines.append(f"advice: {name} {mean:.3g}{sure} ({cases} cases); scores never block")

    if verdict.part is not None:
        lines.append(f"this is part {verdict.part[0]} of {verdict.part[1]}: `evals merge` judges the whole")

    lines.append(f"{verdict.word.upper()}")
    return plain("\n".join(lines))
