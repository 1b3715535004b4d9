"""Make a store of N events with realistic payloads: reproducible, resumable, streaming.

    python -m benchmarks.store_make --store /tmp/ten --events 10_000_000

Every event is a journal line first (the same envelope, payload keys and lineage as an execution with five chunks, one
model request, two stream items and, now and then, a failure or a person who is asked; one in 5,000 waits for ever),
then goes through the publisher's own columns and file options into one day file per million. Texts are words drawn from
a vocabulary of 4,096, which a compressor finds about as hard as prose. A file that is there already is left alone, so a
second call goes on where the first was stopped. Sizes and contents depend on ``--seed`` alone; times end at
``--until``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from flowdeck.layout import Layout
from flowdeck_sinks.store._duckdb import quoted, require_duckdb, spill_place
from flowdeck_sinks.store.parts import COPY_OPTIONS, MERGED_OPTIONS, PublishedFile, parquet_select, stored_select
from flowdeck_sinks.store.schema import line_select
from flowdeck_sinks.store.unfinished import unfinished_option

EVENTS_EACH = 20
"""Events of one execution."""
FILE_EVENTS = 1_000_000
SNIPPETS = 100_000
WRITERS = 4

_CHUNKS = ("intake", "classify", "enrich", "price", "notify")
_FLOWS = ("orders", "claims", "licence_audit", "onboarding", "refunds")


def _vocabulary() -> list[str]:
    """Return 4,096 words: an alphabet of syllables, so that the result is the same on every machine."""
    starts = ("ab", "be", "con", "de", "ex", "for", "in", "lo", "ma", "ne", "or", "pre", "re", "so", "tra", "un")
    middles = ("", "ri", "te", "va", "li", "mo", "sta", "cu", "de", "na", "pro", "ver", "ti", "ca", "le", "spe")
    ends = ("n", "ted", "ing", "er", "ly", "ment", "s", "tion", "al", "ble", "ous", "ty", "ness", "m", "st", "ck")
    return [a + b + c for a in starts for b in middles for c in ends]


def lines_select(first: int, count: int, *, executions: int, until_us: int, span_us: int, seed: int) -> str:
    """Return the SELECT of events ``first`` .. ``first + count - 1`` as journal lines.

    Args:
        first: A multiple of 20.
        count: How many.
        executions: How many executions the whole store has; with ``span_us`` they give the rate.
        until_us: When the last one begins, microseconds since the epoch.
        span_us: How long before that the first began.
        seed: Chooses texts, durations, failures and waits.
    """
    chunk = "['" + "','".join(_CHUNKS) + "']"
    flow = "['" + "','".join(_FLOWS) + "']"
    # n: the execution; k: the event within it; c: the chunk (1..5, 0 for the execution itself).
    return f"""
