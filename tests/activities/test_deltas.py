"""Pieces of a streamed answer, in the shapes that providers send them, become whole blocks and calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from holdfast.activities._litellm import _add_delta
from holdfast.activities.answer import Answer


def answer_of(*deltas: dict[str, Any]) -> Answer:
    answer = Answer()
    for delta in deltas:
        _add_delta(SimpleNamespace(**delta), answer)
    return answer


def thinking(text: str, **more: str) -> dict[str, Any]:
    block = {"type": "thinking", "thinking": text, **more}
    return {"thinking_blocks": [block], "provider_specific_fields": {"thinking_blocks": [block]}}


def piece(index: int | None, call_id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    function = SimpleNamespace(name=name, arguments=arguments)
    return {"tool_calls": [SimpleNamespace(index=index, id=call_id, function=function)]}


def calls(answer: Answer) -> list[tuple[str, str]]:
    return [(each.name, each.arguments) for _, each in sorted(answer.calls.items())]


def test_thinking_that_arrives_in_pieces_is_one_block_until_its_signature_closes_it() -> None:
    answer = answer_of(
        thinking("First, "),
        thinking("read it."),
        thinking("", signature="sig-1"),
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "xyz"}]},
        thinking("Then "),
        thinking("add."),
        thinking("", signature="sig-2"),
    )
    assert answer.thinking_blocks == [
        {"type": "thinking", "thinking": "First, read it.", "signature": "sig-1"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "thinking", "thinking": "Then add.", "signature": "sig-2"},
    ]
    assert answer.provider_specific_fields is None


def test_calls_that_all_have_the_index_0_are_told_apart_by_their_ids() -> None:
    answer = answer_of(
        piece(0, "a", "add", '{"left"'),
        piece(0, None, None, ": 1}"),
        piece(0, "b", "add", '{"left": 2}'),
        piece(None, "c", "greet", "{}"),
    )
    assert calls(answer) == [("add", '{"left": 1}'), ("add", '{"left": 2}'), ("greet", "{}")]


def test_pieces_of_calls_that_take_turns_find_their_call_by_its_index() -> None:
    answer = answer_of(
        piece(0, "same", "add", ""),
        piece(1, "same", "greet", ""),
        piece(0, None, None, '{"left": 1}'),
        piece(1, "", None, '{"name": "Ada"}'),
        piece(0, "same", None, " "),
    )
    assert calls(answer) == [("add", '{"left": 1} '), ("greet", '{"name": "Ada"}')]
