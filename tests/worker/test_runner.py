"""`Runner`: the lines of the README, on a server of its own and on one that is there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Agent, InputInvalid, Runner, Settings, ToolContext, tool
from holdfast.worker.hosting import queue_of_script
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
        arguments: dict[str, dict[str, object]] = {"note": {"text": "x"}, "demo": {"message": "Help me."}}
        name = request.tool_names[0]
        return call((name, arguments.get(name, {"a": 1, "b": 2})))
    return say(f"Hi: {request.last_text}")


@pytest.fixture
def runner(address: str) -> Iterator[Runner]:
    with (
        ScriptedModel(_script) as model,
        Runner(
            address=address,
            settings=Settings(endpoints=endpoints(model.url), grace_seconds=1),
            task_queue=f"runner-{uuid.uuid4().hex[:8]}",
        ) as made,
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


def test_the_tools_of_subagents_are_there_without_a_word(runner: Runner) -> None:
    lead = Agent(name="lead", model="scripted/lead", subagents=[AGENT])
    result = runner.run_sync(lead, user_message="Hello!")
    assert (result.state, result.final_text) == ("completed", "Hi: Hello!")
    note, demo = result.tool_executions
    assert (note.tool_name, note.agent_path, demo.output) == ("note", "lead/demo", "Hi: Help me.")


async def test_run_stream_and_run_handle_work_in_any_event_loop(runner: Runner) -> None:
    assert (await runner.run(AGENT, user_message="Hello!")).state == "completed"
    stream = runner.run_stream(AGENT, user_message="Hello!")
    types = [event.type async for event in stream]
    assert types[-1] == "run_completed"
    assert "text_delta" in types
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
    thread = f"t-{uuid.uuid4().hex[:8]}"
    first = runner.run_sync(AGENT, "x", thread_id=thread, metadata={"tenant": "a"}, idempotency_key="runner-key")
    again = runner.run_sync(AGENT, "x", thread_id=thread, metadata={"tenant": "a"}, idempotency_key="runner-key")
    assert first == again
    assert first.thread_id == thread


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


KILLED = """
import os, sys, time
from pathlib import Path
from holdfast import Agent, Runner, ToolContext, tool

@tool
def slow(context: ToolContext) -> str:
    "Take long, the first time."
    Path(f"attempt-{context.attempt}").touch()
    time.sleep(60 if context.attempt == 1 else 0)
    return f"done at attempt {context.attempt}"

agent = Agent(name="slow", model="scripted/slow", tools=[slow])
result = Runner().run_sync(agent, "Go", idempotency_key=sys.argv[1])
print(result.status, result.final_text, result.tool_executions[0].output, flush=True)
"""


def test_a_script_that_is_killed_goes_on_with_its_run_when_it_is_started_again(address: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "script.py"), f"key-{uuid.uuid4()}"]
    with ScriptedModel(lambda request: call(("slow", {})) if request.turn == 0 else say("Done.")) as model:
        told = {**os.environ, "TEMPORAL_ADDRESS": address, "HOLDFAST_ENDPOINTS": endpoints_json(model.url)}
        first = subprocess.Popen(command, cwd=tmp_path, env=told)
        try:
            deadline = time.monotonic() + 60
            while not (tmp_path / "attempt-1").exists():
                assert time.monotonic() < deadline
                assert first.poll() is None
                time.sleep(0.05)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        again = subprocess.run(command, cwd=tmp_path, env=told, capture_output=True, text=True, timeout=90)
        assert again.stdout == "completed Done. done at attempt 2\n", again.stderr
        assert [request.turn for request in model.requests] == [0, 1]


def _cell(answer: str) -> Agent:
    """Run a notebook's cell: the same names each time, and new functions."""

    @tool
    def told() -> str:
        """Tell."""
        return answer

    return Agent(name="cell", model="scripted/x", tools=[told])


@pytest.mark.parametrize("new_runner", [False, True])
def test_a_cell_that_is_run_again_runs_its_new_functions(address: str, new_runner: bool) -> None:
    def script(request: ChatRequest) -> Reply:
        return call(("told", {})) if request.turn == 0 else say("ok")

    with ScriptedModel(script) as model:
        options: dict[str, Any] = {
            "address": address,
            "settings": Settings(endpoints=endpoints(model.url), grace_seconds=1),
            "task_queue": f"cell-{uuid.uuid4().hex[:8]}",
        }
        with Runner(**options) as first, Runner(**options) as second:
            runners = [first, second] if new_runner else [first, first]
            for number in range(4):
                for runner in runners:
                    result = runner.run_sync(_cell(f"{number}"), "Go")
                    assert [each.output for each in result.tool_executions] == [f"{number}"]


def test_a_queue_is_named_after_the_script_and_its_tools() -> None:
    assert queue_of_script([note, plus]) == queue_of_script([plus, note]) != queue_of_script([note])
    assert queue_of_script(_cell("a").functions) == queue_of_script(_cell("b").functions)


async def test_a_runner_is_closed_once_and_says_so(address: str) -> None:
    with ScriptedModel(_script) as model:
        runner = Runner(
            address=address,
            settings=Settings(endpoints=endpoints(model.url)),
            task_queue=f"closed-{uuid.uuid4().hex[:8]}",
        )
        handle = await runner.run_handle(AGENT, "Hello!")
        await handle.await_result()
        await asyncio.to_thread(runner.close)
    runner.close()
    with pytest.raises(RuntimeError, match="this Runner is closed"):
        runner.run_sync(AGENT, "Hello!")
    with pytest.raises(RuntimeError, match="this Runner is closed"):
        await runner.run(AGENT, "Hello!")
    with pytest.raises(RuntimeError, match="closed"):
        await handle.status()


def test_a_runner_with_a_wrong_setting_names_it_and_shows_no_value() -> None:
    os.environ["HOLDFAST_ENDPOINTS"] = '{"x/*": {"api_kee": "sk-live-0123456789"}}'
    with pytest.raises(InputInvalid, match="api_kee") as wrong:
        Runner()
    assert "sk-live" not in "".join(traceback.format_exception(wrong.value))
