"""Phoenix, when it can be had: tree, sessions, inputs and outputs read back through its own API.

It is large (some 850 MB), so it is looked for and never required: installed beside this project, or in the virtual
environment whose folder ``FLOWDECK_PHOENIX`` names.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from tests.otlp.hand import Hand
from tests.otlp.scenarios import make_mapper

from flowdeck.events import RunContext

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HOME = os.environ.get("FLOWDECK_PHOENIX")
PHOENIX = shutil.which("phoenix", path=str(Path(HOME, "bin") if HOME else Path(sys.executable).parent))
START_SECONDS = 300
"""Its first start migrates a database and takes minutes on a small machine."""


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Phoenix server with a database of its own."""
    if PHOENIX is None:
        pytest.skip("Phoenix is not installed: pip install arize-phoenix, or name its environment in FLOWDECK_PHOENIX")

    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])

    folder = tmp_path_factory.mktemp("phoenix")
    environment = os.environ | {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(ports[0]),
        "PHOENIX_GRPC_PORT": str(ports[1]),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    url = f"http://127.0.0.1:{ports[0]}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([PHOENIX, "serve"], env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            until(lambda: healthy(url) or process.poll() is not None, "Phoenix to start", START_SECONDS)
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            yield url
        finally:
            process.kill()
            process.wait()


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def until(condition: Any, what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.2)

    return found


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def test_phoenix_shows_tree_sessions_inputs_and_outputs(phoenix: str) -> None:
    """Parents, kinds, errors, the session, and what went in and came out are what was exported."""
    hand = Hand()
    meta = {"flow_name": "shop", "user_id": "ana"}
    hand.root = RunContext.create(run_kind="workflow_execution", execution_id="x1", session_id="s-7", meta=meta)
    hand.step = hand.root.create_child(run_kind="chunk_execution", meta={"chunk_id": "c1", "chunk_name": "work"})
    hand.begin()
    turn = hand.step.create_child(run_kind="agent_turn", agent_name="helper")
    call = turn.create_child(run_kind="model_request")
    hand("agent_turn.started", turn, {"agent_name": "helper"})("model.request_started", call, {})
    hand("prompt.built", call, {"prompt_messages": [{"role": "user", "content": "where?"}]})
    hand("model.requesting", call, {"request": {"data": {"model": "m-1"}, "provider": "p"}})
    hand("model.meta", call, {"meta": {"usage": {"input_tokens": 7, "output_tokens": 2}}})
    hand("model.failed", call, {}, level="ERROR", error=TimeoutError("too slow"))
    hand("agent_turn.completed", turn, {}).end()
    mapper = make_mapper(resource=Resource({"service.name": "shop", "openinference.project.name": "flowdeck"}))
    hand.spans(mapper)
    assert OTLPSpanExporter(endpoint=f"{phoenix}/v1/traces").export(hand.all).name == "SUCCESS"

    def arrived() -> dict[str, Any] | None:
        try:
            found = get(f"{phoenix}/v1/projects/flowdeck/spans?limit=1000")["data"]
        except OSError:
            return None

        return {span["name"]: span for span in found} if len(found) == len(hand.all) else None

    spans = until(arrived, "the spans to be readable")
    ids = {name: span["context"]["span_id"] for name, span in spans.items()}
    assert {name: span["parent_id"] for name, span in spans.items()} == {
        "invoke_workflow shop": None,
        "step work": ids["invoke_workflow shop"],
        "invoke_agent helper": ids["step work"],
        "chat m-1": ids["invoke_agent helper"],
    }
    assert {name: span["span_kind"] for name, span in spans.items()} == {
        "invoke_workflow shop": "CHAIN",
        "step work": "CHAIN",
        "invoke_agent helper": "AGENT",
        "chat m-1": "LLM",
    }
    step, chat = spans["step work"], spans["chat m-1"]
    assert (step["attributes"]["input.value"], step["attributes"]["output.value"]) == ("in", "out")
    assert (chat["status_code"], chat["status_message"]) == ("ERROR", "too slow")
    assert chat["attributes"]["llm.token_count.prompt"] == 7
    sessions = get(f"{phoenix}/v1/projects/flowdeck/sessions")["data"]
    assert [session["session_id"] for session in sessions] == ["s-7"]
