"""The audit as a flow: its product events, its questions, its retries, and how it ends when something fails."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from examples.licence_audit.flow import REVIEW_SCHEMA, flow
from examples.licence_audit.metadata import AuditError
from examples.licence_audit.service import audit

from flowdeck import Runtime

FIELDS = {"event_type", "task_id", "execution_id", "stage", "title", "status", "artifact_ref"}


@pytest.fixture(autouse=True)
def isolated() -> Iterator[Runtime]:
    """A runtime of the test's own, so that nothing is observed but what the test observes."""
    runtime = Runtime()
    with runtime.use():
        yield runtime


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """One permissive, one weak, one strong, one unknown distribution, and one that is not UTF-8."""
    folder = tmp_path / "site"
    for name, head in (
        ("free", "License-Expression: MIT\n"),
        ("weak", "License-Expression: MPL-2.0\n"),
        ("strong", "License-Expression: GPL-3.0-only\n"),
        ("none", ""),
        ("latin", "Author: Élodie\nLicense: MIT\n"),
    ):
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        encoding = "latin-1" if name == "latin" else "utf-8"
        (info / "METADATA").write_bytes(f"Name: {name}\nVersion: 1.0\n{head}".encode(encoding))

    return folder


async def reject(execution: Any, interrupt: Mapping[str, Any]) -> None:
    """Answer every question with no."""
    await execution.async_continue_with(interrupt["id"], {"decision": "reject", "note": "no"}, actor="rex")


def test_the_audit_judges_asks_and_reports(tmp_path: Path, site: Path) -> None:
    """Every class takes its branch, three questions are asked, and the summary adds up."""
    summary = asyncio.run(audit([str(site)], str(tmp_path / "out"), answer=reject))
    assert summary["distributions"] == 5
    assert summary["verdicts"] == {"permissive": 2, "weak_copyleft": 1, "strong_copyleft": 1, "unknown": 1}
    assert summary["decisions"] == {"accepted": 2, "rejected": 3}
    assert "by rex: no" in (tmp_path / "out" / "report.md").read_text()


def test_product_events_have_business_fields_only(tmp_path: Path, site: Path) -> None:
    """Each has the same few fields and a stable status; none carries anything of the flow's inside."""
    events: list[Mapping[str, Any]] = []
    out = str(tmp_path / "out")
    asyncio.run(audit([str(site)], out, task_id="task-7", on_event=events.append, answer=reject))
    for event in events:
        assert set(event) - {"total"} == FIELDS
        assert event["status"] in ("running", "waiting", "ready", "failed")
        assert event["task_id"] == "task-7"
        assert event["execution_id"] == events[0]["execution_id"]

    kinds = [event["event_type"] for event in events]
    assert kinds[0] == "distributions_found"
    assert events[0]["total"] == 5
    assert kinds.count("distribution_checked") == 5
    assert kinds.count("review_requested") == kinds.count("review_decided") == 3
    assert events[-1]["event_type"] == "report_ready"
    assert events[-1]["artifact_ref"] == str(tmp_path / "out" / "report.md")
    inside = ("chunk-", "ForEach-", "Match-", "layer", "operator")
    assert not any(mark in str(event) for event in events for mark in inside)


def test_only_the_strict_reading_fails_and_is_tried_again(tmp_path: Path, site: Path, isolated: Runtime) -> None:
    """The distribution that is not UTF-8 fails once, is read again, and nothing else fails."""
    failed: list[Any] = []
    started: list[Any] = []
    isolated.center.register_hook(lambda event: failed.append(event), event_types="chunk.failed", hook_name="failed")
    isolated.center.register_hook(lambda event: started.append(event), event_types="chunk.started", hook_name="started")
    asyncio.run(audit([str(site)], str(tmp_path / "out"), answer=reject))
    isolated.center.flush(5)
    assert [event.error.type for event in failed] == ["UnicodeDecodeError"]
    reads = [event.meta["attempt"] for event in started if event.payload["chunk_name"] == "read"]
    assert sorted(reads) == [1, 1, 1, 1, 1, 2]


