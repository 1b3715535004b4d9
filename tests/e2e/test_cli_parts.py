"""The parts of the command line that need no store: tables, hints, the end of a journal, finding flows."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from contextlib import redirect_stdout
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdeck.layout import Layout
from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._app import run
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._hints import example_answer, question_of, this_command
from flowdeck_devtools.cli._journal_end import newest_lines
from flowdeck_devtools.cli._options import parse_json
from flowdeck_devtools.cli._table import write_csv, write_json, write_table
from flowdeck_devtools.core.text import cells

VALUES = [
    None,
    True,
    7,
    1.5,
    "text",
    "日本語",
    Decimal("1.10"),
    datetime(2026, 1, 2, 3, 4, 5),
    [1, {"a": None}],
    b"\x01",
]


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was written to stdout, as lines."""
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [12, 20, 40, 80, 200])
def test_a_table_never_exceeds_the_terminal(capsys: pytest.CaptureFixture[str], width: int) -> None:
    """Whatever the values and however narrow the terminal, no line is wider."""
    columns = [f"column_{index}" for index in range(len(VALUES))]
    write_table(columns, [VALUES, list(reversed(VALUES))], width=width)
    lines = lines_of(capsys)
    assert lines
    assert max(map(cells, lines)) <= width


def test_a_table_strips_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences in values and column names do not reach the output."""
    write_table(["a\x1b[2J"], [["red \x1b[31mtext\x1b[0m\n second line \x07"]], width=80)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\x07" not in text
    assert len(text.splitlines()) == 3


def test_a_table_says_when_it_stops(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows beyond the limit are not written and not fetched further than needed; a line says so."""
    drawn = []

    def rows() -> Any:
        for number in range(1_000_000):
            drawn.append(number)
            yield (number,)

    assert write_table(["n"], rows(), width=80, limit=5) == 5
    assert "more than 5 rows" in capsys.readouterr().out
    assert len(drawn) == 6


def test_a_table_at_its_limit_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Exactly as many rows as the limit are all there are."""
    write_table(["n"], [(1,), (2,)], width=80, limit=2)
    assert "more than" not in capsys.readouterr().out


def test_json_is_one_array_whatever_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    """Times, decimals, bytes, NaN and JSON columns all become valid JSON."""
    row = [*VALUES, float("nan"), timedelta(seconds=90), '{"x": [1]}', "no json"]
    names = [f"c{index}" for index in range(len(row))]
    write_json(names, [row], [False] * (len(row) - 2) + [True, True])
    (record,) = json.loads(capsys.readouterr().out)
    assert record["c10"] is None
    assert record["c11"] == 90.0
    assert record["c12"] == {"x": [1]}
    assert record["c13"] == "no json"
    assert record["c7"] == "2026-01-02T03:04:05"


def test_no_rows_are_an_empty_array(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty result is still JSON, and CSV with a header."""
    write_json(["a"], [])
    assert json.loads(capsys.readouterr().out) == []
    write_csv(["a", "b"], [])
    assert capsys.readouterr().out == "a,b\n"


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_csv_reads_back_as_it_was_written(rows: list[tuple[str, str]]) -> None:
    """Any text survives a round trip through the CSV."""
    written = io.StringIO(newline="")
    with redirect_stdout(written):
        write_csv(["a", "b"], rows)

    read = list(csv.reader(io.StringIO(written.getvalue(), newline="")))
    assert [tuple(row) for row in read[1:]] == rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        ("[1, 2]", [1, 2]),
        ('"word"', "word"),
        ("null", None),
    ],
)
def test_an_option_takes_json(text: str, expected: Any) -> None:
    """JSON of any kind is read."""
    assert parse_json(text, "--value") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("approve", "for the text 'approve' write '\"approve\"'"),
        ("{'a': 1}", "--value is no valid JSON"),
        ("", "--value is no valid JSON"),
        ("NaN", "NaN is not JSON"),
        ("@/nowhere/at/all.json", "/nowhere/at/all.json cannot be read: No such file"),
        ("[" * 100_000, "--value"),
    ],
)
def test_bad_json_is_one_line_with_the_mend(text: str, said: str) -> None:
    """What is no JSON is refused with a hint, on one line."""
    with pytest.raises(CliError) as caught:
        parse_json(text, "--value")

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == 2


def test_a_file_is_read_as_an_option(tmp_path: Path) -> None:
    """@file reads the JSON from a file."""
    (tmp_path / "in.json").write_text('{"a": "é"}', encoding="utf-8")
    assert parse_json(f"@{tmp_path / 'in.json'}", "--input") == {"a": "é"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (None, True),
        ({"type": "boolean"}, True),
        ({"enum": ["approve", "reject"]}, "approve"),
        (
            {
                "type": "object",
                "properties": {"decision": {"enum": ["approve", "reject"]}, "note": {"type": "string"}},
                "required": ["decision"],
            },
            {"decision": "approve"},
        ),
        ({"type": "object", "properties": {"amount": {"type": "number"}}}, {"amount": 1.0}),
        ({"type": ["string", "null"]}, True),
        ({"type": "array"}, []),
    ],
)
def test_a_hint_shows_an_answer_that_fits(schema: Any, expected: Any) -> None:
    """The example in a hint follows the interrupt's schema."""
    assert example_answer(schema) == expected


