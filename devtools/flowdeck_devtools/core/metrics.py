"""Numbers over time: how many runs, how long, what failed, what waited, tokens and cost. Bucketed in SQL.

Everything is read from single events by type and time, so that a large store answers from few row groups.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import accumulate
from math import ceil, exp, floor
from pathlib import Path
from typing import Any

__all__ = ["WINDOWS", "Board", "Price", "Prices", "Window", "board", "load_prices", "sql", "together"]

_STEPS = 100
"""Steps of 1 % by which durations of several stores are counted."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time up to now and the width of its buckets, in seconds; at most 120 buckets."""

    label: str
    seconds: int
    bucket: int

    @property
    def buckets(self) -> int:
        return self.seconds // self.bucket


WINDOWS = (
    Window("15 min", 900, 10),
    Window("1 hour", 3_600, 60),
    Window("6 hours", 21_600, 300),
    Window("24 hours", 86_400, 900),
    Window("7 days", 604_800, 7_200),
    Window("30 days", 2_592_000, 21_600),
)


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost, in the table's currency."""

    input: float
    output: float


@dataclass(frozen=True, slots=True)
class Prices:
    """A price table: the first pattern that fits a model counts. Empty: cost is unknown, and said to be."""

    models: tuple[tuple[str, Price], ...] = ()
    sign: str = "$"
    problem: str | None = None

    def of(self, model: str) -> Price | None:
        return next((price for pattern, price in self.models if fnmatchcase(model, pattern)), None)


