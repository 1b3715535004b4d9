"""Suite files: YAML, JSON or JSON lines, with further inputs from CSV; every problem with its file and line.

The way of a file: read with lines (:mod:`flowdeck_evals.documents`) -> rows of ``inputs_from`` added -> checked against
the format (:mod:`flowdeck_evals.format`) -> defaults laid under each case -> :class:`~flowdeck_evals.cases.Case`.
All problems are collected; a file with one is not used at all.

JSON lines: a first line with ``suite`` is the header, each further line a case.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from datetime import date
from pathlib import Path
from typing import Any, Final

import msgspec

from flowdeck.errors import SuiteError
from flowdeck_evals.cases import ALL, Case, Gate, Need, Place
from flowdeck_evals.documents import Document, read_json, read_yaml
from flowdeck_evals.format import CASE, SUITE

__all__ = ["SUFFIXES", "LoadedSuite", "case_hash", "load_document", "parse_need"]

SUFFIXES: Final = (".yaml", ".yml", ".json", ".jsonl")
_HASHED: Final = ("input", "stub", "human", "intervene", "mutate", "expect", "need", "control")
"""What makes two cases the same question. Words for people, tags, rounds and timeouts do not."""
_encode = msgspec.json.Encoder(order="deterministic").encode


class LoadedSuite(msgspec.Struct):
    """What a file says."""

    name: str
    target: str
    cases: list[Case[Any, Any]]
    gate: Gate
    about: str = ""


def load_document(path: Path) -> LoadedSuite:
    """Read a suite file.

    Raises:
        SuiteError: it cannot be read or is wrong; carries all problems.
    """
    file = _shown(path)
    document = _read(path, file)
    top = document.value
    if not isinstance(top, dict):
        raise SuiteError([f"{file}:1: a suite is a mapping with suite, target and cases"])

    problems: list[str] = []

    def report(container: Any, key: Any, message: str) -> None:
        problems.append(document.problem(container, key, message))

    rows = _rows(document, path, problems)
    checked = SUITE.check(top, top, None, report)
    cases: list[Case[Any, Any]] = []
    seen: dict[str, Place] = {}
    defaults = checked.get("defaults", {})
    schemas = _Schemas(path.parent)
    raw = top.get("cases") if isinstance(top.get("cases"), list) else []
    written = [
        (body, Place(file, document.line(raw, index)))
        for index, body in enumerate(checked.get("cases", []))
        if isinstance(raw, list)
    ]
    malformed = bool(problems)
    for body, place in [*written, *rows]:
        if not isinstance(body.get("case"), str):
            continue  # said already

        first = seen.setdefault(body["case"], place)
        if first is not place:
            problems.append(
                f"{place}: case {body['case']!r} is there twice, first on line {first.line} of {first.file}"
            )
            continue

        if malformed:
            continue

        try:
            cases.append(_case(body, defaults, place, path.parent, schemas))
        except SuiteError as error:
            problems += error.problems

    if problems:
        raise SuiteError(sorted(set(problems), key=_by_line))

    return LoadedSuite(
        checked["suite"], checked["target"], cases, _gate(checked.get("gate", {})), checked.get("about", "")
    )


def parse_need(text: str) -> Need:
    """Return what ``all``, ``4/5``, ``pass^3 >= 0.9`` or ``pass@3 >= 0.9`` asks for; its form was checked before."""
    if text == "all":
        return ALL

    if "/" in text:
        amount, _, of = text.partition("/")
        return Need("count", float(amount), int(of))

    rounds, _, least = text[len("pass^") :].partition(">=")
    return Need("pass@k" if "@" in text else "pass^k", float(least), int(rounds))


def case_hash(body: dict[str, Any], tape: Path | None) -> str:
    """Return the identity of a case's question: 24 hex digits over its canonical JSON and its tape's bytes."""
    digest = hashlib.blake2b(_encode({name: body[name] for name in _HASHED if name in body}), digest_size=12)
    if tape is not None:
        try:
            digest.update(b"tape" + tape.read_bytes())
        except OSError:
            digest.update(b"no tape")

    return digest.hexdigest()


def _case(
    body: dict[str, Any], defaults: dict[str, Any], place: Place, folder: Path, schemas: _Schemas
) -> Case[Any, Any]:
    own = body
    body = {**defaults, **body}
    if "stub" in defaults and "stub" in body:
        body["stub"] = {**defaults["stub"], **own.get("stub", {})}

    expect = dict(body.get("expect", {}))
    if isinstance(expect.get("schema"), str):
        expect["schema"] = body_schema = schemas.load(expect["schema"], place)
        body = {**body, "expect": {**expect, "schema": body_schema}}

    need = parse_need(body.get("need", "all"))
    if need.kind == "count" and need.amount > need.of:
        raise SuiteError([f"{place}: need {need} can never be reached"])

    rounds = own["rounds"] if "rounds" in own else max(body.get("rounds", 1), need.of)
    if need.of > rounds:
        raise SuiteError([f"{place}: need {need} asks for {need.of} rounds, rounds is {rounds}"])

    level = body.get("level", "live")
    tape = (folder / body["tape"]).resolve() if "tape" in body else None
    if level != "live" and tape is None and "level" in body and not body.get("skip"):
        tape = (folder / "tapes" / f"{body['case']}.tape").resolve()

    return Case(
        id=body["case"],
        input=body.get("input"),
        why=body.get("why", ""),
        tags=tuple(body.get("tags", ())),
        level=level,
        rounds=rounds,
        timeout=body.get("timeout", 60.0),
        tape=tape,
        stub=body.get("stub", {}),
        human=tuple(body.get("human", ())),
        intervene=tuple(body.get("intervene", ())),
        mutate=tuple(body.get("mutate", ())),
        expect=expect,
        need=need,
        control=body.get("control") == "must_fail",
        skip=body.get("skip", ""),
        quarantine=_quarantine(body.get("quarantine"), place),
        place=place,
        hash=case_hash(body, tape),
    )


def _quarantine(body: dict[str, str] | None, place: Place) -> tuple[str, str, str] | None:
    if body is None:
        return None

    try:
        date.fromisoformat(body["expires"])
    except ValueError:
        raise SuiteError([f"{place}: quarantine: {body['expires']} is no day"]) from None

    return body["owner"], body["why"], body["expires"]


def _gate(body: dict[str, Any]) -> Gate:
    fixed, sampled, complete = (body.get(name, {}) for name in ("deterministic", "sampled", "completeness"))
    rate = sampled.get("pass_rate")
    skipped = complete.get("skipped", 1.0)
    return Gate(
        new_failures=fixed.get("new_failures", 0),
        divergences=fixed.get("divergences", 0),
        pass_rate=None if isinstance(rate, dict) else rate,
        pass_rate_lower=rate["lower_bound"] if isinstance(rate, dict) else None,
        unscored=complete.get("unscored", 0),
        harness_error=complete.get("harness_error", 0),
        skipped=skipped["at_most"] if isinstance(skipped, dict) else skipped,
        more={
            name: value
            for name, value in (
                ("regression", sampled.get("regression")),
                ("latency_p50", body.get("latency_p50")),
                ("latency_p95", body.get("latency_p95")),
            )
            if value is not None
        },
        budget=body.get("budget", {}),
    )


# -- reading -------------------------------------------------------------------------------------------------------


def _read(path: Path, file: str) -> Document:
    text = _text(path, file)
    if path.suffix == ".jsonl":
        return _read_lines(text, file)

    return read_json(text, file) if path.suffix == ".json" else read_yaml(text, file)


def _text(path: Path, file: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SuiteError([f"{file}:1: not UTF-8 text"]) from None
    except OSError as error:
        raise SuiteError([f"{file}: {error.strerror or error}"]) from None


def _read_lines(text: str, file: str) -> Document:
    """JSON lines as one document: header, then cases."""
    problems: list[str] = []
    cases: list[Any] = []
    places: dict[Any, int] = {None: 1}
    top: dict[str, Any] = {}
    document = Document(file, top)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue

        try:
            value = read_json(line, file, number).value
        except SuiteError as error:
            problems += error.problems
            continue

        if isinstance(value, dict) and "suite" in value and not cases and not top:
            top.update(value)
            document.place(top, {None: number})
        else:
            places[len(cases)] = number
            _place_all(document, value, number)
            cases.append(value)

    if problems:
        raise SuiteError(problems)

    top.setdefault("cases", cases)
    document.place(cases, places)
    return document


def _place_all(document: Document, value: Any, line: int) -> None:
    if isinstance(value, dict | list):
        document.place(value, {None: line})
        for part in value.values() if isinstance(value, dict) else value:
            _place_all(document, part, line)


# -- inputs_from -----------------------------------------------------------------------------------------------------


def _rows(document: Document, path: Path, problems: list[str]) -> list[tuple[dict[str, Any], Place]]:
    """Return the cases of ``inputs_from``, checked against the format."""
    given = document.value.get("inputs_from")
    if not isinstance(given, dict) or not isinstance(given.get("file"), str) or not isinstance(given.get("map"), dict):
        return []

    source = path.parent / given["file"]
    file = _shown(source)
    try:
        text = _text(source, file)
        records = list(_csv(text, file) if source.suffix == ".csv" else _json_rows(text, file, source.suffix))
    except SuiteError as error:
        problems += [f"{document.problem(given, 'file', '')}{problem}" for problem in error.problems]
        return []

    types = given.get("types") or {}
    out = []
    columns = set().union(*(record for record, _ in records)) if records else set()
    for column in given["map"]:
        if records and column not in columns:
            problems.append(
                document.problem(
                    given["map"], column, f"{file} has no such column; it has {', '.join(sorted(columns))}"
                )
            )

    for record, line in records:
        place = Place(file, line)
        body: dict[str, Any] = {}
        for column, target in given["map"].items():
            if column in record and isinstance(target, str):
                try:
                    _put(body, target.split("."), _typed(record[column], types.get(column)))
                except ValueError as error:
                    problems.append(f"{place}: column {column}: {error}")

        def report(container: Any, key: Any, message: str, place: Place = place) -> None:
            problems.append(f"{place}: {f'{key}: ' if isinstance(key, str) else ''}{message}")

        out.append((CASE.check(body, body, None, report), place))

    return out


def _csv(text: str, file: str) -> Any:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(reader, None)
        if header is None:
            return

        if len(set(header)) != len(header):
            raise SuiteError([f"{file}:1: a column is there twice"])

        end = reader.line_num
        for row in reader:
            line, end = end + 1, reader.line_num
            if not row:
                continue

            if len(row) != len(header):
                raise SuiteError([f"{file}:{line}: {len(row)} fields, the header has {len(header)}"])

            yield dict(zip(header, row, strict=True)), line
    except csv.Error as error:
        raise SuiteError([f"{file}:{reader.line_num}: not valid CSV: {error}"]) from None


def _json_rows(text: str, file: str, suffix: str) -> Any:
    if suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield read_json(line, file, number).value, number
    else:
        document = read_json(text, file)
        if not isinstance(document.value, list):
            raise SuiteError([f"{file}:1: must be a list of objects"])

        for index, value in enumerate(document.value):
            yield value, document.line(document.value, index)


def _typed(value: Any, kind: str | None) -> Any:
    if kind is None or kind == "text" or not isinstance(value, str):
        return value

    if kind == "boolean":
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{value!r} is not true or false")

        return value.lower() == "true"

    try:
        found = json.loads(value)
    except ValueError:
        raise ValueError(f"{value!r} is no {'number' if kind == 'number' else 'JSON'}") from None

    if kind == "number" and (isinstance(found, bool) or not isinstance(found, int | float)):
        raise ValueError(f"{value!r} is no number")

    return found


def _put(body: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        body = body.setdefault(part, {})
        if not isinstance(body, dict):
            raise ValueError(f"{'.'.join(path)!r}: {part!r} has a value of its own already")

    body[path[-1]] = value


class _Schemas:
    """JSON Schema files beside the suite, read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Any] = {}

    def load(self, name: str, place: Place) -> Any:
        if name not in self._known:
            path = self._folder / name
            try:
                self._known[name] = json.loads(path.read_text(encoding="utf-8"))
            except OSError as error:
                raise SuiteError([f"{place}: schema {name}: {error.strerror}"]) from None
            except ValueError as error:
                raise SuiteError([f"{place}: schema {name}: not valid JSON: {error}"]) from None

        return self._known[name]


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _by_line(problem: str) -> tuple[str, int, str]:
    parts = problem.split(":", 2)
    return parts[0], int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0, problem
