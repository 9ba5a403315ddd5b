"""What starts a run: the caller's words as one request, and the workflow that takes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)

from holdfast import ids, wire
from holdfast.agent import Agent
from holdfast.bounds import canonical_json, cut, pairs, summary
from holdfast.client.rpc import translated
from holdfast.client.views import RunSummary
from holdfast.errors import InputInvalid
from holdfast.request import RunRequest

_WORKFLOW_TASK_SECONDS = 4
"""A worker that dies inside a workflow task is noticed after this long; the server's own default is 10 s. Long replays
are safe: the server grants more time on each further attempt."""


@dataclass(frozen=True)
class Start:
    """A run about to be started."""

    run_id: str
    request: RunRequest
    task_queue: str

    @property
    def agent_name(self) -> str:
        """The name that the run is listed under."""
        return self.request.agent if isinstance(self.request.agent, str) else self.request.agent.name

    @property
    def digest(self) -> str:
        """The hash of what is asked for."""
        return hashlib.sha256(canonical_json(self.request.wire()).encode()).hexdigest()

    async def send(self, temporal: Client, *, searchable: bool) -> RunSummary:
        """Start the run; WorkflowAlreadyStartedError for an id that was used before.

        The answer is made here: whoever has started a run must learn its id, whatever the next call would bring.
        """
        with translated(temporal):
            await temporal.start_workflow(
                wire.AGENT_RUN,
                self.request.wire(),
                id=self.run_id,
                task_queue=self.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                task_timeout=timedelta(seconds=_WORKFLOW_TASK_SECONDS),
                search_attributes=TypedSearchAttributes(self._attributes() if searchable else []),
                memo={wire.REQUEST_DIGEST_MEMO: self.digest},
                static_summary=summary(f"{self.agent_name}: {self.request.message or pairs(self.request.input)}"),
                static_details=self._details(),
            )
        return RunSummary(
            id=self.run_id,
            status="pending",
            agent_id=self.agent_name,
            thread_id=self.request.thread_id,
            created_at=datetime.now(UTC),
            task_queue=self.task_queue,
        )

    def _attributes(self) -> list[SearchAttributePair[Any]]:
        written: list[SearchAttributePair[Any]] = [
            SearchAttributePair(SearchAttributeKey.for_keyword("AgentName"), self.agent_name),
            SearchAttributePair(SearchAttributeKey.for_keyword("RunStatus"), "pending"),
        ]
        if self.request.thread_id is not None:
            written.append(SearchAttributePair(SearchAttributeKey.for_keyword("ThreadId"), self.request.thread_id))
        return written

    def _details(self) -> str:
        """Describe what was asked for, in Markdown, for the run's page in the Temporal UI."""
        asked = cut(json.dumps(self.request.input, ensure_ascii=False, indent=2), 4096)
        return f"**{self.agent_name}** {cut(self.request.message or '', 4096)}\n\n```json\n{asked}\n```"


def choose_id(request: RunRequest, run_id: str | None, idempotency_key: str | None) -> str:
    """Return the new run's id: the given one, else the key's, else one that tells the agent's name."""
    if run_id is not None and idempotency_key is not None:
        raise InputInvalid({"idempotency_key": "give a run_id or an idempotency_key, not both"})
    if idempotency_key is not None:
        return ids.run_id_of_key(idempotency_key)
    if run_id is not None:
        return ids.check_id("run_id", run_id)
    return ids.new_run_id(request.agent if isinstance(request.agent, str) else request.agent.name)


def read_request(agent_id: str | None, agent: Agent | Mapping[str, Any] | None, **fields: Any) -> RunRequest:
    """Read what a caller asks for; InputInvalid names every field that is wrong."""
    if (agent_id is None) == (agent is None):
        raise InputInvalid({"agent": "give agent_id, the name of an agent, or a whole agent"})
    given = {name: each for name, each in fields.items() if each is not None}
    return RunRequest.read({"agent": agent_id if agent is None else agent, **given})