def test_the_question_is_found_in_the_payload() -> None:
    """A payload's question is shown, else the payload."""
    assert question_of({"question": "May we?", "x": 1}) == "May we?"
    assert question_of({"x": 1}) == '{"x": 1}'
    assert question_of("plain") == "plain"
    assert question_of(None) == ""


def event_line(number: int, us: int) -> bytes:
    """A journal line whose time is ``us`` microseconds after the epoch."""
    event = {"wseq": number, "event_type": f"t.{number}", "timestamp": us // 1000, "meta": {"us": us % 1000}}
    return json.dumps(event).encode()


def write_segment(path: Path, numbers: list[int], torn: bytes = b"", padding: int = 0) -> None:
    """A segment with a header line, one line a number, and a torn last line."""
    header = b'{"flowdeck":"journal","format":1,"pad":"' + b"x" * padding + b'"}'
    body = b"\n".join([header, *(event_line(number, number * 1000) for number in numbers)]) + b"\n"
    path.write_bytes(body + torn)


def numbers_of(lines: list[bytes]) -> list[int]:
    """Which events these lines are."""
    return [json.loads(line)["wseq"] for line in lines]


@pytest.mark.parametrize("count", [0, 1, 3, 10, 100])
def test_the_newest_lines_of_interleaved_writers_come_in_order(tmp_path: Path, count: int) -> None:
    """Two writers' lines are merged by time; headers and torn lines are left out."""
    write_segment(tmp_path / "w1-000001.jsonl", [1, 3, 5, 7, 9], torn=b'{"wseq":11')
    write_segment(tmp_path / "w2-000001.jsonl", [2, 4, 6, 8], padding=300_000)
    (tmp_path / "_.jsonl").touch()
    newest = newest_lines(tmp_path, count, lambda line: True)
    assert numbers_of(newest) == list(range(max(1, 10 - count), 10))


def test_only_wanted_lines_count(tmp_path: Path) -> None:
    """With a filter the search goes back until enough matched."""
    write_segment(tmp_path / "w1-000001.jsonl", list(range(1, 20_001)))
    lines = newest_lines(tmp_path, 3, lambda line: json.loads(line)["wseq"] % 5000 == 1)
    assert numbers_of(lines) == [5001, 10001, 15001]


@given(st.lists(st.integers(min_value=1, max_value=600_000), max_size=6), st.integers(min_value=1, max_value=7))
def test_lines_of_any_length_are_found_whole(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], count: int
) -> None:
    """Lines longer than a block, and blocks that end inside a line, lose nothing."""
    folder = tmp_path_factory.mktemp("journal")
    lines = [
        json.dumps({"wseq": number, "timestamp": number, "pad": "y" * size}).encode()
        for number, size in enumerate(sizes)
    ]
    (folder / "w-000001.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    assert newest_lines(folder, count, lambda line: True) == lines[-count:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["store", "prune", "--max-age=-1"], "--max-age -1: write days"),
        (["store", "prune", "--max-age=1e400d"], "--max-age 1e400d: write days"),
        (["store", "prune", "--max-age=1000000d"], "--max-age 1000000d: write days"),
        (["store", "prune", "--max-size=-5kB"], "--max-size -5kB: write a number"),
        (["executions", "list", "--status", "waiting,silly"], "--status silly: choose from created, running, waiting"),
        (["runs", "--filter", "nothing:1"], "see: flowdeck docs reference/filters"),
    ],
)
def test_what_would_do_something_else_is_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before anything is done."""
    monkeypatch.setenv("FLOWDECK_STORE", str(tmp_path / "store"))
    Layout.create(tmp_path / "store")
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_closed_streams_take_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """`flowdeck runs >&-` is no error of ours."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)

    assert run(["--version"]) == 0
    assert sys.stdin.read() == ""
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()


def test_hints_name_the_command_as_the_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path, as it was typed, where PATH does not lead to it; with ``python -m`` the usual name."""
    command = tmp_path / "a b" / "flowdeck"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    for argv0, path, told in (
        (str(command), "/usr/bin", f"'{command}'"),
        (str(command), str(command.parent), "flowdeck"),
        ("/x/flowdeck_devtools/cli/__main__.py", "/usr/bin", "flowdeck"),
    ):
        monkeypatch.setattr(sys, "argv", [argv0])
        monkeypatch.setenv("PATH", path)
        assert this_command() == told


def test_a_dumb_terminal_is_not_drawn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a terminal all the same."""
    end, other = os.openpty()
    with os.fdopen(other, "w") as terminal:
        for kind, draws in (("dumb", False), ("xterm", True)):
            monkeypatch.setenv("TERM", kind)
            assert (_output.is_terminal(terminal), _output.drawable(terminal)) == (True, draws)

    os.close(end)
