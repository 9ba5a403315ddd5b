"""What a long life costs: `python -m bench.life [long|parked]`; it prints figures, and passes or fails nothing.

long    one run of 5,000 steps over many links, whose closed links are deleted as it goes
parked  2,000 runs that wait for approval or are paused, while worker and server are killed and started again
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle

from bench import report
from holdfast import Agent, Limits, ModelSettings, Settings, tool, wire
from holdfast.client.connect import connect
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, say
from holdfast.worker.server import EmbeddedServer

ROOT = Path(__file__).resolve().parent.parent
QUEUE = "bench-life"
RESULT_BYTES = 2048


@tool
def look(number: int) -> str:
    """Look at a page."""
    return f"page {number}: " + "x" * RESULT_BYTES


@tool(requires_approval=True)
def pay(number: int) -> float:
    """Pay an invoice, and say when."""
    return time.time()


LIMITS = Limits(max_steps=100_000, max_model_calls=100_000, max_tool_calls=100_000)
AGENTS = [
    Agent(name="long", model="scripted/life", tools=[look], model_settings=ModelSettings(stream=False), limits=LIMITS),
    Agent(name="parked", model="scripted/life", tools=[pay], model_settings=ModelSettings(stream=False)),
]


async def serve(address: str, url: str, cached: int) -> None:
    """Serve both agents until killed."""
    from holdfast.activities.endpoints import Endpoint
    from holdfast.activities.model import warm_up

    warm_up()
    told = {"model": "openai/{rest}", "api_base": url, "api_key": "bench-no-key", "input_cost_per_token": 0}
    endpoint = Endpoint.model_validate(told | {"output_cost_per_token": 0})
    settings = Settings(task_queue=QUEUE, endpoints={"scripted/*": endpoint}, max_cached_workflows=cached)
    worker = make_worker(await connect(address), HoldfastPlugin(AGENTS, settings=settings))
    print("ready", flush=True)
    await worker.run()


@contextmanager
def working(address: str, url: str, cached: int) -> Iterator[psutil.Process]:
    """Have a worker in a process of its own, which is killed in the end."""
    command = [sys.executable, "-m", "bench.life", "--worker", address, url, str(cached)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "HOLDFAST_"))}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, env=kept)
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                log.seek(0)
                raise RuntimeError(log.read()[-4000:].decode(errors="replace"))
            yield psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()


def megabytes(process: psutil.Process) -> float:
    """Return a process's resident memory."""
    return float(process.memory_info().rss) / 1e6


async def links(run: WorkflowHandle[Any, Any]) -> AsyncIterator[tuple[str, list[Any], int]]:
    """Follow a run live: for each closed link its id, the times of its model calls, and its history's bytes."""
    client: Client = run._client
    link: str | None = run.first_execution_run_id or run.result_run_id
    while link:
        times, following, size = [], None, 0
        async for event in client.get_workflow_handle(run.id, run_id=link).fetch_history_events(wait_new_event=True):
            size += event.ByteSize()
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                name = event.activity_task_scheduled_event_attributes.activity_type.name
                if name == wire.MODEL_CALL:
                    times.append(event.event_time.ToDatetime())
            if event.HasField("workflow_execution_continued_as_new_event_attributes"):
                following = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        yield link, times, size
        link = following


async def long(steps: int) -> None:
    """Take many steps, and say what each tenth of them took."""
    asked = 0

    def script(request: ChatRequest) -> Reply:
        nonlocal asked
        if not request.body.get("tools"):
            return say("A summary of what was found on the pages so far. " * 20)
        asked += 1
        return call(("look", {"number": asked})) if asked < steps else say("All is seen.")

    with EmbeddedServer.start(None, port=0, ui_port=None, search_attributes=wire.SEARCH_ATTRIBUTES) as server:
        async with ScriptedModel(script) as model:
            with working(server.address, model.url, 500) as worker:
                client = await connect(server.address)
                run = await client.start_workflow(
                    wire.AGENT_RUN, {"agent": "long", "message": "Go"}, id="long", task_queue=QUEUE
                )
                times: list[Any] = []
                sizes: list[int] = []
                memory: list[float] = []
                async for link, called, size in links(run):
                    times += called
                    sizes.append(size)
                    memory.append(megabytes(worker))
                    if asked < steps:
                        gone = DeleteWorkflowExecutionRequest(
                            namespace="default",
                            workflow_execution=WorkflowExecution(workflow_id="long", run_id=link),
                        )
                        await client.workflow_service.delete_workflow_execution(gone)
                ended = await client.get_workflow_handle("long").result()
    print(f"one run of {ended['steps']:,} steps: {ended['status']}, over {len(sizes)} links; closed links deleted")
    tenth = len(times) // 10
    paces = [
        (times[(number + 1) * tenth - 1] - times[number * tenth]).total_seconds() * 1000 / (tenth - 1)
        for number in range(10)
    ]
    print("ms/step by tenths:   " + " ".join(f"{pace:.1f}" for pace in paces))
    print(f"last to first:       {paces[-1] / paces[0]:.2f}")
    print("worker MB by links:  " + " ".join(f"{each:.0f}" for each in memory))
    print("history KB by links: " + " ".join(f"{each / 1000:.0f}" for each in sizes))
    print(f"history bytes/step:  {sum(sizes) / ended['steps']:.0f}")


