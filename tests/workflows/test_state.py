"""The loop's decisions, as tables: what comes next, what is pushed, what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Compaction
from holdfast.carried import Outcome
from holdfast.request import UserMessage
from holdfast.workflows.moves import Finish
from holdfast.workflows.state import RunState
from tests.workflows.states import ask, asks_tools, fresh, handed_over, roles, settle, turn


def say(state: RunState, text: str, message_id: str | None = None) -> bool:
    return state.receive(UserMessage(text=text, id=message_id))


def play(state: RunState, most: int = 100) -> Finish:
    """Drive a run whose model asks for one tool call a turn, until it is told to close."""
    for _ in range(most):
        call = ask(state)
        if call.closing:
            state.record(turn(call.step, text="best effort"))
            break
        state.record(turn(call.step, "add"))
        settle(state)
    finish = state.next_move()
    assert isinstance(finish, Finish)
    return finish


def test_a_run_asks_calls_asks_again_and_ends_with_the_answer() -> None:
    state = fresh()
    first = ask(state)
    assert (first.step, first.closing, first.model) == (1, None, "m")
    state.record(turn(1, "add", "look", text="let me see"))
    settle(state, 3, {"found": True})
    second = ask(state)
    assert (second.step, second.transcript.length) == (2, 4)
    state.record(turn(2, text="3"))
    assert state.next_move() == Finish("completed", "3")
    assert [each.content for each in state.transcript.messages[2:4]] == ["3", '{"found":true}']
    assert (state.steps, state.counts.model_calls, state.counts.tool_calls, state.usage.cost_usd) == (2, 2, 2, 1.0)


@pytest.mark.parametrize("limit", ["max_steps", "max_model_calls"])
@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_a_limit_on_model_calls_is_exact_and_the_last_one_closes(limit: str, most: int) -> None:
    bounds: dict[str, Any] = {limit: most}
    state = fresh(**bounds)
    assert play(state) == Finish("degraded", "best effort")
    assert (state.counts.model_calls, state.steps) == (most, most)
    assert state.counts.tool_calls == most - 1
    assert state.limit_reached == limit


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_a_limit_on_tool_calls_is_exact_and_one_closing_call_follows(most: int) -> None:
    state = fresh(max_tool_calls=most)
    assert play(state) == Finish("degraded", "best effort")
    assert state.counts.tool_calls == most
    assert state.counts.model_calls == max(most, 1) + 1
    assert state.limit_reached == "max_tool_calls"


def test_a_turn_beyond_the_limit_on_tool_calls_is_made_in_part_and_all_of_it_is_answered() -> None:
    state = fresh(max_tool_calls=2)
    ask(state)
    state.record(turn(1, "add", "nope", "add", "add"))
    settle(state, 1, 2)
    told = [each.text for each in state.transcript.messages[2:]]
    assert (told[0], told[2]) == ("1", "2")
    assert told[1].startswith("Error (ToolUnknown)")
    assert told[3].startswith("Error (LimitReached)")
    assert (state.counts.tool_calls, ask(state).closing) == (2, "max_tool_calls")


def test_a_run_that_needs_no_tool_completes_under_a_limit_of_no_tool_calls() -> None:
    state = fresh(max_tool_calls=0)
    ask(state)
    state.record(turn(1, text="42"))
    assert state.next_move() == Finish("completed", "42")


def test_calls_beyond_those_of_one_turn_do_not_end_the_run() -> None:
    state = fresh(max_tool_calls_per_turn=1)
    ask(state)
    state.record(turn(1, "add", "add"))
    settle(state)
    assert (state.counts.tool_calls, state.limit_reached, ask(state).closing) == (1, None, None)


def test_the_last_allowed_call_makes_the_run_degraded_even_if_it_answers() -> None:
    state = fresh(max_steps=1)
    assert ask(state).closing == "max_steps"
    state.record(turn(1, text="done anyway"))
    assert state.next_move() == Finish("degraded", "done anyway")


def test_a_closing_call_that_says_nothing_leaves_the_last_text_that_was_said() -> None:
    state = fresh(max_steps=2)
    ask(state)
    state.record(turn(1, "add", text="so far: 1"))
    settle(state)
    ask(state)
    state.record(turn(2))
    assert state.next_move() == Finish("degraded", "so far: 1")


def test_the_first_limit_that_was_reached_is_the_one_that_is_told() -> None:
    state = fresh(max_steps=2, max_tool_calls=1)
    play(state)
    state.reach("history")
    assert state.limit_reached == "max_tool_calls"


def test_a_waiting_message_is_never_put_between_calls_and_their_results() -> None:
    state = fresh()
    ask(state)
    say(state, "while the model thinks")
    state.record(turn(1, "add", "add"))
    say(state, "while the tools run")
    decisions = asks_tools(state)
    say(state, "a moment before they end")
    for number, decision in enumerate(decisions, 1):
        assert roles(state) == "ua"
        state.settle(decision.call.id, Outcome(output=number))
    assert roles(state) == "uatt"
    call = ask(state)
    assert roles(state) == "uattuuu"
    assert call.transcript.length == 7
    assert [each.message["content"] for each in call.pushed][-1] == "a moment before they end"
    assert state.inbox == []


def test_a_run_about_to_answer_goes_on_when_a_message_waits() -> None:
    state = fresh()
    ask(state)
    say(state, "one more thing")
    state.record(turn(1, text="done"))
    assert ask(state).step == 2
    assert roles(state) == "uau"
    state.record(turn(2, text="done again"))
    assert state.next_move() == Finish("completed", "done again")


def test_a_message_can_not_carry_a_run_beyond_its_limit() -> None:
    state = fresh(max_steps=1)
    ask(state)
    say(state, "one more thing")
    state.record(turn(1, text="done"))
    assert state.next_move() == Finish("degraded", "done")
    assert state.summary()["state_snapshot"]["unread_messages"] == 1


def test_the_same_message_id_counts_once_and_messages_without_one_all_count() -> None:
    state = fresh()
    assert [say(state, "x", "m1"), say(state, "x", "m1"), say(state, "y", "m2")] == [True, False, True]
    assert [say(state, "x"), say(state, "x")] == [True, True]
    ask(state)
    assert say(state, "x", "m1") is False
    assert [each.content for each in state.transcript.messages] == ["Hello", "x", "y", "x", "x"]


def test_results_stand_in_the_order_of_the_calls_whichever_came_first() -> None:
    state = fresh()
    ask(state)
    asked = turn(1, "look", "add", "look")
    state.record(asked)
    settle(state, "a", Outcome(error_type="ValueError", error="bad"), "c")
    results = state.transcript.messages[2:]
    assert [each.tool_call_id for each in results] == [call.id for call in asked.message.tool_calls]
    assert [each.content for each in results] == ["a", "Error (ValueError): bad", "c"]
    assert [each.success for each in state.executions] == [True, False, True]
    assert state.talk.unsettled() == ()


def test_a_result_of_no_open_call_changes_nothing_and_the_first_result_of_a_call_counts() -> None:
    state = fresh()
    ask(state)
    state.record(turn(1, "add", "look"))
    first, second = (decision.call.id for decision in asks_tools(state))
    state.settle("000000000", Outcome(output="whose?"))
    state.settle(first, Outcome(output="one"))
    state.settle(first, Outcome(output="another"))
    assert roles(state) == "ua"
    state.settle(second, Outcome(output="two"))
    assert [each.content for each in state.transcript.messages[2:]] == ["one", "two"]


def test_a_partial_turn_is_shown_and_paid_but_never_part_of_the_transcript() -> None:
    state = fresh()
    ask(state)
    state.record(turn(1, text="half an ans").model_copy(update={"partial": True}))
    assert (state.partial_text, roles(state), state.usage.cost_usd) == ("half an ans", "u", 0.5)


def test_calls_that_were_dropped_are_told_once_after_the_results() -> None:
    state = fresh()
    ask(state)
    state.record(turn(1, "add", dropped=1500))
    settle(state)
    assert roles(state) == "uatu"
    assert state.transcript.messages[-1].text.startswith("1,500 further tool calls")
    ask(state)
    state.record(turn(2, "add"))
    settle(state)
    assert roles(state) == "uatuat"


@pytest.mark.parametrize("text", [None, "I will call it"])
def test_a_turn_whose_calls_were_all_dropped_is_no_answer(text: str | None) -> None:
    state = fresh()
    ask(state)
    state.record(turn(1, text=text, dropped=1))
    assert ask(state).step == 2
    assert roles(state) == "uau"


def test_a_closing_turn_whose_calls_were_dropped_still_ends_the_run() -> None:
    state = fresh(max_steps=1)
    ask(state)
    state.record(turn(1, text="x", dropped=3))
    assert state.next_move() == Finish("degraded", "x")


def test_a_turn_settled_in_part_asks_for_the_rest_only() -> None:
    state = fresh()
    ask(state)
    asked = turn(1, "add", "look", "add")
    opened = state.record(asked)
    state.settle(asked.message.tool_calls[0].id, Outcome(output="1"))
    assert opened is not None
    assert [slot.call for slot in opened.open] == list(asked.message.tool_calls[1:])


def test_prompts_and_errors_are_pushed_once_and_outputs_never() -> None:
    state = fresh(prompts=("one", "two"))
    assert [(each.index, each.message["content"]) for each in ask(state).pushed] == [(0, "one"), (1, "two")]
    state.record(turn(1, "add", "nope"))
    settle(state, "fine")
    assert [each.index for each in ask(state).pushed] == [4]
    state.record(turn(2, text="done"))
    say(state, "more")
    assert [each.index for each in ask(state).pushed] == [6]


def test_the_summary_says_what_the_run_did() -> None:
    state = fresh(max_tool_calls=1)
    play(state)
    told = state.summary()
    assert (told["agent"], told["steps"], told["cost_usd"]) == ("demo", 2, 1.0)
    assert told["state_snapshot"] == {
        "model_calls": 2,
        "tool_calls": 1,
        "messages": 4,
        "unread_messages": 0,
        "limit_reached": "max_tool_calls",
    }


def test_a_closing_call_that_is_refused_for_its_length_ends_the_run_with_what_is_known() -> None:
    state = fresh(max_steps=2, compaction=Compaction(at_tokens=500, keep_tokens=0))
    ask(state)
    state.record(turn(1, "add", text="x" * 4000))
    settle(state, "y" * 4000)
    assert ask(state).closing == "max_steps"
    assert state.shorten() is False
    state.give_up()
    assert state.next_move() == Finish("degraded", "x" * 4000)
    assert state.steps == 2


def test_a_message_at_the_last_moment_does_not_carry_a_run_beyond_its_limit_in_a_new_link() -> None:
    state = fresh(max_steps=1)
    ask(state)
    state.record(turn(1, text="done"))
    say(state, "one more thing")
    state.read_inbox_to_go_on()
    following = handed_over(state)
    assert following.next_move() == Finish("degraded", "done")
    assert following.summary()["state_snapshot"]["unread_messages"] == 1
