"""``flowdeck collect``: take in what other OpenTelemetry programs send."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError, Stopped
from flowdeck_devtools.cli._options import StoreOption, store_path
from flowdeck_devtools.cli._stopping import run_stoppable

if TYPE_CHECKING:
    from flowdeck_sinks.collect.http import CollectServer

__all__ = ["collect"]

TOKEN_VARIABLE = "FLOWDECK_COLLECT_TOKEN"
_MIB = 1024 * 1024


def collect(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen on; 0 takes a free one.")] = 4318,
    token: Annotated[
        str | None, typer.Option(envvar=TOKEN_VARIABLE, help="What senders must know; made up when not given.")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Let in anybody on this machine.")] = False,
    max_mib: Annotated[int, typer.Option(min=1, max=512, help="Largest request, unpacked, in MiB.")] = 16,
    own: Annotated[
        bool, typer.Option("--own", help="Take in what a Flowdeck exported, too, as if another program sent it.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Receive traces and logs of any OpenTelemetry program over OTLP/HTTP into the store.

    A trace becomes a run, a span a step, a model's call, a tool's or an agent's: runs, sql, devtools and export show
    them. What is answered with 200 is in the store, also after kill -9. Metrics are counted and not stored.
    """
    try:
        from flowdeck_sinks.collect.decoding import prepare
        from flowdeck_sinks.collect.http import CollectServer, is_loopback
        from flowdeck_sinks.collect.intake import Collector

        prepare()
    except ModuleNotFoundError as problem:
        raise CliError(f"{problem.name} is not installed: pip install 'flowdeck[otlp]'", 2) from None

    if no_token and not is_loopback(host):
        raise CliError(f"--no-token: {host} is reachable from other machines; use a token, or 127.0.0.1", 2)

    if token is not None and (not token.isascii() or not token.isprintable() or len(token) < 8 or " " in token):
        raise CliError("--token: at least 8 letters, digits and signs without blanks are needed", 2)

    secret = None if no_token else token or secrets.token_urlsafe(24)
    given = bool(token or os.environ.get(TOKEN_VARIABLE))
    root = store_path(store)
    collector = Collector(root, max_body=max_mib * _MIB, own=own)
    server = CollectServer(collector, host=host, port=port, token=secret)
    code = 0
    try:
        run_stoppable(_serve(server, root, None if given else secret, needs_token=secret is not None))
    except Stopped as stopped:
        code = stopped.code
    finally:
        collector.close()

    count = collector.statistics()
    raise Stopped(
        f"stopped; {count['spans']} spans and {count['log_records']} log records were sent, "
        f"{count['events']} events written, {count['duplicates']} came again, {count['rejected']} refused",
        code,
    )


async def _serve(server: CollectServer, root: Path, made_up: str | None, *, needs_token: bool) -> None:
    await server.start()
    _output.note(f"collecting into {root}; Ctrl-C stops. For the programs that are to send:")
    _output.note(f"  export OTEL_EXPORTER_OTLP_ENDPOINT={server.url} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")
    if needs_token:
        shown = made_up or (f"${TOKEN_VARIABLE}" if os.environ.get(TOKEN_VARIABLE) else "<token>")
        _output.note(f'  export OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20{shown}"')

    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await server.stop()
