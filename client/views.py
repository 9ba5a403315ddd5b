"""Runs as a caller sees them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from pydantic import Field
from temporalio.api.enums.v1 import PendingWorkflowTaskState
from temporalio.api.workflow.v1 import PendingChildExecutionInfo
from temporalio.client import WorkflowExecution, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey

from holdfast import wire
from holdfast.bounds import cut
from holdfast.client.timeline import Timeline
from holdfast.content import text_of
from holdfast.data import Data
from holdfast.event import Event
from holdfast.message import Message
from holdfast.run import TERMINAL, RunResult, Status
from holdfast.workflows.state import RunState

_CLOSED: dict[WorkflowExecutionStatus, Status] = {
    WorkflowExecutionStatus.COMPLETED: "completed",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.TERMINATED: "failed",
    WorkflowExecutionStatus.TIMED_OUT: "failed",
}
_AT_ONCE = timedelta(milliseconds=10)
"""A run's first workflow task is scheduled together with its start."""
_WRITTEN: frozenset[str] = frozenset({"pending", "running", "paused", "waiting"})


class RunSummary(Data):
    """What the server says of a run at once, with no worker up."""

    id: str
    """Temporal's workflow id."""
    status: Status
    agent_id: str | None = None
    """The agent's name."""
    revision: str | None = None
    thread_id: str | None = None
    parent_id: str | None = None
    """The run that called it, for a subagent's."""
    created_at: datetime
    closed_at: datetime | None = None
    steps: int | None = None
    cost_usd: float | None = None
    task_queue: str = ""

    @property
    def closed(self) -> bool:
        """True once nothing more will happen."""
        return self.status in TERMINAL


class Retry(Data):
    """An activity of a live run that has failed, and is tried again."""

    name: str
    """`model.call`, a tool's name, or another activity's."""
    attempt: int
    """The one that is under way, or comes next."""
    last_failure: str = ""


class Run(RunSummary):
    """A run with everything that its history tells."""

    output: Any = None
    final_text: str = ""
    error: str | None = None
    """Why it failed."""
    original_prompt: str | None = None
    """The first user message."""
    input: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    result: RunResult | None = None
    """Set once the run has closed."""
    messages: list[Message] = Field(default_factory=list)
    logs: list[Event] = Field(default_factory=list)
    retries: list[Retry] = Field(default_factory=list)
    """What is tried again just now, which no event tells of before it has ended."""


def summarize(execution: WorkflowExecution) -> RunSummary:
    """Read a run from what `describe` or a listing says of it."""
    attributes = execution.typed_search_attributes
    return RunSummary(
        id=execution.id,
        status=_status(execution),
        agent_id=attributes.get(SearchAttributeKey.for_keyword("AgentName")),
        revision=attributes.get(SearchAttributeKey.for_keyword("AgentRevision")),
        thread_id=attributes.get(SearchAttributeKey.for_keyword("ThreadId")),
        parent_id=execution.parent_id,
        created_at=execution.start_time,
        closed_at=execution.close_time,
        steps=attributes.get(SearchAttributeKey.for_int("Steps")),
        cost_usd=attributes.get(SearchAttributeKey.for_float("CostUsd")),
        task_queue=execution.task_queue,
    )


async def summarize_run(execution: WorkflowExecution) -> RunSummary:
    """Read a run as `summarize` does; one whose first link this is not is as old as its memo says."""
    summary = summarize(execution)
    if wire.STARTED_AT_MEMO not in execution.raw_info.memo.fields:
        return summary
    try:
        began = datetime.fromtimestamp(float((await execution.memo())[wire.STARTED_AT_MEMO]), UTC)
    except (RuntimeError, KeyError, ValueError, TypeError, OverflowError, OSError):  # not ours, or not to be decoded
        return summary
    return summary.model_copy(update={"created_at": began})


def pending_children(described: WorkflowExecutionDescription) -> list[PendingChildExecutionInfo]:
    """Return the subagents' runs that are under way, as the server knows them."""
    found = described.raw_description.pending_children
    return [each for each in found if each.workflow_type_name == wire.AGENT_RUN]


def is_unclear(execution: WorkflowExecution) -> bool:
    """Say whether a listing leaves open if a worker has taken the run: nobody wrote its status yet."""
    written = execution.typed_search_attributes.get(SearchAttributeKey.for_keyword("RunStatus"))
    return execution.status == WorkflowExecutionStatus.RUNNING and written is None


def complete(summary: RunSummary, folded: Timeline, events: list[Event]) -> Run:
    """Add what a run's history tells to what the server says at once."""
    known = summary.model_dump()
    result, state, request = folded.result, folded.state, folded.request
    if result is not None:
        known |= {"status": result.status, "steps": result.steps, "cost_usd": result.cost_usd}
        known |= {"output": result.output, "final_text": result.final_text, "closed_at": folded.closed_at}
        known["error"] = result.error.message if result.error else None
    elif state is not None:
        known |= {"steps": state.steps, "cost_usd": state.usage.cost_usd}
    if state is not None:
        known |= {"agent_id": state.loaded.agent.name, "revision": state.loaded.revision}
        known["original_prompt"] = _first_words(state)
    elif request is not None:
        known["original_prompt"] = None if request.message is None else text_of(request.message)
    if request is not None:
        known |= {"thread_id": request.thread_id, "input": request.input, "metadata": request.metadata}
    return Run(**known, result=result, messages=folded.messages, logs=events)


def retries(execution: WorkflowExecutionDescription) -> list[Retry]:
    """Read what of a run is tried again just now; a terminated one still has what it left undone."""
    if execution.close_time is not None:
        return []
    return [
        Retry(name=each.activity_type.name, attempt=each.attempt, last_failure=cut(each.last_failure.message))
        for each in execution.raw_description.pending_activities
        if each.attempt > 1
    ]


def _first_words(state: RunState) -> str | None:
    """Return the first user message of the run itself, what a thread remembered left out."""
    own = [*state.transcript.messages[state.own_from :], *state.transcript.messages]
    return next((message.text for message in own if message.role == "user"), None)


def _status(execution: WorkflowExecution) -> Status:
    written = execution.typed_search_attributes.get(SearchAttributeKey.for_keyword("RunStatus"))
    if execution.status is not None and execution.status in _CLOSED:
        closed = _CLOSED[execution.status]
        fits = closed == "completed" and written in TERMINAL
        return cast(Status, written) if fits else closed
    if isinstance(execution, WorkflowExecutionDescription):
        if written in (None, "pending") and _is_untaken(execution):
            return "pending"
        if written == "pending":
            return "running"
    return cast(Status, written) if written in _WRITTEN else "running"


def _is_untaken(execution: WorkflowExecutionDescription) -> bool:
    """Say whether no worker has taken the run yet: its first workflow task waits, whatever it was told."""
    raw = execution.raw_description
    waits = raw.pending_workflow_task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    since = raw.pending_workflow_task.original_scheduled_time.ToDatetime(tzinfo=UTC)
    return execution.history_length <= 2 or (waits and since - execution.start_time < _AT_ONCE)
