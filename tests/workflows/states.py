"""What the tests of a run's state share: a loaded agent, turns, and one step of the loop."""

from __future__ import annotations

from typing import Any

from holdfast import Agent, Compaction, Limits, Message, ToolCall, ToolSpec, Usage
from holdfast.calls import LoadedAgent, ModelCall
from holdfast.carried import Outcome
from holdfast.ids import call_id
from holdfast.message import Turn
from holdfast.workflows.admission import Admitted, Decision
from holdfast.workflows.state import CallModel, CallTools, RunState

TOOLS = [ToolSpec(name="add"), ToolSpec(name="look")]


def fresh(
    *, prompts: tuple[str, ...] = ("Hello",), chars: int = 12_000, compaction: Compaction | None = None, **limits: Any
) -> RunState:
    """Begin a run."""
    agent = Agent(name="demo", model="m", tools=TOOLS, limits=Limits(**limits), compaction=compaction)
    loaded = LoadedAgent(agent=agent, revision=agent.revision, prompts=prompts, tool_output_max_chars=chars)
    return RunState.begin(loaded)


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
    """Take the next step, which must be tool calls; return how all calls of the turn were decided."""
    move = state.next_move()
    assert isinstance(move, CallTools), move
    return [slot.decision for slot in move.turn.slots.values()]


def settle(state: RunState, *outputs: Any) -> None:
    """Settle those of the last turn's calls that were admitted with the outputs, or "ok"."""
    given = iter(outputs)
    for decision in asks_tools(state) if state.turn else ():
        if isinstance(decision, Admitted):
            state.settle(decision.call.id, _outcome(next(given, "ok")))


def _outcome(output: Any) -> Outcome:
    return output if isinstance(output, Outcome) else Outcome(output=output, latency_ms=1.0)


def roles(state: RunState) -> str:
    """Write a transcript as its roles' initials."""
    return "".join(message.role[0] for message in state.transcript.messages)
