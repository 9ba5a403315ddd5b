"""Messages, their digests, and usage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from holdfast import Message, ToolCall, Usage
from holdfast.bounds import canonical_json
from holdfast.message import Transcript, Turn, chain, tool_message, user_message

EXTRAS = st.none() | st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False) | st.text())
CALLS = st.builds(
    ToolCall.of,
    st.text("abc0123", min_size=9, max_size=9),
    st.text(max_size=10),
    st.text(max_size=20),
    provider_specific_fields=EXTRAS,
)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.none() | st.text(max_size=30),
    tool_calls=st.lists(CALLS, max_size=3).map(tuple),
    tool_call_id=st.none() | st.text(max_size=9),
    reasoning_content=st.none() | st.text(max_size=9),
    thinking_blocks=st.none() | st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text()), max_size=2),
)
COUNTS = st.integers(0, 10**12)
USAGES = st.builds(
    Usage,
    model_calls=COUNTS,
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    cached_input_tokens=COUNTS,
    reasoning_tokens=COUNTS,
    cost_usd=st.integers(0, 2**20).map(lambda eighths: eighths / 8),
    unpriced_calls=COUNTS,
)


def transcript(messages: list[Message]) -> Transcript:
    made = Transcript()
    for message in messages:
        made.append(message)
    return made


@given(st.lists(MESSAGES, max_size=6))
def test_the_digest_of_a_prefix_is_the_prefixes_own_digest(messages: list[Message]) -> None:
    whole = transcript(messages)
    assert len(whole) == len(messages)
    assert whole.digest() == whole.digest(len(messages))
    for length in range(len(messages) + 1):
        assert whole.digest(length) == transcript(messages[:length]).digest()


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.data())
def test_any_change_to_any_message_changes_the_digest(messages: list[Message], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(messages) - 1))
    other = data.draw(MESSAGES.filter(lambda each: each != messages[index]))
    changed = [*messages[:index], other, *messages[index + 1 :]]
    assert transcript(changed).digest() != transcript(messages).digest()
    assert transcript(messages[:-1]).digest() != transcript(messages).digest()


def test_the_order_of_messages_is_part_of_the_digest() -> None:
    one, two = user_message("one"), user_message("two")
    assert transcript([one, two]).digest() != transcript([two, one]).digest()
    assert transcript([]).digest() == ""


def test_the_digest_does_not_depend_on_the_order_of_an_objects_keys() -> None:
    one = Message(role="assistant", provider_specific_fields={"a": 1, "b": {"c": 2, "d": 3}})
    two = Message(role="assistant", provider_specific_fields={"b": {"d": 3, "c": 2}, "a": 1})
    assert transcript([one]).digest() == transcript([two]).digest()
    assert transcript([one]).digest() == chain("", canonical_json(two.wire()))


@given(MESSAGES)
def test_a_message_comes_back_from_the_wire_the_same_digest_and_all(message: Message) -> None:
    again = Message.model_validate(from_json(to_json(message.wire())))
    assert again == message
    assert transcript([again]).digest() == transcript([message]).digest()


@given(MESSAGES, USAGES, st.integers(0, 100), st.booleans())
def test_a_turn_comes_back_from_the_wire_the_same(message: Message, usage: Usage, dropped: int, partial: bool) -> None:
    turn = Turn(message=message, model="m", usage=usage, dropped_tool_calls=dropped, partial=partial)
    assert Turn.model_validate(from_json(to_json(turn.wire()))) == turn


def test_what_is_left_at_its_default_takes_no_room_on_the_wire() -> None:
    assert user_message("hello").wire() == {"role": "user", "content": "hello"}
    assert tool_message("003a9", "").wire() == {"role": "tool", "content": "", "tool_call_id": "003a9"}
    assert ToolCall.of("003a9", "f", "{}").wire() == {
        "id": "003a9",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }


@pytest.mark.parametrize(
    "wrong", [{"role": "robot"}, {}, {"role": "user", "contents": "x"}, {"role": "user", "content": 3}]
)
def test_a_message_of_another_shape_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Message.model_validate(wrong)


@given(USAGES, USAGES, USAGES)
def test_usage_adds_up_field_by_field(one: Usage, two: Usage, three: Usage) -> None:
    total = one + two
    for name in Usage.model_fields:
        assert getattr(total, name) == getattr(one, name) + getattr(two, name)
    assert total.total_tokens == one.total_tokens + two.total_tokens
    assert one + two == two + one
    assert (one + two) + three == one + (two + three)
    assert one + Usage() == one
