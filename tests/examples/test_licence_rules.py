"""The rules of the licence audit: expressions, names, classifiers and texts, and how they are weighed."""

from __future__ import annotations

import pytest
from examples.licence_audit.metadata import Facts, LicenceFile
from examples.licence_audit.names import licence_of_classifier, licence_of_name
from examples.licence_audit.rules import Verdict, classify
from examples.licence_audit.spdx import CLASSES, ExpressionError, class_of_expression
from examples.licence_audit.texts import recognise
from hypothesis import given
from hypothesis import strategies as st


def facts(
    expression: str = "",
    field: str = "",
    classifiers: tuple[str, ...] = (),
    files: dict[str, list[str]] | None = None,
    failure: str = "",
) -> Facts:
    """Facts about a distribution of which only the licence matters."""
    return Facts(
        name="thing",
        version="1.0",
        folder="/somewhere/thing-1.0.dist-info",
        expression=expression,
        licence_field=field,
        classifiers=[f"License :: {one}" for one in classifiers],
        files=[LicenceFile(name=name, encoding="utf-8", licences=ids) for name, ids in (files or {}).items()],
        remarks=[],
        failure=failure,
    )


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", "permissive"),
        ("mit", "permissive"),
        ("Apache-2.0 OR BSD-2-Clause", "permissive"),
        ("MIT AND (Apache-2.0 OR BSD-2-Clause)", "permissive"),
        ("MPL-2.0", "weak_copyleft"),
        ("LGPL-2.1-or-later", "weak_copyleft"),
        ("LGPL-2.1+", "weak_copyleft"),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "weak_copyleft"),
        ("MPL-2.0 OR MIT", "permissive"),
        ("GPL-3.0-only", "strong_copyleft"),
        ("AGPL-3.0-or-later", "strong_copyleft"),
        ("GPL-2.0-only OR MIT", "permissive"),
        ("MIT or GPL-2.0-only", "permissive"),
        ("MIT AND GPL-2.0-only", "strong_copyleft"),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", "permissive"),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", "strong_copyleft"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "weak_copyleft"),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", "weak_copyleft"),
        ("GPL-3.0-only WITH Autoconf-exception-3.0", "strong_copyleft"),
        ("Apache-2.0 WITH LLVM-exception", "permissive"),
        ("LicenseRef-Proprietary", "unknown"),
        ("LicenseRef-Proprietary OR MIT", "permissive"),
        ("LicenseRef-Proprietary AND MIT", "unknown"),
        ("Never-Heard-Of-1.0", "unknown"),
    ],
)
def test_an_expression_has_the_class_its_operators_lead_to(expression: str, expected: str) -> None:
    """AND takes the strictest part, OR the mildest, and a linking exception softens a strong copyleft."""
    assert class_of_expression(expression) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "AND",
        "MIT AND",
        "OR MIT",
        "MIT MIT",
        "(MIT",
        "MIT)",
        "MIT WITH",
        "GPL-2.0 WITH OR",
        "MIT / BSD",
        "(",
    ],
)
def test_a_malformed_expression_is_refused(expression: str) -> None:
    """What is no SPDX expression raises ExpressionError, not something else."""
    with pytest.raises(ExpressionError):
        class_of_expression(expression)


def test_deep_nesting_is_refused_before_the_stack_ends() -> None:
    """A hostile expression of ten thousand parentheses is an error, not a crash."""
    with pytest.raises(ExpressionError, match="nested deeper"):
        class_of_expression("(" * 10_000 + "MIT" + ")" * 10_000)


licences = st.sampled_from(["MIT", "MPL-2.0", "GPL-3.0-only", "LicenseRef-X"])
expressions = st.recursive(
    licences,
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["AND", "OR"]), inner),
    max_leaves=8,
)


@given(expressions, expressions)
def test_and_is_never_milder_and_or_never_stricter(one: str, other: str) -> None:
    """AND is the maximum and OR the minimum of its sides, whatever they are."""
    ranks = sorted(CLASSES.index(class_of_expression(side)) for side in (one, other))
    assert CLASSES.index(class_of_expression(f"{one} OR {other}")) == ranks[0]
    assert CLASSES.index(class_of_expression(f"{one} AND {other}")) == ranks[1]


