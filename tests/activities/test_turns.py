"""What is recorded of an answer that holds little, and what a provider is sent back for it."""

from __future__ import annotations

from holdfast.activities.answer import Answer, WantedCall
from holdfast.activities.secrets import Scrubber
from holdfast.activities.turns import record, sayable
from holdfast.calls import ModelCall
from holdfast.carried import Reference
from holdfast.message import Turn

SCRUB = Scrubber({"KEY": "sk-live-0123456789"})


def recorded(answer: Answer, *, closing: str | None = None, partial: bool = False) -> Turn:
    call = ModelCall(step=1, model="m", closing=closing, transcript=Reference(length=1, digest=""))
    return record(answer, call, SCRUB, partial=partial)


def test_a_closing_turn_of_nothing_but_calls_says_nothing_so_that_the_last_text_counts() -> None:
    turn = recorded(Answer(calls={0: WantedCall(name="add", arguments="{}")}), closing="max_steps")
    assert (turn.message.content, turn.message.tool_calls, turn.dropped_tool_calls) == (None, (), 1)


def test_a_message_of_neither_text_nor_calls_is_sent_back_as_a_text() -> None:
    empty = recorded(Answer(calls={0: WantedCall(name="add")}), closing="max_steps").message.wire()
    assert sayable(empty)["content"]
    whole = recorded(Answer(calls={0: WantedCall(name="add", arguments="{}")})).message.wire()
    assert sayable(whole) == whole
    assert "content" not in whole


def test_a_partial_turn_holds_no_first_half_of_a_secret_and_no_thinking_blocks() -> None:
    half = "it is sk-live-01234"
    answer = Answer(text_pieces=[half], reasoning_pieces=[half], thinking_blocks=[{"thinking": half}])
    message = recorded(answer, partial=True).message
    assert (message.content, message.reasoning_content, message.thinking_blocks) == ("it is ", "it is ", None)
    assert recorded(answer).message.content == half
