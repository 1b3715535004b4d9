"""``flowdeck promote RUN``: keep a stored run as an eval case, as ``p`` on it does in the DevTools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._options import JsonOption, StoreOption, existing_store
from flowdeck_devtools.cli._table import write_json

__all__ = ["promote"]


def promote(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run or execution id.")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the suite and its tapes are.")] = Path(
        "evals"
    ),
    target: Annotated[
        str, typer.Option(metavar="MODULE:FLOW", help="Where the flow is, when the run does not say.")
    ] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a stored run as an eval case that replays it and expects what it did."""
    from flowdeck_devtools.core.promoting import PromotionRefused
    from flowdeck_devtools.core.promoting import promote as keep

    try:
        made = keep(existing_store(store), run, target, folder)
    except PromotionRefused as problem:
        raise CliError(f"{run}: {problem}") from None

    if as_json:
        write_json(["file", "case", "tape"], [(str(made.file), made.case, str(made.tape))])
    else:
        _output.out(f"{made.case} in {made.file}; try it: evals run {made.file}")
