"""What people write where a licence should stand, and which SPDX identifier they mean by it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .spdx import class_of_licence

__all__ = ["licence_of_classifier", "licence_of_name"]

_FIELD_NAMES = (
    (r"(the )?(mit|expat)( license)?", "MIT"),
    (r"mit 0|mit no attribution", "MIT-0"),
    (r"(the )?apache( software)?( license)?( version)?( ?v?2( 0)?)( license)?|asl ?2( 0)?", "Apache-2.0"),
    (r"apache( license)?", "Apache-2.0"),
    (r"(the )?(bsd 3 clause|3 clause bsd|new bsd|modified bsd|revised bsd|bsd 3)( license)?", "BSD-3-Clause"),
    (r"(the )?(bsd 2 clause|2 clause bsd|simplified bsd|freebsd|bsd 2)( license)?", "BSD-2-Clause"),
    (r"(the )?bsd( like| style)?( license)?", "BSD"),
    (r"(the )?isc( license)?( iscl)?", "ISC"),
    (r"(the )?(mpl|mozilla public license)( version)?( v)? ?2( 0)?( mpl 2 0)?", "MPL-2.0"),
    (r"(psf|python software foundation)( license)?( v?2( 0)?)?|psfl", "PSF-2.0"),
    (r"(the )?unlicen[sc]e( unlicense)?|public domain", "Unlicense"),
    (r"(the )?zlib( libpng)?( license)?", "Zlib"),
    (r"(zpl|zope public license)( v?2 ?1)?", "ZPL-2.1"),
    (r"(boost|bsl)( software)?( license)?( 1 0)?( bsl 1 0)?", "BSL-1.0"),
    (r"hpnd|historical permission notice and disclaimer( hpnd)?", "HPND"),
)
_FIELDS = tuple((re.compile(pattern), licence) for pattern, licence in _FIELD_NAMES)
_GNU_WORD = re.compile(r"a?l?gpl|[a-z]+|\d+|\+")
_GNU_WORDS = """
    agpl lgpl gpl gnu affero lesser library general public license the v version or later newer any only and +
"""
_GNU_VOCABULARY = frozenset(_GNU_WORDS.split())
_CLASSIFIER_SAYS_NOTHING = frozenset({"OSI Approved", "DFSG approved"})
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Python License (CNRI Python License)": "CNRI-Python",
    "Mozilla Public License 1.0 (MPL)": "MPL-1.0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Public Domain": "Unlicense",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "zlib/libpng License": "Zlib",
    "Zope Public License": "ZPL-2.1",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "Academic Free License (AFL)": "AFL-3.0",
    "Artistic License": "Artistic-2.0",
    "Eclipse Public License 1.0 (EPL-1.0)": "EPL-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "University of Illinois/NCSA Open Source License": "NCSA",
    "W3C License": "W3C",
    "European Union Public Licence 1.1 (EUPL 1.1)": "EUPL-1.1",
    "European Union Public Licence 1.2 (EUPL 1.2)": "EUPL-1.2",
}
_GNU_CLASSIFIER = re.compile(
    r"GNU (?P<kind>Affero |Lesser |Library or Lesser )?General Public License"
    r"(?: v(?P<version>[23](?:\.\d)?))?(?P<later> or later)?"
)


def licence_of_name(text: str) -> str:
    """Return the SPDX identifier people mean by ``text`` ("Apache License 2.0"), or an empty string."""
    if class_of_licence(text.strip()) != "unknown":
        return text.strip()

    words = re.sub(r"[^a-z0-9+]+", " ", text.lower().replace("licence", "license")).strip()
    for pattern, licence in _FIELDS:
        if pattern.fullmatch(words):
            return licence

    return _gnu_of_words(_GNU_WORD.findall(words))


def _gnu_of_words(words: Sequence[str]) -> str:
    """Read "GNU Lesser General Public License v2.1 or later", "LGPLv3+" and the like, or return nothing."""
    digits = [word for word in words if word.isdigit()]
    plain = {word for word in words if not word.isdigit()}
    is_gnu = plain & {"agpl", "lgpl", "gpl"} or {"general", "public", "license"} <= plain
    one_version = len(digits) < 2 or (len(digits) == 2 and digits[1] in "01")
    if not is_gnu or plain - _GNU_VOCABULARY or not one_version:
        return ""

    kind = "AGPL" if plain & {"agpl", "affero"} else "LGPL" if plain & {"lgpl", "lesser", "library"} else "GPL"
    return _gnu_licence(kind, ".".join(digits), bool(plain & {"later", "newer", "+"}))


def licence_of_classifier(classifier: str) -> str:
    """Return the identifier of a ``License ::`` classifier, or its own words; empty when it says nothing."""
    leaf = classifier.split(" :: ")[-1].strip()
    if leaf in _CLASSIFIER_SAYS_NOTHING or not classifier.startswith("License ::"):
        return ""

    gnu = _GNU_CLASSIFIER.match(leaf)
    if gnu is not None:
        kinds = {"Affero ": "AGPL", "Lesser ": "LGPL", "Library or Lesser ": "LGPL"}
        return _gnu_licence(kinds.get(gnu["kind"] or "", "GPL"), gnu["version"] or "", bool(gnu["later"]))

    if leaf in _CLASSIFIERS:
        return _CLASSIFIERS[leaf]

    # "Common Development and Distribution License 1.0 (CDDL-1.0)": the newer classifiers end in their
    # identifier.
    identifier = leaf.rpartition("(")[2].rstrip(")")
    return identifier if class_of_licence(identifier) != "unknown" else leaf


def _gnu_licence(kind: str, version: str, later: bool) -> str:
    if not version:
        return kind

    number = version if "." in version else f"{version}.0"
    return f"{kind}-{number}-or-later" if later else f"{kind}-{number}"
