"""The format of a suite file, as one table of shapes.

From it come the errors with ``file:line`` and nearest key (:mod:`flowdeck_evals.loading`) and the JSON Schema that
``evals schema`` writes beside the file. There is no code and no expression language in a suite: only comparators.
Source: the evals reference, §3.2, §3.6, §3.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flowdeck_evals.cases import LEVELS
from flowdeck_evals.shapes import (
    Anything,
    Choice,
    Duration,
    Either,
    Flag,
    Items,
    Named,
    Number,
    Record,
    Regex,
    Report,
    Shape,
    Text,
)

__all__ = ["CASE", "COMPARATORS", "NEED", "SUITE", "json_schema"]

COMPARATORS: Final = ("eq", "ne", "lt", "le", "gt", "ge", "in", "like", "regex", "any_of", "exists")
ID: Final = r"[a-z0-9]+(?:-[a-z0-9]+)*"
NEED: Final = r"all|[1-9]\d*/[1-9]\d*|pass[\^@][1-9]\d* ?>= ?(?:0?\.\d+|1(?:\.0+)?|0)"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _always(value: Any) -> bool:
    return True


def is_comparison(value: Any) -> bool:
    """Whether a mapping is comparators, not a literal: it has keys and all of them are comparators."""
    return isinstance(value, Mapping) and bool(value) and all(key in COMPARATORS for key in value)


COMPARED: Final = Either(
    [
        (is_comparison, Record({name: Regex() if name == "regex" else Anything() for name in COMPARATORS})),
        (_always, Anything()),
    ],
    "A literal, or comparators such as {le: 100}.",
)
WHERE: Final = Named(COMPARED, "Dotted paths and what must stand there.")
PATTERN: Final = Text("kind-glob [place-glob], such as 'call.done tool.ledger.*'")
TIMES: Final = Either(
    [
        (lambda v: isinstance(v, int), Number(least=0, whole=True)),
        (_is_text, Text(pattern=r"\*|\d+(\.\.\d+)?", example="3, 1..3 or *")),
    ],
    "How often: a number, a range such as 1..3, or *.",
    "a number, a range such as 1..3, or *",
)
STEP: Final = Either(
    [
        (_is_text, PATTERN),
        (_is_mapping, Record({"event": PATTERN, "as": Text(), "where": WHERE, "times": TIMES}, ["event"])),
    ],
    words="a pattern, or a mapping with event",
)
STEPS: Final = Items(STEP, least=1)


class _Path(Shape):
    """Clauses of a trajectory; ``either`` and ``not`` hold further ones."""

    def check(self, value: Any, container: Any, key: Any, report: Report) -> Any:
        return Items(CLAUSE, least=1).check(value, container, key, report)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"$ref": "#/$defs/clause"}, "minItems": 1}


_COUNTS: Final[dict[str, Shape]] = {name: Number(least=0, whole=True) for name in ("eq", "at_least", "at_most")}
_CLAUSES: Final[dict[str, Shape]] = {
    "in_order": STEPS,
    "exactly": STEPS,
    "any_order": STEPS,
    "never": STEP,
    "after": Record({"event": STEP, "never": STEP, "must": STEP}, ["event"], any_of=["never", "must"]),
    "between": Record(
        {"from": STEP, "to": STEP, "never": STEP, "count": Record({"of": STEP, **_COUNTS}, ["of"])},
        ["from", "to"],
        any_of=["never", "count"],
    ),
    "count": Record({"of": STEP, **_COUNTS}, ["of"], any_of=list(_COUNTS)),
    "within": Record(
        {"from": STEP, "to": STEP, "at_most": Duration(), "clock": Choice(("wall", "work", "virtual"))},
        ["from", "to", "at_most"],
    ),
    "each": Record({"of": STEP, "followed_by": STEP, "same": Items(Text(), single=True)}, ["of", "followed_by"]),
    "either": Items(_Path(), least=1),
    "not": _Path(),
}
CLAUSE: Final = Record({**_CLAUSES, "over": PATTERN}, one_of=list(_CLAUSES))

TOLERANCE: Final = Either(
    [
        (_is_mapping, Record({"abs": Number(least=0), "rel": Number(least=0), "paths": Items(Text(), single=True)})),
        (_always, Number(least=0)),
    ],
    "How far numbers may be apart: absolute, or {abs:, rel:, paths:}.",
)
OUTPUT: Final = Record(
    {
        "equals": Anything("Exactly this, as JSON."),
        "match": Anything("At least this: further keys may be there."),
        "ignore": Items(Text(), "Dotted globs left out of equals and match, such as '*.ts'.", single=True),
        "tolerance": TOLERANCE,
        "where": WHERE,
        "regex": Either(
            [(_is_text, Regex()), (_is_mapping, Named(Regex()))],
            "Searched in the output, which must be text; or per dotted path.",
            "a pattern, or a mapping of paths to patterns",
        ),
        "contains": Items(Text(), "Text that the output, as text, holds.", single=True),
    },
    any_of=["equals", "match", "where", "regex", "contains"],
)
BUDGET: Final = Record(
    {
        "wall": Duration("From start to end."),
        "work": Duration("The target's own time, without waiting for people."),
        "tokens": Number("Tokens in and out.", least=0, whole=True),
        "cost_usd": Number("Cost of the models.", least=0),
        "steps": Number("Chunk attempts.", least=0, whole=True),
    },
    about="What a round may use at most.",
)
EXPECT: Final = Record(
    {
        "output": OUTPUT,
        "schema": Either(
            [(_is_text, Text()), (_is_mapping, Anything()), (lambda v: isinstance(v, bool), Anything())],
            "A JSON Schema, or the path of its file.",
            "a path or a JSON Schema",
        ),
        "path": _Path(),
        "budget": BUDGET,
        "error": Record({"type": Text(), "message": Regex("A regular expression searched in the message.")}),
        "judge": Items(
            Record(
                {
                    "ask": Text("The question about the round."),
                    "model": Text(pattern=r"[\w.]+:[\w.]+", example="module:function"),
                    "name": Text(),
                    "labels": Items(Text(), least=2),
                    "passes": Items(Text(), "Labels that are well; the first one when omitted.", single=True),
                    "examples": Text("JSON lines with input, output and label: what people said."),
                },
                ["ask", "model"],
            ),
            "Models that are asked about the round; they advise until people agree with them.",
            single=True,
        ),
        "checks": Items(Text(pattern=r"[\w.]+:[\w.]+", example="module:function"), single=True),
    },
    about="What must hold of every round.",
)
HUMAN: Final = Record(
    {
        "on": Text("<interrupt kind> [<scope glob>]"),
        "where": WHERE,
        "answer": Anything(),
        "answers": Items(Anything(), least=1),
        "times": Number(least=1, whole=True),
        "must_use": Flag(),
        "delay": Duration("On the virtual clock."),
        "decline": Anything("Answers that the question is declined."),
        "timeout": Flag("Lets the question expire on the virtual clock."),
        "by": Text(),
        "otherwise": Choice(("fail", "decline", "timeout")),
    },
    about="A rule of the scripted person; the first that matches answers.",
    one_of=["answer", "answers", "decline", "timeout", "otherwise"],
)
AT: Final = Either(
    [
        (_is_text, PATTERN),
        (_is_mapping, Record({"event": PATTERN, "nth": Number(least=1, whole=True), "where": WHERE}, ["event"])),
    ],
    words="a pattern, or a mapping with event",
)
_DONE: Final[dict[str, Shape]] = {
    "cancel": Text("Ends the run; the reason."),
    "signal": Either(
        [(_is_text, Text()), (_is_mapping, Record({"event": Text(), "value": Anything()}, ["event"]))],
        "Emits a signal into the run.",
        "its name, or a mapping with event",
    ),
    "set": Record({"path": Text(), "value": Anything()}, ["path"], "Sets state."),
    "intervene": Anything("An intervention of the runtime: {payload:, target:}."),
    "fail_call": Text("What the call that begins raises: 'TimeoutError: too slow'."),
    "replace_output": Anything("What the call that begins gives."),
    "restart_from": Text("A place: what came before is played again, from there on the run goes on anew."),
}
INTERVENE: Final = Record(
    {
        "at": AT,
        "do": Either(
            [
                (_is_text, Choice(("pause", "resume", "cancel"))),
                (_is_mapping, Record(_DONE, one_of=list(_DONE))),
            ],
            words="pause, resume, cancel, or a mapping such as {set: {path:, value:}}",
        ),
        "hold": Choice(("scope", "run")),
    },
    ["at", "do"],
)
MUTATE: Final = Record(
    {
        "call": Text(),
        "nth": Number(least=1, whole=True),
        "raise": Text(),
        "return": Anything(),
        "delay": Duration("On the round's clock."),
        "wrong_type": Flag("Text for what is none, a number for text."),
    },
    ["call"],
    one_of=["raise", "return", "delay", "wrong_type"],
)
LEVEL: Final = Choice(LEVELS, "live: all real. recorded: the world comes from the tape. history: nothing runs.")
_COMMON: Final[dict[str, Shape]] = {
    "tags": Items(Text(pattern=r"[\w.-]+", example="release"), single=True),
    "level": LEVEL,
    "rounds": Number("How often each case runs.", least=1, most=100_000, whole=True),
    "timeout": Duration("A round that takes longer is cancelled."),
    "stub": Named(Anything(), "Per port tape, live or a value; clock: virtual; random: seed."),
    "need": Text(
        "Rounds that must pass: all, 4/5, pass^3 >= 0.9 (all of three) or pass@3 >= 0.9 (one of three)",
        pattern=NEED,
        example="all, 4/5, pass^3 >= 0.9 or pass@3 >= 0.9",
    ),
}
CASE: Final = Record(
    {
        "case": Text("Its name, unique in the suite.", pattern=ID, example="lower-case-with-dashes"),
        "why": Text("What it is for."),
        "input": Anything("What the target is started with."),
        **_COMMON,
        "tape": Text("The recording, relative to this file."),
        "human": Items(HUMAN),
        "intervene": Items(INTERVENE),
        "mutate": Items(MUTATE),
        "expect": EXPECT,
        "control": Choice(("must_fail",), "A negative control: the suite is wrong when it passes."),
        "skip": Text("Why it is not run now."),
        "quarantine": Record(
            {
                "owner": Text("Who looks after it."),
                "why": Text("Why it does not block."),
                "expires": Text(
                    "The last day.", pattern=r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", example="2026-12-31"
                ),
            },
            ["owner", "why", "expires"],
            "It runs and is shown, and does not block until its day; at most 5 % of a suite.",
        ),
    },
    ["case"],
    "One scenario.",
)
LATENCY: Final = Record(
    {"max_ratio": Number(least=1), "min_delta": Duration(), "alpha": Number(least=0, most=0.5)},
    about="A quantile over cases of their median wall time, against the baseline.",
)
GATE: Final = Record(
    {
        "deterministic": Record(
            {"new_failures": Number(least=0, whole=True), "divergences": Number(least=0, whole=True)}
        ),
        "sampled": Record(
            {
                "pass_rate": Either(
                    [
                        (_is_mapping, Record({"lower_bound": Number(least=0, most=1, percent=True)}, ["lower_bound"])),
                        (_always, Number(least=0, most=1, percent=True)),
                    ]
                ),
                "regression": Record(
                    {
                        "alpha": Number(least=0, most=0.5),
                        "min_drop": Number("A smaller drop never blocks.", least=0, most=1, percent=True),
                        "margin": Number("Sameness must be shown within it.", least=0, most=1, percent=True),
                    },
                    about="Against the baseline, the same cases.",
                ),
            }
        ),
        "latency_p50": LATENCY,
        "latency_p95": LATENCY,
        "budget": Record(
            {
                "wall": Duration("All rounds together."),
                "tokens": Number("All rounds together.", least=0, whole=True),
                "cost_usd": Number("All rounds together.", least=0),
            }
        ),
        "completeness": Record(
            {
                "unscored": Number(least=0, whole=True),
                "harness_error": Number(least=0, whole=True),
                "skipped": Either(
                    [
                        (_is_mapping, Record({"at_most": Number(least=0, most=1, percent=True)}, ["at_most"])),
                        (_always, Number(least=0, most=1, percent=True)),
                    ]
                ),
            }
        ),
    },
    about="What the session must reach.",
)
SUITE: Final = Record(
    {
        "$schema": Text(),
        "suite": Text("Its name.", pattern=ID, example="lower-case-with-dashes"),
        "about": Text(),
        "target": Text(
            "What is evaluated: module:flow or module:function.", pattern=r"[\w.]+:[\w.]+", example="shop.flows:refund"
        ),
        "defaults": Record(_COMMON, about="What cases have that do not say otherwise."),
        "inputs_from": Record(
            {
                "file": Text("CSV, JSON lines or JSON, relative to this file."),
                "map": Named(Text(), "Column -> dotted place in the case; 'case' names it."),
                "types": Named(Choice(("text", "number", "boolean", "json")), "Columns of a CSV are text otherwise."),
            },
            ["file", "map"],
        ),
        "cases": Items(CASE),
        "gate": GATE,
    },
    ["suite", "target"],
    any_of=["cases", "inputs_from"],
)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a suite file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Flowdeck evaluation suite",
        **SUITE.schema(),
        "$defs": {"clause": CLAUSE.schema()},
    }
