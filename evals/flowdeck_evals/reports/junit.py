"""JUnit XML: a test case per case, its rounds as properties."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from flowdeck_evals.outcomes import CaseOutcome
from flowdeck_evals.reports import Summary, plain

__all__ = ["render"]

_ERRORS = ("errored", "timed_out", "harness_error", "unscored", "missing")


def render(summary: Summary) -> str:
    """Return the XML document."""
    root = ET.Element("testsuites", name="evals")
    suites: dict[str, list[CaseOutcome]] = {}
    for one in summary.outcomes:
        suites.setdefault(one.suite, []).append(one)

    for name, cases in suites.items():
        kinds = [_kind(one) for one in cases]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=name,
            tests=str(len(cases)),
            failures=str(kinds.count("failure")),
            errors=str(kinds.count("error")),
            skipped=str(kinds.count("skipped")),
            time=f"{sum(one.wall_us for one in cases) / 1e6:.6f}",
        )
        for one, kind in zip(cases, kinds, strict=True):
            _case(suite, one, kind)

    total = ET.SubElement(root, "testsuite", name="verdict", tests="1", failures="0" if summary.verdict.ok else "1")
    case = ET.SubElement(total, "testcase", classname="verdict", name=summary.verdict.word)
    if not summary.verdict.ok:
        reasons = [f"{reason.rule}: {reason.message}" for reason in summary.verdict.reasons if reason.code]
        ET.SubElement(case, "failure", message=plain(f"code {summary.verdict.code}")).text = plain("\n".join(reasons))

    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _kind(one: CaseOutcome) -> str | None:
    if one.state == "skipped":
        return "skipped"

    if one.state in ("missing", "harness_error", "unscored"):
        return "error"

    if one.control:
        return "failure" if one.state == "passed" else None

    return None if one.state == "passed" else "error" if one.state in _ERRORS else "failure"


def _case(suite: ET.Element, one: CaseOutcome, kind: str | None) -> None:
    case = ET.SubElement(suite, "testcase", classname=one.suite, name=one.case_id, time=f"{one.wall_us / 1e6:.6f}")
    if one.file:
        case.set("file", one.file)
        case.set("line", str(one.line))

    if len(one.rounds) > 1 or one.flaky:
        properties = ET.SubElement(case, "properties")
        for round in one.rounds:
            ET.SubElement(properties, "property", name=f"round {round.round}", value=round.state)

    if kind is not None:
        reason = plain(one.reason or ("must fail and passed" if one.control else one.state))
        found = ET.SubElement(case, kind, message=reason.splitlines()[0] if reason else "")
        if kind != "skipped":
            found.set("type", one.state)
            found.text = "\n".join(plain(f"round {r.round}: {r.state}: {r.reason}") for r in one.rounds if r.reason)
