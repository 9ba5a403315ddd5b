"""What a run's activities bring back: loaded agents, restored messages, turns, results."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from temporalio.api.history.v1 import HistoryEvent

from holdfast import wire
from holdfast.bounds import one_line, pairs, summary
from holdfast.calls import Compact, Compacted, GuardrailCheck, GuardrailChecked, LoadedAgent, PolicyChecked, Restored
from holdfast.client import told
from holdfast.client.fold import Fold
from holdfast.client.spans import Span, time_of
from holdfast.client.told import TurnTold
from holdfast.ids import step_of_call
from holdfast.message import Message, Turn, tool_text
from holdfast.workflows import asking, review
from holdfast.workflows.admission import Admitted, Refused
from holdfast.workflows.handover import resume
from holdfast.workflows.outcomes import from_failure, from_output, named, retry_after, spent_by
from holdfast.workflows.slot import Slot
from holdfast.workflows.state import RunState
from holdfast.workflows.turn import Turn as OpenCalls

OURS = wire.ACTIVITIES
"""Activities that are no tools."""


class ActivityFold(Fold):
    """Folds the beginnings and ends of activities."""

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
        elif name in (wire.GUARDRAIL_CHECK, wire.POLICY_CHECK):
            if argument.get("stage") == "input":
                self.state.read_inbox()
            self._calls[event.event_id] = argument
        elif name == wire.MODEL_CALL:
            self._model_called(argument)
        elif name not in OURS:
            name, label = self._tool_of(self._open[event.event_id]), summary(pairs(argument or {}))
            data = {"tool_name": name, "call_id": activity.activity_id, "arguments": argument}
            data["step"] = step_of_call(activity.activity_id)
            self._tell(("tool_called", f"{name} {label}".strip(), data))

    def _model_called(self, argument: Any) -> None:
        assert self.state is not None
        if argument.get("closing"):
            self.state.reach(argument["closing"])  # the history's own length is not to be had from a fold
        begins = not self.state.models.in_step
        asking.ask(self.state, argument["model"])
        call = {"step": argument.get("step"), "model": argument.get("model")}
        if argument.get("closing"):
            call["closing"] = argument["closing"]
        if argument.get("planning"):
            call["planning"] = True
        if begins:
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
                case wire.GUARDRAIL_CHECK if self.state is not None:
                    check = GuardrailCheck.recorded(self._calls.pop(scheduled_id))
                    self._guarded(check, GuardrailChecked.recorded(result), call)
                case wire.POLICY_CHECK if self.state is not None:
                    verdicts = PolicyChecked.recorded(result).verdicts
                    self._opened(review.judged(self.state, verdicts, self._now()))
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
            self._live(RunState.begin(loaded, self._interaction(), self._lineage(), self._metadata()))

    def _piece(self, piece: Restored) -> None:
        self._restored += piece.messages
        self._carried = self._carried or piece.carried
        if piece.next is not None or self._carried is None or self.reading is None:
            return
        now = time_of(self._line.event).timestamp()
        anew = self.link_request is None or self.link_request.carried is None
        told = (self._interaction(), self._lineage(), self._metadata())
        state = resume(self.reading, self._carried, self._restored, now, *told)
        self._restored = []
        self._live(state, anew=anew)

    def _remembered(self, piece: Restored) -> None:
        self._restored += piece.messages
        if piece.next is None and self.state is not None and self._memory is not None:
            self.state.remember([Message.recorded(each) for each in self._restored], self._memory)
            self._restored = []

    def _turned(self, turn: Turn, span: Span) -> None:
        assert self.state is not None
        if turn.message.reasoning_content:
            text = turn.message.reasoning_content
            self._tell(("reasoning", one_line(text), {"text": text}), span)
        if self.state.planning and turn.message.content and not turn.partial:
            plan = {"text": turn.message.text, "step": self.state.steps}
            self._tell(("planning", one_line(turn.message.text), plan), span)
        kind, said, data = told.turned(turn, self.state.steps)
        data |= {"latency_ms": span.milliseconds(self._line.event)} | span.attempts
        self._tell((kind, said, data), span)
        self._opened(self.state.record(turn, self._now()))

    def _guarded(self, check: GuardrailCheck, checked: GuardrailChecked, span: Span) -> None:
        assert self.state is not None
        for each in checked.said:
            data = {"stage": check.stage, **each.model_dump()} | span.attempts
            because = f": {one_line(each.reason)}" if each.reason else ""
            self._tell(("guardrail_checked", f"{check.stage} · {each.guardrail}: {each.action}{because}", data), span)
        self._opened(review.guarded(self.state, check, checked.said, self._now()))

    def _now(self) -> float:
        return time_of(self._line.event).timestamp()

    def _opened(self, turn: OpenCalls | None) -> None:
        """Tell how the calls of a turn were decided, once they are."""
        if turn is None:
            return
        for slot in turn.slots.values():
            for judgement in slot.decision.judged.said:
                self._tell(told.judged(slot, judgement))
            if isinstance(slot.decision, Refused) and slot.outcome is not None:
                self._tell(told.failed_call(slot.call.name, slot.call.id, slot.outcome))
        self._turn = TurnTold(turn, anew=True)
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
            name = self._tool_of(call)
            data = {"tool_name": name, "call_id": call.id, "output": result}
            data |= {"latency_ms": outcome.latency_ms} | call.attempts
            self._tell(("tool_completed", f"{name} → {one_line(tool_text(result))}", data), call)
        self.state.settle(call.id, outcome)

    async def _activity_failed(self, scheduled_id: int, failure: Any) -> None:
        if scheduled_id in self._stopped:
            self._activity_cancelled(scheduled_id)
            return
        call = self._open.pop(scheduled_id)
        cause = await self._converter.decode_failure(failure)
        if call.name == wire.CONTEXT_COMPACT and self.state is not None:
            self.state.budget.spend(spent_by(cause))
            self.state.talk.not_summarised()
        elif call.name == wire.POLICY_CHECK and self.state is not None:
            self._opened(review.unjudged(self.state, named(cause), self._now()))
        elif call.name == wire.MODEL_CALL and self.state is not None:
            error, model = named(cause), self.state.models.asked
            self.state.budget.spend(spent_by(cause))
            verdict = asking.failed(self.state, error, time_of(self._line.event).timestamp(), retry_after(cause))
            kind, text, data = told.failed_model(model, self.state.steps, error, verdict)
            self._tell((kind, text, data | call.attempts), call)
        slot = self._slot(call)
        if slot is not None and isinstance(slot.decision, Admitted) and self.state is not None:
            outcome = from_failure(cause, slot.decision.spec, call.milliseconds(self._line.event))
            self._failed_call(call, outcome)
            self.state.settle(call.id, outcome)

    def _activity_cancelled(self, scheduled_id: int) -> None:
        call = self._open.pop(scheduled_id)
        if call.name not in OURS:
            if call.started is not None:
                self.unknown.add(call.id)
            name = self._tool_of(call)
            text = f"{one_line(name)}: Cancelled: the run was stopped"
            data = {"tool_name": name, "call_id": call.id, "error": "the run was stopped"}
            self._tell(("tool_call_exception", text, data | {"error_type": "Cancelled"} | call.attempts), call)

    def _slot(self, call: Span) -> Slot | None:
        turn = self.state.turn if self.state else None
        return turn.slots.get(call.id) if turn is not None and call.name not in OURS else None

    def _tool_of(self, call: Span) -> str:
        """Return the tool's name, which may be another than its activity's type."""
        slot = self._slot(call)
        return call.name if slot is None else slot.call.name

    def _failed_call(self, call: Span, outcome: Any) -> None:
        kind, text, data = told.failed_call(self._tool_of(call), call.id, outcome)
        self._tell((kind, text, data | call.attempts), call)
