"""What the tests of a run's state share: a loaded agent, turns, and one step of the loop."""

from __future__ import annotations

from typing import Any

from holdfast import Agent, Limits, Message, ToolCall, ToolSpec, Usage
from holdfast.calls import LoadedAgent, ModelCall
from holdfast.ids import call_id
from holdfast.message import Turn
from holdfast.workflows.admission import Decision, Refused
from holdfast.workflows.state import CallModel, CallTools, RunState, ToolOutcome, refusal

TOOLS = [ToolSpec(name="add"), ToolSpec(name="look")]


def fresh(*, prompts: tuple[str, ...] = ("Hello",), chars: int = 12_000, **limits: Any) -> RunState:
    """Begin a run."""
    agent = Agent(name="demo", model="m", tools=TOOLS, limits=Limits(**limits))
    loaded = LoadedAgent(agent=agent, revision=agent.revision, prompts=prompts, tool_output_max_chars=chars)
    return RunState(loaded)


def turn(step: int, *named: str, text: str | None = None, dropped: int = 0, arguments: str = "{}") -> Turn:
    """Make a model's turn as `model.call` would."""
    calls = tuple(
        ToolCall.of(call_id(step, index, name, arguments), name, arguments) for index, name in enumerate(named)
    )
    message = Message(role="assistant", content=text, tool_calls=calls)
    return Turn(message=message, model="m", usage=Usage(model_calls=1, cost_usd=0.5), dropped_tool_calls=dropped)


def ask(state: RunState) -> ModelCall:
    """Take the next step, which must be a model call."""
    move = state.next_move()
    assert isinstance(move, CallModel), move
    return move.call


def asks_tools(state: RunState) -> list[Decision]:
    """Take the next step, which must be tool calls."""
    move = state.next_move()
    assert isinstance(move, CallTools), move
    return move.decisions


def settle(state: RunState, *outputs: Any) -> None:
    """Settle the last turn's calls: refused ones as refused, the others with the outputs, or "ok"."""
    given = iter(outputs)
    decisions = asks_tools(state)
    outcomes = [refusal(each) if isinstance(each, Refused) else _outcome(next(given, "ok")) for each in decisions]
    state.settle(decisions, outcomes)


def _outcome(output: Any) -> ToolOutcome:
    return output if isinstance(output, ToolOutcome) else ToolOutcome(output=output, latency_ms=1.0)


def roles(state: RunState) -> str:
    """Write a transcript as its roles' initials."""
    return "".join(message.role[0] for message in state.transcript.messages)
