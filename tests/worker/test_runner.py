"""`Runner`: the lines of the README, on a server of its own and on one that is there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import Agent, Runner, Settings, ToolContext, tool
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, fail, say
from holdfast.worker.server import free_port
from tests.support.processes import endpoints as endpoints_json
from tests.support.stage import endpoints


@tool
async def note(text: str, context: ToolContext) -> str:
    """Note something."""
    return f"{context.run_id}: {text}"


@tool
def plus(a: int, b: int) -> int:
    """Add."""
    return a + b


AGENT = Agent(name="demo", model="scripted/demo", instructions="Be helpful.", tools=[note])


def _script(request: ChatRequest) -> Reply:
    if "fail" in request.last_text:
        return fail(401, message="no such key")
    if "wait" in request.last_text:
        return say("late", delay=30)
    if request.turn == 0 and request.tool_names:
        arguments = {"text": "x"} if request.tool_names == ["note"] else {"a": 1, "b": 2}
        return call((request.tool_names[0], arguments))
    return say(f"Hi: {request.last_text}")


@pytest.fixture
def runner(address: str) -> Iterator[Runner]:
    with (
        ScriptedModel(_script) as model,
        Runner(address=address, settings=Settings(endpoints=endpoints(model.url), grace_seconds=1)) as made,
    ):
        yield made


def test_run_sync_returns_the_result(runner: Runner) -> None:
    result = runner.run_sync(AGENT, user_message="Hello!")
    assert (result.final_text, result.state) == ("Hi: Hello!", "completed")
    [execution] = result.tool_executions
    assert (execution.tool_name, execution.success, execution.agent_name) == ("note", True, "demo")
    assert execution.output == f"{result.run_id}: x"
    assert result.usage_aggregate.model_calls == 2
    assert result.usage_aggregate.total_tokens > 0


async def test_run_stream_and_run_handle_work_in_any_event_loop(runner: Runner) -> None:
    assert (await runner.run(AGENT, user_message="Hello!")).state == "completed"
    stream = runner.run_stream(AGENT, user_message="Hello!")
    types = [event.type async for event in stream]
    assert types[-1] == "run_completed"
    assert stream.result is not None
    assert stream.result.run_id == stream.run_id
    handle = await runner.run_handle(AGENT, user_message="please wait")
    async for event in handle.events:
        if event.type == "model_called":
            await handle.cancel()
    assert (await handle.await_result()).state == "cancelled"


def test_a_failed_run_is_a_result_and_not_an_exception(runner: Runner) -> None:
    result = runner.run_sync(Agent(name="failing", model="scripted/x"), user_message="please fail")
    assert result.state == "failed"
    assert result.error is not None
    assert (result.error.type, "no such key" in result.final_text) == ("ModelUnauthorized", True)


def test_agents_with_other_tools_run_beside_one_another(runner: Runner) -> None:
    other = Agent(name="adding", model="scripted/x", tools=[plus])
    assert runner.run_sync(AGENT, "a").tool_executions[0].tool_name == "note"
    assert runner.run_sync(other, "b").tool_executions[0].output == 3
    assert runner.run_sync(AGENT, "c").final_text == "Hi: c"


def test_thread_and_metadata_and_idempotency_key_reach_the_run(runner: Runner) -> None:
    first = runner.run_sync(AGENT, "x", thread_id="t-1", metadata={"tenant": "a"}, idempotency_key="runner-key")
    again = runner.run_sync(AGENT, "x", thread_id="t-1", metadata={"tenant": "a"}, idempotency_key="runner-key")
    assert first == again
    assert first.thread_id == "t-1"


SCRIPT = """
from holdfast import Agent, Runner
agent = Agent(name="demo", model="gpt-5.2-mini", instructions="Be helpful.")
result = Runner().run_sync(agent, user_message="Hello!")
print(result.final_text, result.state, result.run_id, result.tool_executions, result.usage_aggregate)
"""


def test_a_script_starts_its_own_server_leaves_it_stopped_and_exits_with_0(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    with ScriptedModel(_script) as model:
        # The default port is another server's business on a shared machine: a profile can't name "none", so the
        # script is run where localhost:7233 is refused or answers; both are the documented behaviour.
        told = {**os.environ, "HOLDFAST_ENDPOINTS": endpoints_json(model.url)}
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "script.py"], cwd=tmp_path, env=told, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("Hi: Hello! completed demo-")
            assert done.stderr == ""


def test_a_named_server_that_does_not_answer_is_told_and_no_other_is_started(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    told = {**os.environ, "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}"}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=told, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "no Temporal server answers" in done.stderr
    assert not (tmp_path / ".holdfast").exists()
