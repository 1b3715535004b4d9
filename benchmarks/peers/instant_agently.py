"""The reference's parser of structured answers, fed in pieces: ``benchmarks/agents.py`` calls it in its environment."""

import asyncio
import gc
import json
import sys
import time

from agently.utils import StreamingJSONParser

SCHEMAS = {
    "records": {"rows": [{"name": (str,), "text": (str,), "n": (int,), "ok": (bool,)}]},
    "text": {"text": (str,)},
}


async def once(shape: str, text: str, piece: int) -> tuple[float, int]:
    parser = StreamingJSONParser(SCHEMAS[shape])

    async def pieces():
        for at in range(0, len(text), piece):
            yield text[at : at + piece]

    gc.collect()
    began, count = time.process_time(), 0
    async for item in parser.parse_stream(pieces()):
        count += item.is_complete

    return time.process_time() - began, count


def main() -> None:
    shape, piece, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    text = sys.stdin.read()
    print(json.dumps([asyncio.run(once(shape, text, piece)) for _ in range(rounds)]))


main()
