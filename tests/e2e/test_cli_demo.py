"""`flowdeck demo` on real and broken environments, with and without a terminal, and when things go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pexpect
import pytest
from tests.e2e.cli_shell import Shell, eventually, install

QUIT = "\x11"
"""Ctrl-Q, which leaves DevTools from every screen."""
SUBMIT = "\x13"
SITE_PACKAGES = sysconfig.get_paths()["purelib"]


@pytest.fixture
def mixed(shell: Shell) -> Path:
    """A site-packages folder with one distribution of every kind, and some that are broken."""
    site = shell.folder / "site"
    install(site, "free")
    install(site, "lesser", "License-Expression: LGPL-3.0-only\n")
    install(site, "strong", "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)\n")
    install(site, "choice", "License-Expression: GPL-2.0-only OR MIT\n")
    latin = site / "latin-1.0.dist-info"
    latin.mkdir()
    (latin / "METADATA").write_bytes("Name: latin\nVersion: 1.0\nAuthor: Élodie Gaël\nLicense: MIT\n".encode("latin-1"))
    (site / "hollow-1.0.dist-info").mkdir()
    return site


def summary_of(shell: Shell) -> dict[str, Any]:
    """The summary the demo wrote, with its results by name."""
    summary = json.loads((shell.folder / "licence-audit" / "summary.json").read_text())
    return {**summary, "results": {one["name"]: one for one in summary["results"]}}


def test_a_real_environment_is_audited_without_a_terminal(shell: Shell) -> None:
    """Over thirty real distributions: a table, a report, a store that answers, and exit code 0."""
    text = shell.ok("demo", SITE_PACKAGES, "--headless")
    summary = summary_of(shell)
    assert summary["distributions"] > 30
    assert summary["verdicts"]["permissive"] > 20
    assert f"{summary['distributions']} distributions: " in text
    assert "pytest" in text
    assert f"store    {shell.store}" in text
    assert "$ flowdeck sql" in text
    assert "chunk.started" in text
    assert "| pytest |" in (shell.folder / "licence-audit" / "report.md").read_text()
    assert shell.sql("select flow_name, status from runs") == [{"flow_name": "licence-audit", "status": "completed"}]
    (row,) = shell.sql("select count(*) as n from events where event_type = 'chunk.completed'")
    assert row["n"] >= 3 * summary["distributions"]


def test_without_a_terminal_headless_is_implied(shell: Shell, mixed: Path) -> None:
    """In a pipe the demo answers by policy, and rejects by default."""
    shell.ok("demo", str(mixed))
    results = summary_of(shell)["results"]
    decisions = {name: (one["verdict"], one["decision"]) for name, one in results.items()}
    assert decisions == {
        "free": ("permissive", "accepted"),
        "choice": ("permissive", "accepted"),
        "latin": ("permissive", "accepted"),
        "lesser": ("weak_copyleft", "rejected"),
        "strong": ("strong_copyleft", "rejected"),
        "hollow": ("unknown", "rejected"),
    }
    assert results["lesser"]["actor"] == "policy:none"
    assert "holds no METADATA" in results["hollow"]["evidence"][0]


def test_a_policy_approves_all_or_those_on_a_list(shell: Shell, mixed: Path) -> None:
    """--approve all and --approve FILE decide as they say, and the answers are in the history."""
    shell.ok("demo", str(mixed), "--approve", "all")
    assert summary_of(shell)["decisions"] == {"accepted": 3, "approved": 3}
    (shell.folder / "approved.txt").write_text("lesser==1.0\nstrong  # reviewed in May\n")
    shell.ok("demo", str(mixed), "--approve", "approved.txt")
    assert summary_of(shell)["decisions"] == {"accepted": 3, "approved": 2, "rejected": 1}
    (row,) = shell.sql("select count(*) as n from events where event_type = 'triggerflow.inbox_applied'")
    assert row["n"] == 6


def test_broken_encodings_take_a_second_attempt(shell: Shell, mixed: Path) -> None:
    """The failed first attempt and the second are both in the history, and the remark is in the report."""
    shell.ok("demo", str(mixed))
    failed = shell.sql("select * from events where event_type = 'chunk.failed'")
    assert len(failed) == 1
    assert failed[0]["error_type"] == "UnicodeDecodeError"
    assert json.loads(failed[0]["payload"])["will_retry"] is True
    assert any("not UTF-8" in line for line in summary_of(shell)["results"]["latin"]["evidence"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("nowhere",), "nowhere does not exist: name a site-packages folder or a virtual environment"),
        (("file",), "file is not a folder"),
        (("empty",), "no installed distributions in empty"),
        (("site", "nowhere"), "nowhere does not exist"),
        (("site", "--approve", "al"), "--approve al: give all, none, or a file that lists the approved names"),
        (("site", "--out", "file"), "cannot write the report to file: File exists; choose another folder"),
        (("site", "--out", "/dev/full"), "cannot write the report to /dev/full"),
        (("site", "--out", "file/below"), "cannot write the report to file/below: Not a directory"),
        (("site", "--store", "file/below"), "file is a file"),
    ],
)
def test_bad_arguments_are_one_clear_line(shell: Shell, mixed: Path, args: tuple[str, ...], said: str) -> None:
    """Each wrong path is named with its mend; no results are left behind."""
    (shell.folder / "file").write_text("precious")
    (shell.folder / "empty").mkdir()
    assert said in shell.fails("demo", "--headless", *args)
    assert (shell.folder / "file").read_text() == "precious"
    assert not (shell.folder / "licence-audit" / "report.md").exists()


def test_two_demos_at_once_share_a_store(shell: Shell, mixed: Path) -> None:
    """Both finish, both runs are in the store, and no event is missing."""
    both = [shell.start("demo", str(mixed), "--headless", "--out", f"out{number}") for number in range(2)]
    assert [one.end(timeout=60) for one in both] == [0, 0], both
    assert shell.statuses() == ["completed", "completed"]
    counts = shell.sql("select run_id, count(*) as n from events where event_type like 'chunk.%' group by all")
    assert counts
    for number in range(2):
        assert json.loads((shell.folder / f"out{number}" / "summary.json").read_text())["distributions"] == 6


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from flowdeck_devtools.cli import main
main(sys.argv[2:])
"""


