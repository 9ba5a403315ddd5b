"""What the timeline says of things that leave no footprint of their own in history: decided again from what does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from holdfast.bounds import one_line, pairs, summary
from holdfast.calls import LoadedAgent
from holdfast.carried import Outcome
from holdfast.event import EventType
from holdfast.message import Turn, tool_text
from holdfast.request import RunRequest
from holdfast.run import RunError, RunResult
from holdfast.workflows.admission import Admitted, Decision
from holdfast.workflows.models import Verdict
from holdfast.workflows.policy import Judgement
from holdfast.workflows.slot import Slot
from holdfast.workflows.turn import Turn as OpenCalls

Told = tuple[EventType, str, dict[str, Any]]
"""An event's type, its line for a person, and its data."""

_ENDS: dict[str, EventType] = {
    "completed": "run_completed",
    "degraded": "run_degraded",
    "interrupted": "run_interrupted",
    "cancelled": "task_cancelled",
}


class TurnTold:
    """The calls of one turn, and what was said of them."""

    def __init__(self, turn: OpenCalls, *, anew: bool) -> None:
        self.turn = turn
        self._waits = {call_id: None if anew else slot.waits for call_id, slot in turn.slots.items()}
        self._decided = {call_id: slot.decision for call_id, slot in turn.slots.items()}

    def news(self) -> Iterator[Told]:
        """Tell what has come to wait, or waits no longer, since this was asked last."""
        for call_id, slot in self.turn.slots.items():
            was, self._waits[call_id] = self._waits[call_id], slot.waits
            before, self._decided[call_id] = self._decided[call_id], slot.decision
            if was is not None and (was != slot.waits or before != slot.decision):
                yield _settled(slot, before)
            for judgement in slot.decision.judged.said:
                if judgement not in before.judged.said:
                    yield judged(slot, judgement)
            if slot.waits is not None and (was != slot.waits or before != slot.decision):
                yield _asks(slot)


def judged(slot: Slot, judgement: Judgement) -> Told:
    """Tell what a policy has said of a call."""
    data = {"rule": judgement.rule, "action": judgement.action, "reason": judgement.reason}
    data |= {"policy": judgement.policy, "tool_name": slot.call.name, "call_id": slot.call.id}
    because = f": {one_line(judgement.reason)}" if judgement.reason else ""
    return "policy_decision", f"{judgement.action} {one_line(slot.call.name)} ({judgement.rule}){because}", data


def started(request: RunRequest, *, again: bool) -> Told:
    """Tell that a run has started, or has been started again."""
    name = request.agent if isinstance(request.agent, str) else request.agent.name
    data = request.model_dump(mode="json", exclude={"agent", "carried", "append_message"}, exclude_defaults=True)
    return "run_started", f"agent {name}{' goes on' if again else ''}", {"agent": name, **data}


def declared(loaded: LoadedAgent) -> Told:
    """Tell which tools an agent has."""
    names = loaded.agent.function_names
    data: dict[str, Any] = {
        "functions": names,
        "agent": loaded.agent.name,
        "revision": loaded.revision,
        "model": loaded.agent.model,
    }
    missing = {each.name: each.missing for each in loaded.agent.mcp_tools if each.missing}
    if missing:
        data["missing"] = missing
    return "declared_functions", f"Declared: {', '.join(names) or 'no tools'}", data


def turned(turn: Turn, step: int) -> Told:
    """Tell what a model has answered."""
    message = turn.message
    wanted = [{"id": each.id, "name": each.name, "arguments": each.function.arguments} for each in message.tool_calls]
    data: dict[str, Any] = {
        "model": turn.model,
        "text": None if message.content is None else message.text,
        "tool_calls": wanted,
        "usage": turn.usage.model_dump(),
        "cost_usd": turn.usage.cost_usd,
        "finish_reason": turn.finish_reason,
        "step": step,
    }
    if turn.lost.total_tokens:
        data["lost"] = turn.lost.model_dump()
    if turn.dropped_tool_calls:
        data["dropped_tool_calls"] = turn.dropped_tool_calls
    if turn.partial:
        data["partial"] = True
    if turn.usage.cached_calls:
        data["cached"] = True
    if turn.output_error is not None:
        data["output_error"] = turn.output_error
    said = one_line(message.text) or ", ".join(each.name for each in message.tool_calls)
    return "model_completed", said, data


