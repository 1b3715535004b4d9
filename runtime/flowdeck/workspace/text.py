"""How text becomes words, so that a search finds every language and fails on no character.

Runs of Chinese, Japanese and Korean characters have no blanks between words. They are indexed as overlapping pairs
(``审批意见`` as ``审批 批意 意见 见``), and a query's run is looked up as a phrase of such pairs: any part of a run
is found, and only where it stands so. Everything else is words of letters and digits. Operators of the full-text engine
never reach it from outside: each word is quoted, and holds nothing but letters and digits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

__all__ = ["estimate_tokens", "goal_terms", "indexed_text", "query_expression"]

_CJK_RANGES: Final = (
    "\u2e80-\u2eff\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN: Final = re.compile(f"[{_CJK_RANGES}]+")
_PIECE: Final = re.compile(rf"(?P<run>[{_CJK_RANGES}]+)|(?P<word>(?:(?![{_CJK_RANGES}])[^\W_])+)(?P<prefix>\*?)")
_QUOTED: Final = re.compile(r'"([^"]*)"|([^"]+|")')
_FUNCTION_WORDS: Final = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "have", "if", "in", "into", "is",
    "it", "its", "of", "on", "or", "our", "that", "the", "their", "this", "to", "was", "we", "were", "what",
    "which", "will", "with", "you", "your",
})  # fmt: skip
"""English words no record is about; in a small workspace they are too rare to count little by themselves."""
_MAX_TERMS: Final = 40
_MAX_WORD: Final = 100


def indexed_text(text: str) -> str:
    """Return ``text`` as the full-text index takes it."""
    if text.isascii():
        return text

    return _RUN.sub(lambda found: f" {' '.join(_pairs(found[0]))} ", unicodedata.normalize("NFKC", text))


def query_expression(query: str) -> str | None:
    """Return a full-text expression for what a person typed, ``None`` when it holds no word.

    All words must be there; ``"two words"`` are a phrase, ``repo*`` is a beginning. An unbalanced quote is no quote.
    """
    parts: list[str] = []
    for quoted, plain in _QUOTED.findall(unicodedata.normalize("NFKC", query)):
        if quoted:
            words = [word.rstrip("* ").strip('"') for word in _expressions(quoted)]
            if words:
                parts.append(f'"{" ".join(words)}"')
        else:
            parts += _expressions(plain)

    return " AND ".join(dict.fromkeys(parts[:_MAX_TERMS])) or None


def goal_terms(goal: str) -> list[str]:
    """Return the terms of a goal, each an expression of its own: words, and every pair of a run. At most 40.

    English function words are left out where there are others.
    """
    terms: dict[str, None] = {}
    for found in _PIECE.finditer(unicodedata.normalize("NFKC", goal)):
        run = found["run"]
        if run is None:
            terms[f'"{found["word"][:_MAX_WORD].lower()}"'] = None
        elif len(run) == 1:
            terms[f'"{run}"*'] = None
        else:
            terms.update((f'"{pair}"', None) for pair in _pairs(run)[:-1])

    telling = [term for term in terms if term[1:-1] not in _FUNCTION_WORDS]
    return (telling or list(terms))[:_MAX_TERMS]


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a model makes of ``text``: one a CJK character, one per four others."""
    wide = 0 if text.isascii() else sum(len(run) for run in _RUN.findall(text))
    return wide + (len(text) - wide + 3) // 4


def _expressions(text: str) -> Iterator[str]:
    for found in _PIECE.finditer(text):
        run = found["run"]
        if run is None:
            yield f'"{found["word"][:_MAX_WORD]}"{"*" if found["prefix"] else ""}'
        elif len(run) == 1:
            yield f'"{run}"*'
        else:
            yield f'"{" ".join(_pairs(run[:_MAX_WORD])[:-1])}"'


def _pairs(run: str) -> list[str]:
    return [run[index : index + 2] for index in range(len(run))]
