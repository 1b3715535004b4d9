"""One filter, two back ends: what passes on live lines is what SQL finds, for any filter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.devtools.scene import START_US, Scene

from flowdeck_devtools.core.wire import head
from flowdeck_devtools.filter import FilterError, compile_fields, compile_line, compile_sql, parse
from flowdeck_devtools.filter.grammar import All, Node, describe
from flowdeck_sinks.store import connect

NOW_US = START_US + 100_000_000
PAYLOADS: list[Any] = [
    None,
    {"status": "failed", "actor": "Ana", "args": {"amount": 40, "who": "O'Neil", "list": [1, {"k": "Vv"}]}},
    {"status": "waiting", "actor": None, "args": {"amount": 40.5, "ok": True, "text": 'say "hi" 100%_done\n'}},
    {"args": {"amount": "40", "who": None, "list": []}, "flow_name": "from payload", "note": "Grüße, мир"},
    {"status": 3, "actor": ["x"], "args": "amount"},
    ["a", {"amount": 1}],
    "just text with back\\slash and [brackets]",
    12.5,
    {"args": {"amount": False, "who": {"name": "deep"}}, "status": True},
    {"tags": ["Refund", "acme", 3, None, {"k": "vv"}], "usage": {"total_tokens": 40, "cost": 0.25}, "cost": "12"},
    {"tags": "refund", "meta": {"usage": {"total_tokens": 12}}, "total_tokens": "40", "cost_usd": 2},
]
ERRORS: list[Any] = [
    None,
    {"type": "ToolTimeout", "message": "upstream 504", "module": "tools", "traceback": "line 88\nToolTimeout"},
    {"type": "ValueError", "message": "no [41m colour", "code": 7},
    {"type": None, "message": ""},
]
RUNS: list[Any] = [
    None,
    {"run_id": "r0007", "root_run_id": "r0007", "execution_id": "x1", "run_kind": "workflow_execution"},
    {"run_id": "c0042", "root_run_id": "r0007", "execution_id": "x1", "run_kind": "chunk_execution"},
    {"run_id": "c0043", "root_run_id": "R0008", "agent_name": "Scout", "session_id": "s-1", "run_kind": "request"},
]
RUN_META: list[dict[str, Any]] = [
    {},
    {"flow_name": "Refund-agent", "chunk_name": "refund", "task_id": "T-1", "tenant_id": "acme"},
    {
        "flow_name": "other",
        "action_name": "search_%",
        "user_id": "u_1",
        "tags": ["other", True],
        "who": "O'Neil",
        "n": 40,
    },
]
META: list[dict[str, Any]] = [
    {},
    {"scope": "for_each[3]/refund", "attempt": 2, "duration_us": 250_000, "seq": 12},
    {"scope": "a_b%c", "attempt": 1, "duration_us": 3_600_000_000, "seq": 0},
    {"scope": "plan#1", "seq": 400, "who": "deep", "n": "40", "gen": {"tool": "refund"}},
]


def lines(scene: Scene) -> Iterator[bytes]:
    kinds = ("chunk.failed", "chunk.started", "tool.call", "odd type with spaces", "CHUNK.Failed")
    levels = ("INFO", "ERROR", "WARNING", "DEBUG", "warn", "LOUD")
    for number in range(88):
        run = RUNS[number % 4]
        yield scene.line(
            kinds[number % 5],
            at=number * 1.5 - 5,
            level=levels[number % 6],
            message=(None, "upstream 504", "retry in 2 s")[number // 3 % 3],
            payload=PAYLOADS[number % len(PAYLOADS)],
            error=ERRORS[number // 5 % 4],
            run=None if run is None else {**run, "meta": RUN_META[number // 4 % 3]},
            **META[number // 7 % 4],
        )


class Stored:
    """A table of events read from a real journal, and the lines it was read from."""

    def __init__(self, connection: Any, written: dict[int, bytes]) -> None:
        self.connection = connection
        self.written = written

    def both_sides(self, text: str) -> tuple[set[int], set[int]]:
        passes = compile_line(text, lambda: NOW_US)
        condition = compile_sql(text, now_us=lambda: NOW_US)
        rows = self.connection.execute(f"SELECT wseq FROM stored AS events WHERE {condition}").fetchall()
        return {wseq for wseq, line in self.written.items() if passes(line)}, {row[0] for row in rows}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    scene = Scene(Path(tmp_path_factory.mktemp("filter")) / "store")
    written = {}
    for line in lines(scene):
        scene.write(line)
        written[head(line).wseq] = line
    connection = connect(scene.store)
    connection.execute("CREATE TEMP TABLE stored AS SELECT * FROM events")
    assert connection.execute("SELECT count(*) FROM stored").fetchone() == (len(written),)
    yield Stored(connection, written)
    connection.close()
    scene.close()


TEXTS = st.sampled_from(
    [
        "chunk", "504", "refund", "O'Neil", "upstream 504", "%", "_", "hi", "мир", "Grüße", "back\\slash", "[", "null",
        "true", "amount", "line 88", "acme", "s-1", "x1", "(", "é", "status",
    ]
)  # fmt: skip
PATTERNS = st.sampled_from(
    [
        "chunk.*", "chunk.failed", "*fail*", "??llo", "refund", "for_each[3]/*", "a_b%c", "t-?", "*", "u_1", "other",
        "r0007", "…42", "acme,t-1", "toolt*", "40", "40.5", "true", "false", "deep", "O'Neil", "3", "vv", "ANA", "''",
    ]
)  # fmt: skip
TEXT_FIELDS = st.sampled_from(
    [
        "kind", "run", "flow", "execution", "node", "step", "status", "source", "message", "error", "actor", "task",
        "tenant", "user", "agent", "session", "data.args.amount", "data.args.who", "data.args.list.1.k", "data.args",
        "data.status", "data.0", "data.1.amount", "data.missing.x",
        "tag", "span", "attr.who", "attr.n", "attr.gen.tool",
    ]
)  # fmt: skip
NUMBERS = st.sampled_from(["0", "1", "2", "12", "40", "40.5", "-3", "250ms", "1h", "0.25"])
OPS = st.sampled_from([">", ">=", "<", "<=", "=", "!="])
COMPARED = ["data.args.amount", "data.status", "data.args.who", "attr.n", "tok", "cost"]
REGEX = st.sampled_from(
    ["^chunk", "fail(ed)?$", "[0-9]{2,}", "\\bhi\\b", "\\d+", "a.c", "O'N", "[^a-z]", "re(f|t)", "\\s2"]
)


def _clean(parts: tuple[str, ...]) -> str:
    return "".join(parts)


TERMS = st.one_of(
    TEXTS.map(lambda text: f'"{text}"'),
    REGEX.map(lambda pattern: f"/{pattern}/"),
    st.tuples(TEXT_FIELDS, st.just(":"), PATTERNS).map(_clean),
    st.tuples(TEXT_FIELDS, st.just("~"), REGEX).map(_clean),
    st.tuples(TEXT_FIELDS, st.sampled_from(["=", "!="]), PATTERNS.filter(lambda p: "," not in p)).map(_clean),
    st.tuples(
        st.sampled_from(["data.args.amount", "data.status", "data.args.who", "attr.n", "tok", "cost"]), OPS, NUMBERS
    ).map(_clean),
    st.tuples(st.sampled_from(["attempt", "seq", "dur"]), OPS, NUMBERS.filter(lambda n: n[-1].isdigit())).map(_clean),
    st.tuples(st.just("dur"), OPS, NUMBERS).map(_clean),
    st.tuples(st.just("level"), st.sampled_from([":", ">=", "<", "=", "!="]), st.sampled_from(["warn", "err"])).map(
        _clean
    ),
    st.sampled_from(
        ["last:1m", "last:90s", "ts<-1m", "ts>=-70s", "events>3", "waiting>1h", "attempt:1,2", "-level:info"]
    ),
)
FILTERS = st.recursive(
    TERMS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"-{one}" if not one.startswith("-") else one),
        inner.map(lambda one: f"NOT ({one})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: f"({' '.join(some)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: f"({' OR '.join(some)})"),
    ),
    max_leaves=5,
)


@settings(max_examples=250, deadline=None)
@given(FILTERS)
def test_lines_and_sql_agree(stored: Stored, text: str) -> None:
    """A filter finds in SQL exactly the lines it lets through."""
    try:
        parse(text)
    except FilterError:
        return
    live, in_sql = stored.both_sides(text)
    assert live == in_sql, compile_sql(text, now_us=lambda: NOW_US)


@pytest.mark.parametrize(
    ("text", "some"),
    [
        ("kind:chunk.* OR kind:tool.*", True),
        ("(level>=error refund) OR data.args.amount>40", True),
        ("NOT (level:info OR level:err)", True),
        ("/up.*504/", True),
        ("error~^tool", True),
        ("node:/EACH\\[3\\]/", True),
        ('"100%_done"', True),
        ('"say \\"', False),
        ("user:u_1", True),
        ("user:u?1", True),
        ("data.args.who:O'Neil", True),
        ("last:10s", True),
        ("kind:'; DROP TABLE stored --", False),
        ('"x\' OR 1=1"', False),
    ],
)
def test_chosen_filters_agree_and_find(stored: Stored, text: str, some: bool) -> None:
    """Filters a person types find what they should on both sides; quotes are text, never SQL."""
    live, in_sql = stored.both_sides(text)
    assert live == in_sql
    assert bool(live) is some


@given(FILTERS)
def test_a_tree_written_out_is_the_same_tree(text: str) -> None:
    """What is shown of a filter is a filter that means the same."""
    try:
        tree = parse(text)
    except FilterError:
        return
    assert _flat(parse(describe(tree.nodes))) == _flat(tree)


def _flat(node: Node) -> str:
    """A tree without the brackets that change nothing."""
    while isinstance(node, All) and len(node.nodes) == 1:
        node = node.nodes[0]
    return describe((node,))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(a", "never closed"),
        ("a )", "closes nothing"),
        ("()", "nothing between"),
        ("a OR", "after OR"),
        ("OR a", "before this OR"),
        ("a AND", "after AND"),
        ("NOT", "after NOT"),
        ("/a(?=b)/", "only"),
        ("/[/", "no regular expression"),
        ("/(a)\\1/", "not supported"),
        ("kind~a{2000}", "repeat"),
        ("ts>yesterday", "wants a time"),
        ("last:soon", "wants a number"),
        ("attempt~3", "is no text"),
        ("(" * 60 + "a" + ")" * 60, "too deeply"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    """What cannot be a filter on both sides is refused where it is typed."""
    with pytest.raises(FilterError, match=words):
        parse(text)


def test_runs_agree_with_their_sql() -> None:
    """The Runs screen and `flowdeck runs --filter` keep the same runs."""
    runs = [
        {"run": "r0007", "flow": "refund-agent", "status": "failed", "errors": 2, "events": 10, "dur": 4.2}
        | {"error": "ToolTimeout: 504", "task": "T-1", "kind": "workflow_execution", "waiting": None},
        {"run": "r0008", "flow": "triage", "status": "waiting", "errors": 0, "events": 5, "dur": 90.0}
        | {"error": None, "task": None, "kind": "workflow_execution", "waiting": 60.0},
    ]
    connection = duckdb.connect()
    connection.execute("CREATE MACRO utc_now() AS TIMESTAMP '2026-01-01 01:00:00'")
    connection.execute(
        "CREATE TABLE runs AS SELECT run_id, run_id AS root_run_id, flow_name, status, errors, 5 + 5 * errors // 2 AS "
        "events, duration_ms, error_type, error_message, task_id, waiting_since, NULL::VARCHAR AS execution_id, "
        "NULL::VARCHAR AS tenant_id, NULL::VARCHAR AS user_id, NULL::VARCHAR AS session_id, "
        "NULL::TIMESTAMP AS started_at FROM (VALUES "
        "('r0007', 'refund-agent', 'failed', 2, 4200.0, 'ToolTimeout', '504', 'T-1', NULL::TIMESTAMP), "
        "('r0008', 'triage', 'waiting', 0, 90000.0, NULL, NULL, NULL, TIMESTAMP '2026-01-01 00:59:00')) "
        "AS t(run_id, flow_name, status, errors, duration_ms, error_type, error_message, task_id, waiting_since)"
    )
    for text in (
        "status:failed",
        "waiting>30s",
        "-waiting>2m",
        "errors>1",
        "dur>1m OR tooltimeout",
        "flow~^tri",
        "task:t-1",
    ):
        kept = {str(run["run"]) for run in runs if compile_fields(text)(run)}
        found = connection.execute(f"SELECT run_id FROM runs WHERE {compile_sql(text, 'runs')}").fetchall()
        assert kept == {row[0] for row in found}, text
        assert json.dumps(sorted(kept))
