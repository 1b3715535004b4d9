"""Ten bugs to put into the licence audit, each with the cases that may turn red. Used by test_seeded_bugs."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import examples.licence_audit.flow as original

__all__ = ["BUGS", "FLOW", "Bug", "edited"]

FLOW: Final = Path(original.__file__ or "")
_numbers = itertools.count()


class Bug(NamedTuple):
    """A change of the flow's source, and the cases it may break; at least one of them it must."""

    name: str
    before: str
    after: str
    red: frozenset[str]


def _bug(name: str, before: str, after: str, *red: str) -> Bug:
    return Bug(name, before, after, frozenset(red))


_REAL: Final = ("real-environment", "another-reviewer")
BUGS: Final = (
    _bug(
        "weak copyleft passes as permissive",
        'data.input["verdict"] == "permissive"',
        'data.input["verdict"] in ("permissive", "weak_copyleft")',
        *_REAL,
    ),
    _bug(
        "whatever is no rejection approves",
        '"approved" if answer.get("decision") == "approve"',
        '"approved" if answer.get("decision") != "rejected"',
        *_REAL,
    ),
    _bug("the reviewer is forgotten", 'str(interrupt.get("actor") or "")', '""', *_REAL, "odd-metadata"),
    _bug("the reviewer's note is lost", 'str(answer.get("note") or "")', '""', *_REAL),
    _bug("a second try reads like the first", '"utf-8" if data.attempt == 1 else "detect"', '"utf-8"', "odd-metadata"),
    _bug("nothing is tried again", "attempts=2", "attempts=1", "odd-metadata"),
    _bug(
        "the last distribution is not looked at",
        "    return found\n\n\nasync def read",
        "    return found[:-1]\n\n\nasync def read",
        *_REAL,
        "odd-metadata",
        "all-permissive",
        "disk-full",
    ),
    _bug(
        "the report always goes to one folder",
        'Path(order.get("out") or "licence-audit")',
        'Path("licence-audit")',
        *_REAL,
        "odd-metadata",
        "all-permissive",
        "disk-full",
        "nothing-installed",
    ),
    _bug(
        "the summary is not kept",
        'await data.async_set_state("summary", summary)',
        "pass",
        *_REAL,
        "odd-metadata",
        "all-permissive",
    ),
    _bug(
        "strong copyleft is accepted unasked",
        '.to(("ask_about_strong_copyleft", ask))\n    .to(("record_strong_copyleft", record))',
        ".to(accept)",
        *_REAL,
    ),
)


def edited(tmp_path: Path, before: str, after: str) -> tuple[Any, Path]:
    """Return the audit's flow as it is with one text of its source replaced, and the file it was loaded from."""
    source = FLOW.read_text(encoding="utf-8")
    assert source.count(before) == 1, before
    file = tmp_path / f"flow_{next(_numbers)}.py"
    file.write_text(source.replace(before, after), encoding="utf-8")
    name = f"examples.licence_audit.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]

    return module.flow, file
