"""The timeline: a fold over Temporal history. No second log, no store; it works for a closed run with no worker up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import EventType as Kind
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter

from holdfast import wire
from holdfast.activities.failures import CONTEXT_WINDOW_EXCEEDED
from holdfast.agent import Interaction
from holdfast.bounds import one_line, pairs, summary
from holdfast.calls import Compact, Compacted, LoadedAgent, Restored
from holdfast.carried import Carried, Reference
from holdfast.client import told
from holdfast.client.history import Line
from holdfast.client.spans import Span, time_of
from holdfast.client.told import Told, TurnTold
from holdfast.errors import InputInvalid
from holdfast.event import Event
from holdfast.ids import step_of_call
from holdfast.message import Message, Turn, tool_text
from holdfast.request import Answer, Decision, Reason, RunRequest, UserMessage
from holdfast.run import RunError, RunResult
from holdfast.threads import TurnGiven
from holdfast.workflows.admission import Admitted, Refused
from holdfast.workflows.outcomes import from_failure, from_output, named
from holdfast.workflows.state import RunState
from holdfast.workflows.thread_state import join
from holdfast.workflows.turn import NotAwaited, Slot

_OURS = wire.ACTIVITIES
_UPDATES = (Kind.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED, Kind.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED)


class Timeline:
    """Folds a run's history, line by line, into events, and into the run's state as the workflow had it."""

    def __init__(self, converter: DataConverter) -> None:
        self._converter = converter
        self.request: RunRequest | None = None
        """What the run was first asked for, as far as history still tells."""
        self.started_at: datetime | None = None
        self.closed_at: datetime | None = None
        self.state: RunState | None = None
        self._earlier: list[Message] = []
        self.result: RunResult | None = None
        """Set once the run has closed."""
        self.unknown: set[str] = set()
        """Tool calls that may have begun, and whose outcome this link does not tell."""
        self.reading: LoadedAgent | None = None
        """The agent of this link, once it is loaded."""
        self._line = Line("", HistoryEvent())
        self._made: list[Event] = []
        self._run_id = ""
        self.link_request: RunRequest | None = None
        """What this link was started with."""
        self._begin_link()

    def _begin_link(self) -> None:
        self._earlier = self.messages
        self.state, self.reading, self.result, self.closed_at = None, None, None, None
        self.unknown = set()
        self._early: list[Callable[[RunState], object]] = []
        self.unread: list[UserMessage] = []
        """Messages that came before this link had a state to tell."""
        self._early_ids: set[str] = set()
        self._early_paused = False
        self._open: dict[int, Span] = {}
        self._calls: dict[int, Any] = {}
        self._timers: dict[int, str] = {}
        self._expired: list[str] = []
        """Calls whose time has come; what came in the same workflow task from outside was heard first."""
        self._task_done = False
        self._restored: list[dict[str, Any]] = []
        self._carried: Carried | None = None
        self._turn: TurnTold | None = None
        self._memory: Reference | None = None
        self._first_link = ""

    @property
    def messages(self) -> list[Message]:
        """The transcript so far; that of the link before, until this one has it."""
        return list(self.state.transcript.messages) if self.state else self._earlier

    async def add(self, line: Line) -> list[Event]:
        """Take one line of history, and return the events that it tells of (often none)."""
        self._line, self._made = line, []
        event = line.event
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
            case Kind.EVENT_TYPE_ACTIVITY_TASK_CANCELED:
                self._activity_cancelled(event.activity_task_canceled_event_attributes.scheduled_event_id)
            case _:
                await self._closed(event)
        return self._made

    def finish_task(self) -> None:
        """End the waits whose time has come, as the workflow did after it had heard what came from outside."""
        expired, self._expired = self._expired, []
        for call_id in expired:
            if self.state is not None:
                self.state.expire(call_id)
        self._tell_turn()

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
        self._early_paused = request.carried is not None and request.carried.paused is not None
        if self.request is None or self.request.carried is not None:
            self.request = request
        if first or request.carried is None:
            self._tell(told.started(request, again=request.after is not None))

    async def _signaled(self, event: HistoryEvent) -> None:
        signal = event.workflow_execution_signaled_event_attributes
        given = await self._first(signal.input)
        try:
            match signal.signal_name:
                case wire.APPEND_MESSAGE:
                    message = UserMessage.read(given)
                    if self._repeated(message):
                        return
                    self.unread += [message] if self.state is None else []
                    news: Told = ("user_added_message", one_line(message.text), message.wire())
                    self._say(lambda state: state.receive(message), news)
                case wire.PAUSE:
                    reason = Reason.read(given).reason
                    news = ("paused", one_line(reason or "paused"), {"reason": reason})
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

    def _repeated(self, message: UserMessage) -> bool:
        """Say whether a message came twice before there was a state to tell."""
        repeated = self.state is None and message.id in self._early_ids
        if message.id is not None:
            self._early_ids.add(message.id)
        return repeated

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

    def _say(self, say: Callable[[RunState], object], news: Told | None = None) -> None:
        """Tell the state, once there is one; the news count where they change something."""
        if self.state is None:
            self._early.append(say)
            if news is not None:
                self._tell(news)
            return
        try:
            changed = say(self.state)
        except NotAwaited:  # it came before the agent was loaded, and was refused then
            return
        if news is not None and changed:
            self._tell(news)
        self._tell_turn()

    async def _timer_started(self, event: HistoryEvent) -> None:
        if event.user_metadata.HasField("summary"):
            label = (await self._converter.decode([event.user_metadata.summary]))[0]
            kind, _, call_id = str(label).partition(" ")
            if kind in ("approval", "answer", "timer"):
                self._timers[event.event_id] = call_id

    async def _activity_scheduled(self, event: HistoryEvent) -> None:
        self._open[event.event_id] = Span(event)
        activity = event.activity_task_scheduled_event_attributes
        name = activity.activity_type.name
        if self.state is None:
            return
        argument = await self._first(activity.input)
        if name == wire.CONTEXT_COMPACT:
            self.state.read_inbox()
            self._calls[event.event_id] = argument
        elif name == wire.MODEL_CALL:
            self._model_called(argument)
        elif name not in _OURS:
            label = summary(pairs(argument or {}))
            data = {"tool_name": name, "call_id": activity.activity_id, "arguments": argument}
            data["step"] = step_of_call(activity.activity_id)
            self._tell(("tool_called", f"{name} {label}".strip(), data))

    def _model_called(self, argument: Any) -> None:
        assert self.state is not None
        if argument.get("closing"):
            self.state.reach(argument["closing"])  # the history's own length is not to be had from a fold
        self.state.ask()
        call = {"step": argument.get("step"), "model": argument.get("model")}
        if argument.get("closing"):
            call["closing"] = argument["closing"]
        self._tell(("step_started", f"step {call['step']}", {"step": call["step"]}))
        self._tell(("model_called", f"step {call['step']} · {call['model']}", call))

    async def _activity_completed(self, scheduled_id: int, result: Any) -> None:
        call = self._open.pop(scheduled_id)
        try:
            match call.name:
                case wire.AGENT_LOAD:
                    self._loaded(LoadedAgent.recorded(result))
                case wire.TRANSCRIPT_RESTORE:
                    self._piece(Restored.recorded(result))
                case wire.THREAD_READ:
                    self._remembered(Restored.recorded(result))
                case wire.CONTEXT_COMPACT if self.state is not None:
                    self._compacted(Compact.recorded(self._calls.pop(scheduled_id)), Compacted.recorded(result), call)
                case wire.MODEL_CALL if self.state is not None:
                    self._turned(Turn.recorded(result), call)
                case _ if self.state is not None:
                    self._returned(call, result)
        except ValidationError:  # completed by hand, with something else: the run fails of it, and its end says so
            return

    def _loaded(self, loaded: LoadedAgent) -> None:
        self.reading = loaded
        if self._carried is None:
            self._tell(told.declared(loaded))
        if self.link_request is None or (self._carried is None and self.link_request.after is None):
            self._live(RunState.begin(loaded, self._interaction()))

    def _piece(self, piece: Restored) -> None:
        self._restored += piece.messages
        self._carried = self._carried or piece.carried
        if piece.next is not None or self._carried is None or self.reading is None:
            return
        now = time_of(self._line.event).timestamp()
        anew = self.link_request is None or self.link_request.carried is None
        state = RunState.resume(self.reading, self._carried, self._restored, now, self._interaction())
        self._restored = []
        self._live(state, anew=anew)

    def _take_turn(self) -> None:
        """Note that it is the run's turn in its thread; an empty memory is not even read."""
        state = self.state
        if state is None or state.awaits_thread is None or self._memory is None:
            return
        state.awaits_thread = None
        if state.memory is None and not self._memory.length:
            state.remember((), self._memory)

    def _remembered(self, piece: Restored) -> None:
        self._restored += piece.messages
        if piece.next is None and self.state is not None and self._memory is not None:
            self.state.remember([Message.recorded(each) for each in self._restored], self._memory)
            self._restored = []

    def _interaction(self) -> Interaction:
        assert self.reading is not None
        mode = self.link_request.interaction_mode if self.link_request else None
        settings = self.reading.agent.interaction
        return settings if mode is None else settings.model_copy(update={"mode": mode})

    def _live(self, state: RunState, *, anew: bool = True) -> None:
        self.state = state
        if self.link_request is not None:
            join(state, self.link_request, self._run_id)
            self._take_turn()
        early, self._early = self._early, []
        if state.turn is not None:
            self._turn = TurnTold(state.turn, anew=anew)
        for say in early:
            self._say(say)
        self._tell_turn()

    def _turned(self, turn: Turn, span: Span) -> None:
        assert self.state is not None
        if turn.message.reasoning_content:
            text = turn.message.reasoning_content
            self._tell(("reasoning", one_line(text), {"text": text}), span)
        kind, said, data = told.turned(turn, self.state.steps)
        data |= {"latency_ms": span.milliseconds(self._line.event)} | span.attempts
        self._tell((kind, said, data), span)
        opened = self.state.record(turn, time_of(self._line.event).timestamp())
        if opened is not None:
            for slot in opened.slots.values():
                if isinstance(slot.decision, Refused) and slot.outcome is not None:
                    self._tell(told.failed_call(slot.call.name, slot.call.id, slot.outcome))
            self._turn = TurnTold(opened, anew=True)
            self._tell_turn()

    def _compacted(self, call: Compact, compacted: Compacted, span: Span) -> None:
        assert self.state is not None
        before = len(self.state.transcript)
        self.state.compacted(call, compacted.summary, compacted.usage)
        after = len(self.state.transcript)
        data = {"summary": compacted.summary, "model": compacted.model, "messages": before, "messages_after": after}
        data |= {"usage": compacted.usage.model_dump(), "cost_usd": compacted.usage.cost_usd} | span.attempts
        self._tell(("context_compressed", f"{before} messages → {after}", data), span)

    def _returned(self, call: Span, result: Any) -> None:
        assert self.state is not None
        outcome = from_output(result, call.milliseconds(self._line.event))
        if outcome.error is not None:
            self._failed_call(call, outcome)
        else:
            data = {"tool_name": call.name, "call_id": call.id, "output": result}
            data |= {"latency_ms": outcome.latency_ms} | call.attempts
            self._tell(("tool_completed", f"{call.name} → {one_line(tool_text(result))}", data), call)
        self.state.settle(call.id, outcome)

    async def _activity_failed(self, scheduled_id: int, failure: Any) -> None:
        call = self._open.pop(scheduled_id)
        cause = await self._converter.decode_failure(failure)
        if call.name == wire.CONTEXT_COMPACT and self.state is not None:
            self.state.not_compacted()
        elif call.name == wire.MODEL_CALL and self.state is not None and named(cause).type == CONTEXT_WINDOW_EXCEEDED:
            self.state.shorten()
        slot = self._slot(call)
        if slot is not None and isinstance(slot.decision, Admitted) and self.state is not None:
            outcome = from_failure(cause, slot.decision.spec, call.milliseconds(self._line.event))
            self._failed_call(call, outcome)
            self.state.settle(call.id, outcome)

    def _activity_cancelled(self, scheduled_id: int) -> None:
        call = self._open.pop(scheduled_id)
        if call.name not in _OURS:
            if call.started is not None:
                self.unknown.add(call.id)
            text = f"{one_line(call.name)}: Cancelled: the run was stopped"
            data = {"tool_name": call.name, "call_id": call.id, "error": "the run was stopped"}
            self._tell(("tool_call_exception", text, data | {"error_type": "Cancelled"} | call.attempts), call)

    def _slot(self, call: Span) -> Slot | None:
        turn = self.state.turn if self.state else None
        return turn.slots.get(call.id) if turn is not None and call.name not in _OURS else None

    def _failed_call(self, call: Span, outcome: Any) -> None:
        kind, text, data = told.failed_call(call.name, call.id, outcome)
        self._tell((kind, text, data | call.attempts), call)

    def _tell_turn(self) -> None:
        if self._turn is not None:
            for news in self._turn.news():
                self._tell(news)

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
        self.unknown |= {span.id for span in self._open.values() if span.name not in _OURS}
        self._tell(told.ended(result, superseded=self._line.superseded))

    def _tell(self, news: Told, span: Span | None = None) -> None:
        kind, text, data = news
        now = time_of(self._line.event)
        cursor = f"{self._line.link}/{self._line.event.event_id}.{len(self._made)}"
        start, end = (time_of(span.scheduled), now) if span else (now, None)
        self._made.append(Event(id=cursor, type=kind, message=text, created_at=start, finished_at=end, data=data))

    async def _first(self, payloads: Payloads) -> Any:
        found: Iterable[Payload] = payloads.payloads
        try:
            values = await self._converter.decode(list(found)) if found else []
        except (RuntimeError, KeyError, ValueError) as error:
            return {"undecodable": str(error)[:200]}
        return values[0] if values else None
