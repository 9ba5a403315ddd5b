"""Whether anybody serves a task queue."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionDescription

_FRESH = timedelta(seconds=65)
"""A live worker polls anew at least once a minute; the server remembers a dead one for five."""


async def pollers(client: Client, task_queue: str) -> list[str]:
    """Return the identities of the workers that poll a task queue."""
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    now = datetime.now(UTC)
    return [each.identity for each in answer.pollers if now - each.last_access_time.ToDatetime(tzinfo=UTC) < _FRESH]


async def waits_for_a_worker(client: Client, description: WorkflowExecutionDescription) -> bool:
    """Say whether a run has work that nobody has taken, on a task queue that nobody polls."""
    raw = description.raw_description
    states: Iterable[int] = (each.state for each in raw.pending_activities)
    queued = raw.pending_workflow_task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    queued = queued or PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED in states
    return queued and not await pollers(client, description.task_queue)
