"""Suite files: what they may say, and where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowdeck.errors import SuiteError
from flowdeck.execution.json_schema import check as check_schema
from flowdeck_evals import Suite
from flowdeck_evals.documents import read_yaml
from flowdeck_evals.format import json_schema

GOOD = """\
suite: refunds
target: shop.flows:refund
defaults: {timeout: 20s, tags: [release], stub: {clock: virtual}}
cases:
  - case: duplicate
    why: billed twice
    input: {order: A-1, on: 2024-01-02, ok: yes, none: ~, n: 0x10, half: .5}
    stub: {model: live}
    human:
      - on: approval refund/*
        where: {amount: {le: 100}}
        answer: {approved: true}
      - otherwise: fail
    expect:
      output: {match: {status: refunded}, ignore: "*.ts"}
      path:
        - in_order: [run.start, {event: "call.done *", as: x, times: 1..3}, run.end]
        - either: [[{never: "call.* a"}], [{not: [{never: b}]}]]
      budget: {wall: 250ms}
    need: 4/5
gate: {completeness: {skipped: {at_most: 5%}}}
"""


def load(tmp_path: Path, text: str, name: str = "suite.yaml") -> Suite[Any, Any]:
    path = tmp_path / name
    path.write_text(text)
    return Suite.load(path)


def problems(tmp_path: Path, text: str, name: str = "suite.yaml") -> list[str]:
    with pytest.raises(SuiteError) as caught:
        load(tmp_path, text, name)

    return [problem.partition(f"{name}")[2].removeprefix(":") for problem in caught.value.problems]


def test_a_suite_is_read(tmp_path: Path) -> None:
    """Defaults lie under each case, durations become seconds, and YAML 1.2's plain words stay text."""
    suite = load(tmp_path, GOOD)
    (case,) = suite.cases
    assert (case.id, case.timeout, case.rounds, case.tags, str(case.need)) == (
        "duplicate",
        20.0,
        5,
        ("release",),
        "4/5",
    )
    assert case.input == {"order": "A-1", "on": "2024-01-02", "ok": "yes", "none": None, "n": "0x10", "half": 0.5}
    assert case.stub == {"clock": "virtual", "model": "live"}
    assert case.expect["budget"] == {"wall": 0.25}
    assert case.place is not None
    assert case.place.line == 5
    assert suite.gate.skipped == 0.05


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("    why: billed", "    wyh: billed", "6: unknown key 'wyh'; did you mean 'why'?"),
        (
            "timeout: 20s",
            "timeout: 20",
            "3: timeout: must be a duration with its unit, such as 250ms, 20s or 5m, not 20",
        ),
        ("case: duplicate", "case: Dup licate", "5: case: 'Dup licate' must look like lower-case-with-dashes"),
        ("le: 100", "le: 100, xx: 1", None),
        ("in_order:", "in_oder:", "17: unknown key 'in_oder'; did you mean 'in_order'?"),
        ("need: 4/5", "need: 6/5", "5: need 6/5 can never be reached"),
        ("need: 4/5", "need: most", "20: need: 'most' must look like all, 4/5, pass^3 >= 0.9 or pass@3 >= 0.9"),
        (
            "answer: {approved: true}",
            "times: 1",
            "10: needs exactly one of answer, answers, decline, timeout, otherwise",
        ),
        ("suite: refunds\n", "", "1: 'suite' is missing"),
        ("    why: billed twice\n", "    why: a\n    why: b\n", "7: duplicate key 'why', first on line 6"),
        ("{status: refunded}", "{status: [}", "15: not valid YAML"),
        ("gate: {", "gate: {x: 1, ", "21: unknown key 'x'"),
        ("{status: refunded}", "{status: refunded}, regex: '('", "15: regex: '(' is no regular expression"),
        ("le: 100", "regex: '['", "11: regex: '[' is no regular expression"),
    ],
)
def test_every_problem_has_its_line(tmp_path: Path, old: str, new: str, wanted: str | None) -> None:
    """A wrong file is refused with the line, the thing and the nearest known key."""
    assert old in GOOD
    if wanted is None:
        load(tmp_path, GOOD.replace(old, new))  # a literal: not every key is a comparator
    else:
        found = problems(tmp_path, GOOD.replace(old, new))
        assert any(problem.startswith(wanted) for problem in found), found


def test_all_problems_at_once(tmp_path: Path) -> None:
    """One pass names every problem, in order of lines."""
    found = problems(tmp_path, "suite: X\ntarget: y\ncases:\n  - case: a\n  - case: a\n    rounds: 0\n")
    assert [problem.split(":")[0] for problem in found] == ["1", "2", "5", "6"]


def test_aliases_cannot_grow_without_end(tmp_path: Path) -> None:
    """A billion laughs are refused in a moment."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(SuiteError, match="aliases"):
        read_yaml("\n".join(lines), "bomb.yaml")

    with pytest.raises(SuiteError, match="nested"):
        read_yaml("a: &a [*a]", "loop.yaml")


def test_the_same_suite_in_three_formats(tmp_path: Path) -> None:
    """YAML, JSON and JSON lines say the same, down to the hashes."""
    yaml = load(tmp_path, GOOD)
    document = read_yaml(GOOD, "x").value
    one = load(tmp_path, json.dumps(document, indent=1), "suite.json")
    head = {key: document[key] for key in ("suite", "target", "defaults", "gate")}
    lines = "\n".join(json.dumps(row) for row in [head, *document["cases"]])
    two = load(tmp_path, lines, "suite.jsonl")
    for other in (one, two):
        assert [(c.id, c.hash, c.expect) for c in other.cases] == [(c.id, c.hash, c.expect) for c in yaml.cases]

    assert two.cases[0].place is not None
    assert two.cases[0].place.line == 2
    assert problems(tmp_path, lines + '\n{"case": "b", "inptu": 1}', "suite.jsonl") == [
        "3: unknown key 'inptu'; did you mean 'input'?"
    ]


def test_inputs_come_from_csv(tmp_path: Path) -> None:
    """Rows become cases; quoted newlines keep the lines right."""
    (tmp_path / "more.csv").write_text('id,order,n\none,"A\nB",1\ntwo,C,x\n')
    text = (
        "suite: s\ntarget: a:b\ninputs_from:\n  file: more.csv\n"
        "  map: {id: case, order: input.order, n: input.n}\n  types: {n: number}\n"
    )
    with pytest.raises(SuiteError, match=r"more\.csv:4: column n: 'x' is no number"):
        load(tmp_path, text)

    (tmp_path / "more.csv").write_text('id,order,n\none,"A\nB",1\ntwo,C,2\n')
    suite = load(tmp_path, text)
    assert [(case.id, case.input) for case in suite.cases] == [
        ("one", {"order": "A\nB", "n": 1}),
        ("two", {"order": "C", "n": 2}),
    ]
    assert "no such column" in problems(tmp_path, text.replace("order:", "ordre:"))[0]


def test_a_hash_is_the_question(tmp_path: Path) -> None:
    """Input, expectation and tape change a case's hash; words for people and tags do not."""
    base = load(tmp_path, GOOD).cases[0].hash
    assert load(tmp_path, GOOD.replace("billed twice", "else").replace("[release]", "[x]")).cases[0].hash == base
    assert load(tmp_path, GOOD.replace("A-1", "A-2")).cases[0].hash != base
    taped = GOOD.replace("    why: billed twice", "    tape: t.tape")
    (tmp_path / "t.tape").write_text("1")
    one = load(tmp_path, taped).cases[0].hash
    (tmp_path / "t.tape").write_text("2")
    assert len({base, one, load(tmp_path, taped).cases[0].hash}) == 3


def test_the_schema_accepts_what_the_loader_accepts(tmp_path: Path) -> None:
    """The JSON Schema for editors agrees with the loader on a good and on a wrong file."""
    schema = json_schema()
    good = read_yaml(GOOD, "x").value
    assert check_schema(good, schema).errors == []
    assert check_schema(good, schema).unchecked == []
    good["cases"][0]["expcet"] = 1
    assert check_schema(good, schema).errors
