"""The standard OTEL_* variables."""

from __future__ import annotations

import pytest

from flowdeck_sinks.otlp.settings import OtlpSettings, Target


def read(endpoint: str | None = None, **environ: str) -> OtlpSettings:
    return OtlpSettings.from_environment(endpoint, environ=environ)


def endpoints(settings: OtlpSettings) -> dict[str, str]:
    return {signal: target.endpoint for signal, target in settings.targets.items()}


def test_without_variables_everything_goes_to_localhost_over_http() -> None:
    """The defaults of the specification."""
    assert endpoints(read()) == {
        "traces": "http://localhost:4318/v1/traces",
        "logs": "http://localhost:4318/v1/logs",
        "metrics": "http://localhost:4318/v1/metrics",
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://host:4318", "http://host:4318/v1/traces"),
        ("http://host:4318/", "http://host:4318/v1/traces"),
        ("https://host/api/public/otel", "https://host/api/public/otel/v1/traces"),
        ("http://host:4318/v1/traces", "http://host:4318/v1/traces"),
        ("host:4318", "http://host:4318/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_an_endpoint_is_a_base_url(given: str, expected: str) -> None:
    """The signal's path is added to a base URL, in code and in the variable; what people write by habit works too."""
    assert read(given).targets["traces"].endpoint == expected
    assert read(OTEL_EXPORTER_OTLP_ENDPOINT=given).targets["traces"].endpoint == expected


def test_a_signals_own_endpoint_is_taken_as_it_is() -> None:
    """OTEL_EXPORTER_OTLP_TRACES_ENDPOINT gets no path, and wins for its signal only."""
    found = read(OTEL_EXPORTER_OTLP_ENDPOINT="http://a:1", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://b:2/x")
    assert endpoints(found)["traces"] == "http://b:2/x"
    assert endpoints(found)["logs"] == "http://a:1/v1/logs"


def test_grpc_takes_the_endpoint_without_a_path() -> None:
    """gRPC has its own default port; https means TLS."""
    assert read(OTEL_EXPORTER_OTLP_PROTOCOL="grpc").targets["traces"].endpoint == "http://localhost:4317"
    secure = read(OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_ENDPOINT="https://host:4317")
    assert not secure.targets["traces"].insecure


@pytest.mark.parametrize(
    ("variables", "signals"),
    [
        ({"OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, {"traces"}),
        ({"OTEL_TRACES_EXPORTER": "none"}, {"logs", "metrics"}),
        ({"OTEL_TRACES_EXPORTER": "console,otlp", "OTEL_LOGS_EXPORTER": "console"}, {"traces", "metrics"}),
    ],
)
def test_signals_are_switched_by_their_exporters(variables: dict[str, str], signals: set[str]) -> None:
    """`none`, or another exporter, leaves a signal out."""
    assert set(read(**variables).targets) == signals


def test_headers_add_up_and_are_decoded() -> None:
    """Shared and own headers; the own one wins; values are percent-decoded; a bad one is named without its value."""
    found = read(
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20abc=,x-a=1,nonsense-secret, x b =2",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS="x-a=2",
    )
    assert found.targets["traces"].headers == {"authorization": "Bearer abc=", "x-a": "2"}
    assert found.targets["logs"].headers["x-a"] == "1"
    assert any("no header" in problem for problem in found.problems)
    assert not any("abc" in problem for problem in found.problems)


def test_a_header_cannot_smuggle_another() -> None:
    """Line breaks in a header's value are refused."""
    assert read(OTEL_EXPORTER_OTLP_HEADERS="x-a=1%0d%0ahost: evil").targets["traces"].headers == {}


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("10000", 10.0), ("0.5", 0.5), ("nan", 10.0), ("-1", 10.0)])
def test_a_timeout_is_in_seconds_or_milliseconds(text: str, seconds: float) -> None:
    """Python's exporters take seconds, the specification milliseconds; what is neither leaves the default."""
    assert read(OTEL_EXPORTER_OTLP_TIMEOUT=text).targets["traces"].timeout == seconds


def test_files_and_compression_per_signal() -> None:
    """Certificates, keys and compression, shared or of one signal."""
    target = read(
        OTEL_EXPORTER_OTLP_CERTIFICATE="/ca.pem",
        OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY="/key.pem",
        OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE="/cert.pem",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
    ).targets["traces"]
    assert (target.certificate, target.client_key, target.client_certificate) == ("/ca.pem", "/key.pem", "/cert.pem")
    assert target.compression == "gzip"


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "not a url"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:99999"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://host"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
        {"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"},
        {"OTEL_BSP_SCHEDULE_DELAY": "soon"},
        {"OTEL_TRACES_SAMPLER": "sometimes"},
        {"FLOWDECK_OTLP_MODE": "fast"},
        {"OTEL_BLRP_SCHEDULE_DELAY": "soon"},
        {"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram"},
    ],
)
def test_a_bad_variable_is_a_sentence_and_never_an_error(variables: dict[str, str]) -> None:
    """A program starts whatever its environment holds; the problem names the variable."""
    problems = read(**variables).problems
    assert problems
    assert next(iter(variables)) in problems[0]


def test_log_records_have_batches_of_their_own() -> None:
    """OTEL_BLRP_* is for log records, which otherwise share what OTEL_BSP_* says."""
    shared = read(OTEL_BSP_MAX_EXPORT_BATCH_SIZE="7", OTEL_BSP_MAX_QUEUE_SIZE="9", OTEL_BSP_SCHEDULE_DELAY="500")
    own = read(OTEL_BLRP_MAX_EXPORT_BATCH_SIZE="3", OTEL_BLRP_MAX_QUEUE_SIZE="5", OTEL_BLRP_SCHEDULE_DELAY="200")
    assert (shared.batch_items_of("logs"), shared.queue_items_of("logs"), shared.delay_of("logs")) == (7, 9, 0.5)
    assert (own.batch_items_of("logs"), own.queue_items_of("logs"), own.delay_of("logs")) == (3, 5, 0.2)
    assert (own.batch_items_of("traces"), own.queue_items_of("traces"), own.delay_of("traces")) == (2048, 0, 1.0)


@pytest.mark.parametrize("endpoint", ["not a url", "ftp://x", "http://", "http://host:port"])
def test_a_bad_argument_is_an_error(endpoint: str) -> None:
    """What the code itself asks for must be right."""
    with pytest.raises(ValueError, match="is no endpoint"):
        read(endpoint)


def test_a_bad_mode_is_an_error() -> None:
    """The mode is one of three."""
    with pytest.raises(ValueError, match="'durable'"):
        OtlpSettings.from_environment(mode="quick", environ={})


def test_a_password_in_the_url_is_never_shown() -> None:
    """What people see of an endpoint has no credentials."""
    target = Target("traces", "https://ana:secret@host:4318/v1/traces?token=abc")
    assert target.shown == "https://host:4318/v1/traces"
    assert target.address == "https://host:4318"


def test_the_sampler_is_read() -> None:
    """OTEL_TRACES_SAMPLER and its argument."""
    found = read(OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.25")
    assert (found.sampler, found.ratio) == ("parentbased_traceidratio", 0.25)