@given(st.text(max_size=200))
def test_any_text_as_a_licence_gives_a_verdict(text: str) -> None:
    """Whatever stands in the metadata, classify returns one of the four classes with a reason."""
    for given_facts in (facts(expression=text), facts(field=text), facts(classifiers=(text,))):
        verdict = classify(given_facts)
        assert verdict["verdict"] in CLASSES
        assert verdict["evidence"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIT", "MIT"),
        ("The MIT License", "MIT"),
        ("Expat", "MIT"),
        ("Apache 2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache Software License 2.0", "Apache-2.0"),
        ("BSD", "BSD"),
        ("New BSD License", "BSD-3-Clause"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("BSD 2-Clause License", "BSD-2-Clause"),
        ("ISC license", "ISC"),
        ("MPL 2.0", "MPL-2.0"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("GPL", "GPL"),
        ("GPLv2", "GPL-2.0"),
        ("GPLv3+", "GPL-3.0-or-later"),
        ("GNU GPL v3", "GPL-3.0"),
        ("GNU General Public License v3 or later", "GPL-3.0-or-later"),
        ("LGPL", "LGPL"),
        ("LGPLv2.1", "LGPL-2.1"),
        ("GNU Lesser General Public License v3 (LGPLv3)", ""),
        ("GNU Library General Public License", "LGPL"),
        ("AGPLv3", "AGPL-3.0"),
        ("GNU Affero GPL v3 or later", "AGPL-3.0-or-later"),
        ("GPLv2 or v3", ""),
        ("PSF", "PSF-2.0"),
        ("public domain", "Unlicense"),
        ("LGPL with exceptions", ""),
        ("Dual License", ""),
        ("see LICENSE.txt", ""),
    ],
)
def test_a_licence_field_is_read_as_people_write_it(text: str, expected: str) -> None:
    """Common spellings lead to their SPDX identifier; anything ambiguous leads to none."""
    assert licence_of_name(text) == expected


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        ("OSI Approved :: MIT License", "MIT"),
        ("OSI Approved :: Apache Software License", "Apache-2.0"),
        ("OSI Approved :: GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
        ("OSI Approved :: GNU General Public License (GPL)", "GPL"),
        ("OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", "LGPL-3.0"),
        ("OSI Approved :: GNU Library or Lesser General Public License (LGPL)", "LGPL"),
        ("OSI Approved :: GNU Affero General Public License v3", "AGPL-3.0"),
        ("OSI Approved :: Common Development and Distribution License 1.0 (CDDL-1.0)", "CDDL-1.0"),
        ("Other/Proprietary License", "Other/Proprietary License"),
        ("OSI Approved", ""),
    ],
)
def test_a_classifier_is_read(leaf: str, expected: str) -> None:
    """A classifier leads to its identifier, an unknown one to its own words, an empty one to nothing."""
    assert licence_of_classifier(f"License :: {leaf}") == expected


MIT = "Permission is hereby granted, free of charge, to any person\nobtaining a copy of this software"
MIT_NOTICE = " The above copyright notice and this permission notice shall be included in all copies"
BSD = "Redistribution and use in source and binary forms, with or without\nmodification, are permitted"
ISC = "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"
GPL3 = "GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007 ... the GNU Affero General Public License"
MPL2 = "Mozilla Public License Version 2.0 ... means either the GNU General Public License, Version 2.0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT + MIT_NOTICE, ["MIT"]),
        (MIT, ["MIT-0"]),
        (BSD, ["BSD-2-Clause"]),
        (BSD + " Neither the name ... used to endorse or promote products derived from", ["BSD-3-Clause"]),
        (BSD + " All advertising materials mentioning features or use", ["BSD-4-Clause"]),
        (ISC + ", provided that the above copyright notice", ["ISC"]),
        (ISC, ["0BSD"]),
        ("Apache License\n   Version 2.0, January 2004", ["Apache-2.0"]),
        ('Licensed under the Apache License, Version 2.0 (the "License")', ["Apache-2.0"]),
        (MPL2, ["MPL-2.0"]),
        (GPL3, ["GPL-3.0"]),
        (
            "GNU GENERAL PUBLIC LICENSE Version 2, June 1991 ... GNU Lesser General Public License",
            ["GPL-2.0"],
        ),
        ("GNU LESSER GENERAL PUBLIC LICENSE Version 2.1, February 1999", ["LGPL-2.1"]),
        ("GNU AFFERO GENERAL PUBLIC LICENSE Version 3, 19 November 2007", ["AGPL-3.0"]),
        ("PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2", ["PSF-2.0"]),
        ("This is free and unencumbered software released into the public domain.", ["Unlicense"]),
        ("2. Altered source versions must be plainly marked as such", ["Zlib"]),
        (BSD + "\n\n---\n\n" + MIT + MIT_NOTICE, ["BSD-2-Clause", "MIT"]),
        ("All rights reserved.", []),
        ("", []),
    ],
)
def test_a_licence_text_is_recognised(text: str, expected: list[str]) -> None:
    """Each licence is known by the sentences that make it, in whatever wrapping."""
    assert recognise(text) == expected