def load_prices(*stores: Path) -> Prices:
    """Read ``prices.toml`` beside the files of the first store that has one, else that of the user's configuration.

    The form::

        currency = "$"
        [models]
        "gpt-4o*" = { input = 2.5, output = 10.0 }   # per million tokens
    """
    for path in (*(store / "prices.toml" for store in stores), Path("~/.config/flowdeck/prices.toml").expanduser()):
        try:
            found = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return Prices(problem=f"{path}: {error}")
        try:
            models = tuple(
                (str(name), Price(float(price["input"]), float(price["output"])))
                for name, price in found["models"].items()
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return Prices(problem=f'{path}: write [models] "name" = {{ input = 1.0, output = 2.0 }}')
        return Prices(models, str(found.get("currency", "$")))
    return Prices()


def sql(window: Window, now_us: int, *, spread: bool = False) -> str:
    """The query for a window that ends now: rows of ``(series, name, bucket, value)``; buckets count from 0.

    Percentiles of several stores cannot be put together from those of each. With ``spread`` durations and waits are
    counted by their logarithm instead, in steps of 1 %, which :func:`together` makes percentiles of.
    """
    since = now_us - window.seconds * 1_000_000
    width = window.bucket * 1_000_000

    def bucket(column: str) -> str:
        return f"(epoch_us({column}) - {since}) // {width}"

    recent = f"ts >= make_timestamp({since}) AND ts < make_timestamp({now_us + 1})"
    ended = "('triggerflow.execution_completed', 'triggerflow.execution_failed', 'triggerflow.execution_cancelled')"
    waited = f"raised_at >= make_timestamp({since}) AND wait_ms IS NOT NULL"
    if spread:

        def step(column: str) -> str:
            return f"CAST(ceil(ln(greatest({column}, 0.001)) * {_STEPS}) AS INTEGER)"

        percentiles = f"""
SELECT 'spread', coalesce(flow_name, '–') || chr(31) || {step("duration_ms")}, bucket, count(*) FROM recent
WHERE event_type IN {ended} AND duration_ms IS NOT NULL GROUP BY ALL
UNION ALL
SELECT 'wait_spread', chr(31) || {step("wait_ms")}, 0, count(*) FROM interrupts WHERE {waited} GROUP BY ALL
"""
    else:
        percentiles = f"""
SELECT 'p50', '', bucket, quantile_cont(duration_ms, 0.5) FROM recent
WHERE event_type IN {ended} AND duration_ms IS NOT NULL GROUP BY ALL
UNION ALL
SELECT 'p95', '', bucket, quantile_cont(duration_ms, 0.95) FROM recent
WHERE event_type IN {ended} AND duration_ms IS NOT NULL GROUP BY ALL
UNION ALL
SELECT 'flow_p95', coalesce(flow_name, '–'), 0, quantile_cont(duration_ms, 0.95) FROM recent
WHERE event_type IN {ended} AND duration_ms IS NOT NULL GROUP BY ALL
UNION ALL
SELECT 'all_p95', '', 0, quantile_cont(duration_ms, 0.95) FROM recent
WHERE event_type IN {ended} AND duration_ms IS NOT NULL GROUP BY ALL
UNION ALL
SELECT 'all_wait', '', 0, quantile_cont(wait_ms, 0.5) FROM interrupts WHERE {waited} GROUP BY ALL
"""
    return f"""
WITH recent AS (
  SELECT ts, event_type, flow_name, duration_ms, {bucket("ts")} AS bucket FROM events
  WHERE {recent} AND parent_run_id IS NULL
    AND (event_type = 'triggerflow.execution_started' OR event_type IN {ended})
), calls AS (
  SELECT model, input_tokens, output_tokens, {bucket("started_at")} AS bucket FROM model_calls
  WHERE started_at >= make_timestamp({since})
)
SELECT 'started' AS series, coalesce(flow_name, '–') AS name, bucket, count(*)::DOUBLE AS value FROM recent
WHERE event_type = 'triggerflow.execution_started' GROUP BY ALL
UNION ALL
SELECT 'ended', coalesce(flow_name, '–'), bucket, count(*) FROM recent
WHERE event_type IN {ended} GROUP BY ALL
UNION ALL
SELECT 'failed', coalesce(flow_name, '–'), bucket, count(*) FROM recent
WHERE event_type = 'triggerflow.execution_failed' GROUP BY ALL
UNION ALL
{percentiles}
UNION ALL
SELECT 'errors', coalesce(error_type, event_type), {bucket("ts")}, count(*) FROM errors
WHERE {recent} AND NOT propagated AND NOT coalesce(will_retry, false) GROUP BY ALL
UNION ALL
SELECT 'waits', '', {bucket("raised_at")}, count(*) FROM interrupts
WHERE raised_at >= make_timestamp({since}) GROUP BY ALL
UNION ALL
SELECT 'tokens_in', coalesce(model, '–'), bucket, sum(input_tokens) FROM calls
WHERE input_tokens IS NOT NULL GROUP BY ALL
UNION ALL
SELECT 'tokens_out', coalesce(model, '–'), bucket, sum(output_tokens) FROM calls
WHERE output_tokens IS NOT NULL GROUP BY ALL
"""


def together(rows: Sequence[Sequence[Any]]) -> list[tuple[str, str, int, float]]:
    """The rows that several stores gave to a query with ``spread``, as those of one store: percentiles within 1 %."""
    kept: list[tuple[str, str, int, float]] = []
    spreads: dict[tuple[str, str, int], Counter[int]] = defaultdict(Counter)
    for series, name, bucket, value in rows:
        if series not in ("spread", "wait_spread"):
            kept.append((series, name, bucket, value))
            continue
        flow, _, step = name.rpartition("\x1f")
        places = [("all_wait", "", 0)]
        if series == "spread":
            places = [("all_p95", "", 0), ("flow_p95", flow, 0), ("p50", "", bucket), ("p95", "", bucket)]
        for place in places:
            spreads[place][int(step)] += int(value)
    for (series, name, bucket), counts in spreads.items():
        kept.append((series, name, bucket, _share_of(counts, 0.95 if series.endswith("p95") else 0.5)))
    return kept


def _share_of(counts: Mapping[int, int], share: float) -> float:
    """The value that this share of the counted ones does not exceed, in ms; between two of them in proportion."""
    steps = sorted(counts)
    ends = list(accumulate(counts[step] for step in steps))
    rank = share * (ends[-1] - 1)

    def value(place: int) -> float:
        return exp((steps[bisect_right(ends, place)] - 0.5) / _STEPS)

    below = value(floor(rank))
    return below + (value(ceil(rank)) - below) * (rank - floor(rank))


@dataclass(slots=True)
class Board:
    """What the screen shows. Series have one value per bucket; ``None`` where there is no number."""

    window: Window
    started: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    p50: list[float | None] = field(default_factory=list)
    p95: list[float | None] = field(default_factory=list)
    errors: list[tuple[str, list[float]]] = field(default_factory=list)
    """Kinds of errors, the most frequent first."""
    waits: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    flows: list[tuple[str, float, float, float | None]] = field(default_factory=list)
    """Flow, runs started, runs failed, p95 in ms; the busiest first."""
    models: list[tuple[str, float, float, float | None]] = field(default_factory=list)
    """Model, tokens in, tokens out, cost where its price is known."""
    all_p95: float | None = None
    all_wait: float | None = None
    ended: float = 0.0

    @property
    def error_rate(self) -> float | None:
        """Failed of those that ended."""
        return sum(self.failed) / self.ended if self.ended else None

    @property
    def cost(self) -> float | None:
        """Of all models with a price; ``None`` when there is none."""
        known = [cost for _, _, _, cost in self.models if cost is not None]
        return sum(known) if known else None


def board(rows: Sequence[Sequence[Any]], window: Window, prices: Prices) -> Board:
    """Shape the rows of :func:`sql`."""
    cells: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for series, name, bucket, value in rows:
        if bucket is not None and value is not None:
            place = min(max(int(bucket), 0), window.buckets - 1)
            cells[series][name][place] = cells[series][name].get(place, 0.0) + float(value)

    def line(values: Mapping[int, float]) -> list[float]:
        return [values.get(place, 0.0) for place in range(window.buckets)]

    def summed(series: str) -> list[float]:
        lines = [line(values) for values in cells[series].values()]
        return [sum(column) for column in zip(*lines, strict=True)] if lines else [0.0] * window.buckets

    def sparse(series: str) -> list[float | None]:
        values = cells[series].get("", {})
        return [values.get(place) for place in range(window.buckets)]

    def total(series: str, name: str) -> float:
        return sum(cells[series].get(name, {}).values())

    def single(series: str, name: str = "") -> float | None:
        return cells[series].get(name, {}).get(0)

    result = Board(window, summed("started"), summed("failed"), sparse("p50"), sparse("p95"))
    result.errors = sorted(
        ((name, line(values)) for name, values in cells["errors"].items()), key=lambda one: (-sum(one[1]), one[0])
    )
    result.waits = summed("waits")
    tokens = zip(summed("tokens_in"), summed("tokens_out"), strict=True)
    result.tokens = [given + made for given, made in tokens]
    flows = sorted(cells["started"].keys() | cells["ended"].keys())
    result.flows = sorted(
        ((name, total("started", name), total("failed", name), single("flow_p95", name)) for name in flows),
        key=lambda one: (-one[1], one[0]),
    )
    for model in sorted(cells["tokens_in"].keys() | cells["tokens_out"].keys()):
        given, made = total("tokens_in", model), total("tokens_out", model)
        price = prices.of(model)
        cost = (given * price.input + made * price.output) / 1e6 if price is not None else None
        result.models.append((model, given, made, cost))
    result.models.sort(key=lambda one: -(one[1] + one[2]))
    result.all_p95, result.all_wait, result.ended = single("all_p95"), single("all_wait"), sum(summed("ended"))
    return result
