"""A closed run started again under its id: with a message, or from where it was stopped."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import temporalio.client
from temporalio.client import WorkflowExecutionDescription, WorkflowExecutionStatus

from holdfast import wire
from holdfast.agent import Agent
from holdfast.client.base import RunCalls
from holdfast.client.history import read
from holdfast.client.rpc import translated
from holdfast.client.start import Start, share_of
from holdfast.client.timeline import fitting
from holdfast.client.views import RunSummary, summarize, summarize_run
from holdfast.content import Said
from holdfast.errors import HoldfastError, RunNotFound
from holdfast.request import After, RunRequest, UserMessage
from holdfast.run import RunResult, Status

_KEPT = ("agent", "message", "append_message", "thread_id", "metadata", "interaction_mode")
"""What a request that goes on from a link says beside; never the first one's message, which is recorded there."""
_TOLD = ("message", "append_message")


@dataclass(frozen=True)
class ClosedLink:
    """A link of a run that another one can go on from, and the request that had started it."""

    run_id: str
    link: str
    request: dict[str, Any]

    @classmethod
    async def of(cls, temporal: temporalio.client.Client, ended: WorkflowExecutionDescription) -> ClosedLink:
        """Read the request: that of the link which this one continued as new, while the server has it."""
        first = ended.raw_description.workflow_execution_info.first_run_id
        try:
            request = await _request(temporal, ended.id, first or ended.run_id)
        except RunNotFound:
            request = await _request(temporal, ended.id, ended.run_id)
        return cls(ended.id, ended.run_id, {name: each for name, each in request.items() if name not in _TOLD})

    def following(self, **changed: Any) -> RunRequest:
        """Ask for the run to go on from here, under its own id."""
        return self._asked(After(run=self.link), {**self.request, **_given(changed)})

    def forked(self, *, step: int | None, **changed: Any) -> RunRequest:
        """Ask for another run that goes on from here, or from what came before a step; it is in no thread by itself."""
        after = After(run=self.link, workflow_id=self.run_id, step=step)
        return self._asked(after, {**self.request, "thread_id": None, **_given(changed)})

    def _asked(self, after: After, given: dict[str, Any]) -> RunRequest:
        kept = _given({name: given.get(name) for name in _KEPT})
        return RunRequest.read({**kept, "after": after.wire()})


async def _request(temporal: temporalio.client.Client, run_id: str, link: str) -> dict[str, Any]:
    handle = temporal.get_workflow_handle(run_id, run_id=link)
    with translated(temporal, run_id):
        first = await anext(aiter(handle.fetch_history_events(page_size=1)))
    payloads = first.workflow_execution_started_event_attributes.input.payloads
    try:
        given = await temporal.data_converter.decode(list(payloads[:1]))
    except (RuntimeError, KeyError, ValueError) as error:
        raise HoldfastError(f"the request of run {run_id!r} can't be read: {error}") from None
    return given[0] if given and isinstance(given[0], dict) else {}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in fields.items() if each is not None}


class RestartCalls(RunCalls):
    """Both go on from the run's last link: its conversation, counts and cost."""

    async def append_message(self, run_id: str, text: Said, *, id: str | None = None) -> str:
        """Send a follow-up message, which the model sees at its next step; returns its id.

        A run that has ended, however it did, starts again under its id with its conversation and the message. The same
        id twice counts once: give one to be able to repeat a call whose outcome is unknown. RunNotFound for an unknown
        run, InputInvalid for a text over 256 KB.
        """
        message = UserMessage.read({"text": text, "id": id or uuid.uuid4().hex})
        temporal, unheard = await self._client.temporal(), id is None
        while (ended := await self._signal(run_id, wire.APPEND_MESSAGE, message)) is not None:
            if not unheard and await _was_told(temporal, run_id, str(message.id)):
                break
            link = await self._start_again(ended, append_message=message.wire())
            if link is not None and await _began_with(temporal, run_id, link, message):
                break
            unheard = False  # somebody else has started it: it may be live, or have ended once more
        return str(message.id)

    async def resume_run(
        self, run_id: str, *, message: Said | None = None, agent: Agent | Mapping[str, Any] | None = None
    ) -> RunSummary:
        """Take a run up where it was stopped: one that was interrupted, cancelled or failed starts again under its id.

        Nothing that it has done is done again, and many callers start it once. A live run is left alone, and so is one
        that has completed or degraded: then neither `message` nor `agent` counts. `message` is told to the model
        first; a whole `agent` takes the place of the run's own, on this client's task queue: those of the caller that
        starts it. RunNotFound for an unknown run.
        """
        temporal = await self._client.temporal()
        description = await self._describe(run_id)
        found = await summarize_run(description)
        status = await _status_of(temporal, description)
        if not found.closed or status in ("completed", "degraded"):
            return found.model_copy(update={"status": status})
        queue = None if agent is None else self._client.task_queue
        await self._start_again(description, task_queue=queue, message=message, agent=agent)
        return await summarize_run(await self._describe(run_id))

    async def _start_again(
        self, ended: WorkflowExecutionDescription, *, task_queue: str | None = None, **changed: Any
    ) -> str | None:
        """Start what goes on after a closed link, and return its link; None where the run has gone on without us."""
        temporal = await self._client.temporal()
        link = await ClosedLink.of(temporal, ended)
        memo = {wire.STARTED_AT_MEMO: ended.start_time.timestamp(), **await ended.memo()}
        start = Start(ended.id, link.following(**changed), task_queue or ended.task_queue, memo, share_of(ended))
        if (await self._describe(ended.id)).run_id != ended.run_id:
            return None
        return await self._started(lambda searchable: start.send_once(temporal, searchable=searchable))


async def _status_of(temporal: temporalio.client.Client, description: WorkflowExecutionDescription) -> Status:
    """Return a run's status; one that Temporal completed says itself, in its result, how it ended."""
    if description.status != WorkflowExecutionStatus.COMPLETED:
        return summarize(description).status
    handle = temporal.get_workflow_handle(description.id, run_id=description.run_id)
    with translated(temporal, description.id), fitting(description.id, description.history_length):
        return RunResult.recorded(await handle.result(follow_runs=False)).status


async def _was_told(temporal: temporalio.client.Client, run_id: str, message_id: str) -> bool:
    """Say whether any link of a run was sent a message of this id."""
    async for line in read(temporal, run_id):
        signal = line.event.workflow_execution_signaled_event_attributes
        began = line.event.workflow_execution_started_event_attributes
        payloads = signal.input.payloads if signal.signal_name == wire.APPEND_MESSAGE else began.input.payloads
        told = (await temporal.data_converter.decode(list(payloads[:1])))[0] if payloads else None
        if began.input.payloads and isinstance(told, dict):
            told = told.get("append_message")
        if isinstance(told, dict) and told.get("id") == message_id:
            return True
    return False


async def _began_with(temporal: temporalio.client.Client, run_id: str, link: str, message: UserMessage) -> bool:
    """Say whether a link was started with this message, and not by somebody else."""
    told = (await _request(temporal, run_id, link)).get("append_message")
    return isinstance(told, dict) and told.get("id") == message.id
