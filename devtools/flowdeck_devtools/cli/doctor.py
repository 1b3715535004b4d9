"""``flowdeck doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Final, NamedTuple

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._doctor_machine import executions, packages, ports, python, terminal
from flowdeck_devtools.cli._doctor_otlp import otlp_delivery, otlp_endpoint, otlp_settings
from flowdeck_devtools.cli._doctor_report import Case, Finding
from flowdeck_devtools.cli._options import JsonOption, StoreOption, store_path
from flowdeck_devtools.core.text import clean

__all__ = ["CHECKS", "Check", "doctor"]

_COLOURS: Final = {"ok": "green", "note": "blue", "warning": "yellow", "error": "red"}


class Check(NamedTuple):
    """One thing to look at. Add a line to :data:`CHECKS` to have it looked at."""

    about: str
    look: Callable[[Case], Iterable[Finding]]


def doctor(
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="Also try this OTLP collector.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this installation, the store and all around them, and say how to mend what is wrong.

    Python and packages, store and executions (also in PostgreSQL), sinks, the OTLP export, the terminal and ports.

    Exit code 1 when something is broken; notes and warnings leave it at 0.
    """
    case = Case(store_path(store), endpoint)
    found: list[tuple[str, Finding]] = []
    for check in CHECKS:
        try:
            found += [(check.about, finding) for finding in check.look(case)]
        except Exception as problem:  # one broken check never hides what the others found
            kind = type(problem).__name__
            found.append((check.about, Finding("warning", f"the check itself failed: {kind}: {problem}", "")))

    if as_json:
        _output.out(json.dumps([{"about": about, **finding._asdict()} for about, finding in found], ensure_ascii=False))
    else:
        for about, finding in found:
            mark = _output.paint(f"{finding.level:7}", _COLOURS[finding.level], sys.stdout)
            _output.out(f"{mark}  {about:10}  {clean(finding.what)}")
            if finding.mend:
                _output.out(f"{'':21}{clean(finding.mend)}")

    if any(finding.level == "error" for _, finding in found):
        raise typer.Exit(1)


def _store(case: Case) -> Iterable[Finding]:
    from flowdeck.layout import Layout, StoreError, StoreNotFound, live_writers

    try:
        about = Layout(case.store).describe()
    except StoreNotFound as problem:
        yield Finding("note", f"no store at {case.store} yet", str(problem).partition(". ")[2])
        return
    except StoreError as problem:
        yield Finding("error", str(problem), "")
        return

    layout = case.layout = Layout(case.store)
    alive = len(live_writers(layout))
    yield Finding("ok", f"{case.store}, format {about['format']}, {alive} process{'es' * (alive != 1)} writing", "")
    from flowdeck_sinks.store.maintenance import doctor as look_at_store

    for finding in look_at_store(layout):
        yield Finding(finding.level, finding.what, finding.mend)


def _sinks(case: Case) -> Iterable[Finding]:
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group="flowdeck.sinks"), key=lambda point: point.name):
        try:
            point.load()
        except ImportError as problem:
            extra = "otlp" if point.name == "otlp" else None
            mend = f"pip install 'flowdeck[{extra}]'" if extra else f"pip install {problem.name}"
            yield Finding("note", f"{point.name} cannot be used: {problem.name or problem} is missing", mend)
        except Exception as problem:
            yield Finding("warning", f"{point.name} is broken: {type(problem).__name__}: {problem}", "")
        else:
            yield Finding("ok", f"{point.name} ({point.value.partition(':')[0]})", "")


CHECKS: list[Check] = [
    Check("version", python),
    Check("packages", packages),
    Check("store", _store),
    Check("executions", executions),
    Check("sinks", _sinks),
    Check("otlp", otlp_settings),
    Check("otlp", otlp_endpoint),
    Check("otlp", otlp_delivery),
    Check("terminal", terminal),
    Check("ports", ports),
]
"""What is looked at, in order. A check gets the :class:`Case` and yields findings; it may raise."""
