"""The plugin, in a worker that people already have."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

from holdfast import Agent, HoldfastPlugin, RunResult, Settings, tool
from holdfast.worker.attributes import register
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, say
from holdfast.worker.server import EmbeddedServer
from tests.support.stage import MODEL, endpoints, stage


@tool
def double(number: int) -> int:
    """Double."""
    return number * 2


@activity.defn
def greet(name: str) -> str:
    return f"Hello, {name}"


@workflow.defn
class Greeting:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(greet, name, start_to_close_timeout=timedelta(seconds=5))


def _double_once(request: ChatRequest) -> Reply:
    return call(("double", {"number": 21})) if request.turn == 0 else say("42")


AGENT = Agent(name="doubling", model=MODEL, tools=[double])


async def test_a_worker_with_workflows_of_its_own_serves_runs_as_well(address: str) -> None:
    queue = f"shared-{uuid.uuid4().hex[:8]}"
    async with ScriptedModel(_double_once) as model:
        plugin = HoldfastPlugin([AGENT], settings=Settings(endpoints=endpoints(model.url)))
        client = await Client.connect(address, plugins=[plugin])
        with ThreadPoolExecutor(4) as threads:
            worker = Worker(
                client, task_queue=queue, workflows=[Greeting], activities=[greet], activity_executor=threads
            )
            async with worker:
                run = await client.start_workflow(
                    "AgentRun", {"agent": "doubling", "message": "Go"}, id=f"p-{queue}", task_queue=queue
                )
                greeting = client.execute_workflow("Greeting", "Ada", id=f"g-{queue}", task_queue=queue)
                assert await greeting == "Hello, Ada"
                assert RunResult.model_validate(await run.result()).final_text == "42"


async def test_workers_of_one_client_and_plugin_stop_without_one_another(address: str) -> None:
    queues = [f"twin-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    async with ScriptedModel(_double_once) as model:
        plugin = HoldfastPlugin([AGENT], settings=Settings(endpoints=endpoints(model.url)))
        client = await Client.connect(address, plugins=[plugin])
        for stays, leaves in (queues, queues[::-1]):
            async with Worker(client, task_queue=stays, workflows=[Greeting], activities=[]):
                async with Worker(client, task_queue=leaves, workflows=[Greeting], activities=[]):
                    await asyncio.sleep(0.3)
                request = {"agent": "doubling", "message": "Go"}
                run = client.execute_workflow("AgentRun", request, id=f"p-{stays}", task_queue=stays)
                ended = RunResult.model_validate(await asyncio.wait_for(run, 30))
                assert [each.success for each in ended.tool_executions] == [True]


async def test_registering_waits_for_a_server_that_is_away_for_a_moment(tmp_path: Path) -> None:
    first = EmbeddedServer.start(tmp_path, port=0, ui_port=None)
    client = await Client.connect(first.address)
    os.kill(first.pid, signal.SIGKILL)
    registering = asyncio.create_task(register(client))
    await asyncio.sleep(1)
    assert not registering.done()
    with await asyncio.to_thread(EmbeddedServer.start, tmp_path, port=0, ui_port=None) as again:
        assert again.address == first.address
        assert await registering
        began = time.monotonic()
        assert await register(client)
        assert time.monotonic() - began < 1, "where nothing is missing, nothing is waited for"
    first.stop()


async def test_runs_go_on_without_search_attributes_where_they_can_not_be_had() -> None:
    with EmbeddedServer.start(None, port=0, ui_port=None, search_attributes={"Steps": "Keyword"}) as server:
        async with stage(server.address, _double_once, [AGENT]) as at:
            ended = await at.run("doubling", message="Go")
            assert ended.status == "completed"
            described = await at.client.get_workflow_handle(ended.run_id).describe()
            names = {pair.key.name for pair in described.typed_search_attributes}
            assert not names & {"AgentName", "RunStatus"}


async def test_a_worker_registers_missing_search_attributes() -> None:
    with EmbeddedServer.start(None, port=0, ui_port=None) as server:
        async with stage(server.address, _double_once, [AGENT]) as at:
            ended = await at.run("doubling", message="Go")
            described = await at.client.get_workflow_handle(ended.run_id).describe()
            assert described.search_attributes["RunStatus"] == ["completed"]
            assert described.search_attributes["AgentName"] == ["doubling"]
