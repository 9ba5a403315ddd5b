"""What the tests of a run's state share: a loaded agent, turns, and one step of the loop."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from holdfast import Agent, Compaction, Interaction, Limits, Message, ToolCall, ToolSpec, Usage
from holdfast.builtins import BUILTINS
from holdfast.calls import LoadedAgent, ModelCall
from holdfast.carried import Carried, Outcome
from holdfast.ids import call_id
from holdfast.message import Turn, user_message
from holdfast.workflows.admission import Admitted, Decision
from holdfast.workflows.handover import carry, resume
from holdfast.workflows.moves import CallModel, CallTools
from holdfast.workflows.state import RunState

TOOLS = [ToolSpec(name="add"), ToolSpec(name="look")]
WAITING_TOOLS = [
    *TOOLS,
    ToolSpec(name="pay", requires_approval=True),
    *(BUILTINS[name].spec for name in ("ask_user", "sleep")),
]
ARGUMENTS = {"ask_user": '{"question": "Which?"}', "sleep": '{"seconds": 60}'}


def fresh(
    *,
    prompts: tuple[str, ...] = ("Hello",),
    chars: int = 12_000,
    compaction: Compaction | None = None,
    tools: Sequence[ToolSpec] = TOOLS,
    interaction: Interaction | None = None,
    **limits: Any,
) -> RunState:
    """Begin a run."""
    agent = Agent(name="demo", model="m", tools=tools, limits=Limits(**limits), compaction=compaction)
    loaded = LoadedAgent(agent=agent, revision=agent.revision, prompts=prompts, tool_output_max_chars=chars)
    return RunState.begin(loaded, interaction)


def turn(step: int, *named: str, text: str | None = None, dropped: int = 0, arguments: str | None = None) -> Turn:
    """Make a model's turn as `model.call` would."""
    given = [(name, arguments or ARGUMENTS.get(name, "{}")) for name in named]
    calls = tuple(ToolCall.of(call_id(step, index, *each), *each) for index, each in enumerate(given))
    message = Message(role="assistant", content=text, tool_calls=calls)
    return Turn(message=message, model="m", usage=Usage(model_calls=1, cost_usd=0.5), dropped_tool_calls=dropped)


def ask(state: RunState, now: float = 0.0) -> ModelCall:
    """Take the next step, which must be a model call."""
    move = state.next_move(now)
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


def handed_over(state: RunState, now: float = 0.0) -> RunState:
    """Hand a run to its next link, through JSON as history does."""
    carried = Carried.model_validate_json(carry(state, "link").model_dump_json())
    messages = [message.wire() for message in state.transcript.messages]
    messages += [user_message(each.text).wire() for each in state.inbox]
    loaded = state.loaded.model_copy(update={"prompts": ()})
    return resume(loaded, carried, json.loads(json.dumps(messages)), now, state.interaction)


def observable(state: RunState) -> dict[str, Any]:
    """Return everything about a run that anybody could notice, now or later."""
    slots = state.turn.slots.values() if state.turn else ()
    return {
        "messages": [message.wire() for message in state.transcript.messages],
        "digest": state.transcript.digest(),
        "summary": state.summary(),
        "inbox": [each.text for each in state.inbox],
        "waiting_for": state.waiting_for(),
        "slots": [
            (slot.decision, slot.edited, slot.outcome, slot.made)
            if slot.outcome
            else (slot.decision, slot.waits, slot.until if slot.waits else None, slot.granted, slot.edited)
            for slot in slots
        ],
        "paused": state.paused,
        "models": (state.models.handed_on(), state.given_up),
        "counts": (state.counts, state.budget.base),
        "limit": state.limit_reached,
        "tokens": state.talk.tokens(),
        "last_text": state.last_text(),
        "goal": state.goal,
        "seen": state.seen,
    }


def continued(state: RunState) -> dict[str, Any]:
    """Return how a run would stand once all of its open calls had ended; the run itself stays as it is."""
    then = copy.deepcopy(state)
    for slot in then.turn.open if then.turn else ():
        then.settle(slot.call.id, Outcome(output="ok"))
    return observable(then)