SELECT
  (i // {WRITERS * EVENTS_EACH}) * {EVENTS_EACH} + k + 1 AS wseq,
  format('19f2a{{:06x}}{seed:05x}{{:06x}}{{:010x}}', w, w * 7919, serial) AS event_id,
  event_type, CASE WHEN event_type LIKE 'model.%' OR event_type LIKE 'prompt.%' THEN 'ModelRequest'
    ELSE 'TriggerFlowExecution' END AS source,
  CASE WHEN event_type IN ('chunk.failed', 'triggerflow.execution_failed') THEN 'ERROR'
    WHEN event_type = 'triggerflow.interrupt_raised' THEN 'WARNING' ELSE 'INFO' END AS level,
  CASE WHEN event_type = 'chunk.failed' THEN 'price failed: ' || left(s1.text, 60) END AS message,
  CASE
    WHEN event_type = 'triggerflow.execution_started' THEN json_object('initial_value', json_object('order', n,
      'customer', 'C' || (h % 50000), 'text', s1.text), 'definition', substr(md5(flow), 1, 16), 'entrypoint', NULL)
    WHEN event_type = 'prompt.built' THEN json_object('agent_name', 'classifier', 'prompt', json_object('system',
      'You are a careful clerk. Answer with one label and a reason.', 'input', s1.text || ' ' || s2.text || ' ' ||
      s3.text))
    WHEN event_type = 'model.request_started' THEN json_object('agent_name', 'classifier', 'response_id', run_id,
      'request_run_id', run_id, 'attempt_index', 1)
    WHEN event_type = 'model.meta' THEN json_object('agent_name', 'classifier', 'response_id', run_id, 'meta',
      json_object('model', CASE WHEN h % 3 = 0 THEN 'large-2' ELSE 'small-4' END, 'finish_reason', 'stop', 'usage',
      json_object('input_tokens', 200 + h % 900, 'output_tokens', 20 + h % 300)))
    WHEN event_type = 'model.completed' THEN json_object('agent_name', 'classifier', 'response_id', run_id, 'result',
      json_object('label', ['urgent', 'normal', 'later'][1 + h % 3], 'reason', s2.text), 'raw_text', s2.text)
    WHEN event_type = 'chunk.started' THEN json_object('chunk_id', chunk_id, 'chunk_name', chunk, 'operator_kind',
      'chunk', 'trigger_event', 'Chunk[' || chunk || ']-' || chunk_id, 'trigger_type', 'event', 'signal_id',
      's' || k, 'status', 'running', 'input', json_object('order', n, 'customer', 'C' || (h % 50000), 'note',
      s1.text), 'signal_source', 'chunk')
    WHEN event_type IN ('chunk.completed', 'chunk.failed') THEN json_object('chunk_id', chunk_id, 'chunk_name', chunk,
      'operator_kind', 'chunk', 'trigger_event', 'Chunk[' || chunk || ']-' || chunk_id, 'trigger_type', 'event',
      'signal_id', 's' || k, 'status', CASE event_type WHEN 'chunk.failed' THEN 'failed' ELSE 'completed' END,
      'output', json_object('total', (h % 100000) / 100, 'sku', 'SKU-' || (h % 9000), 'note', s2.text),
      'returned_pause_signal', false)
    WHEN event_type = 'triggerflow.stream_item_emitted' THEN json_object('item', json_object('progress', k / 20.0,
      'text', s1.text), 'item_type', 'dict', 'origin_chunk', json_object('run_id', run_id, 'flow_name', flow,
      'chunk_id', chunk_id, 'chunk_name', chunk, 'operator_kind', 'chunk'))
    WHEN event_type = 'triggerflow.interrupt_raised' THEN json_object('interrupt', json_object('id', 'i' || n, 'type',
      'approval', 'status', 'waiting', 'payload', json_object('question', s1.text), 'source_flow_name', flow,
      'source_operator_id', chunk_id, 'execution_id', execution_id))
    WHEN event_type = 'triggerflow.execution_closed' THEN json_object('reason', 'auto_close', 'closed_at',
      us / 1e6, 'status', CASE WHEN failing THEN 'failed' ELSE 'completed' END, 'result', s1.text)
    ELSE json_object('result', json_object('$final_result', json_object('total', (h % 100000) / 100, 'text', s1.text)))
  END AS payload,
  CASE WHEN event_type IN ('chunk.failed', 'triggerflow.execution_failed') THEN json_object('type',
    ['ValueError', 'TimeoutError', 'KeyError'][1 + n % 3], 'message', 'no price for SKU-' || (h % 9000), 'module',
    'builtins', 'traceback', 'Traceback (most recent call last):\n  File "app/pricing.py", line 41, in price\n    '
    || 'return table[sku]\n  File "app/tables.py", line 88, in __getitem__\n    raise KeyError(sku)\n',
    'retryable', false) END AS error,
  struct_pack(run_id := run_id, run_kind := CASE WHEN c = 0 THEN 'workflow_execution' WHEN m THEN 'model_request'
    ELSE 'chunk_execution' END, root_run_id := root_id, parent_run_id := CASE WHEN c = 0 THEN NULL WHEN m THEN
    chunk_run_id ELSE root_id END, agent_id := NULL::VARCHAR, agent_name := NULL::VARCHAR,
    session_id := NULL::VARCHAR, response_id := NULL::VARCHAR, execution_id := execution_id,
    meta := CASE WHEN c = 0 THEN json_object('flow_name', flow, 'task_id', task_id, 'tenant_id', 'T' || (n % 40))
      ELSE json_object('flow_name', flow, 'task_id', task_id, 'tenant_id', 'T' || (n % 40), 'chunk_id', chunk_id,
        'chunk_name', chunk, 'operator_kind', 'chunk') END) AS run,
  CASE
    WHEN event_type IN ('chunk.completed', 'chunk.failed', 'model.completed') THEN json_object('v', 1, 'us', us % 1000,
      'epoch', 1, 'seq', k + 1, 'scope', chunk, 'cause', k, 'attempt', 1, 'duration_us', 300 + h % 90000)
    WHEN c > 0 THEN json_object('v', 1, 'us', us % 1000, 'epoch', 1, 'seq', k + 1, 'scope', chunk, 'cause', k,
      'attempt', 1)
    WHEN k >= 18 THEN json_object('v', 1, 'us', us % 1000, 'epoch', 1, 'seq', k + 1, 'duration_us', us - start_us)
    ELSE json_object('v', 1, 'us', us % 1000, 'epoch', 1, 'seq', k + 1, 'cause', k) END AS meta,
  us // 1000 AS timestamp,
  'made{seed}' || w || '-000001.jsonl' AS filename
FROM (
  SELECT *, {flow}[1 + n % {len(_FLOWS)}] AS flow, {chunk}[c] AS chunk,
    'chunk-' || substr(md5({flow}[1 + n % {len(_FLOWS)}] || c), 1, 16) AS chunk_id,
    format('19f2a{{:06x}}{seed:05x}{{:06x}}{{:010x}}', w, w * 7919, base) AS execution_id,
    format('19f2a{{:06x}}{seed:05x}{{:06x}}{{:010x}}', w, w * 7919, base + 1) AS root_id,
    format('19f2a{{:06x}}{seed:05x}{{:06x}}{{:010x}}', w, w * 7919, base + 1 + c) AS chunk_run_id,
    format('19f2a{{:06x}}{seed:05x}{{:06x}}{{:010x}}', w, w * 7919, base + 1 + c + CASE WHEN m THEN 8 ELSE 0 END)
      AS run_id,
    base + 16 + k AS serial, 'order-' || (n * 7 % 1000003) AS task_id,
    start_us + k * 1700 + h % 1500 + CASE WHEN c >= 3 AND n % 50 = 7 THEN 45000000 ELSE 0 END AS us
  FROM (
    SELECT *, i // {EVENTS_EACH} AS n, (i // {EVENTS_EACH}) % {WRITERS} AS w,
      (i // {EVENTS_EACH // 1}) * 64 AS base, n % 100 = 3 AS failing,
      [0,1,1,2,2,2,2,2,2,3,3,3,4,4,5,5,5,0,0,0][k + 1] AS c, k BETWEEN 4 AND 7 AS m,
      {until_us - span_us} + (n * {span_us}::HUGEINT // {executions})::BIGINT AS start_us,
      (hash(i + {seed} * 1000003) % 1000003)::BIGINT AS h,
      CASE WHEN k = 13 AND n % 100 = 3 THEN 'chunk.failed'
        WHEN k = 18 AND n % 100 = 3 THEN 'triggerflow.execution_failed'
        WHEN k = 10 AND n % 50 = 7 THEN 'triggerflow.interrupt_raised'
        WHEN k = 18 AND n % 5000 = 57 THEN 'triggerflow.execution_waiting'
        WHEN k = 19 AND n % 5000 = 57 THEN 'triggerflow.stream_item_emitted'
        ELSE ['triggerflow.execution_started', 'chunk.started', 'chunk.completed', 'chunk.started', 'prompt.built',
          'model.request_started', 'model.meta', 'model.completed', 'chunk.completed', 'chunk.started',
          'triggerflow.stream_item_emitted', 'chunk.completed', 'chunk.started', 'chunk.completed', 'chunk.started',
          'triggerflow.stream_item_emitted', 'chunk.completed', 'triggerflow.result_set',
          'triggerflow.execution_completed', 'triggerflow.execution_closed'][k + 1] END AS event_type
    FROM (SELECT range AS i, (range % {EVENTS_EACH})::BIGINT AS k FROM range({first}, {first + count}))
  )
) AS e
JOIN snippets AS s1 ON s1.id = e.h % {SNIPPETS}
JOIN snippets AS s2 ON s2.id = (e.h * 31 + 7) % {SNIPPETS}
JOIN snippets AS s3 ON s3.id = (e.h * 17 + 3) % {SNIPPETS}"""


def prepared(duckdb: Any, seed: int) -> Any:
    """Return a connection with the table of snippets: 4 to 24 words each."""
    connection = duckdb.connect(":memory:", config={"memory_limit": "2GB", "temp_directory": spill_place()})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("CREATE TABLE words AS SELECT unnest(?::VARCHAR[]) AS word", [_vocabulary()])
    connection.execute(
        f"CREATE TABLE snippets AS SELECT n AS id, string_agg(word, ' ') AS text FROM (SELECT n, "
        f"hash(n * 64 + unnest(range(4 + (hash(n + {seed}) % 21)::BIGINT)) + {seed}) % 4096 AS r "
        f"FROM range({SNIPPETS}) AS t(n)) JOIN (SELECT row_number() OVER () - 1 AS r, word FROM words) USING (r) "
        "GROUP BY n"
    )
    return connection


def make(
    store: Path, events: int, *, seed: int = 1, until_us: int | None = None, hours: float = 720.0, tail: int = 5000
) -> dict[str, float]:
    """Make the store; return what was made and how long it took.

    Args:
        store: Its directory, new or begun by an earlier call.
        events: How many; rounded up to whole executions.
        seed: Chooses contents.
        until_us: When the last execution begins; the store's creation when omitted, so that a second call agrees.
        hours: The time the events are spread over.
        tail: How many of them lie in a sealed journal segment instead.
    """
    layout = Layout.create(store)
    until = until_us or layout.describe()["created_us"]
    events = -(-events // EVENTS_EACH) * EVENTS_EACH
    tail = -(-tail // EVENTS_EACH) * EVENTS_EACH
    about = {"executions": events // EVENTS_EACH, "until_us": until, "span_us": int(hours * 3.6e9), "seed": seed}
    connection = prepared(require_duckdb(), seed)
    begun = time.process_time(), time.monotonic()
    made = 0
    for number, first in enumerate(range(0, events - tail, FILE_EVENTS), 1):
        count = min(FILE_EVENTS, events - tail - first)
        file = PublishedFile(Path(), number, number, 1, "c", until // 1000)
        target = layout.days / file.name
        if not target.exists():
            unnamed = target.with_name(f".publish-made-{number}.parquet")
            temporary = target.with_name(f".publish-made-{number}.tmp")
            lines = f"({lines_select(first, count, **about)})"
            connection.execute(
                f"COPY ({stored_select(line_select(lines), ordered=True)}) TO {quoted(unnamed)} ({COPY_OPTIONS})"
            )
            made_of = stored_select(parquet_select([unnamed], alike=True), clustered=True)
            more = unfinished_option(connection, made_of)  # as a merge adds it
            connection.execute(f"COPY ({made_of}) TO {quoted(temporary)} ({MERGED_OPTIONS}{more})")
            unnamed.unlink()
            temporary.chmod(0o600)
            temporary.rename(target)
            made += count
        print(f"\r{first + count:,} of {events:,}", end="", file=sys.stderr)

    if tail:
        _write_tail(connection, layout, lines_select(events - tail, tail, **about))
    print(file=sys.stderr)
    size = sum(path.stat().st_size for path in layout.days.glob("*.parquet"))
    return {
        "events": events,
        "made": made,
        "cpu_s": time.process_time() - begun[0],
        "wall_s": time.monotonic() - begun[1],
        "bytes_per_event": size / max(1, events - tail),
    }


def _write_tail(connection: Any, layout: Layout, lines: str) -> None:
    names = [row[0] for row in connection.execute(f"SELECT DISTINCT filename FROM ({lines})").fetchall()]
    for name in names:
        target = layout.journal / name.replace("-000001", "-000002")
        temporary = target.with_name(f".{target.name}.tmp")
        connection.execute(
            f"COPY (SELECT * EXCLUDE (filename) FROM ({lines}) WHERE filename = {quoted(name)} ORDER BY wseq) "
            f"TO {quoted(temporary)} (FORMAT json)"
        )
        temporary.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--events", type=lambda text: int(text.replace("_", "")), default=10_000_000)
    parser.add_argument("--hours", type=float, default=720.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tail", type=int, default=5000)
    given = parser.parse_args()
    for name, value in make(given.store, given.events, seed=given.seed, hours=given.hours, tail=given.tail).items():
        print(f"{name:16} {value:,.1f}")


if __name__ == "__main__":
    main()
