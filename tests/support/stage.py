"""A stage: a scripted model on loopback, and a worker of its own task queue on the session's server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import temporalio.client
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from holdfast import Agent, Event, RunResult, Settings, Tool, ToolSpec
from holdfast.activities.endpoints import Endpoint
from holdfast.client.connect import connect
from holdfast.client.history import read
from holdfast.client.timeline import Timeline
from holdfast.hooks import PolicyEngine
from holdfast.policy import Policy
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import Script, ScriptedModel

KEY = "sk-canary-0123456789abcdef"
MODEL = "scripted/test"
DEADLINE = 60.0


def endpoints(url: str, key: str = KEY) -> dict[str, Endpoint]:
    """Serve every `scripted/…` model at a loopback server, at a made-up price."""
    return {
        "scripted/*": Endpoint.model_validate(
            {
                "model": "openai/{rest}",
                "api_base": url,
                "api_key": key,
                "input_cost_per_token": 1e-6,
                "output_cost_per_token": 4e-6,
            }
        )
    }


@dataclass
class Stage:
    """What a test holds of its stage."""

    client: temporalio.client.Client
    model: ScriptedModel
    settings: Settings

    @property
    def task_queue(self) -> str:
        """The queue that only this stage's worker polls."""
        return self.settings.task_queue

    async def start(
        self, agent: str | Agent | Any, run_id: str | None = None, **request: Any
    ) -> WorkflowHandle[Any, Any]:
        """Start a run as any SDK would: one JSON object."""
        named = agent.wire() if isinstance(agent, Agent) else agent
        return await self.client.start_workflow(
            "AgentRun",
            {"agent": named, **request},
            id=run_id or f"test-{uuid.uuid4().hex[:12]}",
            task_queue=self.task_queue,
        )

    async def run(self, agent: str | Agent, run_id: str | None = None, **request: Any) -> RunResult:
        """Run to the end; a failed run's result is a result."""
        return await result(await self.start(agent, run_id, **request))


async def result(handle: WorkflowHandle[Any, Any], seconds: float = DEADLINE) -> RunResult:
    """Wait for a run's result, a failed one's too."""
    try:
        return RunResult.model_validate(await asyncio.wait_for(handle.result(), seconds))
    except WorkflowFailureError as error:
        cause = error.cause
        if isinstance(cause, ApplicationError) and cause.details:
            return RunResult.model_validate(cause.details[0])
        raise


async def timeline(client: temporalio.client.Client, run_id: str) -> tuple[Timeline, list[Event]]:
    """Fold a run's history."""
    folded = Timeline(client.data_converter)
    return folded, [event async for line in read(client, run_id) for event in await folded.add(line)]


@asynccontextmanager
async def stage(
    address: str,
    script: Script,
    agents: Iterable[Agent] = (),
    tools: Sequence[Tool[..., Any] | ToolSpec] = (),
    policy_engine: Policy | PolicyEngine | None = None,
    **settings: Any,
) -> AsyncIterator[Stage]:
    """Set a stage: `async with stage(address, script, [agent]) as at: await at.run("name", message="Hello")`."""
    async with ScriptedModel(script) as model:
        known = Settings(
            task_queue=f"test-{uuid.uuid4().hex[:12]}",
            **{"endpoints": endpoints(model.url), "grace_seconds": 1, **settings},
        )
        client = await connect(address)
        async with make_worker(client, HoldfastPlugin(agents, tools, known, policy_engine=policy_engine)):
            yield Stage(client, model, known)
