"""``flowdeck workspace``: look into the evidence and the products of a task."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError, OutputClosed, Stopped, one_line
from flowdeck_devtools.cli._options import JsonOption
from flowdeck_devtools.cli._table import write_table
from flowdeck_devtools.core.text import clean

if TYPE_CHECKING:
    from flowdeck.workspace import Workspace

__all__ = ["workspace"]

T = TypeVar("T")

workspace = typer.Typer(
    help="Look into the evidence and the products of a task.", no_args_is_help=True, rich_markup_mode=None
)

RootOption = Annotated[
    str | None,
    typer.Option("--workspace", "-w", metavar="DIR", help="The workspace (default: $FLOWDECK_WORKSPACE, else ./)."),
]
CollectionOption = Annotated[
    str | None, typer.Option("--collection", "-c", metavar="NAME", help="Only this collection.")
]
ScopeOption = Annotated[
    list[str] | None, typer.Option("--scope", "-s", metavar="KEY=VALUE", help="Only this scope; may be repeated.")
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=0, help="Most records to show; 0 shows all.")]
_ALL = 1 << 31


@workspace.command("ls")
def list_records(
    root: RootOption = None,
    collection: CollectionOption = None,
    kind: Annotated[str | None, typer.Option("--kind", "-k", metavar="NAME", help="Only this kind.")] = None,
    scope: ScopeOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List records, the newest first."""
    opened = _open(root)
    filters = _filters(collection, kind, scope)
    _show(_run(opened.search(None, filters, limit=limit + 1 if limit else _ALL)), limit, as_json, "no records")


@workspace.command()
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help='Words, "a phrase", begin*; any character is fine.')],
    root: RootOption = None,
    collection: CollectionOption = None,
    scope: ScopeOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Search the contents, the best matches first."""
    opened = _open(root)
    filters = _filters(collection, None, scope)
    _show(_run(opened.search(query, filters, limit=limit + 1 if limit else _ALL)), limit, as_json, "nothing matches")


@workspace.command()
def show(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A record's id, path, or workspace:// reference.")],
    root: RootOption = None,
    raw: Annotated[bool, typer.Option("--raw", help="Write the content alone, byte by byte.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one record: its labels, its links and its content."""
    opened = _open(root)
    if raw:
        _run(_copy(opened, ref))
        return

    record = _run(opened.record(ref))
    links = _run(opened.links(record))
    text, cut = opened.excerpt(record, 1_000_000 if as_json else 4000)
    if as_json:
        content = {"content": text, "truncated": cut}
        _output.out(json.dumps({**record, "links": links, **content}, ensure_ascii=False, indent=2))
        return

    for name, value in record.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        _output.out(f"{name:<11} {clean(shown, limit=2000)}")

    for link in links:
        _output.out(f"{'link':<11} {clean(' '.join((link['source_id'], link['relation'], link['target_id'])))}")

    _output.out("")
    for line in text.splitlines():
        _output.out(clean(line, limit=4000))

    if cut:
        _output.note("… there is more: --raw writes all of it")


@workspace.command()
def audit(
    root: RootOption = None,
    collection: Annotated[
        str, typer.Option("--collection", "-c", metavar="NAME", help="What to audit; all is every collection.")
    ] = "artifacts",
    verify: Annotated[bool, typer.Option("--verify", help="Read every content and compare its hash.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what lacks a source, a summary, a scope or a link; the exit code is 1 when there is something."""
    opened = _open(root)
    found = _run(opened.audit(None if collection == "all" else collection, verify=verify))
    if as_json:
        _output.out(json.dumps(found, ensure_ascii=False, indent=2))
    elif found:
        lines = [(each["id"], each["kind"], ", ".join(each["problems"]), each["summary"]) for each in found]
        write_table(("id", "kind", "problems", "summary"), lines, width=_output.table_width())
    else:
        _output.note("every record has a source, a summary, a scope and a link")

    if found:
        raise Stopped("", 1)


def _open(root: str | None) -> Workspace:
    from flowdeck.errors import WorkspaceError
    from flowdeck.workspace import WorkspaceManager

    path = Path(root or os.environ.get("FLOWDECK_WORKSPACE") or ".")
    try:
        opened: Workspace = WorkspaceManager().create(path, create=False, mode="read_only")
        return opened
    except WorkspaceError as problem:
        if not (path / "workspace.meta.json").exists():
            raise CliError(f"{path} is no workspace; name one with --workspace DIR", 2) from None

        raise CliError(one_line(problem), 2) from None


def _run(work: Coroutine[Any, Any, T]) -> T:
    from flowdeck.errors import WorkspaceError

    try:
        return asyncio.run(work)
    except WorkspaceError as problem:
        raise CliError(one_line(problem), 2) from None


async def _copy(opened: Workspace, ref: str) -> None:
    _output.flush()
    try:
        async for piece in opened.stream(ref):
            sys.stdout.buffer.write(piece)

        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise OutputClosed from None


def _filters(collection: str | None, kind: str | None, scope: list[str] | None) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    for each in scope or ():
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise CliError(f"--scope {each}: expected KEY=VALUE", 2)

        filters[f"scope.{key}"] = value

    return filters | {name: value for name, value in (("collection", collection), ("kind", kind)) if value is not None}


def _show(records: list[dict[str, Any]], limit: int, as_json: bool, nothing: str) -> None:
    if as_json:
        _output.out(json.dumps(records[: limit or None], ensure_ascii=False, indent=2))
        return

    if not records:
        _output.note(nothing)
        return

    lines = [
        (each["id"], each["collection"], each["kind"], each["size"], each["created_at"], each["summary"])
        for each in records
    ]
    write_table(
        ("id", "collection", "kind", "bytes", "created", "summary"),
        lines,
        width=_output.table_width(),
        limit=limit or None,
    )
