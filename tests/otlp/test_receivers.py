"""Receivers of others: rotel (a collector in Rust, gRPC and HTTP), oteltap, and the compose file for Jaeger."""

from __future__ import annotations

import importlib.util
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.otlp.receiver import http_receiver
from tests.otlp.story import Teller, memory_sink, settings, stored

ROOT = Path(__file__).parents[2]


def package_file(package: str, name: str) -> Path:
    """Return a binary that a wheel brings; skip where the platform has no such wheel."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip(f"{package} is not installed on this platform")

    path = Path(next(iter(spec.submodule_search_locations))) / name
    if not path.exists():
        pytest.skip(f"{package} brings no {name} on this platform")

    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))

    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()

    return ports


@contextmanager
def rotel(grpc: int, http: int, forward_to: str, folder: Path) -> Iterator[None]:
    """Run rotel, which forwards what it takes to one of our receivers."""
    command = [
        str(package_file("rotel", "rotel-agent")), "start",
        "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}",
        "--pid-file", str(folder / f"rotel-{grpc}.pid"), "--exporter", "otlp",
        "--otlp-exporter-endpoint", forward_to, "--otlp-exporter-protocol", "http",
    ]  # fmt: skip
    with (folder / "rotel.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_of_others_takes_and_forwards_our_spans(tmp_path: Path, protocol: str) -> None:
    """Over gRPC and HTTP, before and after rotel was restarted, every span passes it unchanged."""
    grpc, http = free_ports(2)
    endpoint = f"http://127.0.0.1:{grpc if protocol == 'grpc' else http}"
    with http_receiver() as receiver:
        sink = memory_sink(endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
        teller = Teller(sink)
        for _ in range(2):
            for _ in range(20):
                teller.execution()  # nobody listens yet: they wait

            with rotel(grpc, http, receiver.url, tmp_path):
                assert sink.flush(20)
                wanted = teller.spans
                receiver.wait(lambda wanted=wanted: len(receiver.copies()) >= wanted, "forwarded spans")

        assert set(receiver.copies().values()) == {1}
        assert sink.statistics()["spans_exported"] == teller.spans
        sink.close()


def test_a_store_reaches_a_collector_of_others(tmp_path: Path) -> None:
    """Durable mode delivers through rotel over gRPC, in messages it takes whole."""
    from flowdeck.layout import Layout
    from flowdeck_sinks.otlp.store_export import StoreExport

    grpc, http = free_ports(2)
    spans = stored(tmp_path / "s", 60)
    with http_receiver() as receiver, rotel(grpc, http, receiver.url, tmp_path):
        chosen = settings(f"http://127.0.0.1:{grpc}", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
        export = StoreExport(Layout(tmp_path / "s"), chosen)
        export.open()
        while export.round():
            pass

        export.settle()
        export.shut()
        receiver.wait(lambda: len(receiver.copies()) >= spans, "forwarded spans")


def test_oteltap_sees_the_workflow_span() -> None:
    """A tool made for asserting on telemetry finds the span by its name."""
    package_file("oteltap", "__init__.py")
    (port,) = free_ports(1)
    tap = subprocess.Popen(
        [sys.executable, "-m", "oteltap", "--port", str(port), "--await-span", "invoke_workflow audit"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    sink = memory_sink(f"http://127.0.0.1:{port}")
    Teller(sink).execution()
    try:
        output, _ = tap.communicate(timeout=30)
    finally:
        tap.kill()

    assert tap.returncode == 0, output
    assert b"step step" in output or b"invoke_workflow audit" in output
    sink.close()


def compose(*arguments: str, file: Path = ROOT / "docker-compose.otel.yml") -> subprocess.CompletedProcess[str]:
    """Run the compose binary itself: the wrapper of the wheel returns 0 whatever happens."""
    binary = package_file("compose", "docker-compose")
    return subprocess.run([str(binary), "-f", str(file), *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("profile", [(), ("--profile", "collector")])
def test_the_compose_file_is_valid(profile: tuple[str, ...]) -> None:
    """`docker compose config` accepts the file, with and without the collector."""
    checked = compose(*profile, "config", "--quiet")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_check_of_the_compose_file_can_fail(tmp_path: Path) -> None:
    """A misspelt key is refused, so the test above means something."""
    text = (ROOT / "docker-compose.otel.yml").read_text().replace("healthcheck:", "healthchek:")
    (tmp_path / "bad.yml").write_text(text)
    assert compose("config", "--quiet", file=tmp_path / "bad.yml").returncode != 0


def test_ports_are_on_loopback_and_tags_are_pinned() -> None:
    """Nothing is published to the network, every image has a version, Jaeger has a health check."""
    services = yaml.safe_load((ROOT / "docker-compose.otel.yml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert all(re.search(r":\d+\.\d+\.\d+\Z", service["image"]) for service in services.values())
    assert "13133/status" in services["jaeger"]["healthcheck"]["test"][-1]
    assert [name for name, service in services.items() if "profiles" not in service] == ["jaeger"]


def test_the_collectors_pipelines_name_what_is_defined() -> None:
    """Every receiver, processor, exporter and extension a pipeline names is configured, and the ports agree."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "otel-collector.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(config[kind])
        assert pipeline["processors"][0] == "memory_limiter"

    assert set(config["service"]["extensions"]) <= set(config["extensions"])
    services = yaml.safe_load((ROOT / "docker-compose.otel.yml").read_text())["services"]
    inside = {port.rsplit(":", 1)[1] for port in services["collector"]["ports"]}
    protocols = config["receivers"]["otlp"]["protocols"]
    endpoints = [
        protocols["grpc"]["endpoint"],
        protocols["http"]["endpoint"],
        config["extensions"]["health_check"]["endpoint"],
    ]
    assert {endpoint.rsplit(":", 1)[1] for endpoint in endpoints} == inside
    assert config["exporters"]["otlp/jaeger"]["endpoint"].split(":")[0] in services
