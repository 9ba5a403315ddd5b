"""A subject's own process: `python -m bench.serve NAME ADDRESS TASK_QUEUE MODEL_URL` says `ready`, ends on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import temporalio.client
import uvloop
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from bench import floor
from bench.subjects import AGENT, LEAD, SUBJECTS


def bare(client: temporalio.client.Client, task_queue: str, url: str, model: str) -> Worker:
    """Make the floor's worker, with the options that Holdfast's own worker sets."""
    activity: Any = floor.constant
    if model != "none":
        os.environ.update(floor.LITELLM_ENVIRONMENT)
        activity = floor.with_litellm(url, stream=model == "stream")
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[floor.Floor],
        activities=[activity, floor.tool],
        activity_executor=ThreadPoolExecutor(100),
        workflow_runner=SandboxedWorkflowRunner(SandboxRestrictions.default.with_passthrough_modules("bench")),
        max_cached_workflows=500,
        max_concurrent_activities=100,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        max_heartbeat_throttle_interval=timedelta(milliseconds=400),
        default_heartbeat_throttle_interval=timedelta(milliseconds=400),
    )


def ours(client: temporalio.client.Client, task_queue: str, url: str, model: str) -> Worker:
    """Make Holdfast's worker as `holdfast worker` makes it."""
    from holdfast import Agent, Limits, ModelSettings, tool
    from holdfast.activities.endpoints import Endpoint
    from holdfast.activities.model import warm_up
    from holdfast.worker.build import make_worker
    from holdfast.worker.plugin import HoldfastPlugin
    from holdfast.worker.settings import Settings

    warm_up()
    endpoint = Endpoint.model_validate(
        {
            "model": "openai/{rest}",
            "api_base": url,
            "api_key": "bench-no-key",
            "input_cost_per_token": 1e-6,
            "output_cost_per_token": 4e-6,
        }
    )
    agent = Agent(
        name=AGENT,
        model="scripted/bench",
        tools=(tool(floor.look_up),),
        model_settings=ModelSettings(stream=model == "stream"),
        limits=Limits(max_steps=10_000, max_model_calls=10_000, max_tool_calls=10_000),
    )
    lead = Agent(name=LEAD, model="scripted/bench", subagents=[agent], model_settings=agent.model_settings)
    settings = Settings(task_queue=task_queue, endpoints={"scripted/*": endpoint})
    return make_worker(client, HoldfastPlugin([agent, lead], settings=settings))


async def _serve(name: str, address: str, task_queue: str, url: str) -> None:
    subject = SUBJECTS[name]
    if subject.is_floor:
        worker = bare(await temporalio.client.Client.connect(address), task_queue, url, subject.model)
    else:
        from holdfast.client.connect import connect
        from holdfast.worker import logs

        logs.configure("json", "info")  # to be paid for, as in production
        worker = ours(await connect(address), task_queue, url, subject.model)
    leave = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
    running = asyncio.create_task(worker.run())
    print("ready", flush=True)
    await asyncio.wait([running, asyncio.create_task(leave.wait())], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    try:
        uvloop.run(_serve(*sys.argv[1:]))
    finally:
        sys.stderr.flush()
        os._exit(0)
