"""A message that comes while a run leaves its thread: answered by a run that would complete, kept by any other."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import temporalio.client
from temporalio import workflow
from temporalio.worker import (
    Interceptor,
    SignalExternalWorkflowInput,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from holdfast import Agent, Limits, Settings
from holdfast.client.connect import connect
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import ScriptedModel
from tests.support.stage import MODEL, Stage, endpoints, result, timeline
from tests.support.threads import AGENTS, TOOLS, idle, is_waiting, script, seen, start, status, until

ONCE = Agent(name="once", model=MODEL, tools=TOOLS, limits=Limits(max_steps=1))
LEAVING_SECONDS = 2.0


class _SlowOut(WorkflowOutboundInterceptor):
    async def signal_external_workflow(self, input: SignalExternalWorkflowInput) -> None:
        await self.next.signal_external_workflow(input)
        if input.signal == "leave":
            await workflow.sleep(LEAVING_SECONDS, summary="leaving")


class _SlowIn(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_SlowOut(outbound))


class _Slow(Interceptor):
    """Has the server take its time to say that the thread was told."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        return _SlowIn


@asynccontextmanager
async def slow_stage(address: str) -> AsyncIterator[Stage]:
    queue = f"test-{uuid.uuid4().hex[:12]}"
    async with ScriptedModel(script) as model:
        settings = Settings(task_queue=queue, endpoints=endpoints(model.url), grace_seconds=1)
        client = await connect(address)
        plugin = HoldfastPlugin([*AGENTS, ONCE], settings=settings)
        async with Worker(client, task_queue=queue, plugins=[plugin], interceptors=[_Slow()]):
            yield Stage(client, model, settings)


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with slow_stage(address) as made:
        yield made


@pytest.fixture
def thread() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


async def leaving(run: temporalio.client.WorkflowHandle[Any, Any]) -> None:
    """Wait until a run has told its thread that it is about to end."""

    async def told() -> bool:
        history = await run.fetch_history()
        return any(each.HasField("external_workflow_execution_signaled_event_attributes") for each in history.events)

    await until(told, bool)


async def test_a_run_answers_a_message_that_comes_while_it_leaves_and_keeps_its_turn(at: Stage, thread: str) -> None:
    run = await start(at, thread, 'say("First.")', 'say("Heard.")')
    await leaving(run)
    following = await start(at, thread, 'say("Behind.")')
    await is_waiting(following)
    await run.signal("append_message", {"text": "wait!"})
    ended = await result(run)
    assert (ended.status, ended.final_text, ended.state_snapshot["unread_messages"]) == ("completed", "Heard.", 0)
    assert (await result(following)).final_text == "Behind."
    assert {"First.", "wait!", "Heard."} <= set(seen(at))
    memory = await idle(at, thread)
    assert [each["role"] for each in memory] == ["user", "assistant"] * 3
    folded, events = await timeline(at.client, run.id)
    assert [each.wire() for each in folded.messages] == memory[:4]
    assert [each.type for each in events].count("run_completed") == 1
    assert folded.result == ended


async def test_a_run_that_leaves_is_not_shown_as_ended_before_it_has(at: Stage, thread: str) -> None:
    run = await start(at, thread, 'say("First.")')
    await leaving(run)
    assert (await status(run, lambda told: True))["status"] == "running"
    assert (await result(run)).status == "completed"


@pytest.mark.parametrize(
    ("agent", "line", "ends"),
    [("once", 'say("All.")', "degraded"), ("plain", 'fail(401, message="no such key")', "failed")],
)
async def test_a_message_that_comes_while_another_run_leaves_is_read_once_it_is_started_again(
    at: Stage, thread: str, agent: str, line: str, ends: str
) -> None:
    run = await start(at, thread, line, name=agent)
    await leaving(run)
    await run.signal("append_message", {"text": "wait!"})
    ended = await result(run)
    assert (ended.status, ended.state_snapshot["unread_messages"]) == (ends, 1)
    link = (await run.describe()).run_id
    again = await at.start(agent, run_id=run.id, after={"run": link}, thread_id=thread, message='do:say("Now.")')
    assert (await result(again)).final_text == "Now."
    assert "wait!" in seen(at)


async def test_a_message_that_comes_while_an_interrupted_run_leaves_is_read_once_it_is_resumed(
    at: Stage, thread: str
) -> None:
    run = await start(at, thread, 'call(("rest", {"seconds": 30})) if turn else call(("add", {"left": 1, "right": 2}))')
    await status(run, lambda told: told["step"] == 2)
    await run.signal("interrupt")
    await leaving(run)
    await run.signal("append_message", {"text": "wait!"})
    assert (await result(run)).state_snapshot["unread_messages"] == 1
    link = (await run.describe()).run_id
    again = await at.start("plain", run_id=run.id, after={"run": link}, thread_id=thread, message='do:say("Now.")')
    assert (await result(again)).final_text == "Now."
    assert "wait!" in seen(at)
