"""Long runs: history grows with what is new, not with what was said before."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import temporalio.client
from temporalio.client import OutboundInterceptor, QueryWorkflowInput
from temporalio.worker import Worker

from holdfast import Agent, Limits, RunResult, Settings, tool, wire
from holdfast.agent import ModelSettings
from holdfast.client.connect import connect
from holdfast.envelope import without_envelope
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, say
from tests.support.stage import MODEL, endpoints, timeline

STEPS = 400
TWO_MB = 2 * 1024 * 1024


@tool
async def look(number: int) -> str:
    """Look at a page."""
    return f"page {number}: " + "x" * 2000


AGENT = Agent(
    name="long",
    model=MODEL,
    tools=[look],
    model_settings=ModelSettings(stream=False),
    compaction=None,
    limits=Limits(max_steps=1000, max_model_calls=1000, max_tool_calls=1000),
)


class Queries(temporalio.client.Interceptor):
    """Counts the queries that a worker's activities make, by their names."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _Counted(next, self.made)


class _Counted(OutboundInterceptor):
    def __init__(self, next: OutboundInterceptor, made: list[str]) -> None:
        super().__init__(next)
        self._made = made

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:
        self._made.append(input.query)
        return await super().query_workflow(input)


def _looks(steps: int) -> Any:
    def script(request: ChatRequest) -> Reply:
        last = request.messages[-1]["content"]
        if request.turn and f"page {request.turn - 1}: " not in last:
            return say(f"turn {request.turn} was told something else: {last[:100]}")
        return call(("look", {"number": request.turn})) if request.turn < steps - 1 else say("seen")

    return script


@asynccontextmanager
async def _workers(address: str, url: str, count: int, **options: Any) -> AsyncIterator[tuple[str, Queries]]:
    """Have some workers share a queue, in one process but without a common cache."""
    queue, queries = f"long-{uuid.uuid4().hex[:12]}", Queries()
    settings = Settings(task_queue=queue, endpoints=endpoints(url))
    workers = []
    for _ in range(count):
        # Each has a client of its own: two workers of one queue may not share a connection.
        config = (await connect(address)).config()
        config["interceptors"] = [queries]
        plugin = HoldfastPlugin([AGENT], settings=settings)
        workers.append(Worker(temporalio.client.Client(**config), task_queue=queue, plugins=[plugin], **options))
    async with asyncio.TaskGroup() as group:
        leave = asyncio.Event()
        for worker in workers:
            group.create_task(_serve(worker, leave))
        try:
            yield queue, queries
        finally:
            leave.set()


async def _serve(worker: Worker, leave: asyncio.Event) -> None:
    async with worker:
        await leave.wait()


async def _start(client: temporalio.client.Client, queue: str) -> str:
    handle = await client.start_workflow(
        wire.AGENT_RUN,
        {"agent": AGENT.name, "message": "Look at everything."},
        id=f"{queue}-{uuid.uuid4().hex[:6]}",
        task_queue=queue,
        task_timeout=timedelta(seconds=4),
    )
    return handle.id


async def _end(client: temporalio.client.Client, run_id: str) -> RunResult:
    return RunResult.model_validate(await asyncio.wait_for(client.get_workflow_handle(run_id).result(), 120))


def _expected(steps: int) -> list[str]:
    return [f"page {number}: " + "x" * 2000 for number in range(steps - 1)]


async def test_400_steps_stay_under_2_mb_of_history_and_one_worker_never_asks_for_the_transcript(address: str) -> None:
    async with (
        ScriptedModel(_looks(STEPS), keep=1) as model,
        _workers(address, model.url, 1) as (queue, queries),
    ):
        client, began = await connect(address), time.monotonic()
        result = await _end(client, await _start(client, queue))
        took = time.monotonic() - began
        assert (result.status, result.final_text, result.steps) == ("completed", "seen", STEPS)
        described = await client.get_workflow_handle(result.run_id).describe()
        size = described.raw_description.workflow_execution_info.history_size_bytes
        print(
            f"{STEPS} steps in {took:.1f} s ({took / STEPS * 1000:.1f} ms each); "
            f"history {size:,} bytes, {described.history_length:,} events; queries {queries.made}"
        )
        assert size <= TWO_MB
        assert queries.made.count(wire.TRANSCRIPT) == 0
        assert model.hits == STEPS
        sent = list(model.requests[-1].tool_results.values())
        assert sent == _expected(STEPS)


async def test_the_transcript_stays_right_when_calls_wander_between_workers_that_forget(address: str) -> None:
    steps, runs = 12, 6
    async with (
        ScriptedModel(_looks(steps)) as model,
        _workers(address, model.url, 2, max_cached_workflows=2, disable_eager_activity_execution=True) as (
            queue,
            queries,
        ),
    ):
        client = await connect(address)
        started = [await _start(client, queue) for _ in range(runs)]
        results = [await _end(client, run_id) for run_id in started]
        assert [(each.status, each.final_text, each.steps) for each in results] == [("completed", "seen", steps)] * runs
        assert model.hits == steps * runs
        print(f"{runs} runs of {steps} steps: {queries.made.count(wire.TRANSCRIPT)} transcript queries")
        assert queries.made.count(wire.TRANSCRIPT) > 0
        last = [each for each in model.requests if each.turn == steps - 1]
        for request in last:
            assert list(request.tool_results.values()) == _expected(steps)
        for result in results:
            folded, _ = await timeline(client, result.run_id)
            assert [without_envelope(each.text) for each in folded.messages if each.role == "tool"] == _expected(steps)