def failed_call(name: str, call_id: str, outcome: Outcome) -> Told:
    """Tell that a call failed, or was refused."""
    data: dict[str, Any] = {"tool_name": name, "call_id": call_id, "error": outcome.error}
    data |= {"error_type": outcome.error_type, "latency_ms": outcome.latency_ms}
    return "tool_call_exception", f"{one_line(name)}: {outcome.error_type}: {one_line(outcome.error or '')}", data


def failed_model(model: str, step: int, error: RunError, verdict: Verdict) -> Told:
    """Tell that a model failed for good, and what comes next."""
    data: dict[str, Any] = {"model": model, "step": step, "error_type": error.type, "error": error.message}
    then = ""
    if verdict.asks is not None:
        data["falls_back_to"] = verdict.asks
        then = f"; asks {verdict.asks}"
    if verdict.until is not None:
        data["until"] = verdict.until
        then = f"; rests until {datetime.fromtimestamp(verdict.until, UTC):%H:%M:%S} UTC"
    return "model_call_exception", f"{model}: {error.type}: {one_line(error.message)}{then}", data


def ended(result: RunResult, *, superseded: bool) -> Told:
    """Tell a run's end; one after which it was started again is none."""
    text = result.error.message if result.error else result.final_text or result.status
    data = result.model_dump(mode="json", include={"status", "final_text", "error", "steps", "cost_usd", "run_seq"})
    if result.output not in (None, result.final_text):
        data["output"] = result.output
    if superseded:
        return "run_continued", f"goes on after it was {result.status}", data
    return _ENDS.get(result.status, "run_failed"), one_line(text), data


def _asks(slot: Slot) -> Told:
    decision = slot.decision
    assert isinstance(decision, Admitted)
    name, call_id = decision.spec.name, slot.call.id
    data: dict[str, Any] = {"tool_name": name, "call_id": call_id, "arguments": decision.arguments}
    label = f"{name} {summary(pairs(decision.arguments))}".strip()
    if slot.until is not None:
        data["until"] = slot.until
    if decision.waits == "timer":
        return "tool_called", label, data
    if decision.waits == "answer":
        options = decision.arguments.get("options") if slot.asks is None else None
        asked = {"question_id": call_id, "question": slot.question, "options": options}
        return "question_asked", one_line(slot.question), asked | data
    return "approval_requested", label, data | {"digest": slot.digest}


def _settled(slot: Slot, decision: Decision) -> Told:
    """Tell how a wait has ended that a decision had asked for; it may have led to another."""
    outcome = slot.outcome
    assert isinstance(decision, Admitted)
    name, call_id = decision.spec.name, slot.call.id
    data: dict[str, Any] = {"tool_name": name, "call_id": call_id}
    said = "" if outcome is None else str(outcome.output if outcome.error is None else outcome.error)
    if decision.waits == "timer":
        return "tool_completed", f"{name} → {one_line(said)}", data | {"output": said}
    if decision.waits == "answer" and decision is not slot.decision and isinstance(slot.decision, Admitted):
        said = tool_text(list(slot.given.values())[-1])
        return "question_answered", one_line(said), data | {"question_id": call_id, "text": said, "answered": True}
    if decision.waits == "answer":
        answered = outcome is not None and outcome.error is None
        return "question_answered", one_line(said), data | {"question_id": call_id, "text": said, "answered": answered}
    approved = slot.granted
    told = f"{name} {'approved' if approved else 'denied'}"
    data |= {"decision": "approve" if approved else "deny"}
    if slot.edited is not None:
        data["arguments"] = slot.edited
    if not approved:
        data["reason"] = said
    return "approval_resolved", told if approved else f"{told}: {one_line(said)}", data
