"""The timeline: a fold over Temporal history. No second log, no store; it works for a closed run with no worker up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from temporalio.api.enums.v1 import EventType as Kind
from temporalio.api.history.v1 import HistoryEvent

from holdfast import wire
from holdfast.bounds import one_line
from holdfast.client import told
from holdfast.client.fold import MODEL_RESTS
from holdfast.client.fold_activities import OURS
from holdfast.client.fold_children import ChildFold
from holdfast.client.history import Line
from holdfast.client.spans import time_of
from holdfast.client.told import Told
from holdfast.content import text_of
from holdfast.errors import HoldfastError, InputInvalid
from holdfast.event import Event
from holdfast.request import Answer, Decision, Reason, RunRequest, UserMessage
from holdfast.run import RunError, RunResult
from holdfast.threads import TurnGiven
from holdfast.workflows.outcomes import named
from holdfast.workflows.seen import SeenIds

_UPDATES = (Kind.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED, Kind.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED)


@contextmanager
def fitting(run_id: str, event_id: int) -> Iterator[None]:
    """Raise HoldfastError where a history does not fit what this version makes of it."""
    try:
        yield
    except HoldfastError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise HoldfastError(f"the history of run {run_id!r} is of another version at event {event_id}") from error


class Timeline(ChildFold):
    """Folds a run's history, line by line, into events, and into the run's state as the workflow had it."""

    async def add(self, line: Line) -> list[Event]:
        """Take one line of history, and return the events that it tells of (often none).

        HoldfastError for one that does not fit what came before.
        """
        self._line, self._made = line, []
        with fitting(self._run_id or line.link, line.event.event_id):
            await self._add(line.event)
        return self._made

    async def _add(self, event: HistoryEvent) -> None:
        if self._expired and self._task_done and event.event_type not in _UPDATES:
            self.finish_task()
        match event.event_type:
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                await self._started(event)
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                await self._signaled(event)
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                given = event.workflow_execution_update_accepted_event_attributes.accepted_request.input
                self._updated(given.name, await self._first(given.args))
            case Kind.EVENT_TYPE_WORKFLOW_TASK_STARTED:
                self._task_done = False
            case Kind.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                self._task_done = True
            case Kind.EVENT_TYPE_TIMER_STARTED:
                await self._timer_started(event)
            case Kind.EVENT_TYPE_TIMER_FIRED:
                call_id = self._timers.get(event.timer_fired_event_attributes.started_event_id)
                self._expired += [call_id] if call_id else []
                self._task_done = False
            case Kind.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                await self._activity_scheduled(event)
            case Kind.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                self._open[event.activity_task_started_event_attributes.scheduled_event_id].started = event
            case Kind.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                done = event.activity_task_completed_event_attributes
                await self._activity_completed(done.scheduled_event_id, await self._first(done.result))
            case Kind.EVENT_TYPE_ACTIVITY_TASK_FAILED:
                failed = event.activity_task_failed_event_attributes
                await self._activity_failed(failed.scheduled_event_id, failed.failure)
            case Kind.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
                late = event.activity_task_timed_out_event_attributes
                await self._activity_failed(late.scheduled_event_id, late.failure)
            case Kind.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED:
                self._stopped.add(event.activity_task_cancel_requested_event_attributes.scheduled_event_id)
            case Kind.EVENT_TYPE_ACTIVITY_TASK_CANCELED:
                self._activity_cancelled(event.activity_task_canceled_event_attributes.scheduled_event_id)
            case _:
                if not await self._of_child(event):
                    await self._closed(event)

    async def _started(self, event: HistoryEvent) -> None:
        started = event.workflow_execution_started_event_attributes
        first = self.started_at is None
        self._begin_link()
        self._run_id, self._first_link = started.workflow_id, started.first_execution_run_id
        self.started_at = self.started_at or time_of(event)
        try:
            request = RunRequest.read(await self._first(started.input))
        except InputInvalid as error:
            self._tell(("run_started", "started with an invalid request", {"errors": error.errors}))
            return
        self.link_request, self._carried = request, request.carried
        if request.carried is not None:
            self._early_seen, self._early_paused = SeenIds(request.carried.seen), request.carried.paused is not None
        if self.request is None or self.request.carried is not None:
            self.request = request
        if first or request.carried is None:
            self._tell(told.started(request, again=request.after is not None))
        if request.append_message is not None:
            self._appended(request.append_message)

    async def _signaled(self, event: HistoryEvent) -> None:
        signal = event.workflow_execution_signaled_event_attributes
        given = await self._first(signal.input)
        try:
            match signal.signal_name:
                case wire.APPEND_MESSAGE:
                    self._appended(UserMessage.read(given))
                case wire.PAUSE:
                    reason = Reason.read(given).reason
                    news: Told = ("paused", one_line(reason or "paused"), {"reason": reason})
                    self._say(lambda state: state.pause(reason), self._held(news, paused=True))
                case wire.RESUME:
                    reason = Reason.read(given).reason
                    news = ("resumed", one_line(reason or "resumed"), {"reason": reason})
                    self._say(lambda state: state.unpause(), self._held(news, paused=False))
                case wire.THREAD_TURN:
                    turn = TurnGiven.read(given)
                    if turn.first_link == self._first_link:
                        self._memory = turn.memory
                        self._take_turn()
        except InputInvalid:
            return  # the workflow dropped it as well

    def _appended(self, message: UserMessage) -> None:
        """Take a message; one that came twice before there was a state to tell counts once as well."""
        if self.state is None and message.id is not None and not self._early_seen.take(message.id):
            return
        self.unread += [message] if self.state is None else []
        news: Told = ("user_added_message", one_line(text_of(message.text)), message.wire())
        self._say(lambda state: state.receive(message), news)

    def _held(self, news: Told, *, paused: bool) -> Told | None:
        """Leave out what says nothing new, before there is a state to tell: a second pause, a resume of no pause."""
        was, self._early_paused = self._early_paused, paused
        return None if self.state is None and was == paused else news

    def _updated(self, name: str, given: Any) -> None:
        try:
            if name == wire.DECIDE:
                verdict = Decision.read(given)
                self._say(lambda state: state.decide(verdict))
            elif name == wire.ANSWER:
                answer = Answer.read(given)
                self._say(lambda state: state.answer(answer))
        except InputInvalid:
            return

    async def _timer_started(self, event: HistoryEvent) -> None:
        if event.user_metadata.HasField("summary"):
            label = (await self._converter.decode([event.user_metadata.summary]))[0]
            kind, _, call_id = str(label).partition(" ")
            if kind in ("approval", "answer", "timer", MODEL_RESTS):
                self._timers[event.event_id] = MODEL_RESTS if kind == MODEL_RESTS else call_id

    async def _closed(self, event: HistoryEvent) -> None:
        match event.event_type:
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
                done = event.workflow_execution_completed_event_attributes
                self._finish(RunResult.recorded(await self._first(done.result)))
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
                await self._run_failed(event.workflow_execution_failed_event_attributes.failure)
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
                text = self.state.partial_text if self.state else ""
                self._finish(self._result("cancelled", final_text=text))
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
                reason = event.workflow_execution_terminated_event_attributes.reason or "no reason was given"
                error = RunError(type="Terminated", message=f"the run was terminated: {reason}")
                self._finish(self._result("failed", final_text=error.message, error=error))
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
                error = RunError(type="Timeout", message="the run's own Temporal timeout passed")
                self._finish(self._result("failed", final_text=error.message, error=error))
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
                following = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
                self._tell(("run_continued", "continues in a new link", {"link": following}))

    async def _run_failed(self, failure: Any) -> None:
        cause = await self._converter.decode_failure(failure)
        details = list(getattr(cause, "details", ()) or ())
        if details and isinstance(details[0], dict) and "status" in details[0]:
            self._finish(RunResult.recorded(details[0]))
        else:
            error = named(cause)
            self._finish(self._result("failed", final_text=error.message, error=error))

    def _result(self, status: Any, **fields: Any) -> RunResult:
        handed_on = self.link_request.carried if self.link_request else None
        known = self.state.summary() if self.state else handed_on.summary() if handed_on else {}
        thread = self.request.thread_id if self.request else None
        return RunResult(status=status, run_id=self._run_id, thread_id=thread, **known, **fields)

    def _finish(self, result: RunResult) -> None:
        self.result = result
        self.closed_at = time_of(self._line.event)
        self.unknown |= {span.id for span in self._open.values() if span.name not in OURS}
        self._tell(told.ended(result, superseded=self._line.superseded))
