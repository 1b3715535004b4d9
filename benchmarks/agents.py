"""What instant streaming and a turn of an agent cost: ``python -m benchmarks.agents [--quick]``.

CPU time, medians. The reference runs in its own environment (``python -m benchmarks.peers --install`` makes it), the
model is a server in a process of its own (``flowdeck.testing``), so that only the asking side is counted.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from flowdeck import Runtime
from flowdeck.models import InstantParser

HERE = Path(__file__).parent
AGENTLY = HERE / ".envs" / "agently" / "bin" / "python"
PIECE = 64
SIZES = (10_000, 100_000, 1_000_000)
REFERENCE_SIZES = (5_000, 10_000)
"""The reference is quadratic: 100 kB would take it a quarter of an hour."""


def document(shape: str, size: int) -> str:
    """Return a JSON text of about ``size`` characters: many short fields, or one long string."""
    if shape == "text":
        return json.dumps({"text": "some words, a line\n" * (size // 20)})

    rows = [{"name": f"item {n}", "text": 'words "quoted" here ' * 4, "n": n, "ok": True} for n in range(size // 150)]
    return json.dumps({"rows": rows})


def instant(text: str, read_values: bool) -> tuple[float, int]:
    """Return the CPU seconds of one pass, and how many fields were complete."""
    parser, done = InstantParser("object"), 0
    gc.collect()
    began = time.process_time()
    for at in range(0, len(text), PIECE):
        for item in parser.feed(text[at : at + PIECE]):
            seen = (item.path, item.delta, item.value if read_values else None)
            done += seen[1] is None

    return time.process_time() - began, done


def reparsed(text: str) -> float:
    """Return the CPU seconds of parsing the prefix anew for every piece with the library's partial mode."""
    raw = text.encode()
    began = time.process_time()
    for at in range(PIECE, len(raw) + PIECE, PIECE):
        from_json(raw[:at], allow_partial="trailing-strings")

    return time.process_time() - began


def reference(shape: str, text: str, rounds: int) -> tuple[float, int]:
    """Return the reference's CPU seconds and complete fields."""
    command = [str(AGENTLY), str(HERE / "peers" / "instant_agently.py"), shape, str(PIECE), str(rounds)]
    ran = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    runs = json.loads(ran.stdout.splitlines()[-1])
    return statistics.median(seconds for seconds, _ in runs), runs[0][1]


def show_instant(quick: bool) -> None:
    print(f"instant, pieces of {PIECE} characters: ns of CPU a character (read: with every item's value read)")
    for shape in ("records", "text"):
        for size in SIZES:
            text = document(shape, size)
            rounds = 3 if size == SIZES[-1] or quick else 7
            plain = statistics.median(instant(text, False)[0] for _ in range(rounds)) / len(text) * 1e9
            read = statistics.median(instant(text, True)[0] for _ in range(rounds)) / len(text) * 1e9
            line = f"  {shape:8} {len(text):9,}  {plain:6.0f}  read {read:6.0f}"
            if size < SIZES[-1]:
                line += f"  re-parsed by the library {reparsed(text) / len(text) * 1e9:8.0f}"

            print(line, flush=True)

        if not AGENTLY.exists():
            print("  the reference is not installed: python -m benchmarks.peers --install")
            continue

        for size in REFERENCE_SIZES[: 1 if quick else 2]:
            text = document(shape, size)
            ours, fields = min(instant(text, True) for _ in range(3))
            theirs, their_fields = reference(shape, text, 1)
            assert their_fields == fields, (their_fields, fields)
            print(
                f"  {shape:8} {len(text):9,}  agently 4.1.3.1: {theirs / len(text) * 1e9:,.0f}, x{theirs / ours:,.0f}"
            )


# -- turns ---------------------------------------------------------------------------------------------------------


@contextmanager
def server(text: str, piece: int) -> Iterator[dict[str, str]]:
    """A model in a process of its own."""
    command = [sys.executable, "-m", "flowdeck.testing", "--text", text, "--piece", str(piece)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()


async def costs(turns: dict[str, Callable[[], Awaitable[Any]]], count: int) -> dict[str, list[float]]:
    """Return milliseconds of CPU of one turn of each kind, in nine rounds that take all kinds one after the other."""
    took: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(10):
        for name, turn in turns.items():
            gc.collect()
            began = time.process_time()
            for _ in range(count):
                await turn()

            if number:  # the first warms up
                took[name].append((time.process_time() - began) / count * 1e3)

    return took


async def show_turns(quick: bool) -> None:
    from pydantic_ai import ModelRequest
    from pydantic_ai.direct import model_request_stream
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    answer = {"title": "Rain tomorrow", "tags": ["weather", "north"], "score": 7, "text": "It will rain. " * 20}
    count = 20 if quick else 60
    with server(json.dumps(answer), 16) as where, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        model = OpenAIChatModel("local", provider=OpenAIProvider(**where))

        async def bare() -> None:
            async with model_request_stream(model, [ModelRequest.user_text_prompt("weather")]) as stream:
                async for _ in stream:
                    pass

        quiet, journaled = Runtime(), Runtime()
        journaled.observe(store=Path(folder) / "store")

        def turns(host: Runtime) -> Callable[[], Awaitable[Any]]:
            agent = host.create_agent("bench").use_model("local", **where)
            request = agent.input("weather").output({"title": str, "tags": [str], "score": int, "text": str})
            return lambda: request.async_start(ensure_keys=["title"])

        figures = {"pydantic-ai alone": bare, "a turn, events off": turns(quiet), "a turn, journaled": turns(journaled)}
        found = await costs(figures, count)
        journaled.close()

    base = found["pydantic-ai alone"]
    print(f"one turn over HTTP, an answer of {len(json.dumps(answer))} characters in deltas of 16: ms of CPU")
    for name, values in found.items():
        more = statistics.median(mine - theirs for mine, theirs in zip(values, base, strict=True))
        print(f"  {name:20} {statistics.median(values):6.2f}  {more:+.2f}")


def main() -> None:
    quick = "--quick" in sys.argv
    show_instant(quick)
    asyncio.run(show_turns(quick))


if __name__ == "__main__":
    main()
