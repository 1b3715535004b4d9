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
        "docs": "docs:docs",
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
_HEADINGS: Final = {
    "Run flows": "demo run worker serve",
    "Watch and look back": "devtools runs show waterfall why diff errors graph events tail sql workspace",
    "Answer and act": "inbox interrupts executions intervene",
    "Evaluate": "evals promote",
    "OpenTelemetry": "export collect",
    "Keep in order": "doctor store",
    "Learn": "docs",
}
_SENTENCE: Final = 200
"""Characters of a command's first sentence in a list."""


class _Lazy(Mapping[str, Any]):
    """The commands by name; looking one up imports and builds it."""

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = COMMANDS[name].partition(":")
        found = getattr(import_module(module), attribute)
        holder = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=name, cls=Told)
            return typer.main.get_group(holder).commands[name]

        alias = _ALIASES.get(name)
        holder.command(name, hidden=alias is not None, help=f"The same as {alias}." if alias else None)(found)
        return typer.main.get_command(holder)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Told(TyperGroup):
    """A group whose help gives each command's first sentence whole: cut off, half of them said nothing."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands below the headings of :data:`_HEADINGS`, those of another group below one."""
        known = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = {
            name: (name, command.get_short_help_str(limit=_SENTENCE))
            for name, command in known.items()
            if command is not None and not command.hidden
        }
        width = max((len(name) for name in rows), default=0)
        for heading, names in self.headings(list(rows)).items():
            shown = [(rows[name][0].ljust(width), rows[name][1]) for name in names if name in rows]
            if shown:
                with formatter.section(heading):
                    formatter.write_dl(shown)

    def headings(self, names: list[str]) -> Mapping[str, list[str]]:
        """Return which commands stand below which heading."""
        return {"Commands": names}


class Commands(Told):
    """A group that imports a command when it is run, or described: half of a command's time was the others'."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Lazy()  # type: ignore[assignment]  # nobody adds one later

    def headings(self, names: list[str]) -> Mapping[str, list[str]]:
        """Return :data:`_HEADINGS`; a command that is in none of them is not lost."""
        placed = {name for row in _HEADINGS.values() for name in row.split()}
        out = {heading: row.split() for heading, row in _HEADINGS.items()}
        return {**out, "More": [name for name in names if name not in placed]}
