"""What a run refers to: taken from this process's cache as far as that goes, and asked of the run for the rest."""

from __future__ import annotations

import contextlib
from typing import Any

from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetStickyTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from holdfast import wire
from holdfast.activities.failures import failure
from holdfast.activities.keys import run_key
from holdfast.activities.transcripts import TranscriptCache
from holdfast.agent import Agent
from holdfast.calls import Page, Reading, RunContext


class Memory:
    """The memory of the run that an activity belongs to, for the time of one attempt."""

    def __init__(self, cache: TranscriptCache, client: Client | None = None) -> None:
        info = activity.info()
        self.key = run_key(info)
        self.held = cache.held(self.key)
        self._cache = cache
        self._client = client or activity.client()
        self._run = self._client.get_workflow_handle(self.key[0], run_id=self.key[1])
        self._has_moved_here = info.attempt > 1 and self.held.agent is None

    async def agent(self) -> Agent:
        """Return the agent that the run is pinned to."""
        agent = self.held.agent
        if agent is None:
            agent = self.held.agent = Agent.model_validate(await self._ask(wire.AGENT))
        return agent

    async def context(self) -> RunContext:
        """Return what a tool may know of the run; nothing of a workflow that is none of ours."""
        context = self.held.context
        if context is None:
            ours = activity.info().workflow_type == wire.AGENT_RUN
            context = self.held.context = RunContext.model_validate(await self._ask(wire.CONTEXT) if ours else {})
            self._cache.count(self.key)
        return context

    async def messages(self, call: Reading) -> list[dict[str, Any]]:
        """Return the messages that a call refers to; a retryable failure where the run has others."""
        reference, held = call.transcript, self.held
        pushed = {each.index: each.message for each in call.pushed}
        held.advance(reference, pushed, call.tool_output_max_chars, call.boundary)
        if not held.matches(reference):
            if len(held.messages) >= reference.length:
                held.clear()
            await self._fetch(reference.length)
        if not held.matches(reference):
            held.clear()
            await self._fetch(reference.length)
        if not held.matches(reference):
            held.clear()
            raise failure("TranscriptMismatch", "the run's transcript is not the one referred to", retryable=True)
        return held.messages[: reference.length]

    def replace(self, start: int, *messages: dict[str, Any]) -> None:
        """Hold these messages from `start` on, and no others."""
        if len(self.held.messages) > start:
            self.held.cut_to(start)
        for message in messages:
            self.held.append(message)
        self._cache.count(self.key)

    async def _fetch(self, length: int) -> None:
        """Ask the running workflow for the messages that are missing."""
        start: int | None = len(self.held.messages)
        while start is not None and start < length:
            page = Page.model_validate(await self._ask(wire.TRANSCRIPT, {"start": start, "stop": length}))
            for message in page.messages:
                self.held.append(message)
            start = page.next

    async def _ask(self, query: str, *arguments: dict[str, Any]) -> dict[str, Any]:
        if self._has_moved_here:
            self._has_moved_here = False
            await self._forget_the_dead()
        answer: dict[str, Any] = await self._run.query(query, *arguments, result_type=dict)
        return answer

    async def _forget_the_dead(self) -> None:
        """Let queries go to any worker at once: the server would first wait a second for the one that had the run."""
        request = ResetStickyTaskQueueRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=self.key[0], run_id=self.key[1]),
        )
        with contextlib.suppress(RPCError):  # refused or not, the query comes next, and waits that second
            await self._client.workflow_service.reset_sticky_task_queue(request)
