"""What each licence asks of you, and how licences combine in an SPDX expression.

Source of the grammar: the SPDX specification 3.0, Annex B. The classes are the usual reading of the licences
by licence-compliance tools; they are no legal advice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CLASSES", "ExpressionError", "class_of_expression", "class_of_licence", "stricter"]

CLASSES = ("permissive", "weak_copyleft", "strong_copyleft", "unknown")
"""From the least to the most that a reviewer has to think about."""

_PERMISSIVE = """
    0BSD AFL-2.1 AFL-3.0 Apache-1.1 Apache-2.0 Beerware BlueOak-1.0.0 BSD BSD-1-Clause BSD-2-Clause
    BSD-2-Clause-Patent BSD-2-Clause-Views BSD-3-Clause BSD-3-Clause-Clear BSD-3-Clause-LBNL BSD-4-Clause
    BSD-Source-Code BSL-1.0 bzip2-1.0.6 CC-BY-3.0 CC-BY-4.0 CC0-1.0 CNRI-Python curl ECL-2.0 FTL HPND ICU IJG
    ISC libpng-2.0 Libpng libtiff MirOS MIT MIT-0 MIT-CMU MIT-Modern-Variant MS-PL MulanPSL-2.0 NAIST-2003
    NCSA Ntp NTP OLDAP-2.8 OpenSSL PHP-3.01 PostgreSQL PSF-2.0 Python-2.0 Python-2.0.1 Ruby SGI-B-2.0
    Unicode-3.0 Unicode-DFS-2016 Unlicense UPL-1.0 Vim W3C WTFPL X11 Xnet Zlib zlib-acknowledgement ZPL-2.0
    ZPL-2.1
"""
_WEAK = """
    APSL-2.0 Artistic-1.0 Artistic-1.0-Perl Artistic-2.0 CDDL-1.0 CDDL-1.1 CECILL-C CPL-1.0 EPL-1.0 EPL-2.0
    IPL-1.0 LGPL LGPL-2.0 LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1 LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0
    LGPL-3.0-only LGPL-3.0-or-later MPL-1.0 MPL-1.1 MPL-2.0 MPL-2.0-no-copyleft-exception MS-RL OFL-1.1
    SPL-1.0
"""
_STRONG = """
    AGPL AGPL-1.0 AGPL-1.0-only AGPL-1.0-or-later AGPL-3.0 AGPL-3.0-only AGPL-3.0-or-later CC-BY-SA-3.0
    CC-BY-SA-4.0 CECILL-2.1 EUPL-1.1 EUPL-1.2 GPL GPL-1.0 GPL-1.0-only GPL-1.0-or-later GPL-2.0 GPL-2.0-only
    GPL-2.0-or-later GPL-3.0 GPL-3.0-only GPL-3.0-or-later ODbL-1.0 OSL-3.0 QPL-1.0 RPL-1.5 Sleepycat SSPL-1.0
"""
_CLASS_OF = {
    licence.lower(): name
    for name, group in (("permissive", _PERMISSIVE), ("weak_copyleft", _WEAK), ("strong_copyleft", _STRONG))
    for licence in group.split()
}

_LINKING = """
    bison-exception-2.2 bootloader-exception classpath-exception-2.0 ecos-exception-2.0 font-exception-2.0
    gcc-exception-2.0 gcc-exception-3.1 gnat-exception gpl-3.0-linking-exception gpl-cc-1.0 libtool-exception
    linux-syscall-note llvm-exception openjdk-assembly-exception-1.0 pyinstaller-exception
    qt-gpl-exception-1.0 universal-foss-exception-1.0 wxwindows-exception-3.1
"""
_LINKING_EXCEPTIONS = frozenset(_LINKING.split())
"""Exceptions that let a strong copyleft work be used by other code without passing its terms on."""

_TOKEN = re.compile(r"\s*(?:(\()|(\))|([A-Za-z0-9.+:-]+))")
_MAX_DEPTH = 50


class ExpressionError(ValueError):
    """The text is not an SPDX licence expression. The message names the place."""


def stricter(*classes: str) -> str:
    """Return the class that asks the most of a reviewer."""
    return max(classes, key=CLASSES.index)


def class_of_licence(licence: str) -> str:
    """Return the class of one SPDX identifier, ``unknown`` when it is not in the tables."""
    return _CLASS_OF.get(licence.lower().removesuffix("+"), "unknown")


def class_of_expression(expression: str) -> str:
    """Return the class of an SPDX expression: ``AND`` takes the strictest part, ``OR`` lets you choose the
    mildest.

    Raises:
        ExpressionError: ``expression`` is empty or not well formed.
    """
    parser = _Parser(_tokens(expression))
    found = parser.either(0)
    if parser.ahead is not None:
        raise ExpressionError(f"unexpected {parser.ahead!r} in {expression!r}")

    return found


def _tokens(expression: str) -> list[str]:
    tokens, position, text = [], 0, expression.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"unexpected {text[position:].strip()[:20]!r} in {expression[:80]!r}")

        tokens.append(match.group().strip())
        position = match.end()

    return tokens


@dataclass
class _Parser:
    """Recursive descent over the tokens: ``OR`` binds weaker than ``AND``, ``AND`` weaker than ``WITH``."""

    tokens: list[str]
    position: int = 0

    @property
    def ahead(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take_name(self) -> str:
        token = self.ahead
        if token is None or token.upper() in ("AND", "OR", "WITH", "(", ")"):
            raise ExpressionError(f"a name is expected {f'before {token!r}' if token else 'at the end'}")

        self.position += 1
        return token

    def accept(self, word: str) -> bool:
        # The specification wants capitals; packages in the wild write "or" just as often.
        if (self.ahead or "").upper() != word:
            return False

        self.position += 1
        return True

    def either(self, depth: int) -> str:
        if depth > _MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {_MAX_DEPTH} parentheses")

        choices = [self.both(depth)]
        while self.accept("OR"):
            choices.append(self.both(depth))

        return min(choices, key=CLASSES.index)

    def both(self, depth: int) -> str:
        parts = [self.simple(depth)]
        while self.accept("AND"):
            parts.append(self.simple(depth))

        return stricter(*parts)

    def simple(self, depth: int) -> str:
        if self.accept("("):
            inner = self.either(depth + 1)
            if not self.accept(")"):
                raise ExpressionError("a parenthesis is not closed")

            return inner

        found = class_of_licence(self.take_name())
        if self.accept("WITH"):
            exception = self.take_name().lower()
            if found == "strong_copyleft" and exception in _LINKING_EXCEPTIONS:
                return "weak_copyleft"

        return found
