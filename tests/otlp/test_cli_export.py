"""`flowdeck export otlp`, `flowdeck run --otlp` and `flowdeck doctor`, from the shell."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from tests.otlp.receiver import Answer, http_receiver
from tests.otlp.story import stored

from flowdeck.layout import Layout
from flowdeck_devtools.cli._app import run
from flowdeck_sinks.otlp.cursor import Cursor

FLOWDECK = [sys.executable, "-m", "flowdeck_devtools.cli"]
FLOW = """
from flowdeck import TriggerFlow
greet = TriggerFlow(name="greet")
greet.to(("hello", lambda data: f"hello {data.input}"))
"""


def environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "FLOWDECK_"))}
    return {**clean, "OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", **variables}


def flowdeck(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command line in this process: a process of its own takes longer than all the work."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, environment(), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run(list(arguments))

    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def shell(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FLOWDECK, *arguments], cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=60
    )


def test_export_sends_what_is_new_and_says_so(tmp_path: Path) -> None:
    """The first export sends the store, the second nothing; --json is for scripts."""
    spans = stored(tmp_path / ".flowdeck", 4)
    with http_receiver() as receiver:
        first = flowdeck(tmp_path, "export", "otlp", "--endpoint", receiver.url)
        assert (first.returncode, first.stderr) == (0, "")
        assert first.stdout.startswith(f"{spans} spans of 36 events to http://127.0.0.1")
        second = flowdeck(tmp_path, "export", "otlp", "--endpoint", receiver.url, "--json")
        assert json.loads(second.stdout)["spans_exported"] == 0
        assert len(receiver.copies()) == spans


def test_a_run_and_a_period_can_be_exported_once_more(tmp_path: Path) -> None:
    """--run and --since send whole traces again, whatever the cursor says."""
    stored(tmp_path / ".flowdeck", 4)
    with http_receiver() as receiver:
        url = ("--endpoint", receiver.url)
        assert flowdeck(tmp_path, "export", "otlp", "--run", "audit-2", *url).stdout.startswith("4 spans")
        assert flowdeck(tmp_path, "export", "otlp", "--since", "1h", *url).stdout.startswith("16 spans")
        assert flowdeck(tmp_path, "export", "otlp", "--since", "2031-01-01", *url).stdout.startswith("0 spans")

        unknown = flowdeck(tmp_path, "export", "otlp", "--run", "audit-99", *url)
        assert (unknown.returncode, "there is no run or execution audit-99" in unknown.stderr) == (2, True)

    assert sorted(receiver.copies().values()) == [1] * 12 + [2] * 4


def test_export_says_what_is_wrong(tmp_path: Path) -> None:
    """No collector, a wrong key, a busy cursor, wrong options: one line each, exit 1 or 2, nothing lost."""
    stored(tmp_path / ".flowdeck", 2)
    url = ("--endpoint", "http://127.0.0.1:9")
    dead = flowdeck(tmp_path, "export", "otlp", *url, "--timeout", "0.2")
    assert dead.returncode == 1
    assert "127.0.0.1:9/v1/traces cannot be reached: Connection refused. Nothing is lost" in dead.stderr
    with http_receiver(lambda path, message: Answer(401)) as receiver:
        wrong = flowdeck(tmp_path, "export", "otlp", "--endpoint", receiver.url)
        assert (wrong.returncode, "answered 401" in wrong.stderr) == (1, True)

    held = Cursor.hold(Layout(tmp_path / ".flowdeck"), "otlp")
    busy = flowdeck(tmp_path, "export", "otlp", *url)
    held.close()
    assert (busy.returncode, f"process {os.getpid()} exports" in busy.stderr) == (1, True)
    for arguments in (
        ("--run", "x", "--since", "1h"),
        ("--since", "soon"),
        ("--endpoint", "ftp://x"),
        ("-f", "--run", "x"),
    ):
        refused = flowdeck(tmp_path, "export", "otlp", *arguments)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1


def test_export_follows_until_it_is_stopped(tmp_path: Path) -> None:
    """With --follow new events are exported as they come; SIGTERM ends it cleanly and the cursor is saved."""
    stored(tmp_path / ".flowdeck", 1)
    with http_receiver() as receiver:
        process = subprocess.Popen(
            [*FLOWDECK, "export", "otlp", "--follow", "--endpoint", receiver.url],
            cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        receiver.wait(lambda: len(receiver.copies()) == 4, "the first run")
        stored(tmp_path / ".flowdeck", 2)
        receiver.wait(lambda: len(receiver.copies()) == 12, "the runs that came later")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert output.startswith("12 spans of 27 events")
        assert flowdeck(tmp_path, "export", "otlp", "--endpoint", receiver.url).stdout.startswith("0 spans")


def test_dead_letters_are_listed_and_sent_again(tmp_path: Path) -> None:
    """What a collector refused is listed with its reason, and leaves the list once it was taken."""
    stored(tmp_path / ".flowdeck", 2)
    state: dict[str, Any] = {"status": 400}
    with http_receiver(lambda path, message: Answer(state["status"], {}, b"too old")) as receiver:
        url = ("--endpoint", receiver.url)
        refused = flowdeck(tmp_path, "export", "otlp", *url)
        assert (refused.returncode, "flowdeck export otlp --dead-letters" in refused.stderr) == (1, True)
        listed = json.loads(flowdeck(tmp_path, "export", "otlp", "--dead-letters", "--json").stdout)
        assert [(letter["items"], "too old" in letter["reason"]) for letter in listed] == [(8, True)]
        doctor = flowdeck(tmp_path, "doctor")
        assert "1 dead letters with 8 items" in doctor.stdout
        state["status"] = 200
        assert flowdeck(tmp_path, "export", "otlp", "--resend", *url).stdout.startswith("8 items")
        assert len(receiver.copies()) == 8

    assert "no dead letters" in flowdeck(tmp_path, "export", "otlp", "--dead-letters").stderr


def test_run_exports_when_asked(tmp_path: Path) -> None:
    """`flowdeck run --otlp` sends the run's trace; with a dead collector it says where the trace waits."""
    (tmp_path / "flows.py").write_text(FLOW)
    dead = shell(
        tmp_path, "run", "flows:greet", "-i", '"you"', "--otlp", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9"
    )
    assert dead.returncode == 0
    assert "they wait in the store: flowdeck export otlp" in dead.stderr, dead.stderr
    with http_receiver() as receiver:
        done = shell(tmp_path, "run", "flows:greet", "-i", '"you"', "--otlp-endpoint", receiver.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(span.name for span in receiver.spans) == ["invoke_workflow greet"] * 2 + ["step hello"] * 2

    (tmp_path / "flows.py").write_text(FLOW.replace('f"hello {data.input}"', "1 / 0"))
    failed = flowdeck(tmp_path, "run", "flows:greet", "--otlp-endpoint", "http://127.0.0.1:9")
    assert failed.returncode == 1
    assert "they wait in the store: flowdeck export otlp" in failed.stderr, failed.stderr
    assert "ZeroDivisionError" in failed.stderr
    (tmp_path / "flows.py").write_text(FLOW)
    nowhere = shell(tmp_path, "run", "flows:greet", "--otlp", OTEL_EXPORTER_OTLP_ENDPOINT="ht!tp:/x y")
    assert nowhere.returncode == 0
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=" in nowhere.stderr
    assert "is no URL: nothing is sent there" in nowhere.stderr
    with http_receiver() as other:
        shell(tmp_path, "run", "flows:greet", FLOWDECK_SINKS="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=other.url)
        assert len(other.spans) == 2 + 4  # those of the two runs before had waited in the store


def test_doctor_tries_the_collector(tmp_path: Path) -> None:
    """The doctor reports a collector that answers, one that is not there, and one that wants a key."""
    stored(tmp_path / ".flowdeck", 1)
    with http_receiver() as receiver:
        fine = flowdeck(tmp_path, "doctor", "--endpoint", receiver.url, "--json")
        assert fine.returncode == 0
        assert any("answers" in finding["what"] for finding in json.loads(fine.stdout))
        assert receiver.spans == []

    with http_receiver(lambda path, message: Answer(403)) as receiver:
        keyless = flowdeck(tmp_path, "doctor", "--endpoint", receiver.url)
        assert (keyless.returncode, "OTEL_EXPORTER_OTLP_HEADERS" in keyless.stdout) == (1, True)

    with http_receiver() as receiver:
        path = flowdeck(tmp_path, "doctor", "--endpoint", f"{receiver.url}/elsewhere")
        assert path.returncode == 1
        assert "base URL" in path.stdout
        assert "takes none" not in path.stdout

    gone = flowdeck(tmp_path, "doctor", "--endpoint", "http://127.0.0.1:9")
    assert (gone.returncode, "Connection refused" in gone.stdout) == (1, True)
    unused = flowdeck(tmp_path, "doctor")
    assert (unused.returncode, "no export is configured" in unused.stdout) == (0, True)


def test_doctor_shows_an_export_that_stands_still(tmp_path: Path) -> None:
    """How far the export is, and why it goes no further, is visible from another process."""
    stored(tmp_path / ".flowdeck", 3)
    flowdeck(tmp_path, "export", "otlp", "--endpoint", "http://127.0.0.1:9", "--timeout", "0.1")
    shown = flowdeck(tmp_path, "doctor")
    assert shown.returncode == 1
    assert "27 events to go" in shown.stdout
    assert "http://127.0.0.1:9/v1/traces cannot be reached" in shown.stdout
