"""`AsyncClient`: start runs, follow them, steer them. The sync `Client` is a thin portal over this."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import temporalio.client
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from holdfast import wire
from holdfast.agent import Agent, InteractionMode
from holdfast.client.agents import AsyncAgents
from holdfast.client.connect import connect
from holdfast.client.diff import RunDiff, compare
from holdfast.client.fork import fork_of
from holdfast.client.history import read
from holdfast.client.presence import while_served
from holdfast.client.query import list_runs, runs_query
from holdfast.client.restart import RestartCalls
from holdfast.client.rpc import translated
from holdfast.client.start import Start, choose_id, read_request, read_share
from holdfast.client.steer import SteeringCalls
from holdfast.client.stream import stream
from holdfast.client.threads import AsyncThreads
from holdfast.client.timeline import Timeline
from holdfast.client.views import Run, RunSummary, complete, is_unclear, retries, summarize_run
from holdfast.content import Said
from holdfast.errors import HoldfastError
from holdfast.event import Event
from holdfast.run import RunResult


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
        self.threads = AsyncThreads(self)
        self._connect = partial(connect, address, namespace, api_key=api_key)
        self._temporal = temporal
        self._connecting = asyncio.Lock()

    async def temporal(self) -> temporalio.client.Client:
        """Return the Temporal client; ServerUnavailable within 3 seconds where no server answers."""
        async with self._connecting:
            if self._temporal is None:
                self._temporal = await self._connect()
            return self._temporal


class AsyncRuns(SteeringCalls, RestartCalls):
    """The runs of a namespace."""

    async def create(
        self,
        agent_id: str | None = None,
        *,
        agent: Agent | Mapping[str, Any] | None = None,
        input: Mapping[str, Any] | None = None,
        message: Said | None = None,
        thread_id: str | None = None,
        revision: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        interaction_mode: InteractionMode | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        priority: int | None = None,
        fairness_key: str | None = None,
        fairness_weight: float | None = None,
    ) -> RunSummary:
        """Start a run of a named agent, or of a whole one, and return at once; without a worker it waits, `pending`.

        The same idempotency key returns the same run, also after it closed (as long as the server retains it), and
        raises IdempotencyConflict for another request. A run id that was used before raises RunExists. InputInvalid
        names every field that is wrong. `interaction_mode` says whether somebody is there to approve and to answer, in
        place of the agent's own word. Where calls wait for their turn, `priority` 1 (to 5) goes first, and runs of
        different fairness keys (a tenant's name, say) get turns in proportion to their weights.
        """
        share = read_share(priority, fairness_key, fairness_weight)
        request = read_request(
            agent_id,
            agent,
            input=input,
            message=message,
            thread_id=thread_id,
            revision=revision,
            metadata=metadata,
            interaction_mode=interaction_mode,
        )
        chosen = choose_id(request, run_id, idempotency_key)
        start = Start(chosen, request, self._client.task_queue, priority=share)
        return await self._create(start, idempotency_key)

    async def status(self, run_id: str) -> RunSummary:
        """Return what the server says at once, in milliseconds and with no worker up. RunNotFound for an unknown id."""
        return await summarize_run(await self._describe(run_id))

    async def get(self, run_id: str) -> Run:
        """Return a run with its messages and logs, read from its history. RunNotFound for an unknown id."""
        temporal = await self._client.temporal()
        description = await self._describe(run_id)
        folded = Timeline(temporal.data_converter)
        events = [event async for line in read(temporal, run_id) for event in await folded.add(line)]
        run = complete(await summarize_run(description), folded, events)
        return run.model_copy(update={"retries": retries(description)})

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
        try:
            async with asyncio.timeout(timeout):
                closed = False
                while not closed:  # a reset closes a link, but not the run
                    closing = asyncio.ensure_future(_closed(temporal, run_id))
                    await while_served(temporal, run_id, closing, poll_interval)
                    closed = (await self.status(run_id)).closed
        except TimeoutError:
            status = (await self.status(run_id)).status
            raise TimeoutError(f"run {run_id!r} has not ended within {timeout:g} s: it is {status}") from None
        return await self.get(run_id)

    async def stream_events(
        self, run_id: str, *, after: str | None = None, deltas: bool = False
    ) -> AsyncIterator[Event]:
        """Yield a run's events from the first (or the one after the cursor `after`), live, until the run has ended.

        A cursor is an event's id; InputInvalid for one that is none of this run's, or whose history was deleted. The
        last event is the only terminal one. With `deltas`, a model's text comes as `text_delta` events as well, while
        it grows. NoWorker where the run waits and nobody polls its task queue.
        """
        events = stream(await self._client.temporal(), run_id, after, deltas=deltas)
        async with aclosing(events):
            async for event in events:
                yield event

    async def fork(
        self,
        run_id: str,
        at_step: int | None = None,
        message: Said | None = None,
        agent: str | Agent | Mapping[str, Any] | None = None,
        *,
        new_run_id: str | None = None,
        idempotency_key: str | None = None,
        thread_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RunSummary:
        """Start a new run from a run's first steps, on its task queue; nothing before the fork is called again.

        `at_step` is the first step that is taken anew; None keeps them all, and then a `message` must say what to do
        next. `agent`, a name or a whole one, takes the place of the run's own. InputInvalid for a step that the run has
        not, and for one in the part of a run that is still under way; RunNotFound, RunExists, IdempotencyConflict.
        """
        temporal, run = await self._client.temporal(), await self.get(run_id)
        request = await fork_of(
            temporal, run, at_step, message=message, agent=agent, thread_id=thread_id, metadata=metadata
        )
        start = Start(choose_id(request, new_run_id, idempotency_key), request, run.task_queue)
        return await self._create(start, idempotency_key)

    async def diff(self, run_a: str, run_b: str) -> RunDiff:
        """Set two runs side by side, step by step. RunNotFound for an unknown one."""
        return compare(await self.get(run_a), await self.get(run_b))

    async def list(
        self,
        agent_id: str | None = None,
        *,
        status: str | None = None,
        thread_id: str | None = None,
        parent_id: str | None = None,
        subagents: bool = True,
        limit: int = 100,
    ) -> list[RunSummary]:
        """Return at most `limit` runs, the open and the last closed ones, latest first; each run once, as it stands.

        `parent_id` wants only the subagents' runs that this run has called; `subagents=False` leaves out all of them.
        A new run takes up to a second to be listed. InputInvalid for a status that no run can have.
        """
        query = runs_query(agent_id, status, thread_id, parent_id, subagents=subagents)
        temporal = await self._client.temporal()
        found = []
        try:
            with translated(temporal):
                async for execution in list_runs(temporal, query, limit):
                    unclear = is_unclear(execution)
                    found.append(await summarize_run(await self._describe(execution.id) if unclear else execution))
        except RPCError as error:
            if error.status != RPCStatusCode.INVALID_ARGUMENT:
                raise
            raise HoldfastError(f"the server can't search for this: {error.message}; run 'holdfast setup'") from None
        return sorted(found, key=lambda run: run.created_at, reverse=True)


async def _closed(temporal: temporalio.client.Client, run_id: str) -> None:
    """Wait, by long poll, until a run has closed in whatever way."""
    handle: WorkflowHandle[Any, Any] = temporal.get_workflow_handle(run_id)
    try:
        with translated(temporal, run_id):
            await handle.result()
    except temporalio.client.WorkflowFailureError:
        return
