"""What the timeline says of things that leave no footprint of their own in history: decided again from what does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from holdfast.bounds import one_line, pairs, summary
from holdfast.calls import LoadedAgent
from holdfast.carried import Outcome
from holdfast.event import EventType
from holdfast.message import Turn
from holdfast.request import RunRequest
from holdfast.run import RunError, RunResult
from holdfast.workflows.admission import Admitted
from holdfast.workflows.models import Verdict
from holdfast.workflows.turn import Slot
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
        self._asked = {call_id for call_id, slot in turn.slots.items() if not anew or not slot.waits}
        self._settled = {call_id for call_id, slot in turn.slots.items() if not slot.waits}

    def news(self) -> Iterator[Told]:
        """Tell what has come to wait, or waits no longer, since this was asked last."""
        for call_id, slot in self.turn.slots.items():
            if call_id not in self._asked:
                self._asked.add(call_id)
                yield _asks(slot)
            if call_id not in self._settled and not slot.waits:
                self._settled.add(call_id)
                yield _settled(slot)


def started(request: RunRequest, *, again: bool) -> Told:
    """Tell that a run has started, or has been started again."""
    name = request.agent if isinstance(request.agent, str) else request.agent.name
    data = request.model_dump(mode="json", exclude={"agent", "carried", "append_message"}, exclude_defaults=True)
    return "run_started", f"agent {name}{' goes on' if again else ''}", {"agent": name, **data}


def declared(loaded: LoadedAgent) -> Told:
    """Tell which tools an agent has."""
    names = loaded.agent.function_names
    data = {
        "functions": names,
        "agent": loaded.agent.name,
        "revision": loaded.revision,
        "model": loaded.agent.model,
    }
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
        question = str(decision.arguments.get("question", ""))
        asked = {"question_id": call_id, "question": question, "options": decision.arguments.get("options")}
        return "question_asked", one_line(question), asked | data
    return "approval_requested", label, data | {"digest": slot.digest}


def _settled(slot: Slot) -> Told:
    decision, outcome = slot.decision, slot.outcome
    assert isinstance(decision, Admitted)
    name, call_id = decision.spec.name, slot.call.id
    data: dict[str, Any] = {"tool_name": name, "call_id": call_id}
    said = "" if outcome is None else str(outcome.output if outcome.error is None else outcome.error)
    if decision.waits == "timer":
        return "tool_completed", f"{name} → {one_line(said)}", data | {"output": said}
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
