"""Which commands there are, and where each lives; a module is imported when its command is the one asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup

__all__ = ["COMMANDS", "Commands"]

COMMANDS: Final[dict[str, str]] = {
    name: f"flowdeck_devtools.cli.{place}"
    for name, place in {
        "demo": "demo:demo",
        "run": "run:run",
        "devtools": "devtools:devtools",
        "watch": "devtools:devtools",
        "interrupts": "interrupts:interrupts",
        "executions": "executions:executions",
        "intervene": "intervene:intervene",
        "worker": "worker:worker",
        "serve": "serve:serve",
        "collect": "collect:collect",
        "workspace": "workspace:workspace",
        "sql": "sql:sql",
        "store": "store:store",
        "runs": "runs:runs",
        "events": "events:events",
        "export": "export:export",
        "evals": "evals:evals",
        "promote": "promote:promote",
        "doctor": "doctor:doctor",
        "graph": "graph:graph",
        "show": "show:show",
        "waterfall": "waterfall:waterfall",
        "why": "why:why",
        "diff": "diff:diff",
        "errors": "errors:errors",
        "tail": "tail:tail",
        "inbox": "inbox:inbox",
    }.items()
}
"""Name -> ``module:attribute`` of a function, or of a ``typer.Typer`` with its own commands; in the order of help."""

_ALIASES: Final = {"watch": "devtools"}


class _Lazy(Mapping[str, Any]):
    """The commands by name; looking one up imports and builds it."""

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = COMMANDS[name].partition(":")
        found = getattr(import_module(module), attribute)
        holder = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=name)
            return typer.main.get_group(holder).commands[name]

        alias = _ALIASES.get(name)
        holder.command(name, hidden=alias is not None, help=f"The same as {alias}." if alias else None)(found)
        return typer.main.get_command(holder)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Commands(TyperGroup):
    """A group that imports a command when it is run, or described: half of a command's time was the others'."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Lazy()  # type: ignore[assignment]  # nobody adds one later
