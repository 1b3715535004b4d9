"""Measurements taken from final spans, read back from the bytes a collector gets."""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.otlp.hand import Hand, feed, wait_lines
from tests.otlp.receiver import attributes
from tests.otlp.scenarios import make_mapper

from flowdeck.events import RunContext
from flowdeck_sinks.otlp.conventions import INSTRUMENTS
from flowdeck_sinks.otlp.mapper import SpanMapper
from flowdeck_sinks.otlp.metrics import BOUNDARIES, CARDINALITY, Measurements
from flowdeck_sinks.otlp.sampling import make_sampler

Points = dict[tuple[str, frozenset[tuple[str, Any]]], Any]


class Bench:
    """A mapper whose spans are measured; what a collector would get, encoded by the SDK's encoder."""

    def __init__(self, *, delta: bool = False, **options: Any) -> None:
        self.mapper: SpanMapper = make_mapper(on_final=lambda span: self.measurements.record(span), **options)
        self.measurements = Measurements(self.mapper.active, delta=delta)

    def read(self) -> Points:
        data = self.measurements.collect(self.mapper.resource_of(""), self.mapper.scope)
        if data is None:
            return {}

        return {
            (metric.name, frozenset(attributes(point).items())): point
            for resource in encode_metrics(data).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in (metric.histogram if metric.HasField("histogram") else metric.sum).data_points
        }


def key(name: str, **attributes: Any) -> tuple[str, frozenset[tuple[str, Any]]]:
    return name, frozenset((text.replace("__", "."), value) for text, value in attributes.items())


def test_durations_and_tokens(hand: Hand) -> None:
    """Flow, step, tool, agent and model durations, and tokens by kind; no id is an attribute."""
    turn = hand.step.create_child(run_kind="agent_turn", agent_name="helper")
    call = turn.create_child(run_kind="model_request")
    action = turn.create_child(run_kind="action")
    hand("agent_turn.started", turn, {})("model.request_started", call, {})
    hand("model.requesting", call, {"request": {"data": {"model": "m"}, "provider": "p"}})
    hand("model.meta", call, {"meta": {"usage": {"input_tokens": 7, "output_tokens": 2}}})
    hand("model.completed", call, {})("action.started", action, {"action_name": "find"})
    hand("action.failed", action, {"record": {"error": "x"}}, level="WARNING")("agent_turn.completed", turn, {})
    bench = Bench()
    hand.end().spans(bench.mapper)
    points = bench.read()
    for wanted in (
        key("gen_ai.workflow.duration", gen_ai__workflow__name="shop", flow__outcome="success"),
        key("flow.step.duration", flow__name="shop", flow__step__name="work", flow__outcome="success"),
        key("gen_ai.invoke_agent.duration", gen_ai__agent__name="helper", flow__outcome="success"),
        key("gen_ai.execute_tool.duration", gen_ai__tool__name="find", flow__outcome="failure", error__type="_OTHER"),
    ):
        assert points[wanted].count == 1, wanted

    model = {"gen_ai__operation__name": "chat", "gen_ai__provider__name": "p", "gen_ai__request__model": "m"}
    assert points[key("gen_ai.client.operation.duration", **model)].count == 1
    assert points[key("gen_ai.client.token.usage", **model, gen_ai__token__type="input")].sum == 7
    assert points[key("gen_ai.client.token.usage", **model, gen_ai__token__type="output")].sum == 2
    for name, shown in points:
        assert {attribute for attribute, _ in shown} <= set(INSTRUMENTS[name].attributes)


def test_waits_are_measured_once_and_segments_are_not(hand: Hand) -> None:
    """A question's time, also over a break into a second trace; the run itself is one measurement."""
    bench = Bench()
    feed(bench.mapper, wait_lines(25))
    points = bench.read()
    wait = points[
        key("flow.wait.duration", flow__name="f", flow__wait__kind="approval", flow__wait__resolution="answered")
    ]
    assert (wait.count, round(wait.sum)) == (1, 25 * 3600)
    flow = points[key("gen_ai.workflow.duration", gen_ai__workflow__name="f", flow__outcome="success")]
    assert flow.count == 1
    assert {name for name, _ in points} == {"flow.wait.duration", "gen_ai.workflow.duration", "flow.step.duration"}


def test_active_runs_rise_and_fall(hand: Hand) -> None:
    """flow.runs.active is what is open now."""
    bench = Bench()
    feed_open = [bench.mapper.feed(event) for event in hand.events()]
    assert bench.read()[key("flow.runs.active", flow__name="shop")].as_int == 1
    hand.end().spans(bench.mapper)
    assert key("flow.runs.active", flow__name="shop") not in bench.read()
    assert feed_open


def test_unsampled_traces_are_measured_and_nothing_twice(hand: Hand) -> None:
    """Sampling does not thin the metrics, repetition does not swell them."""
    bench = Bench(sampler=make_sampler("always_off"))
    hand.end().spans(bench.mapper)
    hand.spans(bench.mapper)
    points = bench.read()
    assert hand.all == []
    assert points[key("gen_ai.workflow.duration", gen_ai__workflow__name="shop", flow__outcome="success")].count == 1


def test_deltas_begin_anew_and_sums_grow(hand: Hand) -> None:
    """Read twice, a delta holds what came since, a cumulative histogram all there was."""
    for delta, counts in ((True, [2, 1]), (False, [2, 3])):
        bench = Bench(delta=delta)
        seen = []
        for number in (2, 1):
            for _ in range(number):
                Hand().begin().end().spans(bench.mapper)

            (point,) = [p for (name, _), p in bench.read().items() if name == "gen_ai.workflow.duration"]
            seen.append(point.count)
            assert sum(point.bucket_counts) == point.count and point.start_time_unix_nano <= point.time_unix_nano

        assert seen == counts
        assert (bench.read() == {}) is delta


def test_the_histograms_are_those_of_the_sdk() -> None:
    """The same values through an SDK histogram give the same buckets, bounds, sum, least and most."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("test")
    histogram = meter.create_histogram("h", explicit_bucket_boundaries_advisory=BOUNDARIES)
    bench = Bench()
    for hours in (0.0, 0.01 / 3600, 0.5, 1, 3, 24):
        feed(make_mapper(on_final=bench.measurements.record), wait_lines(hours))

    def waits() -> Any:
        (point,) = [p for (name, _), p in bench.read().items() if name == "flow.wait.duration"]
        return point

    for hours in (0.0, 0.01 / 3600, 0.5, 1, 3, 24):
        histogram.record((5 + round(hours * 3_600_000)) / 1000)

    data = reader.get_metrics_data()
    assert data is not None
    theirs: Any = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]
    ours = waits()
    assert [*ours.bucket_counts] == [*theirs.bucket_counts]
    assert [*ours.explicit_bounds] == [*theirs.explicit_bounds]
    assert (ours.count, ours.sum, ours.min, ours.max) == (theirs.count, theirs.sum, theirs.min, theirs.max)


def test_the_number_of_series_is_bounded() -> None:
    """Beyond 2,000 sets of attributes the rest is one series, marked as the overflow."""
    bench = Bench()
    for number in range(CARDINALITY + 50):
        hand = Hand()
        hand.root = RunContext.create(run_kind="workflow_execution", meta={"flow_name": f"f{number}"})
        hand("triggerflow.execution_started", hand.root, {})("triggerflow.execution_completed", hand.root, {})
        for event in hand.events():
            bench.mapper.feed(event)

    bench.mapper.flush()
    points = bench.read()
    assert len(points) == CARDINALITY + 1
    assert points[key("gen_ai.workflow.duration", otel__metric__overflow=True)].count == 50
