"""What the licence audit writes, and who answers when no person is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from examples.licence_audit.metadata import AuditError
from examples.licence_audit.policy import Policy
from examples.licence_audit.report import prepare, write
from examples.licence_audit.rules import Verdict


def verdict(name: str, kind: str = "permissive", decision: str = "accepted", **more: str) -> Verdict:
    """A verdict of which only name and class matter."""
    fields = {"version": "1.0", "folder": "/x", "licence": "MIT", "actor": "", "note": "", **more}
    return cast(Verdict, {"name": name, "verdict": kind, "decision": decision, "evidence": ["because"], **fields})


def test_the_summary_counts_and_lists_everything(tmp_path: Path) -> None:
    """summary.json holds every verdict, doubtful ones first, and the figures add up."""
    verdicts = [verdict("a"), verdict("b", "unknown", "rejected"), verdict("c", "weak_copyleft", "approved")]
    figures = write(tmp_path, verdicts)
    summary = json.loads(Path(figures["summary"]).read_text())
    assert [one["name"] for one in summary["results"]] == ["b", "c", "a"]
    assert figures["distributions"] == 3
    assert figures["verdicts"] == {"permissive": 1, "weak_copyleft": 1, "strong_copyleft": 0, "unknown": 1}
    assert figures["decisions"] == {"accepted": 1, "approved": 1, "rejected": 1}


def test_strangers_words_stay_words_in_the_report(tmp_path: Path) -> None:
    """Table markup, HTML and line breaks in a licence field cannot break the report."""
    hostile = "MIT | **x** <script>\n# heading [link](http://x) `code`"
    figures = write(tmp_path, [verdict("a", licence=hostile)])
    report = Path(figures["report"]).read_text()
    assert "<script>" not in report
    assert not any(line.startswith("# heading") for line in report.splitlines())
    assert len([line for line in report.splitlines() if line.startswith("| a ")]) == 1


def test_text_that_is_no_unicode_can_still_be_written(tmp_path: Path) -> None:
    """A surrogate from a broken file name does not stop the report."""
    figures = write(tmp_path, [verdict("a", folder="/x/\udcff")])
    assert Path(figures["report"]).exists()


def test_no_verdicts_make_an_empty_report(tmp_path: Path) -> None:
    """An audit of nothing still says so."""
    assert "0 distributions" in Path(write(tmp_path, [])["report"]).read_text()


def test_a_new_report_replaces_the_old_one_whole(tmp_path: Path) -> None:
    """Writing again leaves one report and no leftovers."""
    write(tmp_path, [verdict("a"), verdict("b")])
    write(tmp_path, [verdict("c")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.md", "summary.json"]
    assert "| c |" in (tmp_path / "report.md").read_text()


def test_an_output_folder_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    """The error names the folder and the mend."""
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(AuditError, match=r"cannot write the report to .*file: File exists; choose another folder"):
        prepare(file)


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from licence_audit import report
from licence_audit.metadata import AuditError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
verdict = dict(name="a", version="1", folder="x" * 500, licence="MIT", verdict="unknown", evidence=["b"],
               decision="", actor="", note="")
try:
    report.prepare(Path(sys.argv[2]))
    report.write(Path(sys.argv[2]), [verdict] * 100)
except AuditError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [16, 4096])
def test_a_full_disk_leaves_the_old_report_as_it_was(tmp_path: Path, limit: int) -> None:
    """When the file cannot grow, before or while writing, the old files are whole and no part stays."""
    write(tmp_path, [verdict("old")])
    before = (tmp_path / "summary.json").read_bytes()
    examples = str(Path(__file__).parents[2] / "examples")
    command = [sys.executable, "-c", LIMITED, examples, str(tmp_path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "cannot write the report" in done.stdout, done.stderr
    assert "File too large" in done.stdout
    assert (tmp_path / "summary.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.md", "summary.json"]


def test_the_policies_all_and_none() -> None:
    """all approves and none rejects, and both say who decided."""
    payload = {"name": "thing", "version": "1.0"}
    assert Policy.parse("all").answer(payload) == {"decision": "approve", "note": "by policy all"}
    assert Policy.parse("none").answer(payload)["decision"] == "reject"


@pytest.mark.parametrize(
    "content",
    [
        "my_thing\nother==2.0\n",
        "# reviewed\n  My.Thing  # fine\n\nother==2.0",
        '["my-thing", "other==2.0"]',
    ],
)
def test_a_list_approves_by_name_or_by_name_and_version(tmp_path: Path, content: str) -> None:
    """Names match in any spelling, a version only itself, and the rest is rejected."""
    file = tmp_path / "approved.txt"
    file.write_text(content)
    policy = Policy.parse(str(file))

    def decision(name: str, version: str) -> str:
        return policy.answer({"name": name, "version": version})["decision"]

    assert decision("My-Thing", "9") == "approve"
    assert decision("other", "2.0") == "approve"
    assert decision("other", "2.1") == "reject"
    assert decision("third", "1") == "reject"


@pytest.mark.parametrize(
    ("content", "said"),
    [("[1, 2]", "must hold names only"), ('["a"', "no valid JSON"), (b"\xff\xfe\x00", "not UTF-8")],
)
def test_a_bad_list_is_one_clear_error(tmp_path: Path, content: str | bytes, said: str) -> None:
    """The error names the option and the file."""
    file = tmp_path / "approved.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AuditError, match=said):
        Policy.parse(str(file))


def test_a_misspelt_policy_names_the_choices() -> None:
    """A word that is no file is taken for a misspelling."""
    with pytest.raises(AuditError, match="give all, none, or a file"):
        Policy.parse("al")
