"""Whether anybody serves a task queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionDescription

from holdfast.client.rpc import describe, translated
from holdfast.errors import NoWorker

T = TypeVar("T")
PATIENCE_SECONDS = 2.0
"""How long nobody may poll a task queue before that is told: a worker that has just started is not seen at once."""
_FRESH = timedelta(seconds=65)
"""A live worker polls anew at least once a minute; the server remembers a dead one for five."""


async def pollers(client: Client, task_queue: str) -> list[str]:
    """Return the identities of the workers that poll a task queue."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    with translated(client):
        answer = await client.workflow_service.describe_task_queue(request, retry=True)
    now = datetime.now(UTC)
    return [each.identity for each in answer.pollers if now - each.last_access_time.ToDatetime(tzinfo=UTC) < _FRESH]


async def expect_worker(client: Client, task_queue: str, run_id: str | None = None) -> None:
    """Return once somebody polls a task queue; NoWorker where nobody has for 2 seconds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while not await pollers(client, task_queue):
        if asyncio.get_running_loop().time() > deadline:
            raise NoWorker(task_queue, run_id)
        await asyncio.sleep(0.1)


async def waits_for_a_worker(client: Client, description: WorkflowExecutionDescription) -> bool:
    """Say whether a run has work that nobody has taken, on a task queue that nobody polls."""
    raw = description.raw_description
    states: Iterable[int] = (each.state for each in raw.pending_activities)
    queued = raw.pending_workflow_task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    queued = queued or PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED in states
    return queued and not await pollers(client, description.task_queue)


async def while_served(client: Client, run_id: str, waiting: asyncio.Future[T], every: float) -> T:
    """Wait for something of a run; NoWorker once it is clear that nobody serves the run, looked at `every` seconds."""
    patience = min(every, PATIENCE_SECONDS)
    waiting.add_done_callback(_looked_at)
    try:
        while not waiting.done():
            await asyncio.wait([waiting], timeout=patience)
            if not waiting.done():
                description = await describe(client, run_id)
                if await waits_for_a_worker(client, description):
                    raise NoWorker(description.task_queue, run_id)
            patience = every
        return waiting.result()
    finally:
        waiting.cancel()


def _looked_at(future: asyncio.Future[T]) -> None:
    """Keep asyncio from logging an error that nobody asks for: `while_served` may have raised another before."""
    if not future.cancelled():
        future.exception()
