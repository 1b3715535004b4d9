"""A machine that writes events and hands them over to a lake, in rounds, with merges between; it may be killed."""

from __future__ import annotations

import sys

from flowdeck.layout import Layout
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.lake import hand_over
from flowdeck_sinks.store._keeping import Timing
from flowdeck_sinks.store.compaction import compact
from flowdeck_sinks.store.publisher import publish

AT_ONCE = Timing(visible_after_ms=0, keep_ms=0)
"""Nobody reads these stores meanwhile."""


class Encoded:
    """An event as the journal takes it."""

    def __init__(self, text: str) -> None:
        self.encoded = text.encode()


def main(store: str, catalogue: str, data: str, rounds: str, events: str) -> None:
    number = 0
    for nth in range(int(rounds)):
        sink = JournalSink(store, segment_bytes=20_000)
        for _ in range(int(events)):
            number += 1
            sink.accept(  # type: ignore[arg-type]
                Encoded(
                    f'{{"event_id":"{store[-1]}{number:08d}","event_type":"test.plain","source":"test","level":"INFO",'
                    f'"message":null,"payload":{{"n":{number},"text":"{"x" * 50}"}},"error":null,"run":null,'
                    f'"meta":{{"v":1,"us":1}},"timestamp":{1_790_000_000_000 + number}}}'
                )
            )

        sink.close(10.0)
        publish(Layout.open(store), timing=AT_ONCE)
        if nth % 2 == 0:
            hand_over(Layout.open(store), catalogue, data)
        else:  # merges what is in the lake with what is not
            compact(Layout.open(store), force=True, timing=AT_ONCE)

        print(nth, flush=True)

    publish(Layout.open(store), timing=AT_ONCE)
    report = hand_over(Layout.open(store), catalogue, data)
    again = hand_over(Layout.open(store), catalogue, data)
    print("done", report.files, report.mixed, report.events, again.events, flush=True)


main(*sys.argv[1:])