def test_an_answer_the_schema_forbids_leaves_the_question_open(tmp_path: Path, site: Path) -> None:
    """A wrong answer is refused and a right one can still be given."""

    async def wrong_then_right(execution: Any, interrupt: Mapping[str, Any]) -> None:
        assert interrupt["schema"] == REVIEW_SCHEMA
        for value in ("approve", {"decision": "maybe"}, {"decision": "approve", "more": 1}, None):
            with pytest.raises(ValueError, match="does not fit"):
                await execution.async_continue_with(interrupt["id"], value)

        await execution.async_continue_with(interrupt["id"], {"decision": "approve"})

    summary = asyncio.run(audit([str(site)], str(tmp_path / "out"), answer=wrong_then_right))
    assert summary["decisions"] == {"accepted": 2, "approved": 3}


def test_a_missing_path_fails_the_run_with_its_reason(tmp_path: Path) -> None:
    """The caller gets the error of the step, not a timeout or another error."""
    with pytest.raises(AuditError, match="nowhere does not exist"):
        asyncio.run(asyncio.wait_for(audit([str(tmp_path / "nowhere")], str(tmp_path / "out")), 20))


def test_a_report_that_cannot_be_written_after_the_answers_fails_the_run(tmp_path: Path, site: Path) -> None:
    """When the output folder disappears while people think, the run ends with that reason."""
    out = tmp_path / "out"

    async def spoil(execution: Any, interrupt: Mapping[str, Any]) -> None:
        if out.is_dir():
            shutil.rmtree(out)
            out.write_text("a file now")

        try:
            await execution.async_continue_with(interrupt["id"], {"decision": "reject"})
        except AuditError:
            pass  # the last answer leads to the report, so its failure reaches who answered, too

    with pytest.raises(AuditError, match="cannot write the report"):
        asyncio.run(asyncio.wait_for(audit([str(site)], str(out), answer=spoil), 20))


def test_giving_up_withdraws_the_questions(tmp_path: Path, site: Path) -> None:
    """Cancelling the audit while it waits ends the run as cancelled and leaves nothing open."""
    executions: dict[str, Any] = {}
    all_asked = asyncio.Event()

    async def remember(execution: Any, interrupt: Mapping[str, Any]) -> None:
        executions[interrupt["id"]] = execution
        if len(executions) == 3:
            all_asked.set()

    async def give_up() -> None:
        task = asyncio.create_task(audit([str(site)], str(tmp_path / "out"), answer=remember))
        await all_asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(give_up(), 20))
    (execution,) = set(executions.values())
    assert execution.get_status() == "cancelled"
    assert execution.get_pending_interrupts() == {}


def test_an_environment_without_doubts_needs_nobody(tmp_path: Path) -> None:
    """Without questions the audit ends by itself."""
    info = tmp_path / "site" / "free-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: free\nVersion: 1.0\nLicense-Expression: MIT\n")
    summary = asyncio.run(asyncio.wait_for(audit([str(tmp_path / "site")], str(tmp_path / "out")), 20))
    assert summary["decisions"] == {"accepted": 1}


def test_the_flow_can_be_run_without_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started with nothing, it audits this environment into ./licence-audit."""
    monkeypatch.chdir(tmp_path)

    async def start() -> dict[str, Any]:
        execution = flow.create_execution(auto_close_timeout=0.0)
        running = asyncio.create_task(execution.async_start())
        async for item in execution.get_async_runtime_stream(timeout=None):
            if item.get("type") == "interrupt" and item.get("action") == "pause":
                asyncio.ensure_future(reject(execution, item["interrupt"]))  # noqa: RUF006 - ends with the run

        snapshot: dict[str, Any] = await running
        return snapshot

    snapshot = asyncio.run(asyncio.wait_for(start(), 60))
    assert snapshot["summary"]["distributions"] > 30
    assert (tmp_path / "licence-audit" / "report.md").is_file()