def judged(given_facts: Facts) -> tuple[str, str]:
    """The part of a verdict these tests are about."""
    verdict: Verdict = classify(given_facts)
    return verdict["licence"], verdict["verdict"]


def test_the_expression_outranks_field_and_classifiers() -> None:
    """A License-Expression decides even when older fields say something else."""
    given_facts = facts("MIT", "GPL", ("OSI Approved :: GNU General Public License v3 (GPLv3)",))
    assert judged(given_facts) == ("MIT", "permissive")


def test_contradicting_declarations_count_as_the_stricter() -> None:
    """Where field and classifier differ, the stricter one is reviewed."""
    given_facts = facts(field="MIT", classifiers=("OSI Approved :: GNU General Public License v3 (GPLv3)",))
    assert judged(given_facts) == ("MIT AND GPL-3.0", "strong_copyleft")


def test_a_file_stricter_than_the_declaration_is_for_a_person() -> None:
    """GPL text beside an MIT declaration is not waved through."""
    licence, verdict = judged(facts("MIT", files={"LICENSE": ["MIT"], "LICENSE.bundled": ["GPL-3.0"]}))
    assert (licence, verdict) == ("MIT AND GPL-3.0", "strong_copyleft")


def test_the_gpl_text_that_the_lgpl_refers_to_does_not_count() -> None:
    """An LGPL package ships the GPL too, and stays weak copyleft."""
    files = {"COPYING": ["GPL-3.0"], "COPYING.LESSER": ["LGPL-3.0"]}
    assert judged(facts(files=files)) == ("LGPL-3.0", "weak_copyleft")
    assert judged(facts("LGPL-3.0-or-later", files={"COPYING": ["GPL-3.0"]}))[1] == "weak_copyleft"


def test_a_text_names_the_clause_count_a_classifier_leaves_open() -> None:
    """The classifier "BSD License" becomes BSD-3-Clause by the text."""
    given_facts = facts(classifiers=("OSI Approved :: BSD License",), files={"LICENSE": ["BSD-3-Clause"]})
    assert judged(given_facts) == ("BSD-3-Clause", "permissive")


def test_a_licence_field_may_hold_the_whole_text() -> None:
    """A long licence field is read as a text."""
    assert judged(facts(field=MIT + MIT_NOTICE)) == ("MIT", "permissive")


def test_a_reserving_field_is_unknown_whatever_it_contains() -> None:
    """ "Proprietary" is for a person even when the field also names a licence."""
    assert judged(facts(field="Proprietary (parts MIT)"))[1] == "unknown"


@pytest.mark.parametrize(
    ("given_facts", "reason"),
    [
        (facts(), "no licence is declared"),
        (facts(field="UNKNOWN", classifiers=("OSI Approved",)), "no licence we know"),
        (facts(files={"LICENSE": []}), "the text of LICENSE"),
        (facts("MIT AND"), "cannot be read"),
        (facts(failure="it has no metadata"), "it has no metadata"),
    ],
)
def test_unknown_says_why(given_facts: Facts, reason: str) -> None:
    """An unknown licence comes with the reason a reviewer needs."""
    verdict = classify(given_facts)
    assert verdict["verdict"] == "unknown"
    assert reason in verdict["evidence"][0]
