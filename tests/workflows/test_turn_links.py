"""The calls of one turn, from link to link: what is kept of them, and how much room that may take."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from holdfast import Agent, Interaction, Limits, ToolSpec
from holdfast.bounds import json_size
from holdfast.builtins import rest_until
from holdfast.calls import LoadedAgent
from holdfast.carried import Outcome
from holdfast.message import ToolCall
from holdfast.request import Decision
from holdfast.workflows.handover import carry, resume
from holdfast.workflows.state import RunState
from holdfast.workflows.turn import NotAwaited
from tests.workflows.states import ask, turn

KILOBYTE = 1024
LOOK, PAY = ToolSpec(name="look"), ToolSpec(name="pay", requires_approval=True)


def loaded(*tools: ToolSpec, chars: int = 12_000, prompts: tuple[str, ...] = (), **fields: Any) -> LoadedAgent:
    agent = Agent(name="demo", model="m", tools=tools, compaction=None, **fields)
    return LoadedAgent(agent=agent, revision=agent.revision, prompts=prompts, tool_output_max_chars=chars)


def opened(*named: str, chars: int = 12_000) -> tuple[RunState, list[str]]:
    """Begin a run whose model asks for these tools; returns the ids of the calls as well."""
    state = RunState.begin(loaded(LOOK, PAY, chars=chars, prompts=("Hello",)))
    ask(state)
    asked = turn(1, *named)
    state.record(asked)
    return state, [each.id for each in asked.message.tool_calls]


def following(state: RunState, with_agent: LoadedAgent | None = None) -> RunState:
    """Go on in the next link."""
    messages = [each.wire() for each in state.transcript.messages]
    return resume(with_agent or loaded(LOOK, PAY), carry(state, "before"), messages, 0.0)


def approve(state: RunState, call_id: str, **arguments: Any) -> None:
    state.decide(Decision(call_id=call_id, decision="approve", arguments=arguments or None))


@pytest.mark.parametrize(
    "agent",
    [
        loaded(ToolSpec(name="pay")),
        loaded(PAY, interaction=Interaction(mode="headless")),
        loaded(PAY, interaction=Interaction(mode="headless", fallback="approve")),
    ],
    ids=["needs no approval", "headless, denies", "headless, approves"],
)
def test_a_call_is_made_with_the_arguments_it_was_approved_with_whatever_the_agent_is_by_now(
    agent: LoadedAgent,
) -> None:
    state, (first, _) = opened("pay", "pay")
    approve(state, first, amount=20)
    again = following(state, agent)
    assert again.turn is not None
    assert again.turn.slots[first].arguments == {"amount": 20}
    assert again.turn.slots[first] in again.turn.open
    assert again.turn.slots[first] not in again.turn.waiting


@pytest.mark.parametrize(
    "agent", [loaded(PAY), loaded(LOOK, PAY, limits=Limits(max_tool_calls=0))], ids=["no such tool", "no calls left"]
)
def test_a_call_that_was_made_stays_made_where_it_would_be_refused_by_now(agent: LoadedAgent) -> None:
    state, (first, _) = opened("look", "pay")
    state.settle(first, Outcome(output="seen"))
    for _ in range(2):  # and so does what the second link hands to the third
        state = following(state, agent.model_copy(update={"agent": agent.agent}))
        if state.turn is not None:
            assert state.turn.slots[first].outcome == Outcome(output="seen")
    contents = [each.content for each in state.transcript.messages if each.tool_call_id == first]
    assert contents in ([], ["seen"])


@pytest.mark.parametrize(
    "output",
    ["x" * 60_000, "é" * 30_000, "\x01" * 9_000, '"' * 30_000, {"a": ["\n"] * 9_000}],
    ids=lambda output: repr(output)[:8],
)
@pytest.mark.parametrize("chars", [12_000, 65_536])
def test_the_outcomes_of_an_open_turn_are_carried_in_512_kilobytes_at_most(output: Any, chars: int) -> None:
    state, ids = opened(*["look"] * 31, "pay", chars=chars)
    for call_id in ids[:16]:
        state.settle(call_id, Outcome(output=output))
    for call_id in ids[16:31]:
        state.settle(call_id, Outcome(error_type="Broken", error="\x01" * 4_000))
    carried = carry(state, "before").turn
    assert json_size([each.outcome.wire() for each in carried.settled]) <= 512 * KILOBYTE
    again = following(state)
    assert again.turn is not None
    assert again.turn.waiting


def test_what_the_model_sees_of_a_carried_output_is_what_it_would_have_seen() -> None:
    texts = []
    for links in (0, 1, 3):
        state, ids = opened(*["look"] * 31, "pay")
        for call_id in ids[:31]:
            state.settle(call_id, Outcome(output="x" * 60_000))
        for _ in range(links):
            state = following(state)
        approve(state, ids[31])
        state.settle(ids[31], Outcome(output="paid"))
        texts.append([each.content for each in state.transcript.messages])
    assert texts[0] == texts[1] == texts[2]


def test_the_calls_of_a_turn_are_approved_with_half_a_megabyte_of_other_arguments_at_most() -> None:
    state, ids = opened(*["pay"] * 4)
    approve(state, ids[0], note="n" * 250_000)
    approve(state, ids[1], note="n" * 250_000)
    with pytest.raises(NotAwaited, match="524,288"):
        approve(state, ids[2], note="n" * 250_000)
    approve(state, ids[2], note="n")
    approve(state, ids[3])
    assert state.turn is not None
    assert len(state.turn.waiting) == 0


def test_a_reason_is_told_in_4_kilobytes() -> None:
    state, ids = opened("pay", "look")
    state.decide(Decision(call_id=ids[0], decision="deny", reason="é" * 100_000))
    state.pause("é" * 100_000)
    carried = carry(state, "before")
    assert json_size(carried.turn.settled[0].outcome.error) <= 4 * KILOBYTE + 2
    assert "200,0" in str(carried.turn.settled[0].outcome.error)
    assert json_size(carried.paused) <= 4 * KILOBYTE + 2


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("0001-01-01T00:00:00+23:00", 0),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:20:00Z", 200),
        ("9999-12-31T23:59:59-23:00", 10 * 365 * 86_400),
    ],
)
def test_a_rest_ends_between_now_and_ten_years_from_now(time: str, seconds: float) -> None:
    now = 1_000.0
    assert rest_until("wait_until", {"time": time}, now) == now + seconds


def test_a_call_that_was_refused_is_refused_anew() -> None:
    state, ids = opened("pay", "nothing")
    assert [each.call_id for each in carry(state, "before").turn.settled] == []
    again = following(state, loaded(PAY, ToolSpec(name="nothing")))
    assert again.turn is not None
    assert isinstance(again.turn.slots[ids[1]].call, ToolCall)
    assert len(again.turn.open) == 2


def test_what_was_decided_may_be_said_again_in_the_next_links_and_nothing_else() -> None:
    state, calls = opened("pay", "pay", "pay", "pay")
    made, granted, denied, _ = calls
    told = [
        Decision(call_id=made, decision="approve", arguments={"amount": 1}),
        Decision(call_id=granted, decision="approve", arguments={"amount": 2}),
        Decision(call_id=denied, decision="deny", reason="too much"),
    ]
    for each in told:
        state.decide(each)
    state.settle(made, Outcome(output="paid"))
    for _ in range(2):
        state = following(state)
        before = copy.deepcopy(carry(state, "now"))
        for each in told:
            state.decide(each)
            other = "deny" if each.decision == "approve" else "approve"
            for changed in ({"decision": other, "arguments": None}, {"reason": "no", "arguments": None}):
                with pytest.raises(NotAwaited):
                    state.decide(each.model_copy(update=changed))
        assert carry(state, "now") == before
