"""Cancelling: activities stop first, and the run closes only after they have."""

from __future__ import annotations

import asyncio
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio.client import WorkflowExecutionStatus
from temporalio.worker import Worker

from holdfast import Agent, AsyncClient, HoldfastPlugin, Settings, tool
from holdfast.client.connect import connect
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, say
from tests.support.stage import MODEL, endpoints, stage, timeline

ended: dict[str, float] = {}


@tool
async def quick(name: str) -> str:
    """End at once."""
    await asyncio.sleep(0.8)
    return name


@tool
async def stubborn(name: str) -> str:
    """Take a second to stop."""
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(1)
        ended[name] = time.time()
    return name


AGENT = Agent(name="cancelling", model=MODEL, tools=[quick, stubborn])


def _script(request: ChatRequest) -> Reply:
    name = request.last_text
    return call(("quick", {"name": name}), ("stubborn", {"name": name})) if request.turn == 0 else say("too far")


async def test_a_cancel_that_meets_a_completed_tool_still_waits_for_the_other(address: str) -> None:
    queue, run_id = f"cancel-{uuid.uuid4().hex[:8]}", f"cancel-{uuid.uuid4().hex[:8]}"
    async with ScriptedModel(_script) as model:
        plugin = HoldfastPlugin([AGENT], settings=Settings(endpoints=endpoints(model.url), grace_seconds=1))
        client = await connect(address)
        with ThreadPoolExecutor(4) as threads:
            fast = timedelta(milliseconds=200)
            world = Worker(
                client,
                task_queue=queue,
                activities=plugin.activities,  # type: ignore[arg-type]
                interceptors=plugin.interceptors or (),  # type: ignore[arg-type]
                activity_executor=threads,
                max_heartbeat_throttle_interval=fast,
                default_heartbeat_throttle_interval=fast,
            )
            other = await connect(address)
            async with world:
                async with Worker(other, task_queue=queue, plugins=[plugin], no_remote_activities=True):
                    request = {"agent": "cancelling", "message": run_id}
                    handle = await client.start_workflow("AgentRun", request, id=run_id, task_queue=queue)
                    async for event in AsyncClient(temporal=client).runs.stream_events(run_id):
                        if event.type == "tool_called" and event.data["tool_name"] == "stubborn":
                            break
                await handle.cancel()  # nobody is there to take it,
                await asyncio.sleep(1.2)  # nor the quick tool's result, which comes next
                again = HoldfastPlugin([AGENT], settings=plugin.settings)
                async with Worker(other, task_queue=queue, plugins=[again], no_remote_activities=True):
                    run = await AsyncClient(temporal=client).runs.wait(run_id, timeout=30)
    assert run.status == "cancelled"
    assert run.closed_at is not None
    assert run.closed_at.timestamp() >= ended[run_id]
    tools = [(event.type, event.data["tool_name"]) for event in run.logs if event.type.startswith("tool_c")]
    assert ("tool_completed", "quick") in tools
    assert ("tool_call_exception", "stubborn") in tools


async def test_a_cancel_before_any_worker_closes_the_run_before_any_call(address: str) -> None:
    async with stage(address, _script, [AGENT]) as at:
        pass
    client = await connect(address)
    handle = await client.start_workflow(
        "AgentRun", {"agent": "cancelling", "message": "x"}, id=f"early-{uuid.uuid4().hex}", task_queue=at.task_queue
    )
    await handle.cancel()
    async with ScriptedModel(_script) as model:
        plugin = HoldfastPlugin([AGENT], settings=Settings(endpoints=endpoints(model.url)))
        async with Worker(client, task_queue=at.task_queue, plugins=[plugin]):
            run = await AsyncClient(temporal=client).runs.wait(handle.id, timeout=20)
    assert (run.status, model.hits) == ("cancelled", 0)
    assert (await handle.describe()).status == WorkflowExecutionStatus.CANCELED
    _, events = await timeline(client, handle.id)
    assert events[-1].type == "task_cancelled"
