"""The wire contract, through the plain `temporal` CLI: nothing of ours on the caller's side."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from holdfast import Agent, AsyncClient, tool, wire
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.plays import until
from tests.support.processes import Done, temporal
from tests.support.stage import MODEL, Stage, result, stage

_woken = threading.Event()


@tool
async def rest(seconds: float) -> str:
    """Rest, but not once woken."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not _woken.is_set():
        await asyncio.sleep(0.02)
    return "rested"


AGENT = Agent(
    name="demo",
    model=MODEL,
    goal="Tell me of {{ topic }}.",
    input_schema={"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]},
    tools=[rest],
)


def _rest(request: ChatRequest) -> Reply:
    if request.turn == 0 and "rest" in str(request.messages):
        return call(("rest", {"seconds": 60 if "long rest" in str(request.messages) else 1.5}))
    return say("heard " + ", ".join(each["content"] for each in request.messages if each["role"] == "user"))


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, _rest, [AGENT]) as staged:
        yield staged


async def _temporal(at: Stage, *arguments: str) -> Done:
    return await asyncio.to_thread(temporal, at.client.service_client.config.target_host, *arguments)


async def _start(at: Stage, *given: str) -> str:
    run_id = f"wire-{uuid.uuid4().hex[:12]}"
    words = ("workflow", "start", "--type", "AgentRun", "--task-queue", at.task_queue, "--workflow-id", run_id)
    done = await _temporal(at, *words, *given)
    assert done.returncode == 0, done.stderr
    return run_id


async def _query(at: Stage, run_id: str, name: str, *given: str) -> Any:
    words = ("workflow", "query", "--workflow-id", run_id, "--name", name, "-o", "json")
    done = await _temporal(at, *words, *given)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["queryResult"][0]


async def _signal(at: Stage, run_id: str, *given: str) -> None:
    done = await _temporal(at, "workflow", "signal", "--workflow-id", run_id, "--name", "append_message", *given)
    assert done.returncode == 0, done.stderr


def test_the_names_on_the_wire_are_these() -> None:
    names = (wire.AGENT_RUN, wire.APPEND_MESSAGE, wire.STATUS, wire.TRANSCRIPT, wire.AGENT, wire.MODEL_CALL)
    assert names == ("AgentRun", "append_message", "status", "transcript", "agent", "model.call")
    assert wire.AGENT_LOAD == "agent.load"
    assert wire.TASK_QUEUE == "holdfast"
    assert wire.SEARCH_ATTRIBUTES == {
        "AgentName": "Keyword",
        "AgentRevision": "Keyword",
        "RunStatus": "Keyword",
        "ThreadId": "Keyword",
        "WaitingFor": "Keyword",
        "CostUsd": "Double",
        "Steps": "Int",
    }


async def test_a_run_is_started_queried_messaged_and_read_from_the_shell(at: Stage) -> None:
    _woken.clear()
    run_id = await _start(at, "--input", '{"agent":"demo","input":{"topic":"a long rest"}}')
    await until(lambda: bool(at.model.requests))
    await _signal(at, run_id, "--input", '{"text": "And the tides?", "id": "m1"}')
    await _signal(at, run_id, "--input", '{"text": "And the tides?", "id": "m1"}')
    status = await _query(at, run_id, "status")
    assert status["status"] == "running"
    assert set(status) == {"status", "step", "waiting_for", "usage", "limits"}
    _woken.set()
    done = await _temporal(at, "workflow", "result", "--workflow-id", run_id, "-o", "json")
    found = json.loads(done.stdout)["result"]
    _woken.clear()
    assert found["final_text"] == "heard Tell me of a long rest., And the tides?"
    assert found["status"] == "completed"
    assert [each["role"] for each in (await _query(at, run_id, "transcript"))["messages"]] == [
        "user",
        "assistant",
        "tool",
        "user",
        "assistant",
    ]
    page = await _query(at, run_id, "transcript", "--input", '{"start": 1, "stop": 2}')
    assert [each["role"] for each in page["messages"]] == ["assistant"]
    assert (await _query(at, run_id, "agent"))["name"] == "demo"
    shown = await _temporal(at, "workflow", "describe", "--workflow-id", run_id, "-o", "json")
    attributes = json.loads(shown.stdout)["workflowExecutionInfo"]["searchAttributes"]["indexedFields"]
    assert {"AgentName", "AgentRevision", "RunStatus", "CostUsd", "Steps"} <= set(attributes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "must be one JSON object"),
        (("--input", "5"), "must be one JSON object"),
        (("--input", '"demo"'), "must be one JSON object"),
        (("--input", "[]"), "must be one JSON object"),
        (("--input", "{}"), "agent: Field required"),
        (("--input", '{"agent":"demo"}', "--input", "7"), "not 2 arguments"),
        (("--input", '{"agent":"demo","inptu":{}}'), "inptu: Extra inputs are not permitted"),
        (("--input", '{"agent":7,"message":8,"input":9,"metadata":[]}'), "message: Input should be a valid string"),
        (("--input", '{"agent":"nobody","message":"x"}'), "no agent is named 'nobody'"),
        (("--input", '{"agent":"demo"}'), "'topic' is a required property"),
        (("--input", '{"agent":"demo","input":{"topic":7}}'), "input.topic: 7 is not of type 'string'"),
        (("--input", '{"agent":{"name":"x"},"message":"x"}'), "model: Field required"),
        (("--input", '{"agent":{"name":"x","model":"m","tols":[]},"message":"x"}'), "tols"),
        (("--input", '{"agent":{"name":"x","model":"scripted/x","tools":["lost"]},"message":"x"}'), "lost"),
        (("--input", '{"agent":{"name":"x","model":"scripted/x"}}'), "nothing to do"),
        (("--input", '{"agent":"demo","input":{"topic":"x"},"revision":"0000"}'), "is not what this worker has"),
        (("--input", "not json", "--input-meta", "encoding=binary/plain"), "must be one JSON object"),
        (("--input", "zzz", "--input-meta", "encoding=of/nobody"), ""),
    ],
)
async def test_bad_input_fails_the_run_at_once_and_says_why(at: Stage, given: tuple[str, ...], said: str) -> None:
    run_id = await _start(at, *given)
    run = await AsyncClient(temporal=at.client).runs.wait(run_id, timeout=15)
    assert run.status == "failed"
    assert said in str(run.error)
    assert at.model.hits == 0


