"""``flowdeck docs``: the documents at the shell, without a network; errors name the place to look."""

from __future__ import annotations

import difflib
import sys
from typing import Annotated, Final

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._pages import headings, page_names, page_text, section
from flowdeck_devtools.cli._table import write_table

__all__ = ["docs", "page_of_error"]

_PACKAGES: Final = ("flowdeck", "flowdeck_sinks", "flowdeck_evals", "flowdeck_devtools")


def docs(
    place: Annotated[
        str | None,
        typer.Argument(metavar="PAGE[#HEADING]", help="What to read; or the name of an error (default: the pages)."),
    ] = None,
) -> None:
    """Read the documents: a page, a part of one, or what they say about an error.

    Without an argument the pages are listed, and for a page of which only a word is known, the headings with that word.
    """
    if place is None:
        rows = [(name, next((each.title for each in headings(page_text(name))), "")) for name in page_names()]
        write_table(("page", "title"), rows, width=_output.table_width())
        return

    wanted = page_of_error(place) or place
    page, _, slug = wanted.partition("#")
    name = _name_of(page)
    if name is None:
        _search(place)
        return

    text = page_text(name)
    if slug:
        part = section(text, slug.lower())
        if part is None:
            known = ", ".join(each.slug for each in headings(text) if each.level == 2)
            raise CliError(f"page {name} has no heading #{slug}; it has: {known or 'none'}", 2)

        text = part

    _write(text)


def page_of_error(name: str) -> str | None:
    """Return the page of an error class, its own or that of the nearest class above it; ``None``: it is none of ours.

    Args:
        name: the class alone, or with its module, as the last line of a traceback begins.
    """
    from flowdeck import errors
    from flowdeck._error_docs import BELOW, PAGES, page_of

    module, _, bare = name.strip().removesuffix(":").rpartition(".")
    if module and module.partition(".")[0] not in _PACKAGES:
        return None

    page = PAGES.get(bare) or PAGES.get(BELOW.get(bare, ""))
    if page is not None:
        return page

    kind = getattr(errors, bare, None)
    return page_of(kind) if isinstance(kind, type) and issubclass(kind, BaseException) else None


def _name_of(page: str) -> str | None:
    """Find a page by how it may be written: ``durable``, ``docs/durable.md``, ``events`` for ``reference/events``."""
    plain = page.removeprefix("docs/").removesuffix(".md").strip("/")
    names = page_names()
    return next((name for name in names if plain.lower() in (name, name.rpartition("/")[2])), None)


def _search(words: str) -> None:
    wanted = words.casefold().split()
    found = [
        (f"{name}#{each.slug}", each.title)
        for name in page_names()
        for each in headings(page_text(name))
        if wanted and all(word in each.title.casefold() for word in wanted)
    ]
    if found:
        write_table(("page", "title"), found, width=_output.table_width())
        return

    close = difflib.get_close_matches(words, page_names(), 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise CliError(f"there is no page or heading {words!r}{meant}; see: flowdeck docs", 2)


def _write(text: str) -> None:
    if not _output.is_terminal(sys.stdout):
        _output.out(text.rstrip("\n"))
        return

    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text, hyperlinks=False))
