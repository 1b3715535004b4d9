"""Recognise a licence by its text, by the sentences that make it what it is."""

from __future__ import annotations

import re

__all__ = ["recognise"]

_NOT_WORDS = re.compile(r"[^a-z0-9]+")
_VERSION = re.compile(r"version (\d)\b(?: (\d)\b)?")

_GNU = (
    ("AGPL", "gnu affero general public license"),
    ("LGPL", "gnu lesser general public license"),
    ("LGPL", "gnu library general public license"),
    ("GPL", "gnu general public license"),
)
_GNU_GRANT = re.compile(
    r"under the terms of the gnu"
    r"|general public license version \d(?: \d)? (?:\d\d? )?(?:february|june|november) (?:1991|1999|2007)"
)
_MIT_GRANT = "permission is hereby granted free of charge to any person obtaining a copy"
_BSD_GRANT = "redistribution and use in source and binary forms with or without modification are permitted"
_ISC_GRANT = re.compile(r"permission to use copy modify and (?:or )?distribute this software for any purpose")
_ISC_NOTICE = "provided that the above copyright notice"

_SENTENCES = (
    ("Apache-2.0", "apache license version 2 0"),
    ("Apache-2.0", "apache software license version 2 0"),
    ("MPL-2.0", "mozilla public license version 2 0"),
    ("MPL-2.0", "mozilla public license v 2 0"),
    ("MPL-1.1", "mozilla public license version 1 1"),
    ("EPL-2.0", "eclipse public license v 2 0"),
    ("EPL-1.0", "eclipse public license v 1 0"),
    ("PSF-2.0", "python software foundation license version 2"),
    ("PSF-2.0", "psf license agreement for python"),
    ("Unlicense", "this is free and unencumbered software released into the public domain"),
    ("Zlib", "altered source versions must be plainly marked as such"),
    ("BSL-1.0", "boost software license version 1 0"),
    ("CC0-1.0", "cc0 1 0 universal"),
    ("CC-BY-SA-4.0", "attribution sharealike 4 0 international"),
    ("CC-BY-4.0", "attribution 4 0 international"),
    ("WTFPL", "do what the fuck you want to public license"),
    ("Artistic-2.0", "the artistic license 2 0"),
    ("EUPL-1.2", "european union public licence v 1 2"),
    ("OFL-1.1", "sil open font license version 1 1"),
    ("UPL-1.0", "the universal permissive license upl version 1 0"),
    ("ZPL-2.1", "zope public license zpl version 2 1"),
    ("MIT-CMU", "copy modify and distribute this software and its associated documentation for any purpose"),
    ("HPND", "copy modify and distribute this software and its documentation for any purpose"),
)


def recognise(text: str) -> list[str]:
    """Return the SPDX identifiers of the licences ``text`` is or contains, in the order they appear."""
    words = _NOT_WORDS.sub(" ", text.lower())
    found: dict[str, int] = {}

    for licence, sentence in _SENTENCES:
        place = words.find(sentence)
        if place >= 0:
            found.setdefault(licence, place)

    for licence, place in (*_mit_family(words), *_bsd_family(words), *_isc_family(words)):
        found.setdefault(licence, place)

    for licence, place in _gnu_family(words, alone=not found):
        found.setdefault(licence, place)

    return sorted(found, key=lambda licence: found[licence])


def _mit_family(words: str) -> list[tuple[str, int]]:
    place = words.find(_MIT_GRANT)
    if place < 0:
        return []

    notice = "permission notice shall be included in all copies" in words
    return [("MIT" if notice else "MIT-0", place)]


def _bsd_family(words: str) -> list[tuple[str, int]]:
    place = words.find(_BSD_GRANT)
    if place < 0:
        return []

    if "all advertising materials mentioning features" in words:
        return [("BSD-4-Clause", place)]

    endorsement = "endorse or promote products derived from" in words
    return [("BSD-3-Clause" if endorsement else "BSD-2-Clause", place)]


def _isc_family(words: str) -> list[tuple[str, int]]:
    match = _ISC_GRANT.search(words)
    if match is None:
        return []

    # The condition follows within the sentence; further down it may belong to another licence in the same
    # file.
    notice = _ISC_NOTICE in words[match.end() : match.end() + 120]
    return [("ISC" if notice else "0BSD", match.start())]


def _gnu_family(words: str, *, alone: bool) -> list[tuple[str, int]]:
    # The GNU texts name one another in their later sections, so only the first title counts. The MPL, EPL and
    # EUPL name the GPL as a licence one may change to: beside another licence a mere mention is no grant.
    titles = [(words.find(title), name, len(title)) for name, title in _GNU if title in words]
    if not titles or not (alone or _GNU_GRANT.search(words)):
        return []

    place, name, length = min(titles)
    version = _VERSION.search(words, place, place + length + 200)
    if version is None:
        return [(name, place)]

    return [(f"{name}-{version[1]}.{version[2] or '0'}", place)]
