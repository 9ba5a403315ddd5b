"""`AsyncClient`: start runs, follow them, steer them. The sync `Client` is a thin portal over this."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import temporalio.client
from pydantic import ValidationError
from temporalio.client import WorkflowExecutionDescription, WorkflowHandle
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from holdfast import ids, wire
from holdfast.agent import Agent
from holdfast.bounds import canonical_json, cut, pairs, summary
from holdfast.client.connect import connect
from holdfast.client.history import not_found, read
from holdfast.client.presence import pollers, waits_for_a_worker
from holdfast.client.timeline import Timeline
from holdfast.client.views import Run, RunSummary, complete, is_unclear, summarize
from holdfast.errors import (
    HoldfastError,
    IdempotencyConflict,
    InputInvalid,
    NoWorker,
    RunClosed,
    RunExists,
    field_errors,
)
from holdfast.event import Event
from holdfast.run import RunRequest, RunResult, UserMessage

T = TypeVar("T")
_WORKFLOW_TASK_SECONDS = 4
"""A worker that dies inside a workflow task is noticed after this long; the server's own default is 10 s. Long replays
are safe: the server grants more time on each further attempt."""
_PATIENCE_SECONDS = 2.0


class AsyncClient:
    """A caller's view of Holdfast; connects when it is first used.

    `address`, `namespace` and `api_key` (Temporal's, over TLS) default to the TEMPORAL_* environment or profile, else
    localhost:7233; `task_queue` to HOLDFAST_TASK_QUEUE, else "holdfast". `temporal` takes a connected Temporal client
    instead.
    """

    def __init__(
        self,
        address: str | None = None,
        namespace: str | None = None,
        *,
        api_key: str | None = None,
        task_queue: str | None = None,
        temporal: temporalio.client.Client | None = None,
    ) -> None:
        self.task_queue = task_queue or os.environ.get("HOLDFAST_TASK_QUEUE") or wire.TASK_QUEUE
        self.runs = AsyncRuns(self)
        self.agents = AsyncAgents(self)
        self._connect = partial(connect, address, namespace, api_key=api_key)
        self._temporal = temporal
        self._connecting = asyncio.Lock()

    async def temporal(self) -> temporalio.client.Client:
        """Return the Temporal client; ServerUnavailable within 3 seconds where no server answers."""
        async with self._connecting:
            if self._temporal is None:
                self._temporal = await self._connect()
            return self._temporal


class AsyncRuns:
    """The runs of a namespace."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._searchable = True

    async def create(
        self,
        agent_id: str | None = None,
        *,
        agent: Agent | Mapping[str, Any] | None = None,
        input: Mapping[str, Any] | None = None,
        message: str | None = None,
        thread_id: str | None = None,
        revision: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> RunSummary:
        """Start a run of a named agent, or of a whole one, and return at once; without a worker it waits, `pending`.

        The same idempotency key returns the same run, also after it closed (as long as the server retains it), and
        raises IdempotencyConflict for another request. A run id that was used before raises RunExists. InputInvalid
        names every field that is wrong.
        """
        request = _request(agent_id, agent, input, message, thread_id, revision, metadata)
        if run_id is not None and idempotency_key is not None:
            raise InputInvalid({"idempotency_key": "give a run_id or an idempotency_key, not both"})
        name = request.agent if isinstance(request.agent, str) else request.agent.name
        if idempotency_key is not None:
            chosen = ids.run_id_of_key(idempotency_key)
        else:
            chosen = ids.new_run_id(name) if run_id is None else ids.check_id("run_id", run_id)
        digest = hashlib.sha256(canonical_json(request.wire()).encode()).hexdigest()
        temporal = await self._client.temporal()
        try:
            await self._start(temporal, chosen, request, name, digest)
        except WorkflowAlreadyStartedError:
            if idempotency_key is None:
                raise RunExists(chosen) from None
            description = await self._describe(chosen)
            if (await description.memo()).get(wire.REQUEST_DIGEST_MEMO) != digest:
                raise IdempotencyConflict(idempotency_key, chosen) from None
            return summarize(description)
        found = summarize(await self._describe(chosen))
        return found if found.agent_id else found.model_copy(update={"agent_id": name})

    async def status(self, run_id: str) -> RunSummary:
        """Return what the server says at once, in milliseconds and with no worker up. RunNotFound for an unknown id."""
        return summarize(await self._describe(run_id))

    async def get(self, run_id: str) -> Run:
        """Return a run with its messages and logs, read from its history. RunNotFound for an unknown id."""
        temporal = await self._client.temporal()
        description = await self._describe(run_id)
        folded = Timeline(temporal.data_converter)
        events = [event async for line in read(temporal, run_id) for event in await folded.add(line)]
        return complete(summarize(description), folded, events)

    async def result(self, run_id: str) -> RunResult | None:
        """Return a closed run's result, None for one that is still open."""
        return (await self.get(run_id)).result

    async def wait(self, run_id: str, timeout: float | None = None, poll_interval: float = 2.0) -> Run:
        """Wait until a run has closed, and return it.

        The end is told at once, by long poll; `poll_interval` (seconds) is how often it is checked that a worker serves
        the run. TimeoutError after `timeout` seconds, NoWorker where nobody polls the run's task queue.
        """
        temporal = await self._client.temporal()
        await self._describe(run_id)
        closing = asyncio.ensure_future(_closed(temporal.get_workflow_handle(run_id)))
        try:
            async with asyncio.timeout(timeout):
                await self._served(run_id, closing, poll_interval)
        except TimeoutError:
            status = (await self.status(run_id)).status
            raise TimeoutError(f"run {run_id!r} has not ended within {timeout:g} s: it is {status}") from None
        finally:
            closing.cancel()
        return await self.get(run_id)

    async def stream_events(self, run_id: str, *, after: str | None = None) -> AsyncIterator[Event]:
        """Yield a run's events from the first (or the one after the cursor `after`), live, until the run has ended.

        A cursor is an event's id; InputInvalid for one that is none of this run's. The last event is the only terminal
        one. NoWorker where the run waits and nobody polls its task queue.
        """
        temporal = await self._client.temporal()
        folded = Timeline(temporal.data_converter)
        lines = read(temporal, run_id, live=True)
        skipping = after is not None
        while True:
            following = asyncio.ensure_future(anext(lines, None))
            try:
                line = await self._served(run_id, following, _PATIENCE_SECONDS)
            finally:
                following.cancel()
            if line is None:
                break
            for event in await folded.add(line):
                if not skipping:
                    yield event
                skipping = skipping and event.id != after
        if skipping:
            raise InputInvalid({"after": f"{after!r} is not a cursor of run {run_id!r}"})

    async def append_message(self, run_id: str, text: str, *, id: str | None = None) -> str:
        """Send a follow-up message, which the model sees at its next step; returns its id.

        The same id twice counts once: give one to be able to repeat a call whose outcome is unknown. RunClosed for a
        run that has ended, RunNotFound for an unknown one, InputInvalid for a text over 256 KB.
        """
        try:
            message = UserMessage(text=text, id=id or uuid.uuid4().hex)
        except ValidationError as error:
            raise InputInvalid(field_errors(error)) from None
        handle = (await self._client.temporal()).get_workflow_handle(run_id)
        try:
            await handle.signal(wire.APPEND_MESSAGE, message.wire())
        except RPCError as error:
            found = await self._describe(run_id)
            if summarize(found).closed:
                raise RunClosed(run_id, summarize(found).status) from None
            raise not_found(error, run_id) from None
        return str(message.id)

    async def cancel(self, run_id: str) -> None:
        """Ask a run to stop: its model call and tools are stopped first. Nothing happens to one that has ended."""
        handle = (await self._client.temporal()).get_workflow_handle(run_id)
        try:
            await handle.cancel()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND or not summarize(await self._describe(run_id)).closed:
                raise not_found(error, run_id) from None

    async def list(
        self,
        agent_id: str | None = None,
        *,
        status: str | None = None,
        thread_id: str | None = None,
        limit: int = 100,
    ) -> list[RunSummary]:
        """Return at most `limit` runs, the open and the last closed ones, latest first.

        A new run takes up to a second to be listed.
        """
        terms = [f"WorkflowType = '{wire.AGENT_RUN}'"]
        wanted = {"AgentName": agent_id, "RunStatus": status, "ThreadId": thread_id}
        terms += [f"{name} = '{_quoted(value)}'" for name, value in wanted.items() if value is not None]
        temporal = await self._client.temporal()
        found = []
        try:
            async for execution in temporal.list_workflows(" AND ".join(terms), limit=limit):
                unclear = is_unclear(execution)
                found.append(summarize(await self._describe(execution.id) if unclear else execution))
        except RPCError as error:
            if error.status != RPCStatusCode.INVALID_ARGUMENT:
                raise
            raise HoldfastError(f"the server can't search for this: {error.message}; run 'holdfast setup'") from None
        return sorted(found, key=lambda run: run.created_at, reverse=True)

    async def _start(
        self, temporal: temporalio.client.Client, run_id: str, request: RunRequest, name: str, digest: str
    ) -> None:
        written: list[SearchAttributePair[Any]] = [
            SearchAttributePair(SearchAttributeKey.for_keyword("AgentName"), name),
            SearchAttributePair(SearchAttributeKey.for_keyword("RunStatus"), "pending"),
        ]
        if request.thread_id is not None:
            written.append(SearchAttributePair(SearchAttributeKey.for_keyword("ThreadId"), request.thread_id))
        attributes = TypedSearchAttributes(written if self._searchable else [])
        try:
            await temporal.start_workflow(
                wire.AGENT_RUN,
                request.wire(),
                id=run_id,
                task_queue=self._client.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                task_timeout=timedelta(seconds=_WORKFLOW_TASK_SECONDS),
                search_attributes=attributes,
                memo={wire.REQUEST_DIGEST_MEMO: digest},
                static_summary=summary(f"{name}: {request.message or pairs(request.input)}"),
                static_details=_details(name, request),
            )
        except RPCError as error:
            if not self._searchable or "search attribute" not in str(error).lower():
                raise
            self._searchable = False  # the server lacks ours, and a worker may not have come up yet to register them
            await self._start(temporal, run_id, request, name, digest)

    async def _describe(self, run_id: str) -> WorkflowExecutionDescription:
        temporal = await self._client.temporal()
        try:
            return await temporal.get_workflow_handle(run_id).describe()
        except RPCError as error:
            raise not_found(error, run_id) from None

    async def _served(self, run_id: str, waiting: asyncio.Future[T], every: float) -> T:
        """Wait for something of a run; NoWorker once it is clear that nobody serves the run."""
        patience = min(every, _PATIENCE_SECONDS)
        while not waiting.done():
            await asyncio.wait([waiting], timeout=patience)
            if not waiting.done():
                temporal = await self._client.temporal()
                description = await self._describe(run_id)
                if await waits_for_a_worker(temporal, description):
                    raise NoWorker(description.task_queue, run_id)
            patience = every
        return waiting.result()


class AsyncAgents:
    """The agents that workers know."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self) -> list[dict[str, Any]]:
        """Ask a worker of the task queue which agents it knows; NoWorker where none polls."""
        temporal = await self._client.temporal()
        queue = self._client.task_queue
        deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        while not await pollers(temporal, queue):  # a worker that has just started is not seen at once
            if asyncio.get_running_loop().time() > deadline:
                raise NoWorker(queue)
            await asyncio.sleep(0.1)
        run_id = f"agent-list-{uuid.uuid4().hex[:12]}"
        timeout = timedelta(seconds=10)
        asked = temporal.execute_workflow(wire.AGENT_LIST, id=run_id, task_queue=queue, execution_timeout=timeout)
        try:
            agents: list[dict[str, Any]] = await asyncio.wait_for(asked, 10)
        except TimeoutError:
            raise NoWorker(queue) from None
        return agents


async def _closed(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait, by long poll, until a run has closed in whatever way."""
    try:
        await handle.result()
    except temporalio.client.WorkflowFailureError:
        return


def _details(name: str, request: RunRequest) -> str:
    """Describe what was asked for, in Markdown, for the run's page in the Temporal UI."""
    asked = cut(json.dumps(request.input, ensure_ascii=False, indent=2), 4096)
    return f"**{name}** {cut(request.message or '', 4096)}\n\n```json\n{asked}\n```"


def _request(
    agent_id: str | None,
    agent: Agent | Mapping[str, Any] | None,
    given: Mapping[str, Any] | None,
    message: str | None,
    thread_id: str | None,
    revision: str | None,
    metadata: Mapping[str, Any] | None,
) -> RunRequest:
    if (agent_id is None) == (agent is None):
        raise InputInvalid({"agent": "give agent_id, the name of an agent, or a whole agent"})
    fields = {"input": given, "message": message, "thread_id": thread_id, "revision": revision, "metadata": metadata}
    chosen = agent_id if agent is None else agent
    return RunRequest.read({"agent": chosen, **{name: each for name, each in fields.items() if each is not None}})


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
