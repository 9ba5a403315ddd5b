"""`telemetry`: log lines of a runner, and what an OpenTelemetry collector receives."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from holdfast import InputInvalid, Runner
from holdfast.worker.scripted import ScriptedModel, call, say
from tests.support.processes import endpoints
from tests.support.stage import KEY

SCRIPT = """
import logging, sys
from holdfast import Agent, Runner, tool

@tool
def plus(a: int, b: int) -> int:
    return a + b

logging.basicConfig(stream=sys.stdout, format="mine: %(name)s %(message)s")
logging.getLogger("theirs").warning("as before")
agent = Agent(name="counter", model="scripted/test", tools=[plus])
with Runner(address=sys.argv[1], task_queue=sys.argv[2], telemetry=sys.argv[3]) as runner:
    print(runner.run_sync(agent, user_message="Hello", run_id=sys.argv[2]).final_text)
"""


class Collector:
    """A collector of OTLP over HTTP."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[bytes]] = {"/v1/traces": [], "/v1/metrics": []}
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                zipped = self.headers.get("content-encoding") == "gzip"
                bodies[self.path].append(gzip.decompress(body) if zipped else body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def spans(self) -> list[Span]:
        """Every span that came."""
        told = [ExportTraceServiceRequest.FromString(body) for body in self.bodies["/v1/traces"]]
        return [
            span for each in told for resource in each.resource_spans for s in resource.scope_spans for span in s.spans
        ]

    @property
    def metrics(self) -> set[str]:
        """The names of what was measured."""
        told = [ExportMetricsServiceRequest.FromString(body) for body in self.bodies["/v1/metrics"]]
        return {
            metric.name
            for each in told
            for resource in each.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


def attributes(span: Span) -> dict[str, Any]:
    """Return a span's attributes as plain values."""
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def ran(
    tmp_path: Path, address: str, telemetry: str, **environment: str
) -> tuple[str, subprocess.CompletedProcess[str]]:
    """Run the script beside a scripted model; return the run's id and what it printed."""
    script, run_id = tmp_path / "counts.py", f"telemetry-{uuid.uuid4().hex[:8]}"
    script.write_text(SCRIPT)
    with ScriptedModel(lambda asked: call(("plus", {"a": 1, "b": 2})) if asked.turn == 0 else say("It is 3.")) as model:
        told = {**os.environ, "HOLDFAST_ENDPOINTS": endpoints(model.url), **environment}
        command = [sys.executable, str(script), address, run_id, telemetry]
        done = subprocess.run(command, env=told, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert "It is 3." in done.stdout
    return run_id, done


def test_json_telemetry_tells_each_call_and_leaves_other_logs_alone(tmp_path: Path, address: str) -> None:
    run_id, done = ran(tmp_path, address, "json")
    facts = [fact for line in done.stderr.splitlines() if "run_id" in (fact := json.loads(line))]
    assert [each["event"] for each in facts] == ["model.called", "tool.called", "model.called"]
    assert {each["run_id"] for each in facts} == {run_id}
    assert {each["agent"] for each in facts} == {"counter"}
    assert facts[1]["activity"] == "plus"
    assert facts[0]["input_tokens"] > 0
    assert "mine: theirs as before" in done.stdout


def test_console_telemetry_is_for_people(tmp_path: Path, address: str) -> None:
    _, done = ran(tmp_path, address, "console")
    lines = [line for line in done.stderr.splitlines() if ".called" in line]
    assert len(lines) == 3
    assert all("agent=counter" in line and not line.startswith("{") for line in lines)


def test_otel_telemetry_sends_one_trace_of_a_run_with_what_its_calls_used(
    tmp_path: Path, address: str, collector: Collector
) -> None:
    run_id, _ = ran(tmp_path, address, "otel", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    calls = {span.name: attributes(span) for span in collector.spans}
    assert [span.name for span in collector.spans] == ["chat scripted/test", "execute_tool plus", "chat scripted/test"]
    chat, tool = calls["chat scripted/test"], calls["execute_tool plus"]
    assert chat["gen_ai.operation.name"] == "chat"
    assert chat["gen_ai.request.model"] == "scripted/test"
    assert chat["gen_ai.usage.input_tokens"] > 0
    assert chat["holdfast.cost_usd"] == 0.0  # nobody knows its price
    assert (tool["gen_ai.operation.name"], tool["gen_ai.tool.name"]) == ("execute_tool", "plus")
    assert {chat["gen_ai.agent.name"], tool["gen_ai.agent.name"]} == {"counter"}
    assert {chat["holdfast.run.id"], tool["holdfast.run.id"]} == {run_id}
    assert len({span.trace_id for span in collector.spans}) == 1
    assert collector.metrics >= {"gen_ai.client.operation.duration", "gen_ai.client.token.usage", "holdfast.cost"}
    assert KEY.encode() not in b"".join(body for each in collector.bodies.values() for body in each)


def test_an_unknown_telemetry_is_refused() -> None:
    word: Any = "syslog"
    with pytest.raises(InputInvalid, match="telemetry: is 'syslog'"):
        Runner(telemetry=word)
