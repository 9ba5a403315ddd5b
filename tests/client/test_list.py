"""Listing runs, where one run has several rows: it was started again, or continues as new."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.worker import Worker

from holdfast import Agent, AsyncClient, RunSummary
from holdfast.worker.scripted import say
from tests.support.stage import MODEL, Stage, stage

BEGAN = 1_700_000_000.25
"""When these runs began, as the memo of their later links says."""


@workflow.defn(name="AgentRun", sandboxed=False)
class Listed:
    """Continues as new `more` times, and ends as asked for."""

    @workflow.run
    async def run(self, request: dict[str, Any]) -> str:
        if request.get("more"):
            memo = {"holdfast_started_at": BEGAN}
            workflow.continue_as_new({**request, "more": request["more"] - 1}, memo=memo)
        if request.get("stays"):
            await workflow.wait_condition(lambda: False)
        workflow.upsert_search_attributes([SearchAttributeKey.for_keyword("RunStatus").value_set("completed")])
        return "done"


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with (
        stage(address, lambda _: say("Hello.")) as staged,
        Worker(staged.client, task_queue=f"{staged.task_queue}-listed", workflows=[Listed]),
    ):
        await staged.run(Agent(name="first", model=MODEL), message="Hi")  # by now our search attributes are registered
        yield staged


class Thread:
    """Runs of one thread, by which they are listed."""

    def __init__(self, at: Stage) -> None:
        self.temporal: Client = at.client
        self.queue = f"{at.task_queue}-listed"
        self.id = f"thread-{uuid.uuid4().hex[:8]}"
        self.client = AsyncClient(temporal=at.client, task_queue=self.queue)

    async def start(self, run_id: str, *, ends: bool = True, memo: Any = None, **request: Any) -> None:
        names = {"ThreadId": self.id, "AgentName": "listed", "RunStatus": "running"}
        written = [SearchAttributePair(SearchAttributeKey.for_keyword(name), each) for name, each in names.items()]
        handle = await self.temporal.start_workflow(
            "AgentRun",
            request,
            id=run_id,
            task_queue=self.queue,
            search_attributes=TypedSearchAttributes(written),
            memo=memo,
        )
        if ends:
            await handle.result()

    async def listed(self, count: int, **wanted: Any) -> list[RunSummary]:
        """List them once there are so many, as there must be within seconds; visibility is late."""
        found: list[RunSummary] = []
        for _ in range(100):
            found = await self.client.runs.list(thread_id=self.id, **wanted)
            if len(found) == count:
                break
            await asyncio.sleep(0.1)
        assert len(found) == count
        return found


async def test_a_run_of_many_links_is_listed_once_and_as_old_as_it_is(at: Stage) -> None:
    thread = Thread(at)
    await thread.start(f"{thread.id}/ended", more=3)
    await thread.start(f"{thread.id}/open", ends=False, more=2, stays=True)
    both = {each: datetime.fromtimestamp(BEGAN, UTC) for each in (f"{thread.id}/ended", f"{thread.id}/open")}
    async with asyncio.timeout(20):
        while {run.id: run.created_at for run in await thread.listed(2)} != both:
            await asyncio.sleep(0.1)
    assert [run.id for run in await thread.listed(1, status="completed")] == [f"{thread.id}/ended"]
    assert [run.id for run in await thread.listed(1, status="running")] == [f"{thread.id}/open"]
    await at.client.get_workflow_handle(f"{thread.id}/open").terminate()


async def test_a_run_that_was_started_again_is_listed_once_by_how_it_stands_now(at: Stage) -> None:
    thread = Thread(at)
    run_id = f"{thread.id}/it's one"
    for _ in range(4):
        await thread.start(run_id)
    (ended,) = await thread.listed(1, status="completed")
    await thread.start(run_id, ends=False, stays=True, memo={"holdfast_started_at": BEGAN})
    (running,) = await thread.listed(1, status="running")
    assert (ended.id, running.id) == (run_id, run_id)
    assert await thread.listed(0, status="completed") == []
    (latest,) = await thread.listed(1)
    assert latest == running
    assert latest.created_at == datetime.fromtimestamp(BEGAN, UTC)
    await at.client.get_workflow_handle(run_id).terminate()
    await thread.listed(1, status="failed")


async def test_the_limit_counts_runs_and_not_how_often_they_were_started(at: Stage) -> None:
    thread = Thread(at)
    names = [f"{thread.id}/{number}" for number in range(5)]
    for _ in range(3):
        for name in names:
            await thread.start(name)
    async with asyncio.timeout(20):
        while [run.id for run in await thread.listed(5)] != names[::-1]:
            await asyncio.sleep(0.1)
    for limit in (1, 3, 5, 8):
        found = await thread.listed(min(limit, 5), limit=limit)
        assert [run.id for run in found] == names[::-1][:limit]
    assert await thread.client.runs.list(thread_id=thread.id, limit=0) == []


@pytest.mark.parametrize("memo", ["yesterday", None, [], 1e300, True])
async def test_a_memo_that_is_no_time_is_not_believed(at: Stage, memo: Any) -> None:
    thread = Thread(at)
    began = time.time()
    await thread.start(f"{thread.id}/odd", memo={"holdfast_started_at": memo})
    (run,) = await thread.listed(1)
    if memo is not True:
        assert abs(run.created_at.timestamp() - began) < 10