async def parked(number: int, cached: int) -> None:
    """Park many runs, kill everything, start it again, and let them end."""

    def script(request: ChatRequest) -> Reply:
        return call(("pay", {"number": 1})) if request.turn == 0 else say("Paid.")

    async def all_are(client: Client, status: str, wanted: int) -> None:
        while (await client.count_workflows(f"RunStatus = '{status}'")).count < wanted:
            await asyncio.sleep(0.5)

    gate = asyncio.Semaphore(50)
    with tempfile.TemporaryDirectory() as folder:
        async with ScriptedModel(script) as model:
            server = EmbeddedServer.start(Path(folder), port=0, ui_port=None, search_attributes=wire.SEARCH_ATTRIBUTES)
            client = await connect(server.address)
            with working(server.address, model.url, cached) as worker:

                async def start(index: int) -> None:
                    async with gate:
                        await client.start_workflow(
                            wire.AGENT_RUN, {"agent": "parked", "message": "Go"}, id=f"parked-{index}", task_queue=QUEUE
                        )

                began = time.monotonic()
                await asyncio.gather(*(start(index) for index in range(number)))
                await all_are(client, "waiting", number)
                print(f"{number:,} runs parked in {time.monotonic() - began:.0f} s; worker {megabytes(worker):.0f} MB")
                odd = [client.get_workflow_handle(f"parked-{index}") for index in range(1, number, 2)]
                await asyncio.gather(*(_gated(gate, run.signal("pause", {"reason": "bench"})) for run in odd))
                await all_are(client, "paused", len(odd))
                print(f"half of them paused as well; worker {megabytes(worker):.0f} MB (cache of {cached} runs)")
            os.kill(server.pid, 9)
            server.stop()
            server = EmbeddedServer.start(Path(folder), port=0, ui_port=None)
            client = await connect(server.address)
            with working(server.address, model.url, cached) as worker:
                began = time.monotonic()
                runs = [client.get_workflow_handle(f"parked-{index}") for index in range(number)]
                cold = await asyncio.gather(*(_gated(gate, _approve(run)) for run in runs))
                await asyncio.gather(*(_gated(gate, run.signal("resume")) for run in runs[1::2]))
                ends = await asyncio.gather(*(_gated(gate, run.result()) for run in runs))
                took = time.monotonic() - began
                done = sum(end["status"] == "completed" for end in ends)
                print(f"after kill -9 of worker and server: {done:,} completed in {took:.0f} s", end="; ")
                print(f"worker {megabytes(worker):.0f} MB; 50 decisions at once, {statistics.median(cold):.2f} s each")
                await _warm(client)
            server.stop()


async def _gated(gate: asyncio.Semaphore, work: Any) -> Any:
    async with gate:
        return await work


async def _approve(run: WorkflowHandle[Any, Any]) -> float:
    began = time.monotonic()
    (waits,) = (await run.query("status"))["waiting_for"]
    await run.execute_update("decide", {"call_id": waits["id"], "decision": "approve"})
    return time.monotonic() - began


async def _warm(client: Client) -> None:
    """Time from `decide` to the tool's first line, one run after the other on a warm worker."""
    delays = []
    for index in range(100):
        run = await client.start_workflow(
            wire.AGENT_RUN, {"agent": "parked", "message": "Go"}, id=f"warm-{index}", task_queue=QUEUE
        )
        while not (waits := (await run.query("status"))["waiting_for"]):
            await asyncio.sleep(0.02)
        began = time.time()
        await run.execute_update("decide", {"call_id": waits[0]["id"], "decision": "approve"})
        ended = await run.result()
        delays.append(ended["tool_executions"][0]["output"] - began)
    delays.sort()
    print(f"decide → tool begun, warm worker: median {delays[50] * 1000:.0f} ms, p95 {delays[94] * 1000:.0f} ms")


def main() -> None:
    """Measure what is named."""
    if sys.argv[1:2] == ["--worker"]:
        asyncio.run(serve(sys.argv[2], sys.argv[3], int(sys.argv[4])))
        return
    parser = argparse.ArgumentParser(prog="python -m bench.life", description=__doc__)
    parser.add_argument("what", choices=["long", "parked"])
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--cached", type=int, default=200)
    options = parser.parse_args()
    print(report.surroundings())
    work = long(options.steps) if options.what == "long" else parked(options.runs, options.cached)
    asyncio.run(work)
    print(report.surroundings().splitlines()[-1])


if __name__ == "__main__":
    main()