async def test_what_claims_to_be_json_and_is_not_fails_the_run_or_is_dropped(at: Stage) -> None:
    broken = RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b'{"agent": '))
    run_id = f"wire-{uuid.uuid4().hex[:12]}"
    await at.client.start_workflow("AgentRun", broken, id=run_id, task_queue=at.task_queue)
    run = await AsyncClient(temporal=at.client).runs.wait(run_id, timeout=15)
    assert run.status == "failed"
    assert "Invalid JSON" in str(run.error)
    handle = await at.start("demo", input={"topic": "rest"})
    await handle.signal("append_message", broken)
    assert (await result(handle)).final_text == "heard Tell me of rest."


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("--input", "5"),
        ("--input", '"text"'),
        ("--input", '{"text": 5}'),
        ("--input", '{"text": ""}'),
        ("--input", '{"txt": "x"}'),
        ("--input", '{"text": "x", "id": "a\\u0000b"}'),
        ("--input", "zzz", "--input-meta", "encoding=of/nobody"),
    ],
)
async def test_a_bad_message_is_dropped_and_the_run_goes_on(at: Stage, given: tuple[str, ...]) -> None:
    run_id = await _start(at, "--input", '{"agent":"demo","input":{"topic":"rest"}}')
    await _signal(at, run_id, *given)
    await _signal(at, run_id, "--input", '{"text": "good"}', "--input", '"more"')
    run = await AsyncClient(temporal=at.client).runs.wait(run_id, timeout=20)
    assert (run.status, run.final_text) == ("completed", "heard Tell me of rest., good")


async def test_a_bad_query_is_refused_and_the_run_goes_on(at: Stage) -> None:
    run_id = await _start(at, "--input", '{"agent":"demo","input":{"topic":"rest"}}')
    for given in ('{"start": -1}', '{"start": "x"}', '{"stop": 1.5}'):
        words = ("workflow", "query", "--workflow-id", run_id, "--name", "transcript", "--input", given)
        assert "the argument must be" in (await _temporal(at, *words)).stderr
    assert (await result(at.client.get_workflow_handle(run_id))).status == "completed"


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "a b", "ünïcødé-𝔘", "x" * 1000, "a\nb", "%2e%2e"])
async def test_a_hostile_workflow_id_from_elsewhere_runs_like_any_other(at: Stage, run_id: str) -> None:
    unique = f"{uuid.uuid4().hex[:8]}{run_id}"[:1000] if ".." not in run_id else run_id
    handle = await at.start("demo", run_id=unique, input={"topic": "x"})
    assert (await result(handle)).final_text == "heard Tell me of x."
    run = await AsyncClient(temporal=at.client).runs.get(unique)
    assert (run.id, run.status) == (unique, "completed")


async def test_an_input_over_256_kb_is_refused_by_the_run_itself(at: Stage) -> None:
    handle = await at.start("demo", message="x" * 300_000, input={"topic": "x"})
    ended = await result(handle)
    assert ended.status == "failed"
    assert "262,144" in ended.final_text


async def test_a_message_over_256_kb_is_dropped_and_the_run_goes_on(at: Stage) -> None:
    handle = await at.start("demo", input={"topic": "rest"})
    await handle.signal("append_message", {"text": "x" * 300_000})
    assert (await result(handle)).final_text == "heard Tell me of rest."
