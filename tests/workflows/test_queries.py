"""Queries, signals and a worker that starts: a run that is asked while it is not held replays as it ran."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from holdfast import Agent, HoldfastPlugin, Settings, ask_user, sleep
from holdfast.client.connect import connect
from holdfast.worker.build import make_worker
from holdfast.worker.scripted import ScriptedModel, call, say
from tests.support.plays import until
from tests.support.stage import MODEL, endpoints, result

RUNS = 12
AGENT = Agent(name="asked", model=MODEL, tools=[ask_user, sleep])


async def test_runs_that_are_asked_and_told_while_a_worker_starts_replay_at_the_next_start(address: str) -> None:
    def script(request: Any) -> Any:
        return call(("sleep", {"seconds": 5_000})) if request.turn < 3 else say("done")

    async with ScriptedModel(script) as model:
        settings = Settings(task_queue=f"asked-{id(model)}", endpoints=endpoints(model.url), grace_seconds=0)
        client = await connect(address)

        async def begin() -> WorkflowHandle[Any, Any]:
            request = {"agent": AGENT.name, "message": "Go"}
            return await client.start_workflow(
                "AgentRun", request, id=f"{settings.task_queue}-{len(runs)}", task_queue=settings.task_queue
            )

        async def tell(run: WorkflowHandle[Any, Any], number: int) -> None:
            asked = asyncio.create_task(run.query("status"))
            await asyncio.sleep(0.03 * number)
            for told in range(3):
                for signal in ("pause", "resume"):
                    await run.signal(signal)
                    await asyncio.sleep(0.01 * (number % 3))
                await run.signal("append_message", {"text": f"{told}"})
            await asyncio.wait([asked])

        runs: list[WorkflowHandle[Any, Any]] = []
        async with make_worker(client, HoldfastPlugin([AGENT], settings=settings)):
            for _ in range(RUNS):
                runs.append(await begin())
            await until(lambda: model.hits >= RUNS)
            await asyncio.sleep(0.5)
        telling = [asyncio.create_task(tell(run, number)) for number, run in enumerate(runs)]
        await asyncio.sleep(0.2)
        async with make_worker(client, HoldfastPlugin([AGENT], settings=settings)):
            await asyncio.gather(*telling)
            await asyncio.sleep(0.5)
        async with make_worker(client, HoldfastPlugin([AGENT], settings=settings)):
            for run in runs:
                current = client.get_workflow_handle(run.id)
                while (await current.describe()).close_time is None:
                    task = (await current.describe()).raw_description.pending_workflow_task
                    assert task.attempt < 3, f"{run.id} does not replay"
                    with suppress(RPCError):  # it may have ended by now
                        await current.signal("append_message", {"text": "wake up"})
                    await asyncio.sleep(0.1)
                assert (await result(current)).status == "completed"
