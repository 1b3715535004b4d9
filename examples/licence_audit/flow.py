"""The audit as a flow: find, read, classify, ask a person where the rules may not decide, report.

discover -> for each, eight at a time:
              read (again with a guessed charset when it is not UTF-8) -> classify
              -> match: permissive -> accept
                        copyleft, unknown -> ask a person -> record the decision
         -> write_report
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from flowdeck import Retry, TriggerFlow, TriggerFlowRuntimeData

from . import metadata, report
from .interaction import tell
from .rules import Verdict, classify

__all__ = ["REVIEW_SCHEMA", "flow"]

REVIEW_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "enum": ["approve", "reject"], "title": "May we depend on it?"},
        "note": {"type": "string", "title": "Why (goes into the report)"},
    },
    "required": ["decision"],
    "additionalProperties": False,
}
"""What a reviewer's answer looks like. DevTools makes its form from it."""

_VERDICT_FIELDS = ("name", "version", "folder", "licence", "verdict", "evidence")


async def discover(data: TriggerFlowRuntimeData) -> list[metadata.Found]:
    """Find the distributions in ``input["paths"]``, or in this environment when there are none."""
    order = data.input or {}
    out = Path(order.get("out") or "licence-audit")
    await data.call("files", "prepare", _prepare, str(out))  # a full disk is better met before people are asked
    await data.async_set_state("out", str(out))

    found: list[metadata.Found] = await data.call("files", "discover", _discover, list(order.get("paths") or ()))
    title = f"Found {len(found)} distributions"
    await tell(data, "distributions_found", "discover", title, "running", total=len(found))
    return found


async def read(data: TriggerFlowRuntimeData) -> metadata.Facts:
    """Read one distribution's metadata: first as UTF-8, then with a detected charset."""
    encoding = "utf-8" if data.attempt == 1 else "detect"
    facts: metadata.Facts = await data.call("files", "read", _read, data.input, encoding)
    return facts


async def judge(data: TriggerFlowRuntimeData) -> Verdict:
    """Apply the rules to the facts."""
    verdict = classify(data.input)
    title = f"{verdict['name']} {verdict['version']}: {verdict['licence'] or 'no licence'}"
    await tell(data, "distribution_checked", "check", title, "running")
    return verdict


def is_permissive(data: TriggerFlowRuntimeData) -> bool:
    return bool(data.input["verdict"] == "permissive")


def is_weak_copyleft(data: TriggerFlowRuntimeData) -> bool:
    return bool(data.input["verdict"] == "weak_copyleft")


def is_strong_copyleft(data: TriggerFlowRuntimeData) -> bool:
    return bool(data.input["verdict"] == "strong_copyleft")


async def accept(data: TriggerFlowRuntimeData) -> Verdict:
    """A permissive licence needs nobody's consent."""
    return cast(Verdict, {**data.input, "decision": "accepted"})


async def ask(data: TriggerFlowRuntimeData) -> Any:
    """Pause this branch until a person decided. The other distributions go on meanwhile."""
    verdict: Verdict = data.input
    named = f"{verdict['name']} {verdict['version']}"
    await tell(data, "review_requested", "review", f"{named} needs a decision", "waiting")
    return await data.async_pause_for(
        type="licence_review",
        payload={
            "question": f"May we depend on {named} ({verdict['licence'] or 'no known licence'})?",
            "distribution": verdict["name"],
            **{field: cast(dict[str, Any], verdict)[field] for field in _VERDICT_FIELDS},
        },
        schema=REVIEW_SCHEMA,
        resume_to="next",
    )


async def record(data: TriggerFlowRuntimeData) -> Verdict:
    """Write the answer into the verdict. What is no clear approval is a rejection."""
    interrupt: dict[str, Any] = data.resume.interrupt or {}
    answer = data.input if isinstance(data.input, dict) else {"decision": data.input}
    decided = {
        "decision": "approved" if answer.get("decision") == "approve" else "rejected",
        "actor": str(interrupt.get("actor") or ""),
        "note": str(answer.get("note") or ""),
    }
    asked = {field: interrupt["payload"][field] for field in _VERDICT_FIELDS}
    await tell(data, "review_decided", "review", f"{asked['name']} is {decided['decision']}", "running")
    return cast(Verdict, asked | decided)


async def write_report(data: TriggerFlowRuntimeData) -> dict[str, Any]:
    """Write report.md and summary.json, and leave the figures in the state for the close snapshot."""
    verdicts: list[Verdict] = data.input
    summary: dict[str, Any] = await data.call("files", "write", _write, data.get_state("out"), verdicts)
    await data.async_set_state("summary", summary)
    await tell(data, "report_ready", "report", "The licence report is ready", "ready", summary["report"])
    return summary


# -- the world: what the port "files" does, and a tape answers in its place --------------------------------------------


async def _prepare(out: str) -> None:
    await asyncio.to_thread(report.prepare, Path(out))


async def _discover(paths: list[str]) -> list[metadata.Found]:
    return await asyncio.to_thread(metadata.discover, paths)


async def _read(found: metadata.Found, encoding: str) -> metadata.Facts:
    decode = metadata.decode_strict if encoding == "utf-8" else metadata.detect_encoding
    return await asyncio.to_thread(metadata.read_facts, found, decode)


async def _write(out: str, verdicts: list[Verdict]) -> dict[str, Any]:
    return await asyncio.to_thread(report.write, Path(out), verdicts)


flow = TriggerFlow(name="licence-audit")
(
    flow.to(discover)
    .for_each(concurrency=8)
    .to(read, retry=Retry(attempts=2, on=(UnicodeDecodeError,)))
    .to(judge)
    .match()
    .case(is_permissive)
    .to(accept)
    .case(is_weak_copyleft)
    .to(("ask_about_weak_copyleft", ask))
    .to(("record_weak_copyleft", record))
    .case(is_strong_copyleft)
    .to(("ask_about_strong_copyleft", ask))
    .to(("record_strong_copyleft", record))
    .case_else()
    .to(("ask_about_unknown", ask))
    .to(("record_unknown", record))
    .end_match()
    .end_for_each()
    .to(write_report)
)
