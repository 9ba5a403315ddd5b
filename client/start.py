"""What starts a run: the caller's words as one request, and the workflow that takes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.converter import WorkflowSerializationContext, encode_search_attributes

from holdfast import ids, wire
from holdfast.agent import Agent
from holdfast.bounds import canonical_json, cut, pairs, summary
from holdfast.client.rpc import translated
from holdfast.client.views import RunSummary
from holdfast.content import text_of
from holdfast.errors import InputInvalid
from holdfast.request import RunRequest
from holdfast.workflows.options import WORKFLOW_TASK_SECONDS

_FAIRNESS_KEY_MAX_BYTES = 64
_WORKFLOW_TASK = timedelta(seconds=WORKFLOW_TASK_SECONDS)


@dataclass(frozen=True)
class Start:
    """A run about to be started."""

    run_id: str
    request: RunRequest
    task_queue: str
    memo: Mapping[str, Any] = field(default_factory=dict)
    """Of a run that starts again; that of a new one is its request's digest."""
    priority: Priority = Priority.default
    """Its share of the queues where its tasks and calls wait."""

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
        message = None if self.request.message is None else text_of(self.request.message)
        with translated(temporal):
            await temporal.start_workflow(
                wire.AGENT_RUN,
                self.request.wire(),
                id=self.run_id,
                task_queue=self.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                task_timeout=_WORKFLOW_TASK,
                search_attributes=self._attributes(searchable),
                memo={wire.REQUEST_DIGEST_MEMO: self.digest},
                static_summary=self._summary(message),
                static_details=self._details(message),
                priority=self.priority,
            )
        return RunSummary(
            id=self.run_id,
            status="pending",
            agent_id=self.agent_name,
            thread_id=self.request.thread_id,
            created_at=datetime.now(UTC),
            task_queue=self.task_queue,
        )

    async def send_once(self, temporal: Client, *, searchable: bool) -> str:
        """Start a closed run again, once after each of its links; returns Temporal's own run id of what goes on.

        All callers send the same request id, made of the link that they go on from, and the server answers a repeated
        one with the execution that the first has started, also when that has closed meanwhile. It knows those of the
        run's last execution only: look that the link is still the last one right before this. The SDK's own start takes
        no request id: hence the bare call.
        """
        assert self.request.after is not None
        link = self.request.after.run
        context = WorkflowSerializationContext(namespace=temporal.namespace, workflow_id=self.run_id)
        converter = temporal.data_converter.with_context(context)

        async def encoded(value: Any) -> Payload:
            return (await converter.encode([value]))[0]

        asked = StartWorkflowExecutionRequest(
            namespace=temporal.namespace,
            workflow_id=self.run_id,
            identity=temporal.identity,
            request_id=hashlib.sha256(f"{self.run_id}\0{link}".encode()).hexdigest(),
        )
        asked.workflow_type.name = wire.AGENT_RUN
        asked.task_queue.name = self.task_queue
        asked.workflow_task_timeout.FromTimedelta(_WORKFLOW_TASK)
        asked.workflow_id_reuse_policy = WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
        asked.workflow_id_conflict_policy = WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
        asked.input.payloads.append(await encoded(self.request.wire()))
        appended = self.request.append_message
        said = self.request.message if appended is None else appended.text
        message = None if said is None else text_of(said)
        for name, value in self.memo.items():
            asked.memo.fields[name].CopyFrom(await encoded(value))
        asked.user_metadata.summary.CopyFrom(await encoded(self._summary(message)))
        asked.user_metadata.details.CopyFrom(await encoded(self._details(message)))
        share = self.priority
        asked.priority.priority_key = share.priority_key or 0
        asked.priority.fairness_key = share.fairness_key or ""
        asked.priority.fairness_weight = share.fairness_weight or 0.0
        encode_search_attributes(self._attributes(searchable), asked.search_attributes)
        with translated(temporal):
            return (await temporal.workflow_service.start_workflow_execution(asked, retry=True)).run_id

    def _attributes(self, searchable: bool) -> TypedSearchAttributes:
        if not searchable:
            return TypedSearchAttributes([])
        written: list[SearchAttributePair[Any]] = [
            SearchAttributePair(SearchAttributeKey.for_keyword("AgentName"), self.agent_name),
            SearchAttributePair(SearchAttributeKey.for_keyword("RunStatus"), "pending"),
        ]
        if self.request.thread_id is not None:
            written.append(SearchAttributePair(SearchAttributeKey.for_keyword("ThreadId"), self.request.thread_id))
        return TypedSearchAttributes(written)

    def _summary(self, message: str | None) -> str:
        again = "goes on" if self.request.after is not None else ""
        return summary(f"{self.agent_name}: {message or pairs(self.request.input) or again}")

    def _details(self, message: str | None) -> str:
        """Describe what was asked for, in Markdown, for the run's page in the Temporal UI."""
        told = f"**{self.agent_name}** {cut(message or '', 4096)}"
        if self.request.after is not None:
            return f"{told}\n\nGoes on from `{self.request.after.run}`"
        asked = cut(json.dumps(self.request.input, ensure_ascii=False, indent=2), 4096)
        return f"{told}\n\n```json\n{asked}\n```"


def choose_id(request: RunRequest, run_id: str | None, idempotency_key: str | None) -> str:
    """Return the new run's id: the given one, else the key's, else one that tells the agent's name."""
    if run_id is not None and idempotency_key is not None:
        raise InputInvalid({"idempotency_key": "give a run_id or an idempotency_key, not both"})
    if idempotency_key is not None:
        return ids.run_id_of_key(idempotency_key)
    if run_id is not None:
        if run_id.startswith(ids.THREAD_PREFIX):
            raise InputInvalid({"run_id": f"must not begin with {ids.THREAD_PREFIX!r}, as threads do"})
        return ids.check_id("run_id", run_id)
    return ids.new_run_id(request.agent if isinstance(request.agent, str) else request.agent.name)


def read_share(priority: int | None, fairness_key: str | None, fairness_weight: float | None) -> Priority:
    """Return what a run's tasks and calls are to be served by, where they wait; InputInvalid where it does not fit."""
    wrong: dict[str, str] = {}
    if priority is not None and priority not in range(1, 6):
        wrong["priority"] = "must be 1 (first) to 5 (last)"
    if fairness_key is not None and not 0 < len(fairness_key.encode(errors="replace")) <= _FAIRNESS_KEY_MAX_BYTES:
        wrong["fairness_key"] = f"must have 1 to {_FAIRNESS_KEY_MAX_BYTES} bytes"
    if fairness_weight is not None and not 0.001 <= fairness_weight <= 1000:
        wrong["fairness_weight"] = "must be 0.001 to 1000"
    if wrong:
        raise InputInvalid(wrong)
    return Priority(priority_key=priority, fairness_key=fairness_key, fairness_weight=fairness_weight)


def share_of(ended: WorkflowExecutionDescription) -> Priority:
    """Return the share that a run has had."""
    had = ended.raw_description.workflow_execution_info.priority
    return Priority(had.priority_key or None, had.fairness_key or None, had.fairness_weight or None)


def read_request(agent_id: str | None, agent: Agent | Mapping[str, Any] | None, **fields: Any) -> RunRequest:
    """Read what a caller asks for; InputInvalid names every field that is wrong."""
    if (agent_id is None) == (agent is None):
        raise InputInvalid({"agent": "give agent_id, the name of an agent, or a whole agent"})
    given = {name: each for name, each in fields.items() if each is not None}
    return RunRequest.read({"agent": agent_id if agent is None else agent, **given})
