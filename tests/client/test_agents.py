"""Asking workers which agents they know."""

from __future__ import annotations

import time

import pytest
from temporalio import workflow
from temporalio.worker import Worker

from holdfast import Agent, AsyncClient, HoldfastError, NoWorker
from holdfast.client.connect import connect
from holdfast.worker.scripted import say
from tests.support.processes import holdfast
from tests.support.stage import MODEL, stage


@workflow.defn(name="Other", sandboxed=False)
class Other:
    """A workflow of somebody else."""

    @workflow.run
    async def run(self) -> None:
        """Do nothing."""


async def test_agents_are_listed_by_the_worker(address: str) -> None:
    known = Agent(name="known", model=MODEL)
    async with stage(address, lambda request: say("Hello"), [known]) as at:
        [agent] = await AsyncClient(temporal=at.client, task_queue=at.task_queue).agents.list()
    told = {"name": "known", "description": "", "model": MODEL, "tools": [], "revision": known.revision}
    assert agent == told


async def test_a_worker_that_is_not_holdfasts_is_told_in_one_line(address: str) -> None:
    temporal = await connect(address)
    queue = f"other-{time.time_ns()}"
    async with Worker(temporal, task_queue=queue, workflows=[Other]):
        with pytest.raises(HoldfastError, match="no Holdfast worker") as told:
            await AsyncClient(temporal=temporal, task_queue=queue).agents.list()
    assert not isinstance(told.value, NoWorker)
    assert len(str(told.value).splitlines()) == 1


async def test_a_worker_that_is_gone_but_not_forgotten_is_no_worker(address: str) -> None:
    temporal = await connect(address)
    queue = f"gone-{time.time_ns()}"
    async with Worker(temporal, task_queue=queue, workflows=[Other]):
        await temporal.execute_workflow("Other", id=queue, task_queue=queue)
    done = holdfast("--task-queue", queue, "agents", "list", env={"TEMPORAL_ADDRESS": address})
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "no worker polls" in done.stderr
