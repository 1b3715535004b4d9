"""The documents as they come with the installation: found, and read by page and heading."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from flowdeck_devtools.cli._errors import CliError

__all__ = ["Heading", "folder", "headings", "page_names", "page_text", "section"]

_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_HEADING: Final = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_COMMENT: Final = re.compile(r"<!--.*?-->\n?", re.DOTALL)


class Heading(NamedTuple):
    """A heading of a page."""

    level: int
    title: str
    slug: str
    """What stands behind ``#`` in an address; as the site makes it."""
    line: int


def folder() -> Path:
    """Return the folder of the pages: in the repository of an editable install, else inside the package.

    Raises:
        CliError: the installation lacks it.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package.parents[1] / "docs", package / "docs"):
        if (place / "index.md").is_file():
            return place

    raise CliError("this installation lacks the documents: pip install --force-reinstall 'flowdeck[devtools]'", 2)


def page_names() -> list[str]:
    """Return the pages, such as ``durable`` and ``reference/events``; the first page first."""
    root = folder()
    names = [str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.md")]
    return sorted(names, key=lambda name: (name != "index", "/" in name, name))


def page_text(name: str) -> str:
    """Return a page as Markdown."""
    return _COMMENT.sub("", (folder() / f"{name}.md").read_text(encoding="utf-8"))


def headings(text: str) -> Iterator[Heading]:
    """Yield the headings of a page; lines of code are none."""
    fenced = False
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines()):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced and (found := _HEADING.match(line)):
            slug = _slug(found[2])
            again = seen.get(slug, 0)
            seen[slug] = again + 1
            yield Heading(len(found[1]), found[2].replace("`", ""), f"{slug}_{again}" if again else slug, number)


def section(text: str, slug: str) -> str | None:
    """Return a page from a heading to the next of its level or above; ``None``: there is no such heading."""
    found = list(headings(text))
    for index, heading in enumerate(found):
        if heading.slug == slug:
            end = next((each.line for each in found[index + 1 :] if each.level <= heading.level), None)
            return "\n".join(text.splitlines()[heading.line : end]).strip("\n") + "\n"

    return None


def _slug(title: str) -> str:
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
