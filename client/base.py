"""What every call on a run stands on: the connection, and what the server says of a run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from temporalio.client import WorkflowExecutionDescription
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from holdfast import wire
from holdfast.client.rpc import describe, translated
from holdfast.client.start import Start
from holdfast.client.views import RunSummary, summarize, summarize_run
from holdfast.data import Data
from holdfast.errors import IdempotencyConflict, RunExists, RunNotFound

if TYPE_CHECKING:
    from holdfast.client.runs import AsyncClient

T = TypeVar("T")
_ATTEMPTS = 10
"""Of a signal that meets a run which ends and is started again meanwhile."""


class RunCalls:
    """The groups of calls that make up `AsyncRuns` derive from this."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._searchable = True

    async def _describe(self, run_id: str) -> WorkflowExecutionDescription:
        return await describe(await self._client.temporal(), run_id)

    async def _create(self, start: Start, idempotency_key: str | None) -> RunSummary:
        """Start a run under an id of its own; the same key is the same run."""
        temporal = await self._client.temporal()
        try:
            return await self._started(lambda searchable: start.send(temporal, searchable=searchable))
        except WorkflowAlreadyStartedError:
            if idempotency_key is None:
                raise RunExists(start.run_id) from None
        description = await self._describe(start.run_id)
        if (await description.memo()).get(wire.REQUEST_DIGEST_MEMO) != start.digest:
            raise IdempotencyConflict(idempotency_key, start.run_id)
        return await summarize_run(description)

    async def _started(self, send: Callable[[bool], Awaitable[T]]) -> T:
        """Start something with our search attributes, or without them where the server lacks them."""
        try:
            return await send(self._searchable)
        except RPCError as error:
            if not self._searchable or "search attribute" not in str(error).lower():
                raise
            self._searchable = False  # a worker may not have come up yet to register them
            return await send(False)

    async def _signal(self, run_id: str, name: str, argument: Data) -> WorkflowExecutionDescription | None:
        """Send a signal to a live run; returns the description of one that has ended instead."""
        temporal = await self._client.temporal()
        for attempt in range(_ATTEMPTS):
            description = await self._describe(run_id)
            if summarize(description).closed:
                return description
            try:
                with translated(temporal, run_id):
                    await temporal.get_workflow_handle(run_id).signal(name, argument.wire())
                return None
            except RunNotFound:  # it may have ended meanwhile, and have been started again
                if attempt + 1 == _ATTEMPTS:
                    raise
        return None