@pytest.mark.parametrize("limit", [100, 20_000, 120_000])
def test_a_full_disk_ends_in_one_message_or_keeps_working(shell: Shell, limit: int) -> None:
    """No file may grow beyond the limit: no traceback, no damaged store, and losses are told."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), "demo", SITE_PACKAGES, "--headless"],
        capture_output=True,
        text=True,
        cwd=shell.folder,
        env=shell.env,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1, 2), done.stderr
    assert done.stderr.strip(), done.stdout
    if done.returncode == 0 and "could not be stored" not in done.stderr:
        audited = summary_of(shell)["distributions"]
        (row,) = shell.sql("select count(*) as n from events where event_type = 'chunk.completed'")
        assert row["n"] >= 3 * audited

    after = shell.run("demo", SITE_PACKAGES, "--headless")
    assert after.returncode == 0, after.stderr
    assert "completed" in shell.statuses()


def questions(shell: Shell, number: int = 3) -> list[dict[str, Any]]:
    """What waits for a person, once it is as many as expected."""

    def open_now() -> list[dict[str, Any]]:
        found = shell.open_interrupts()
        return found if len(found) == number else []

    return eventually(open_now, f"{number} questions wait")


def waiting_demo(shell: Shell, site: Path) -> Any:
    """The audit as a program started by somebody else: it waits for people, without any terminal."""
    shell.env["PYTHONPATH"] = str(Path(__file__).parents[2] / "examples")
    order = json.dumps({"paths": [str(site)], "out": str(shell.folder / "licence-audit")})
    return shell.start("run", "licence_audit.flow:flow", "--input", order)


def test_people_decide_from_another_process(shell: Shell, mixed: Path) -> None:
    """Three questions wait; each is answered from another process, and the report shows who said what."""
    running = waiting_demo(shell, mixed)
    waiting = questions(shell)
    for one in waiting:
        name = one["payload"]["distribution"]
        value = {"decision": "approve" if name == "lesser" else "reject", "note": f"about {name}"}
        shell.ok("interrupts", "answer", one["id"], "--value", json.dumps(value), "--actor", "ana")

    assert running.end() == 0, running
    results = summary_of(shell)["results"]
    assert (results["lesser"]["decision"], results["lesser"]["actor"]) == ("approved", "ana")
    assert (results["hollow"]["decision"], results["hollow"]["note"]) == ("rejected", "about hollow")


def test_a_killed_demo_leaves_a_store_that_answers(shell: Shell, mixed: Path) -> None:
    """After kill -9 nothing is corrupt, the run is lost or resumable, and the next demo works."""
    running = waiting_demo(shell, mixed)
    questions(shell)
    (before,) = shell.sql("select count(*) as n from events")
    running.end(signal.SIGKILL)
    (after,) = shell.sql("select count(*) as n from events")
    assert after["n"] >= before["n"]
    assert shell.statuses() in (["lost"], ["waiting"])
    shell.ok("demo", str(mixed), "--headless")
    assert shell.statuses()[0] == "completed"


def test_ctrl_c_in_the_middle_is_recorded(shell: Shell, mixed: Path) -> None:
    """A stopped audit exits 130 with one line, is recorded as cancelled, and leaves no open question."""
    running = waiting_demo(shell, mixed)
    questions(shell)
    assert running.end(signal.SIGINT) == 130
    assert "is recorded as cancelled" in running.output[-1]
    assert shell.statuses() == ["cancelled"]
    assert shell.open_interrupts() == []


def test_the_table_fits_a_terminal_of_40_by_10(shell: Shell, mixed: Path) -> None:
    """On a tiny terminal the headless demo draws a bar and a table that fit."""
    terminal = shell.terminal("demo", str(mixed), "--headless", columns=40, lines=10)
    terminal.expect("6 distributions")
    seen = terminal.before or ""
    terminal.wait()
    table = [line for line in seen.replace("\r", "\n").split("\n") if "permissive" in line or "copyleft" in line]
    assert table
    assert max(map(len, table)) <= 40 + len("\x1b[2K")
    assert terminal.exitstatus == 0


def test_with_a_terminal_devtools_opens_on_the_live_run(shell: Shell, mixed: Path) -> None:
    """The TUI comes up, the answers come from elsewhere, and after leaving the verdicts are printed."""
    terminal = shell.terminal("demo", str(mixed))
    waiting = questions(shell)
    terminal.expect("licence-audit")
    for one in waiting:
        shell.ok("interrupts", "answer", one["id"], "--value", '{"decision": "approve"}', "--actor", "ana")

    eventually(lambda: shell.statuses()[0] == "completed", "the audit is done")
    terminal.send(QUIT)
    terminal.expect("6 distributions: ")
    terminal.expect("3 approved")
    terminal.wait()
    assert terminal.exitstatus == 0


def test_a_person_decides_in_the_inbox(shell: Shell) -> None:
    """Keys alone lead from the live run to the form, and the answer is in the report under the person's name."""
    install(shell.folder / "site", "lesser", "License-Expression: LGPL-3.0-only\n")
    terminal = shell.terminal("demo", str(shell.folder / "site"))
    questions(shell, 1)
    terminal.expect("licence-audit")
    terminal.send("a")
    terminal.expect("review and send")  # the form is up
    terminal.send("\r")  # into the form
    for _ in range(20):  # a form that has just come up ignores keys for a moment
        terminal.send(" ")  # approve is the first choice
        terminal.send(SUBMIT)
        if terminal.expect(["Send this answer", pexpect.TIMEOUT], timeout=0.5) == 0:
            break

    terminal.send("\r")
    eventually(lambda: shell.statuses()[0] == "completed", "the audit is done")
    terminal.send(QUIT)
    terminal.expect("1 approved")
    terminal.wait()
    result = summary_of(shell)["results"]["lesser"]
    assert result["decision"] == "approved"
    assert result["actor"]


