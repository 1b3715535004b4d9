"""MkDocs hook: roles of docstrings (``:meth:`x```) become plain code, as Markdown knows no roles."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["on_page_content"]

_ROLE = re.compile(r":(?:meth|class|func|mod|attr|exc|data|obj):(?=<code>)")
_TILDE = re.compile(r"<code>~(?:\w+\.)*(\w+)</code>")
_LITERAL = re.compile(r"::(\s*</p>)")


def on_page_content(html: str, **_: Any) -> str:
    """Return the page without roles: ``<code>x</code>`` alone; ``::`` before a block is a colon."""
    html = _TILDE.sub(r"<code>\1</code>", _ROLE.sub("", html))
    return _LITERAL.sub(r":\1", html)
