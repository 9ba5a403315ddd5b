"""Histories that another version has written: told as such, never as a bare error."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType as Kind
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from holdfast import Agent, AsyncClient, HoldfastError
from holdfast.client.history import Line
from holdfast.client.timeline import Timeline
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import say
from tests.support.stage import MODEL, stage

HISTORY = Path(__file__).parent.parent / "histories" / "approved.json"


@workflow.defn(name="AgentRun", sandboxed=False)
class Stranger:
    """Ends as no run of ours does."""

    @workflow.run
    async def run(self, request: dict[str, str]) -> dict[str, int]:
        return {"steps": -1, "verdict": 7}


async def test_a_history_with_something_missing_is_of_another_version() -> None:
    history = WorkflowHistory.from_json("run-1", HISTORY.read_text())
    folded = Timeline(pydantic_data_converter)

    async def fold() -> None:
        for event in history.events:
            if event.event_type != Kind.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                await folded.add(Line("link-1", event))

    with pytest.raises(HoldfastError, match=r"^the history of run '.*' is of another version at event \d+$"):
        await fold()


async def test_a_run_of_another_version_is_told_as_such_and_can_not_go_on(address: str) -> None:
    agent = Agent(name="known", model=MODEL)
    async with stage(address, lambda _: say("Hello"), [agent]) as at:
        queue = f"strange-{time.time_ns()}"
        client = AsyncClient(temporal=at.client, task_queue=queue)
        run = await client.runs.create("known", message="Hello")
        async with Worker(at.client, task_queue=queue, workflows=[Stranger]):
            await at.client.get_workflow_handle(run.id).result()
        for each in (client.runs.get(run.id), client.runs.resume_run(run.id)):
            with pytest.raises(HoldfastError, match="of another version at event"):
                await each
        await client.runs.append_message(run.id, "Go on")
        async with make_worker(at.client, HoldfastPlugin([agent], settings=at.settings), task_queue=queue):
            with pytest.raises(HoldfastError, match="of another version at event"):
                await client.runs.wait(run.id, timeout=30)
        failed = await client.runs.status(run.id)
        assert failed.status == "failed", "it is not tried for ever"
