"""``flowdeck run``: run a flow of yours, observed into the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError, Stopped, one_line, place_of
from flowdeck_devtools.cli._executions import use_store
from flowdeck_devtools.cli._flows import load_flow
from flowdeck_devtools.cli._hints import how_to_answer
from flowdeck_devtools.cli._observe import lost_events, observe, unsent_traces
from flowdeck_devtools.cli._options import JsonOption, StoreOption, command_store, parse_json, store_path
from flowdeck_devtools.cli._stopping import run_stoppable
from flowdeck_devtools.cli._table import json_value

__all__ = ["run"]

_SHOWN_INTERRUPTS = 3


def run(
    flow: Annotated[str, typer.Argument(metavar="MODULE:FLOW", help="The flow, for example my_flows:refund.")],
    input: Annotated[str, typer.Option("--input", "-i", metavar="JSON", help="JSON, @file, or - for stdin.")] = "null",
    timeout: Annotated[float | None, typer.Option(min=0.0, metavar="SECONDS", help="Give up after so long.")] = None,
    durability: Annotated[
        str | None, typer.Option(metavar="full|process|exit", help="Commit the run, so a worker can go on with it.")
    ] = None,
    store: StoreOption = None,
    otlp: Annotated[
        bool, typer.Option("--otlp", help="Also export traces by OTLP, as the OTEL_* variables say.")
    ] = False,
    otlp_endpoint: Annotated[
        str | None, typer.Option("--otlp-endpoint", metavar="URL", help="Also export traces, to this collector.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a flow to its end and print its close snapshot. Every event goes into the store."""
    value = parse_json(input, "--input")
    definition = load_flow(flow)

    root = store_path(store)
    with observe(root, otlp=otlp_endpoint or otlp) as observation:
        if durability is not None:
            use_store(root, durability)

        runner = _Runner(definition, value, timeout, root)
        try:
            snapshot = run_stoppable(runner.run())
        except Stopped as stopped:
            raise Stopped(f"stopped; run {runner.execution_id} is recorded as cancelled", stopped.code) from None
        finally:
            # Of a run that failed, too: its trace is the one that somebody will look for.
            observation.close()
            for sentence in (lost_events(observation), unsent_traces(observation)):
                if sentence:
                    _output.note(sentence)

    if as_json:
        record = {
            "execution_id": runner.execution_id,
            "status": "completed",
            "snapshot": json_value(snapshot),
        }
        _output.out(json.dumps(record, ensure_ascii=False, allow_nan=False))
    else:
        _output.out(json.dumps(json_value(snapshot), ensure_ascii=False, indent=2, allow_nan=False))


class _Runner:
    """One run: starts the flow, tells about its interrupts, and closes it whatever happens."""

    def __init__(self, definition: Any, value: Any, timeout: float | None, store: Path) -> None:
        self._definition = definition
        self._value = value
        self._timeout = timeout
        self._store = store
        self._told = 0
        self.execution_id = ""

    async def run(self) -> dict[str, Any]:
        execution = self._definition.create_execution(auto_close_timeout=0.0)
        self.execution_id = execution.id
        # The stream ends with the run and raises what failed it after an answer. Shielded, because a run is cancelled
        # through its execution, which records it, and not through whoever waits for it.
        work = asyncio.gather(execution.async_start(self._value), self._listen(execution))
        try:
            async with asyncio.timeout(self._timeout) as limit:
                snapshot, _ = await asyncio.shield(work)
                return dict(snapshot)
        except TimeoutError:
            if limit.expired():
                waiting = ", ".join(execution.get_pending_interrupts()) or "nothing"
                raise CliError(
                    f"the flow was not done after {self._timeout:g} s and is recorded as cancelled; "
                    f"it waited for: {waiting}"
                ) from None

            raise
        except Exception as error:
            raise _failure(self._definition, error, self._store) from error
        finally:
            await execution.async_cancel(reason="stopped")
            await asyncio.wait([work])

    async def _listen(self, execution: Any) -> None:
        async for item in execution.get_async_runtime_stream(timeout=None):
            if isinstance(item, dict) and item.get("type") == "interrupt" and item.get("action") == "pause":
                self._tell(item["interrupt"])

    def _tell(self, interrupt: Mapping[str, Any]) -> None:
        """Say how to answer. A flow may ask hundreds of things at once: only the first are shown."""
        self._told += 1
        if self._told <= _SHOWN_INTERRUPTS:
            asked = (interrupt["id"], interrupt.get("type"), interrupt.get("payload"), interrupt.get("schema"))
            _output.note(how_to_answer(*asked, self._store))
        elif self._told == _SHOWN_INTERRUPTS + 1:
            _output.note(f"more is waiting: flowdeck interrupts list{command_store(self._store)}")


def _failure(definition: Any, error: Exception, store: Path) -> CliError:
    if isinstance(error, CliError):
        return error

    place = place_of(error, Path.cwd())
    at = f" at {place}" if place else ""
    return CliError(
        f"flow {definition.name!r} failed: {type(error).__name__}: {one_line(error)}{at}; "
        f"see: flowdeck events --filter 'level>=ERROR'{command_store(store)}"
    )
