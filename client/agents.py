"""`AsyncClient.agents`: the agents that workers know."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from temporalio.client import WorkflowFailureError
from temporalio.exceptions import TimeoutError as WorkflowTimeout

from holdfast import wire
from holdfast.client.presence import expect_worker
from holdfast.client.rpc import translated
from holdfast.errors import HoldfastError, NoWorker

if TYPE_CHECKING:
    from holdfast.client.runs import AsyncClient

_ANSWER_SECONDS = 10
_UNTOUCHED = 3
"""Events of a workflow that timed out before any worker took it: started, task scheduled, timed out."""


class AsyncAgents:
    """The agents that workers know."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self) -> list[dict[str, Any]]:
        """Ask a worker of the task queue which agents it knows.

        NoWorker where none polls, HoldfastError where what polls is no Holdfast worker.
        """
        temporal = await self._client.temporal()
        queue = self._client.task_queue
        await expect_worker(temporal, queue)
        with translated(temporal):
            asked = await temporal.start_workflow(
                wire.AGENT_LIST,
                id=f"agent-list-{uuid.uuid4().hex[:12]}",
                task_queue=queue,
                execution_timeout=timedelta(seconds=_ANSWER_SECONDS),
            )
            try:
                agents: list[dict[str, Any]] = await asked.result()
            except WorkflowFailureError as error:
                if not isinstance(error.cause, WorkflowTimeout):
                    raise HoldfastError(f"the worker of task queue {queue!r} can't list: {error.cause}") from None
                if (await asked.describe()).history_length <= _UNTOUCHED:
                    raise NoWorker(queue) from None
                raise HoldfastError(
                    f"what polls task queue {queue!r} is no Holdfast worker, or a stuck one: "
                    f"start one with 'holdfast worker FILE', or name another queue"
                ) from None
        return agents
