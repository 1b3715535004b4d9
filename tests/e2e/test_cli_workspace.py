"""`flowdeck workspace`, as a person at a shell uses it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from tests.e2e.cli_shell import FLOWDECK

from flowdeck.workspace import WorkspaceManager


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with a report, a decision on it, and something nobody described."""

    async def fill() -> None:
        workspace = WorkspaceManager().create(tmp_path / "ws")
        report = await workspace.put(
            "审查报告\x1b[31m: risk",
            collection="artifacts",
            kind="report",
            summary="第一版",
            scope={"task_id": "t"},
            source="x",
        )
        await workspace.link(await workspace.put("approve", collection="decisions"), report, "responds_to")
        await workspace.put(b"\x00\xff\n", collection="artifacts")
        await workspace.close()

    asyncio.run(fill())
    return tmp_path / "ws"


def ask(root: Path | None, *arguments: str) -> tuple[int, str, str]:
    place = [] if root is None else ["--workspace", str(root)]
    done = subprocess.run([*FLOWDECK, "workspace", *arguments, *place], capture_output=True)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode()


def test_looking_around(root: Path) -> None:
    """ls, search and show find records, as tables for people and as JSON for programs."""
    code, text, _ = ask(root, "ls")
    assert code == 0 and text.count("rec_") == 3
    (found,) = json.loads(ask(root, "search", '审查 "', "--json")[1])
    assert found["kind"] == "report"
    assert json.loads(ask(root, "ls", "-s", "task_id=t", "-c", "artifacts", "--json")[1]) == [found]
    assert len(json.loads(ask(root, "ls", "-n", "2", "--json")[1])) == 2
    code, text, _ = ask(root, "show", found["id"])
    assert "responds_to" in text and "审查报告: risk" in text and "\x1b" not in text
    assert json.loads(ask(root, "show", found["uri"], "--json")[1])["content"] == "审查报告\x1b[31m: risk"
    assert ask(root, "show", found["id"], "--raw")[1] == "审查报告\x1b[31m: risk"
    assert ask(root, "search", "nowhere")[::2] == (0, "nothing matches\n")


def test_audit_fails_on_findings(root: Path) -> None:
    """The exit code is 1 with findings, and what was changed on the disk is one."""
    code, text, _ = ask(root, "audit")
    assert code == 1 and "no source, no summary, no scope, no link" in text and text.count("rec_") == 1
    (report,) = (root / "content" / "artifacts").glob("*-report.txt")
    report.write_text("forged")
    problems = [each["problems"] for each in json.loads(ask(root, "audit", "--verify", "--json")[1])]
    assert ["content changed"] in problems
    assert ask(root, "audit", "-c", "dialogue")[::2] == (
        0,
        "every record has a source, a summary, a scope and a link\n",
    )


def test_mistakes_are_one_line(root: Path, tmp_path: Path) -> None:
    """Each names the thing and ends with 2."""
    for place, arguments, said in (
        (tmp_path / "none", ["ls"], "is no workspace; name one with --workspace DIR"),
        (root, ["show", "rec_0"], "there is no record 'rec_0'"),
        (root, ["show", "../../etc/passwd"], "leads out of the workspace"),
        (root, ["ls", "-s", "task"], "--scope task: expected KEY=VALUE"),
    ):
        code, out, err = ask(place, *arguments)
        assert (code, out) == (2, "") and said in err and err.count("\n") == 1

    assert not (tmp_path / "none").exists()
