"""The timeline: a fold over Temporal history. No second log, no store; it works for a closed run with no worker up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import EventType as Kind
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter

from holdfast import wire
from holdfast.bounds import one_line, pairs, summary
from holdfast.calls import LoadedAgent
from holdfast.client.history import Line
from holdfast.client.spans import Span, time_of
from holdfast.errors import InputInvalid
from holdfast.event import Event, EventType
from holdfast.ids import step_of_call
from holdfast.message import Message, Turn, tool_text
from holdfast.request import RunRequest, UserMessage
from holdfast.run import RunError, RunResult
from holdfast.workflows.admission import Admitted, Refused
from holdfast.workflows.outcomes import from_failure, from_output, named
from holdfast.workflows.state import CallTools, RunState, ToolOutcome, refusal


class Timeline:
    """Folds a run's history, line by line, into events, and into the run's state as the workflow had it."""

    def __init__(self, converter: DataConverter) -> None:
        self._converter = converter
        self.request: RunRequest | None = None
        self.started_at: datetime | None = None
        self.closed_at: datetime | None = None
        self.state: RunState | None = None
        self.result: RunResult | None = None
        """Set once the run has closed."""
        self._early: list[UserMessage] = []
        self._open: dict[int, Span] = {}
        self._outcomes: dict[str, ToolOutcome] = {}
        self._pending: CallTools | None = None
        self._line = Line("", HistoryEvent())
        self._made: list[Event] = []
        self._run_id = ""

    @property
    def messages(self) -> list[Message]:
        """The transcript so far."""
        return list(self.state.transcript.messages) if self.state else []

    async def add(self, line: Line) -> list[Event]:
        """Take one line of history, and return the events that it tells of (often none)."""
        self._line, self._made = line, []
        event = line.event
        match event.event_type:
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                await self._started(event)
            case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                await self._signaled(event)
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

    async def _started(self, event: HistoryEvent) -> None:
        started = event.workflow_execution_started_event_attributes
        self._run_id = started.workflow_id
        self.started_at = time_of(event)
        given = await self._first(started.input)
        try:
            self.request = RunRequest.read(given)
        except InputInvalid as error:
            self._tell("run_started", "started with an invalid request", {"errors": error.errors})
            return
        name = self.request.agent if isinstance(self.request.agent, str) else self.request.agent.name
        data = self.request.model_dump(mode="json", exclude={"agent"}, exclude_defaults=True)
        self._tell("run_started", f"agent {name}", {"agent": name, **data})

    async def _signaled(self, event: HistoryEvent) -> None:
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name != wire.APPEND_MESSAGE:
            return
        try:
            message = UserMessage.read(await self._first(signal.input))
        except InputInvalid:
            return
        if self.state is None:
            known = message.id is not None and any(each.id == message.id for each in self._early)
            self._early.append(message)
        else:
            known = not self.state.receive(message)
        if not known:
            self._tell("user_added_message", one_line(message.text), message.wire())

    async def _activity_scheduled(self, event: HistoryEvent) -> None:
        self._open[event.event_id] = Span(event)
        activity = event.activity_task_scheduled_event_attributes
        name = activity.activity_type.name
        if name == wire.AGENT_LOAD or self.state is None:
            return
        argument = await self._first(activity.input)
        if name != wire.MODEL_CALL:
            label = summary(pairs(argument or {}))
            data = {"tool_name": name, "call_id": activity.activity_id, "arguments": argument}
            data["step"] = step_of_call(activity.activity_id)
            self._tell("tool_called", f"{name} {label}".strip(), data)
            return
        if argument.get("closing"):
            self.state.reach(argument["closing"])  # the history's own length is not to be had from a fold
        self.state.next_move()
        call = {"step": argument.get("step"), "model": argument.get("model")}
        if argument.get("closing"):
            call["closing"] = argument["closing"]
        self._tell("step_started", f"step {call['step']}", {"step": call["step"]})
        self._tell("model_called", f"step {call['step']} · {call['model']}", call)

    async def _activity_completed(self, scheduled_id: int, result: Any) -> None:
        call = self._open.pop(scheduled_id)
        try:
            if call.name == wire.AGENT_LOAD:
                self._loaded(LoadedAgent.recorded(result))
            elif call.name == wire.MODEL_CALL and self.state is not None:
                self._turned(Turn.recorded(result), call)
            elif self.state is not None:
                self._returned(call, result)
        except ValidationError:  # completed by hand, with something else: the run fails of it, and its end says so
            return

    def _returned(self, call: Span, result: Any) -> None:
        outcome = from_output(result, call.milliseconds(self._line.event))
        self._outcomes[call.id] = outcome
        if outcome.error is not None:
            self._failed_call(call.name, call.id, outcome, call)
        else:
            data = {"tool_name": call.name, "call_id": call.id, "output": result}
            data |= {"latency_ms": outcome.latency_ms} | call.attempts
            self._tell("tool_completed", f"{call.name} → {one_line(tool_text(result))}", data, call)
        self._settle()

    async def _activity_failed(self, scheduled_id: int, failure: Any) -> None:
        call = self._open.pop(scheduled_id)
        if self._pending is None or call.name in (wire.AGENT_LOAD, wire.MODEL_CALL):
            return
        cause = await self._converter.decode_failure(failure)
        for decision in self._pending.decisions:
            if decision.call.id == call.id and isinstance(decision, Admitted):
                outcome = from_failure(cause, decision.spec, call.milliseconds(self._line.event))
                self._outcomes[call.id] = outcome
                self._failed_call(call.name, call.id, outcome, call)
        self._settle()

    def _activity_cancelled(self, scheduled_id: int) -> None:
        call = self._open.pop(scheduled_id)
        if call.name not in (wire.AGENT_LOAD, wire.MODEL_CALL):
            outcome = ToolOutcome(error_type="Cancelled", error="the run was cancelled")
            self._failed_call(call.name, call.id, outcome, call)

    def _loaded(self, loaded: LoadedAgent) -> None:
        self.state = RunState(loaded)
        for message in self._early:
            self.state.receive(message)
        names = loaded.agent.tool_names
        data = {
            "functions": names,
            "agent": loaded.agent.name,
            "revision": loaded.revision,
            "model": loaded.agent.model,
        }
        self._tell("declared_functions", f"Declared: {', '.join(names) or 'no tools'}", data)

    def _turned(self, turn: Turn, span: Span | None) -> None:
        assert self.state is not None
        message = turn.message
        if message.reasoning_content:
            self._tell("reasoning", one_line(message.reasoning_content), {"text": message.reasoning_content}, span)
        wanted = [
            {"id": each.id, "name": each.name, "arguments": each.function.arguments} for each in message.tool_calls
        ]
        data: dict[str, Any] = {"model": turn.model, "text": message.content, "tool_calls": wanted}
        data |= {
            "usage": turn.usage.model_dump(),
            "cost_usd": turn.usage.cost_usd,
            "finish_reason": turn.finish_reason,
        }
        data |= {"step": self.state.steps}
        if span is not None:
            data |= {"latency_ms": span.milliseconds(self._line.event)} | span.attempts
        if turn.dropped_tool_calls:
            data["dropped_tool_calls"] = turn.dropped_tool_calls
        if turn.partial:
            data["partial"] = True
        said = one_line(message.content or "") or ", ".join(each.name for each in message.tool_calls)
        self._tell("model_completed", said, data, span)
        self.state.record(turn)
        if not turn.partial and message.tool_calls:
            move = self.state.next_move()
            self._pending = move if isinstance(move, CallTools) else None
            for decision in self._pending.decisions if self._pending else []:
                if isinstance(decision, Refused):
                    self._outcomes[decision.call.id] = refusal(decision)
                    self._failed_call(decision.call.name, decision.call.id, refusal(decision), None)
            self._settle()

    def _settle(self) -> None:
        pending = self._pending
        if pending is None or self.state is None:
            return
        ids = [decision.call.id for decision in pending.decisions]
        if all(each in self._outcomes for each in ids):
            self.state.settle(pending.decisions, [self._outcomes.pop(each) for each in ids])
            self._pending = None

    def _failed_call(self, name: str, call_id: str, outcome: ToolOutcome, span: Span | None) -> None:
        data = {
            "tool_name": name,
            "call_id": call_id,
            "error": outcome.error,
            "error_type": outcome.error_type,
        }
        data |= {"latency_ms": outcome.latency_ms} | (span.attempts if span else {})
        text = f"{one_line(name)}: {outcome.error_type}: {one_line(outcome.error or '')}"
        self._tell("tool_call_exception", text, data, span)

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
                self._tell("run_continued", "continues in a new link", {"link": following})

    async def _run_failed(self, failure: Any) -> None:
        cause = await self._converter.decode_failure(failure)
        details = list(getattr(cause, "details", ()) or ())
        if details and isinstance(details[0], dict) and "status" in details[0]:
            self._finish(RunResult.recorded(details[0]))
        else:
            error = named(cause)
            self._finish(self._result("failed", final_text=error.message, error=error))

    def _result(self, status: Any, **fields: Any) -> RunResult:
        known = self.state.summary() if self.state else {}
        thread = self.request.thread_id if self.request else None
        return RunResult(status=status, run_id=self._run_id, thread_id=thread, **known, **fields)

    def _finish(self, result: RunResult) -> None:
        self.result = result
        self.closed_at = time_of(self._line.event)
        kinds: dict[str, EventType] = {
            "completed": "run_completed",
            "degraded": "run_degraded",
            "cancelled": "task_cancelled",
        }
        text = result.error.message if result.error else result.final_text or result.status
        data = result.model_dump(mode="json", include={"status", "final_text", "error", "steps", "cost_usd"})
        self._tell(kinds.get(result.status, "run_failed"), one_line(text), data)

    def _tell(self, kind: EventType, text: str, data: dict[str, Any], span: Span | None = None) -> None:
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