def test_devtools_works_on_a_terminal_of_40_by_10(shell: Shell, mixed: Path) -> None:
    """The demo neither refuses nor breaks on a tiny terminal."""
    terminal = shell.terminal("demo", str(mixed), columns=40, lines=10)
    for one in questions(shell):
        shell.ok("interrupts", "answer", one["id"], "--value", '{"decision": "reject"}')

    eventually(lambda: shell.statuses()[0] == "completed", "the audit is done")
    for _ in range(20):  # keys are lost until the window is up
        terminal.send(QUIT)
        if terminal.expect(["6 distributions: ", pexpect.TIMEOUT], timeout=1) == 0:
            break

    terminal.wait()
    assert terminal.exitstatus == 0


def test_leaving_devtools_while_questions_wait(shell: Shell, mixed: Path) -> None:
    """The terminal then says how to answer, with the command as it was called; Ctrl-C ends it."""
    command = str(Path(sys.executable).with_name("flowdeck"))
    shell.env["PATH"] = "/usr/bin:/bin"
    terminal = shell.terminal("demo", str(mixed), columns=200, program=[command])
    questions(shell)
    terminal.expect("licence-audit")
    terminal.send(QUIT)
    terminal.expect("waits for 3 decisions")
    terminal.expect_exact(f"{command} interrupts list")
    terminal.sendintr()
    terminal.expect("recorded as cancelled")
    terminal.wait()
    assert terminal.exitstatus == 130
    assert shell.open_interrupts() == []
    assert shell.statuses()[0] == "cancelled"


def test_the_worker_ends_with_its_terminal(shell: Shell, mixed: Path) -> None:
    """When the terminal and its process are gone, the audit does not stay behind."""
    terminal = shell.terminal("demo", str(mixed))
    questions(shell)
    terminal.kill(signal.SIGKILL)
    eventually(lambda: shell.statuses()[0] in ("cancelled", "lost"), "the audit has ended")


def test_a_list_may_come_from_a_pipe(shell: Shell, mixed: Path) -> None:
    """`--approve <(...)` can be read only once, and once is enough."""
    fifo = shell.folder / "fifo"
    os.mkfifo(fifo)
    running = shell.start("demo", str(mixed), "--approve", "fifo")
    fifo.write_text("lesser\n")
    assert running.end() == 0, running
    assert summary_of(shell)["results"]["lesser"]["decision"] == "approved"


def test_without_textual_the_demo_says_so_before_it_begins(shell: Shell, mixed: Path) -> None:
    """On a terminal without the extra there is one line, and no half-done run."""
    blocking = "import sys; sys.modules['textual'] = None; from flowdeck_devtools.cli import main; main(sys.argv[1:])"
    terminal = shell.terminal("demo", str(mixed), program=[sys.executable, "-c", blocking])
    terminal.expect("textual is not installed: pip install 'flowdeck")
    terminal.wait()
    assert terminal.exitstatus == 2
    assert shell.statuses() == []
