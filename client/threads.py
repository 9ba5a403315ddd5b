"""`AsyncClient.threads`: the conversations that several runs share."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError

from holdfast import ids, wire
from holdfast.calls import Page
from holdfast.client.presence import PATIENCE_SECONDS, pollers
from holdfast.client.rpc import translated
from holdfast.data import Data
from holdfast.errors import HoldfastError, NoWorker, RunNotFound, ThreadNotFound
from holdfast.message import Message, Usage
from holdfast.threads import CompactThread

if TYPE_CHECKING:
    from holdfast.client.runs import AsyncClient

T = TypeVar("T")
_QUERY = timedelta(seconds=15)
_ATTEMPTS = 20
_PATIENCE = 8
"""Attempts that wait for what a run has said that has just ended."""
_REST_SECONDS = 0.25
_COMPACT_SECONDS = 600.0
"""How long a compaction may take, with all attempts of a slow model."""
_LOOK_SECONDS = 10.0
"""Between two looks, meanwhile, whether somebody still serves the thread."""


class ThreadSummary(Data):
    """What the server says of a thread at once, with no worker up."""

    id: str
    created_at: datetime
    task_queue: str = ""


class Thread(ThreadSummary):
    """A thread with all that it remembers."""

    messages: list[Message] = Field(default_factory=list)
    holder: str | None = None
    """The run whose turn it is."""
    queue: list[str] = Field(default_factory=list)
    """The runs that wait for theirs, in their order."""
    runs: int = 0
    """Those that have had their turn and ended."""
    model: str | None = None
    """What the thread is compacted with, unless another model is named."""
    usage: Usage = Field(default_factory=Usage)
    """What its own compactions took."""


class Compaction(Data):
    """What a compaction of a thread has done."""

    messages: int
    messages_after: int
    summary: str
    model: str = ""
    usage: Usage = Field(default_factory=Usage)


class AsyncThreads:
    """The threads of a namespace; a thread begins with the first run that names it."""

    def __init__(self, client: AsyncClient, patience: float = _COMPACT_SECONDS) -> None:
        self._client = client
        self._patience = patience

    async def get(self, thread_id: str) -> Thread:
        """Return a thread as it stands. ThreadNotFound for an unknown one, NoWorker where nobody serves it."""
        temporal = await self._client.temporal()
        handle, found = await _served(temporal, thread_id)
        known = await _summary(found)
        for attempt in range(_ATTEMPTS):
            try:
                with translated(temporal, handle.id):
                    status = await handle.query(wire.STATUS, result_type=dict, rpc_timeout=_QUERY)
                    if status["leaving"] and attempt < _PATIENCE:
                        await asyncio.sleep(_REST_SECONDS)
                        continue
                    messages = await _messages(handle, status.pop("messages"), status.pop("digest"))
            except RunNotFound:
                raise ThreadNotFound(thread_id) from None
            except WorkflowQueryFailedError:  # it changed meanwhile, or has just continued as new
                await asyncio.sleep(_REST_SECONDS)
                continue
            return Thread.recorded({**status, **known.model_dump(), "messages": messages})
        raise HoldfastError(f"thread {thread_id!r} changes faster than it can be read")

    async def list(self, limit: int = 100) -> list[ThreadSummary]:
        """Return at most `limit` threads, latest first; a new one takes up to a second to be listed."""
        temporal = await self._client.temporal()
        query = f"WorkflowType = '{wire.AGENT_THREAD}' AND ExecutionStatus = 'Running'"
        with translated(temporal):
            found = [await _summary(each) async for each in temporal.list_workflows(query, limit=limit)]
        return sorted(found, key=lambda thread: thread.created_at, reverse=True)

    async def compact(self, thread_id: str, model: str | None = None, *, keep_tokens: int = 0) -> Compaction:
        """Have a model summarise all but the last exchange and the latest `keep_tokens`; that of the last run does.

        HoldfastError, which says why, where nothing was done: there are not two turns, no model is known, or its call
        failed; or where no answer has come for ten minutes: it may be done yet. A run that has its turn is not
        disturbed. ThreadNotFound, NoWorker.
        """
        asked = CompactThread.read({"model": model, "keep_tokens": keep_tokens})
        temporal = await self._client.temporal()
        handle, found = await _served(temporal, thread_id)
        asking = asyncio.ensure_future(handle.execute_update(wire.COMPACT, asked.wire(), result_type=dict))
        try:
            with translated(temporal, handle.id):
                done = await _while_polled(temporal, found.task_queue, asking, self._patience)
        except RunNotFound:
            raise ThreadNotFound(thread_id) from None
        except WorkflowUpdateFailedError as error:
            told = error.cause.message if isinstance(error.cause, ApplicationError) else str(error.cause)
            raise HoldfastError(f"thread {thread_id!r} was not compacted: {told}") from None
        except TimeoutError:
            told = f"within {self._patience:,.0f} s, and may be compacted yet"
            raise HoldfastError(f"thread {thread_id!r} was not compacted {told}") from None
        return Compaction.recorded(done)

    async def delete(self, thread_id: str) -> None:
        """Delete a thread and all that it remembers; its runs stay. ThreadNotFound for an unknown one.

        A run that has its turn goes on; those that wait begin the thread anew, within the hour.
        """
        temporal = await self._client.temporal()
        handle, _ = await _open(temporal, thread_id)
        try:
            with translated(temporal, handle.id):
                await handle.terminate(reason="the thread was deleted")
        except RunNotFound:
            raise ThreadNotFound(thread_id) from None


async def _open(temporal: Client, thread_id: str) -> tuple[WorkflowHandle[Any, Any], WorkflowExecutionDescription]:
    handle: WorkflowHandle[Any, Any] = temporal.get_workflow_handle(ids.thread_workflow_id(thread_id))
    try:
        with translated(temporal, handle.id):
            found = await handle.describe()
    except RunNotFound:
        raise ThreadNotFound(thread_id) from None
    if found.workflow_type != wire.AGENT_THREAD or found.status != WorkflowExecutionStatus.RUNNING:
        raise ThreadNotFound(thread_id)
    return handle, found


async def _served(temporal: Client, thread_id: str) -> tuple[WorkflowHandle[Any, Any], WorkflowExecutionDescription]:
    """Return an open thread that a worker serves: a call to another would hang."""
    handle, found = await _open(temporal, thread_id)
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while not await pollers(temporal, found.task_queue):
        if asyncio.get_running_loop().time() > deadline:
            raise NoWorker(found.task_queue)
        await asyncio.sleep(_REST_SECONDS)
    return handle, found


async def _while_polled(temporal: Client, task_queue: str, asking: asyncio.Future[T], seconds: float) -> T:
    """Wait for an answer; NoWorker once nobody polls the thread's queue any more, TimeoutError after so long."""
    try:
        async with asyncio.timeout(seconds):
            while not (await asyncio.wait([asking], timeout=min(_LOOK_SECONDS, seconds)))[0]:
                if not await pollers(temporal, task_queue):
                    raise NoWorker(task_queue)
            return await asking
    finally:
        asking.cancel()


async def _summary(execution: Any) -> ThreadSummary:
    memo = await execution.memo()
    began = memo.get(wire.STARTED_AT_MEMO)
    return ThreadSummary(
        id=execution.id.removeprefix(ids.THREAD_PREFIX),
        created_at=execution.start_time if began is None else datetime.fromtimestamp(began, UTC),
        task_queue=execution.task_queue,
    )


async def _messages(handle: WorkflowHandle[Any, Any], length: int, digest: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    start: int | None = 0
    while start is not None and start < length:
        span = {"start": start, "stop": length, "digest": digest}
        page = Page.model_validate(await handle.query(wire.TRANSCRIPT, span, result_type=dict, rpc_timeout=_QUERY))
        messages += page.messages
        start = page.next
    return messages
