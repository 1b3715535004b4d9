"""One HTML file with everything in it: nothing is loaded, nothing runs but a filter of the browser's own."""

from __future__ import annotations

from html import escape

from flowdeck_evals.outcomes import CaseOutcome
from flowdeck_evals.reasons import Measure
from flowdeck_evals.reports import Summary, counts, plain

__all__ = ["render"]

MOST = 5_000
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--bad:#c0392b;--good:#1e8449;--wait:#b7791f}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{border-bottom:1px solid var(--line);padding:.3rem .6rem;
text-align:left;vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.pass,.passed,.ok{color:var(--good)}.fail,.failed,.errored,.timed_out,.diverged{color:var(--bad)}
.incomplete,.inconclusive,.unscored,.harness_error,.missing,.skipped{color:var(--wait)}
code,pre{font:13px ui-monospace,monospace;white-space:pre-wrap;word-break:break-word}summary{cursor:pointer}
svg{display:block}
"""


def render(summary: Summary) -> str:
    """Return the document: verdict, rules with their numbers, and every case, the red ones open and first."""
    verdict = summary.verdict
    red = {id(one) for one in summary.red}
    cases = sorted(summary.outcomes, key=lambda one: (id(one) not in red, one.suite, one.case_id))
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>Evals: {_e(verdict.word)}</title><style>{_STYLE}</style>",
        f'<h1>Evals: <span class="{verdict.word}">{_e(verdict.word)}</span></h1>',
        f"<p>{len(summary.outcomes)} cases ({_e(counts(summary))}), {summary.seconds:.2f} s, "
        f"session <code>{_e(summary.session_id)}</code></p>",
    ]
    if verdict.reasons:
        parts.append("<table><tr><th>rule<th>it says<th>95 % interval</tr>")
        for one in verdict.reasons:
            state = one.measure.state if one.measure is not None else "failed" if one.code else "ok"
            parts.append(
                f'<tr><td class="{state}">{_e(one.rule)}<td>{_e(one.message)}<td>{_interval(one.measure)}</tr>'
            )

        parts.append("</table>")

    for name, (n, drop) in verdict.sees.items():
        seen = "none at all" if drop is None else f"about {drop * 100:.1f} points"
        parts.append(f"<p>Smallest drop that {n} sampled cases of {_e(name)} can show (80 % power): {seen}.</p>")

    for name, (n, mean, low, high) in verdict.advice.items():
        sure = "" if low is None or high is None else f", 95 % sure between {low:.3g} and {high:.3g}"
        parts.append(f"<p>Advice: {_e(name)} {mean:.3g}{sure} ({n} cases); scores never block.</p>")

    for title, found in (("Known failures", verdict.excused), ("In quarantine", verdict.quarantined)):
        if found:
            rows = "".join(f"<li><b>{_e(name)}</b>: {_e(why)}" for name, why in found.items())
            parts.append(f"<h2>{title}</h2><ul>{rows}</ul>")

    parts.append('<h2>Cases</h2><table><tr><th>case<th>state<th class="n">rounds<th class="n">wall<th>why</tr>')
    parts += [_case(one, id(one) in red) for one in cases[:MOST]]
    parts.append("</table>")
    if len(cases) > MOST:
        parts.append(f"<p>and {len(cases) - MOST} more</p>")

    return "\n".join(parts) + "</html>\n"


def _case(one: CaseOutcome, red: bool) -> str:
    rounds = "".join(f'<li value="{r.round}"><b>{_e(r.state)}</b> {_e(r.reason)}' for r in one.rounds if r.reason)
    more = f"<details{' open' if red else ''}><summary>rounds</summary><ol>{rounds}</ol></details>" if rounds else ""
    place = f"<br><code>{_e(one.file)}:{one.line}</code>" if one.file else ""
    state = f"{one.state} (must fail)" if one.control else one.state + (", flaky" if one.flaky else "")
    return (
        f'<tr><td>{_e(f"{one.suite}/{one.case_id}")}{place}<td class="{_e(one.state)}">{_e(state)}'
        f'<td class="n">{one.passed_rounds}/{len(one.rounds)}<td class="n">{one.wall_us / 1e3:.4g} ms'
        f"<td>{_e(one.reason)}{more}</tr>"
    )


def _interval(measure: Measure | None) -> str:
    """A drawing of the interval, and its numbers for those who cannot see it."""
    if measure is None or measure.low is None or measure.high is None:
        return ""

    low, high, value = measure.low, measure.high, measure.effect
    left, right = min(low, 0.0), max(high, 1.0 if low >= 0 else 0.0)
    width = (right - left) or 1.0

    def at(x: float) -> float:
        return 4 + 152 * (x - left) / width

    text = f"{value:.4g} [{low:.4g}, {high:.4g}]"
    return (
        f'<svg width="160" height="18" role="img" aria-label="{_e(text)}"><line x1="4" x2="156" y1="9" y2="9" '
        f'stroke="currentColor" opacity=".25"/><line x1="{at(0.0):.1f}" x2="{at(0.0):.1f}" y1="2" y2="16" '
        f'stroke="currentColor" opacity=".5"/><line x1="{at(low):.1f}" x2="{at(high):.1f}" y1="9" y2="9" '
        f'stroke="currentColor" stroke-width="4"/><circle cx="{at(value):.1f}" cy="9" r="4" fill="currentColor"/></svg>'
        f"{_e(text)}"
    )


def _e(text: object) -> str:
    return escape(plain(str(text)))
