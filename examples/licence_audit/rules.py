"""Decide which class a distribution's licence belongs to, and say why.

Evidence is looked at in the order of how much it binds its author: the SPDX expression of the metadata, the
free-text licence field together with the classifiers, and last the licence files. The first that says
something decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

from .metadata import Facts
from .names import licence_of_classifier, licence_of_name
from .spdx import ExpressionError, class_of_expression, class_of_licence, stricter
from .texts import recognise

__all__ = ["Verdict", "classify"]


class Verdict(TypedDict):
    """What the audit says about one distribution."""

    name: str
    version: str
    folder: str
    licence: str
    """An SPDX expression where one could be made, else the words found, else an empty string."""
    verdict: str
    """One of ``permissive``, ``weak_copyleft``, ``strong_copyleft``, ``unknown``."""
    evidence: list[str]
    """Where the verdict comes from, one sentence each; for ``unknown`` the reason."""
    decision: str
    """``accepted`` (no review needed), ``approved``, ``rejected``, or empty while nobody decided."""
    actor: str
    note: str


class _Judgement(NamedTuple):
    licence: str
    verdict: str
    evidence: list[str]


_SAYS_NOTHING = frozenset({"", "unknown", "none", "n/a", "other", "see license", "license", "licence"})
_RESERVED = re.compile(r"proprietar|commercial|all rights reserved|confidential", re.IGNORECASE)
_MAX_FIELD = 80
"""A longer licence field is the licence itself, not its name."""


def classify(facts: Facts) -> Verdict:
    """Judge one distribution. Never raises: what cannot be read is ``unknown``, with its reason."""
    licence, verdict, evidence = _decide(facts)
    return Verdict(
        name=facts["name"],
        version=facts["version"],
        folder=facts["folder"],
        licence=licence,
        verdict=verdict,
        evidence=[*evidence, *facts["remarks"]],
        decision="",
        actor="",
        note="",
    )


def _decide(facts: Facts) -> _Judgement:
    if facts["failure"]:
        return _Judgement("", "unknown", [facts["failure"]])

    texts = _from_files(facts)
    declared = _from_expression(facts["expression"]) or _from_declarations(facts["licence_field"], facts["classifiers"])
    if declared is None:
        return _from_texts(texts) or _Judgement(facts["licence_field"], "unknown", [_why_unknown(facts)])

    # What a file grants on stricter terms than were declared is often bundled code, and is for a person to
    # judge.
    undeclared = [
        (name, licence)
        for name, licence in texts
        if _is_stricter(class_of_licence(licence), declared.verdict) and licence not in declared.licence
    ]
    if undeclared:
        return _Judgement(
            _joined([declared.licence, *(licence for _, licence in undeclared)]),
            stricter(declared.verdict, *(class_of_licence(licence) for _, licence in undeclared)),
            [*declared.evidence, *(f"but {name} reads like {licence}" for name, licence in undeclared)],
        )

    if declared.licence == "BSD" and (exact := [licence for _, licence in texts if licence.startswith("BSD-")]):
        return declared._replace(licence=exact[0])

    return declared


def _from_files(facts: Facts) -> list[tuple[str, str]]:
    """Return ``(file, licence)`` for every licence text, without the GPL texts the LGPL refers to."""
    texts = [(file["name"], licence) for file in facts["files"] for licence in file["licences"]]
    lesser = any(licence.startswith("LGPL") for _, licence in texts) or "LGPL" in facts["expression"]
    return [(name, licence) for name, licence in texts if not (lesser and licence.startswith("GPL"))]


def _from_texts(texts: list[tuple[str, str]]) -> _Judgement | None:
    if not texts:
        return None

    licences = [licence for _, licence in texts]
    evidence = [f"{name} reads like {licence}" for name, licence in texts]
    return _Judgement(_joined(licences), stricter(*map(class_of_licence, licences)), evidence)


def _from_expression(expression: str) -> _Judgement | None:
    if not expression:
        return None

    try:
        return _Judgement(expression, class_of_expression(expression), [f"SPDX expression {expression!r}"])
    except ExpressionError as error:
        return _Judgement(expression, "unknown", [f"the SPDX expression cannot be read: {error}"])


def _from_declarations(field: str, classifiers: Sequence[str]) -> _Judgement | None:
    """Judge the licence field and the classifiers together; where they differ the stricter one counts."""
    found: list[tuple[str, str, str]] = []
    named = _from_field(field)
    if named is not None:
        found.append((*named, f"licence field {field!r}" if len(field) <= _MAX_FIELD else "text in the licence field"))

    for classifier in classifiers:
        licence = licence_of_classifier(classifier)
        if licence:
            found.append((licence, class_of_licence(licence), f"classifier {classifier!r}"))

    if not found:
        return None

    # "BSD" of a classifier adds nothing to the "BSD-3-Clause" of a field.
    licences = list(dict.fromkeys(licence for licence, _, _ in found))
    exact = [one for one in licences if not any(other != one and other.startswith(f"{one}-") for other in licences)]
    return _Judgement(_joined(exact), stricter(*(name for _, name, _ in found)), [reason for _, _, reason in found])


def _from_field(field: str) -> tuple[str, str] | None:
    """Return the licence and class a free-text licence field names, or ``None`` if it names none we know."""
    if field.strip().lower() in _SAYS_NOTHING:
        return None

    if len(field) > _MAX_FIELD:
        licences = recognise(field)
        return (_joined(licences), stricter(*map(class_of_licence, licences))) if licences else None

    if _RESERVED.search(field):
        return field, "unknown"

    name = licence_of_name(field)
    if name:
        return name, class_of_licence(name)

    try:
        found = class_of_expression(field)
    except ExpressionError:
        found = "unknown"

    if found != "unknown":
        return field, found

    # "Apache-2.0, MIT" and "MIT/Apache-2.0": which of the two is not said, so the stricter one counts.
    parts = [licence_of_name(part) for part in re.split(r"[,/;&]|\band\b|\bor\b", field, flags=re.IGNORECASE)]
    if len(parts) > 1 and all(parts):
        return _joined(parts), stricter(*map(class_of_licence, parts))

    return None


def _is_stricter(one: str, other: str) -> bool:
    return one != other and stricter(one, other) == one


def _joined(licences: Sequence[str]) -> str:
    return " AND ".join(dict.fromkeys(licences))


def _why_unknown(facts: Facts) -> str:
    said = [text for text in (facts["licence_field"], *facts["classifiers"]) if text]
    if facts["files"]:
        names = ", ".join(file["name"] for file in facts["files"][:3])
        return f"the text of {names} is no licence we know"

    if said:
        return f"no licence we know is meant by {', '.join(map(repr, said[:3]))}"

    return "no licence is declared and no licence file is shipped"
